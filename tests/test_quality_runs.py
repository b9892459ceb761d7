"P(genuine) in runs: who counts in training, results for both populations, the command line, sweeps and their report"

import json
import shutil
from dataclasses import replace
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score
from turnover_nb.cli import main
from turnover_nb.data.codebook import parse_codebook
from turnover_nb.data.people import PeopleEncoder
from turnover_nb.data.split import make_split
from turnover_nb.graph.audit import Check
from turnover_nb.graph.rewrite import rewrite
from turnover_nb.graph.graph import build_graph
from turnover_nb.models.registry import make_model
from turnover_nb.quality.genuine import CAVEAT, genuine
from turnover_nb.quality.populations import (
    TrainingQuality,
    check_weights,
    judge_answers,
    judge_training,
    key_of,
    population_of,
    training_p,
    weigh,
    weights_check,
)
from turnover_nb.quality.signs import SIGNS
from turnover_nb.runs.collect import load_runs
from turnover_nb.runs.results import Results
from turnover_nb.runs.run import run_one
from turnover_nb.runs.shared import load_data, load_quality
from turnover_nb.runs.sweep import Plan, start, sweep
from turnover_nb.synthetic.world import make_synthetic, write_synthetic

NETWORK = dict(hidden=8, heads=2, layers=1, epochs=2, stage2_epochs=2, lr=0.01, stage2_lr=0.01)
FITTED = dict(
    majority={},
    logistic={},
    random_forest=dict(n_estimators=20),
    mlp={},
    xgboost={},
    conditional_logit={},
    mixed_logit=dict(coin=(False,), penalty=(2.0,), steps=8, draws=4),
    hgt=NETWORK,
    v5=NETWORK,
    v6_twostage=NETWORK,
    relational=dict(epochs=3, stage2_epochs=3, draws=2),
)
LOSSES = [
    ("hgt", NETWORK | dict(preference_loss="bpr")),
    ("hgt", NETWORK | dict(preference_loss="sampled_softmax")),
    ("hgt", NETWORK | dict(turnover_loss="focal")),
]


@pytest.fixture(scope="module")
def judged():
    "A world half of whose people are careless, a split, and the quality of its answers for each use"
    w = make_synthetic(n_employees=160, careless=0.5, seed=12)
    split = make_split(w.survey, seed=0)
    answers = judge_training(replace(judge_answers(w.survey), use="weight"), w.survey, [split])
    return w, split, {use: replace(answers, use=use) for use in ("report", "weight", "filter")}


@pytest.mark.parametrize("name,settings", [*FITTED.items(), *LOSSES], ids=str)
def test_weight_and_filter_change_what_is_learned(judged, name, settings):
    w, split, by = judged
    uses = ("report", "weight", "filter") if name not in ("v5", "v6_twostage") else ("report", "weight")
    said = {}
    for use in uses:
        graph = build_graph(w.survey, weigh(by[use], w.survey, split).split)
        p = make_model(name, **settings).fit(graph).predict(graph)
        said[use] = {k: v for k in ("turnover", "utility") if (v := getattr(p, k)) is not None}
        assert set(p.people) <= set(split.test)  # no test person is dropped: as many scores under each use
    for task, plain in said["report"].items():
        for use in uses[1:]:
            assert said[use][task].shape == plain.shape
            assert not np.allclose(said[use][task], plain, atol=1e-6), (task, use)


@pytest.mark.parametrize("name", ["logistic", "hgt"])
def test_a_run_records_who_counted_and_proves_it(judged, name):
    w, split, by = judged
    settings = dict(NETWORK) if name == "hgt" else {}
    plain = run_one(w.survey, split, make_model(name, **settings), n_boot=0)
    for use, answers in by.items():
        r = run_one(w.survey, split, make_model(name, **settings), n_boot=0, answers=answers)
        facts = r.results
        assert facts.audit["passed"] and facts.quality["use"] == use
        assert (facts.split.n_train, facts.split.n_test) == (len(split.train), len(split.test))
        assert ("weights of training people" in facts.audit["checks"][-1]["name"]) == (use != "report")
        assert set(r.predictions.employee) == set(plain.predictions.employee)
        if use == "report":
            assert r.predictions.score.equals(plain.predictions.score)  # a report changes no score
        else:
            assert facts.quality["counted"] < len(split.train) == facts.quality["people"]


