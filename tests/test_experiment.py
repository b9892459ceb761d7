"""Papermill runs end to end: same seed, same bits; what is wrong is refused; the report stands on its own."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
import pandas as pd
import pytest
import yaml
from turnover_nb.cli import main
from turnover_nb.models.base import Model
from turnover_nb.models.registry import load_model
from turnover_nb.runs.collect import load_runs
from turnover_nb.runs.engine import check_parameters, notebook_parameters
from turnover_nb.runs.sweep import experiment_notebook

FEW = [
    "--models",
    "majority,logistic,conditional_logit,hgt",
    "--seeds",
    "2",
    "--employees",
    "120",
    "--set",
    "epochs=3",
    "--set",
    "hidden=16",
    "--known",
    "2",
]


def run(out, *more):
    assert main(["run", "--out", str(out), *FEW, *more]) == 0
    (folder,) = (Path(out) / "main").iterdir()
    return folder


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    return run(tmp_path_factory.mktemp("out"), "--jobs", "2")


ASKED = ["logistic", *(f"{m}/{p}" for m in ("majority", "conditional_logit", "hgt") for p in ("cold", "warm"))]


def result(folder, asked, seed):
    return json.loads((folder / asked / f"seed_{seed}" / "results.json").read_text())


def test_every_file_of_a_run_is_there(swept):
    variants = {a.split("/")[0] for a in ASKED}
    assert {p.name for p in swept.iterdir()} == variants | {"manifest.json", "report", ".lock"}
    assert {p.relative_to(swept).parent.as_posix() for p in swept.glob("**/seed_0")} == {*ASKED}
    common = {"run.ipynb", "config.yaml", "results.json", "predictions.parquet", "environment.json", "groups.parquet"}
    more = dict(
        hgt={"stage1_history.json", "stage1_best.pt", "embeddings.parquet"}, conditional_logit={"tastes.parquet"}
    )
    for asked in ASKED:
        variant, _, protocol = asked.partition("/")
        want = common | {"model.yaml"} | more.get(variant, set())
        for seed in (0, 1):
            files = {p.name for p in (swept / asked / f"seed_{seed}").iterdir()}
            assert files >= want and not any(f.startswith(".") for f in files)
            assert ("known_curve.parquet" in files) == (asked == "hgt/warm")


def test_a_run_says_its_variant_and_its_protocol(swept):
    for asked in ASKED:
        variant, _, protocol = asked.partition("/")
        r = result(swept, asked, 0)
        assert r["variant"] == r["model"] == variant
        assert (r["preference"] or {}).get("protocol", "") == protocol


def test_a_config_holds_the_settings_of_its_model_and_of_no_other(swept):
    config = lambda asked: yaml.safe_load((swept / asked / "seed_0" / "config.yaml").read_text())
    assert set(config("logistic")) == {"model", "C", "max_iter"}
    assert {k: config("hgt/cold")[k] for k in ("model", "epochs", "hidden")} == dict(model="hgt", epochs=3, hidden=16)


@pytest.mark.parametrize("asked", ASKED)
def test_every_run_is_audited_and_its_model_can_be_loaded(swept, asked):
    assert result(swept, asked, 0)["audit"]["passed"] is True
    model = load_model(swept / asked / "seed_0")
    assert isinstance(model, Model) and model.name == asked.split("/")[0]


def test_one_seed_gives_the_same_bits_whatever_the_number_of_workers(swept, tmp_path):
    other = run(tmp_path, "--jobs", "1")
    for p in load_runs(swept).paths:
        q = other / p.relative_to(swept)
        assert (p / "results.json").read_bytes() == (q / "results.json").read_bytes(), p
        assert (p / "predictions.parquet").read_bytes() == (q / "predictions.parquet").read_bytes(), p


def test_seeds_differ(swept):
    a, b = (result(swept, "hgt/cold", s) for s in (0, 1))
    assert a["turnover"]["aupr"] != b["turnover"]["aupr"]


def test_the_kernel_engine_agrees_with_the_fast_one(swept, tmp_path):
    one = ["--models", "hgt", "--seeds", "1,", "--preference", "cold", "--engine", "kernel"]
    assert main(["run", "--out", str(tmp_path), *FEW, *one]) == 0
    (folder,) = (tmp_path / "main").iterdir()
    for name in ("results.json", "predictions.parquet"):
        a, b = (f / "hgt" / "cold" / "seed_1" / name for f in (folder, swept))
        assert a.read_bytes() == b.read_bytes()


def test_plain_papermill_runs_the_notebook(tmp_path):
    papermill = str(Path(sys.executable).with_name("papermill"))
    parameters = dict(model="majority", seed=3, employees=100, out=tmp_path / "files")
    given = [w for k, v in parameters.items() for w in ("-p", k, str(v))]
    book = [str(experiment_notebook("run.ipynb")), str(tmp_path / "o.ipynb")]
    command = [papermill, *book, *given, "-k", "python3", "--no-progress-bar"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    assert json.loads((tmp_path / "files" / "results.json").read_text())["seed"] == 3


def test_parameters_are_checked():
    book = experiment_notebook("run.ipynb")
    assert notebook_parameters(book)["seed"] == 0
    with pytest.raises(ValueError, match="unknown parameter 'sede'; did you mean 'seed'"):
        check_parameters(book, dict(sede=1))
    with pytest.raises(ValueError, match="seed = '1' is str, expected int"):
        check_parameters(book, dict(seed="1"))


def test_a_lost_parameters_tag_is_noticed(tmp_path):
    nb = json.loads(experiment_notebook("run.ipynb").read_text("utf-8"))
    for c in nb["cells"]:
        c["metadata"].pop("tags", None)
    (tmp_path / "run.ipynb").write_text(json.dumps(nb), "utf-8")
    with pytest.raises(ValueError, match="0 cells tagged `parameters`"):
        notebook_parameters(tmp_path / "run.ipynb")


class Page(HTMLParser):
    "Collects images, scripts and links of a page"

    def __init__(self, text):
        super().__init__()
        self.images, self.fetched = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if tag == "img":
            self.images.append(a)
        for k in ("src", "href"):
            if tag in ("script", "link", "img", "iframe", "source") and re.match(r"(https?:)?//", a.get(k) or ""):
                self.fetched.append(a[k])


def test_the_report_is_one_page_with_tables_and_figures(swept):
    text = (swept / "report" / "report.html").read_text("utf-8")
    page = Page(text)
    assert not page.fetched and "@import" not in text and "url(http" not in text
    assert len(page.images) >= 6 and all(i.get("alt") for i in page.images)
    assert "synthetic" in text and "Leak audit" in text and "best attainable" in text
    assert {p.stem for p in (swept / "report" / "tables").glob("*.csv")} >= {
        "turnover",
        "preference_cold",
        "preference_warm",
    }
    for f in (swept / "report" / "figures").glob("*.png"):
        assert f.with_suffix(".svg").exists()
    assert "Traceback" not in text


def test_the_report_repeats_the_runs_numbers(swept):
    t = pd.read_csv(swept / "report" / "tables" / "turnover.csv").set_index(["variant", "metric"])
    want = [result(swept, "logistic", s)["turnover"]["aupr"]["value"] for s in (0, 1)]
    assert t.loc[("logistic", "aupr"), "value"] == pytest.approx(sum(want) / 2, abs=1e-9)


def test_missing_and_identical_runs_are_refused(swept, tmp_path):
    a = shutil.copytree(swept, tmp_path / "a")
    shutil.rmtree(a / "logistic" / "seed_1")
    with pytest.raises(ValueError, match="1 of 14 runs are missing: logistic/seed_1"):
        load_runs(a)
    b = shutil.copytree(swept, tmp_path / "b")
    shutil.copy(b / "hgt/cold/seed_0/predictions.parquet", b / "hgt/cold/seed_1/predictions.parquet")
    with pytest.raises(ValueError, match="identical predictions"):
        load_runs(b)
    c = shutil.copytree(swept, tmp_path / "c")
    f = c / "hgt/cold/seed_0/results.json"
    f.write_text(f.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    with pytest.raises(ValueError, match="schema version 1, expected 2"):
        load_runs(c)


def test_a_sweep_of_an_older_version_is_refused_in_a_sentence(swept, tmp_path, capsys):
    (tmp_path / "manifest.json").write_text(json.dumps(dict(schema_version=1, plan={})))
    assert main(["run", "--out", str(tmp_path), *FEW, "--resume", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "of schema version 1, made by another version of turnover_nb" in said and said.count("\n") == 1


def test_a_sweep_resumes_where_it_stopped(swept, tmp_path, capsys):
    folder = shutil.copytree(swept, tmp_path / "again")
    gone = folder / "hgt" / "cold" / "seed_1"
    want = (gone / "results.json").read_bytes()
    other = folder / "hgt" / "cold" / "seed_0" / "run.ipynb"
    kept = other.stat().st_mtime_ns
    shutil.rmtree(gone)
    shutil.rmtree(folder / "report")
    assert main(["run", "--out", str(tmp_path), *FEW, "--resume", str(folder)]) == 0
    assert (gone / "results.json").read_bytes() == want and other.stat().st_mtime_ns == kept
    assert capsys.readouterr().out.strip().endswith(str(folder / "report" / "report.html"))


@pytest.mark.parametrize(
    "argv, says",
    [
        (["--data", "no/such/place", "--codebook", "ibm_hr_attrition"], "place: no such file"),
        (["--data", "x"], "needs a codebook"),
        (["--codebook", "x.yaml"], "needs data"),
        (["--models", "hgtt"], "unknown model 'hgtt'; did you mean 'hgt'?"),
        (["--models", "logistic", "--set", "epochs=3"], "no model has the setting 'epochs'"),
        (["--models", "hgt", "--set", "epochs=many"], "model 'hgt': settings: epochs = 'many'"),
        (["--jobs", "0"], "jobs = 0"),
        (["--set", "hiden=3"], "did you mean 'hidden'"),
        (["--protocol", "group", "--group", "firmm"], "firmm"),
        (["--employees", "5"], "at least 3 of each"),
        (["--known", "9"], "n_known=9"),
        (["--seeds", "2", "--splits", "3"], "splits 3: expected 1 … 2"),
    ],
)
def test_bad_options_stop_before_anything_is_written(argv, says, tmp_path, capsys):
    assert main(["run", "--out", str(tmp_path / "o"), *argv]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not (tmp_path / "o").exists()


HUGE = "1" + 30 * "0" + ".0"


def test_a_failing_run_is_listed_and_the_others_stand(tmp_path, capsys):
    "A learning rate that no training survives"
    models = ["--models", f"logistic,hgt+lr={HUGE}", "--seeds", "1", "--preference", "cold"]
    assert main(["run", "--out", str(tmp_path), *FEW, *models]) == 1
    said = capsys.readouterr().err
    assert re.search(rf"failed: hgt\+lr={HUGE} cold seed_0: cell \d+ \(.*\): FloatingPointError: ", said)
    assert "--resume" in said
    (folder,) = (tmp_path / "main").iterdir()
    assert result(folder, "logistic", 0) and not (folder / f"hgt+lr={HUGE}" / "cold" / "seed_0").exists()


def test_help_is_quick_and_light():
    code = """
import sys
from turnover_nb.cli import main
try:
    main(['--help'])
except SystemExit:
    sys.exit(sum(m in sys.modules for m in ('torch', 'pandas', 'sklearn')))"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_seeds_that_share_a_test_set_are_no_twins(swept, tmp_path):
    "Under a group split two seeds may draw the same groups; only a model without randomness then repeats itself"
    a = shutil.copytree(swept, tmp_path / "a")
    f = a / "manifest.json"
    m = json.loads(f.read_text())
    m["plan"]["protocol"] = "group"
    f.write_text(json.dumps(m))
    shutil.copy(a / "logistic" / "seed_0" / "predictions.parquet", a / "logistic" / "seed_1" / "predictions.parquet")
    assert len(load_runs(a).results) == 14
    shutil.copy(a / "hgt/cold/seed_0/predictions.parquet", a / "hgt/cold/seed_1/predictions.parquet")
    with pytest.raises(ValueError, match="identical predictions"):
        load_runs(a)


def test_the_panel_logits_run_cold_and_warm(tmp_path, capsys):
    "… and what is known of a person moves their predictions"
    few = ["--models", "choice", "--seeds", "1", "--employees", "100", "--known", "5"]
    assert main(["run", "--out", str(tmp_path), *few]) == 0
    said = capsys.readouterr().out
    assert re.search(r"8 runs; their processes took [\d,]+ s in all, \d+% of it fitting and scoring", said)
    (folder,) = (tmp_path / "main").iterdir()
    for m in ("latent_class", "mixed_logit", "hierarchical"):
        cold, warm = (
            pd.read_parquet(folder / m / protocol / "seed_0" / "predictions.parquet")
            .query("phase == 'test'")
            .set_index(["employee", "situation", "alternative"])
            .probability
            for protocol in ("cold", "warm")
        )
        assert len(warm) == 2 / 7 * len(cold) and (warm - cold.loc[warm.index]).abs().max() > 0.05, m
        assert result(folder, f"{m}/cold", 0)["facts"]["preference"]["chosen"]
    page = (folder / "report" / "report.html").read_text()
    for name in ("conditional logit", "latent-class logit", "mixed logit", "hierarchical logit"):
        assert name in page