def test_weights_that_are_whole_are_repetitions(judged):
    "For models whose loss is a plain sum, weight 2 is the person twice, and weight 0 nobody"
    w, split, _ = judged
    X = PeopleEncoder.fit(w.survey, split.train).transform(w.survey)
    y, half = w.survey.turnover, np.arange(len(split.train)) % 2
    weighted, kept = replace(split, weight=half * 1.0), replace(split, train=split.train[half == 1])
    for name in ("logistic", "xgboost"):
        a, b = (make_model(name).fit_table(X, y, s).predict(X) for s in (weighted, kept))
        assert np.allclose(a, b), name
    leave = y[split.train] > 0
    with pytest.raises(ValueError, match="0 who leave"):
        make_model("logistic").fit(build_graph(w.survey, replace(split, weight=np.where(leave, 0, 1.0))))
    with pytest.raises(ValueError, match="expected .* finite numbers"):
        replace(split, weight=np.ones(3))


def test_who_counts_in_training_is_decided_by_training_people_s_items_alone():
    w = make_synthetic(n_employees=120, careless=0.5, seed=12)
    s = w.survey
    split = make_split(s, seed=0)
    p = training_p(s, split)
    assert weights_check(s, split, p).passed
    assert ((p < 0.5) == w.truth.hidden["careless"][split.train]).mean() > 0.85

    def everybody(s, split):
        return genuine(s, choices=False).p_genuine[split.train]

    def with_choices(s, split):
        return genuine(s, rows=split.train).p_genuine[split.train]

    def outcome(s, split):
        return p * np.where(np.nan_to_num(s.turnover[split.train]) > 0, 0.9, 1)

    for leaky in (everybody, with_choices, outcome):
        assert not weights_check(s, split, leaky(s, split), leaky).passed


def test_training_people_are_judged_once_and_nothing_is_changed(judged):
    w, split, by = judged
    fresh = replace(by["filter"], trained={})
    both = judge_training(fresh, w.survey, [split, replace(split, seed=7)])
    assert list(both.trained) == [key_of(split)] and not fresh.trained
    assert judge_training(both, w.survey, [split]).trained[key_of(split)] is both.trained[key_of(split)]
    assert (
        judge_training(by["report"], w.survey, [split]) is by["report"] and judge_training(None, w.survey, []) is None
    )
    alone = weigh(fresh, w.survey, split)
    assert np.array_equal(alone.split.train, weigh(both, w.survey, split).split.train)


def test_too_few_genuine_people_to_learn_from(judged):
    w, split, by = judged
    n = len(split.train)
    poor = TrainingQuality(np.r_[np.ones(4), np.zeros(n - 4)], Check("made up", True, ""))
    answers = replace(by["filter"], trained={key_of(split): poor})
    says = f"quality = 'filter': 4 of {n} training people count as genuine; at least 10"
    for judge in (lambda: weigh(answers, w.survey, split), lambda: judge_training(answers, w.survey, [split])):
        with pytest.raises(ValueError, match=says):
            judge()


def test_weights_are_refused_for_a_model_that_takes_none(judged):
    w, split, by = judged
    why = "draws from a posterior"
    check_weights("filter", "hierarchical", why)
    with pytest.raises(ValueError, match="model 'hierarchical' takes no weights .draws from a posterior."):
        weigh(by["weight"], w.survey, split, "hierarchical", why)
    assert len(weigh(by["filter"], w.survey, split, "hierarchical", why).split.train) < len(split.train)


# ---- results


@pytest.mark.parametrize("name,task", [("logistic", "turnover"), ("conditional_logit", "preference")])
def test_results_for_the_genuine_are_those_of_their_predictions(judged, name, task):
    w, split, by = judged
    s, answers = w.survey, by["report"]
    r = run_one(s, split, name, n_boot=50, answers=answers)
    d = r.predictions.query("phase == 'test'")
    assert set(r.results.genuine) == {task} and set(r.results.quality["found"]) == {"turnover", "preference"}
    g, found = d[d.genuine >= 0.5], r.results.genuine[task]
    assert found.n == g.employee.nunique() < d.employee.nunique()
    assert dict(zip(d.employee, d.genuine)) == dict(zip(s.ids[split.test], answers.p(task)[split.test]))
    if task == "turnover":
        assert found.metrics["aupr"].value == pytest.approx(average_precision_score(g.label, g.score))
        assert found.metrics["threshold"] == r.results.turnover["threshold"]
    else:
        m, n = found.metrics["accuracy"], found.metrics["n_situations"].value
        assert m.low < m.value < m.high
        assert n == g.situation.nunique() < r.results.preference.metrics["n_situations"].value
    text = r.results.model_dump_json()
    assert not any(i in text for i in s.ids[:40])
    assert Results(**json.loads(text)) == r.results and not set(r.predictions) & set(s.features)


def test_preference_is_judged_without_the_choices(judged):
    "Other choices change P(genuine) for turnover, and no bit of that for preference"
    w, _, by = judged
    s, a = w.survey, by["report"]
    b = judge_answers(rewrite(s, np.arange(0), np.random.default_rng(2), answers=np.ones(s.choices.n, bool)))
    assert a.p("preference").tobytes() == b.p("preference").tobytes()
    assert a.p("turnover").tobytes() != b.p("turnover").tobytes()


def test_small_populations_are_suppressed(judged):
    w, split, by = judged
    q = by["report"].of["turnover"]

    def result(p):
        of = dict(turnover=replace(q, p_genuine=p))
        return run_one(w.survey, split, "logistic", n_boot=0, answers=replace(by["report"], of=of, why={})).results

    three = np.ones(w.survey.n)
    three[split.test[:3]] = 0
    r = result(three)
    assert r.genuine["turnover"].n is None and r.genuine["turnover"].metrics is None
    assert r.quality["found"]["turnover"]["genuine"] is None
    nobody = result(np.zeros(w.survey.n)).genuine["turnover"]
    assert nobody.n == 0 and nobody.metrics is None


def test_no_number_of_a_few_people_is_given():
    p = np.r_[np.ones(30), np.zeros(30)]
    for k in range(12):
        for rest in range(12):
            n = population_of(p, np.r_[np.arange(k), 30 + np.arange(rest)]).n
            assert n == (None if 0 < k < 5 or 0 < rest < 5 else k)


# ---- command line, sweep, report


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    "A careless world as files, with response times"
    folder = tmp_path_factory.mktemp("careless")
    world = make_synthetic(n_employees=200, careless=0.5, seed=12)
    write_synthetic(world, folder)
    f = folder / "employees.csv"
    d = pd.read_csv(f, dtype=str, keep_default_na=False)
    d["took"] = np.where(world.truth.hidden["careless"], "1.2", "6")
    d.to_csv(f, index=False)
    book = folder / "codebook.yaml"
    book.write_text(book.read_text("utf-8") + "response_time: {column: took, unit: minutes}\n", "utf-8")
    return folder, world


def named(folder):
    "Arguments of the command line that name a folder of data"
    return ["--data", str(folder), "--codebook", str(folder / "codebook.yaml")]