def test_seeds_that_share_a_split_tell_the_sources_of_variation_apart(swept, tmp_path):
    few = ["--models", "majority,logistic,mlp", "--seeds", "4", "--splits", "2", "--employees", "120"]
    assert main(["run", "--out", str(tmp_path), *few, "--preference", "cold"]) == 0
    (folder,) = (tmp_path / "main").iterdir()
    people = [
        set(pd.read_parquet(folder / "mlp" / f"seed_{s}" / "predictions.parquet").query("phase == 'test'").employee)
        for s in range(4)
    ]
    assert people[0] == people[2] != people[1] == people[3]
    t = pd.read_csv(folder / "report" / "tables" / "turnover_variation.csv").set_index("model")
    sd = t.columns[-2:]
    assert list(sd) == ["sd, split", "sd, model seed"] and t.loc["logistic (L2)", sd[1]] == 0 < t.loc["MLP", sd[1]]
    runs = (
        pd.read_csv(folder / "report" / "tables" / "runs.csv")
        .query("variant == 'mlp' and metric == 'aupr'")
        .set_index("seed")
        .value
    )
    assert t.loc["MLP", sd[1]] == pytest.approx(
        (((runs[0] - runs[2]) ** 2 + (runs[1] - runs[3]) ** 2) / 4) ** 0.5, abs=6e-4
    )
    page = (swept / "report" / "report.html").read_text()
    assert "vary together here" in page


def test_a_sweep_runs_inside_any_shell(tmp_path):
    "A shell of another class may hold IPython's place in a way that its own class knows nothing of"
    code = f"""
from IPython.core.interactiveshell import InteractiveShell
from turnover_nb.runs.sweep import Plan, start, sweep
class Other(InteractiveShell): pass
InteractiveShell._instance, Other._instance = Other(), None
plan = Plan(("majority",), (0,), employees=100, preference=("cold",))
assert [o.error for o in sweep(plan, start(plan, {str(tmp_path)!r}), 1)] == [""]"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