@pytest.fixture(scope="module")
def swept(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    models = ["--models", "majority,logistic,conditional_logit", "--seeds", "1,", "--preference", "cold", "--jobs", "1"]
    asked = [*models, "--quality", "filter", "--lang", "zh", "--out", str(out)]
    assert main(["run", *named(files[0]), *asked]) == 0
    return next((out / "main").iterdir())


def test_the_use_is_recorded(swept):
    assert json.loads((swept / "manifest.json").read_text())["plan"]["quality"] == "filter"
    paths = load_runs(swept).paths
    assert len(paths) == 3
    for p in paths:
        assert (p / "config.yaml").read_text().startswith("# quality of answers: filter\n")
    r = json.loads((swept / "logistic" / "seed_1" / "results.json").read_text())
    assert r["quality"]["use"] == "filter" and r["audit"]["passed"] and r["audit"]["checks"][-1]["passed"]


def test_a_run_by_itself_gives_the_bits_of_the_sweep(swept, files):
    folder, _ = files
    data = str(folder), str(folder / "codebook.yaml"), 500
    s, _ = load_data(*data)
    r = run_one(s, make_split(s, seed=1), "logistic", seed=1, answers=load_quality(s, "filter", *data))
    want = json.loads((swept / "logistic" / "seed_1" / "results.json").read_text())
    got = json.loads(r.results.model_dump_json())
    for part in ("turnover", "genuine", "quality", "audit"):
        assert got[part] == want[part], part


def test_the_report_has_both_populations(swept):
    tables = swept / "report" / "tables"
    t = pd.read_csv(tables / "populations_turnover.csv").set_index(["variant", "population", "metric"]).value
    r = json.loads((swept / "logistic" / "seed_1" / "results.json").read_text())
    assert t[("logistic", "genuine", "aupr")] == pytest.approx(r["genuine"]["turnover"]["metrics"]["aupr"]["value"])
    whole = pd.read_csv(tables / "turnover.csv").set_index(["variant", "metric"]).value
    assert t[("logistic", "all", "aupr")] == pytest.approx(whole[("logistic", "aupr")])
    assert set(t.index.get_level_values("variant")) == {"majority", "logistic"}
    assert (tables / "populations_preference_cold.csv").exists()
    text = (swept / "report" / "report.html").read_text("utf-8")
    assert all(word in text for word in ("作答质量", "保留", "每题秒数")) and "Traceback" not in text
    signs = pd.read_csv(tables / "quality_signs.csv").set_index("sign")
    assert signs.flagged["response_time"] > 80 and set(signs.index) <= set(SIGNS)


def test_older_results_are_read_and_the_report_says_what_they_lack(swept, tmp_path):
    folder = Path(shutil.copytree(swept, tmp_path / "old"))
    shutil.rmtree(folder / "report")
    for f in folder.rglob("results.json"):
        d = json.loads(f.read_text())
        f.write_text(json.dumps({k: v for k, v in d.items() if k not in ("genuine", "quality")}))
    for f in folder.rglob("predictions.parquet"):
        pd.read_parquet(f).drop(columns="genuine").to_parquet(f)
    assert main(["report", str(folder)]) == 0
    text = (folder / "report" / "report.html").read_text("utf-8")
    assert "hold nothing on the quality" in text
    assert not (folder / "report" / "tables" / "populations_turnover.csv").exists()


def test_the_command_prints_counts_and_writes_only_where_told(files, tmp_path, capsys, monkeypatch):
    folder, world = files
    monkeypatch.chdir(tmp_path)
    assert main(["quality", *named(folder)]) == 0 and not list(tmp_path.iterdir())
    said = capsys.readouterr().out
    for words in ("of 200 people genuine", "response time", "from the 40 items alone", CAVEAT):
        assert words in said
    assert not any(i in said for i in world.survey.ids)
    assert main(["quality", *named(folder), "--out", "q"]) == 0
    assert "personal data" in capsys.readouterr().out
    assert {f.name for f in (tmp_path / "q").iterdir()} == {"signs.csv", "mixtures.csv", "summary.txt", "people.csv"}
    people = pd.read_csv(tmp_path / "q" / "people.csv")
    assert len(people) == 200 and not set(people) & set(world.survey.features) and people.p_genuine.between(0, 1).all()


def edited(folder, tmp_path, change):
    "Arguments that name a copy of the files with another employee table"
    new = Path(shutil.copytree(folder, tmp_path / "edited"))
    d = pd.read_csv(new / "employees.csv", dtype=str, keep_default_na=False)
    change(d)
    d.to_csv(new / "employees.csv", index=False)
    return named(new)


BAD_TIMES = [("-3600", "1 of 200 response times are negative"), ("soon", "is not a number")]


@pytest.mark.parametrize("value, says", BAD_TIMES)
def test_a_bad_response_time_names_file_column_and_row(files, tmp_path, capsys, value, says):
    argv = edited(files[0], tmp_path, lambda d: d.__setitem__("took", [value, *d.took[1:]]))
    assert main(["quality", *argv]) == 2
    err = capsys.readouterr().err
    assert says in err and "employees.csv" in err and "took" in err and err.count("\n") == 1


def test_a_response_time_that_is_not_there_and_its_unit(files, tmp_path, capsys):
    argv = edited(files[0], tmp_path, lambda d: d.drop(columns="took", inplace=True))
    assert main(["quality", *argv]) == 2
    assert "took" in capsys.readouterr().err
    s, _ = load_data(str(files[0]), str(files[0] / "codebook.yaml"))
    assert set(s.seconds) == {72.0, 360.0} and "took" not in s.features
    rest = "response_time: {column: t, unit: hours}}"
    with pytest.raises(ValueError, match="response_time.unit"):
        parse_codebook("{name: x, table: {file: x.csv}, turnover: {column: y, positive: 1}, " + rest)


@pytest.mark.parametrize("use", ["weight", "filter"])
def test_data_without_enough_items_stop_before_anything_is_written(use, tmp_path, capsys):
    left = np.tile(["no", "no", "yes"], 20)
    d = pd.DataFrame(dict(id=range(60), a=np.tile([1, 2], 30), b=np.tile([3, 1, 2], 20), left=left))
    d.to_csv(tmp_path / "x.csv", index=False)
    about = "{name: few, table: x.csv, id: id, features: {a: numeric, b: numeric}, "
    (tmp_path / "codebook.yaml").write_text(about + "turnover: {column: left, positive: yes}}")
    asked = ["--models", "majority", "--seeds", "1", "--quality", use, "--out", str(tmp_path / "o")]
    assert main(["run", *named(tmp_path), *asked]) == 2
    err = capsys.readouterr().err
    assert f"quality = '{use}': few: 0 ordinal items" in err and "expected at least four" in err
    assert not (tmp_path / "o").exists() and err.count("\n") == 1
    assert main(["quality", *named(tmp_path)]) == 2
    assert "expected at least four items or four tasks" in capsys.readouterr().err


BAD_USES = [
    (["--quality", "drop"], "quality = 'drop': expected one of report, weight, filter, none"),
    (["--quality", "weight", "--models", "logistic,hierarchical"], "model 'hierarchical' takes no weights"),
    (["--quality", "filter", "--models", "logistic"], "41 training people; at least 100 are needed"),
]


@pytest.mark.parametrize("argv, says", BAD_USES)
def test_bad_uses_stop_before_anything_is_written(argv, says, tmp_path, capsys):
    assert main(["run", "--out", str(tmp_path / "o"), "--employees", "60", *argv]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not (tmp_path / "o").exists()


def test_none_judges_nothing_and_another_use_is_another_plan(tmp_path):
    plan = Plan(models=("logistic",), seeds=(0,), employees=60, preference=("cold",), quality="none")
    folder = start(plan, tmp_path)
    assert all(o.ok for o in sweep(plan, folder, 1))
    r = load_runs(folder).results[0]
    assert r.quality == dict(use="none") and r.genuine is None
    assert "genuine" not in pd.read_parquet(next(folder.rglob("predictions.parquet")))
    assert start(plan, tmp_path, resume=folder) == folder
    with pytest.raises(ValueError, match="quality: 'none' there, 'filter' now"):
        start(replace(plan, quality="filter"), tmp_path, resume=folder)
