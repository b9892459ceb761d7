"""The report of a small sweep: every table in every form, numbers that can be recomputed, one page that stands on its own in two languages and at two widths."""

import json, re, shutil, subprocess
from html.parser import HTMLParser
from pathlib import Path
import numpy as np, pandas as pd, pytest
from sklearn.metrics import average_precision_score, f1_score
from turnover_nb.report import curves
from turnover_nb.report import evidence
from turnover_nb.report import figures
from turnover_nb.report import page
from turnover_nb.report import page_runs
from turnover_nb.report import reforms
from turnover_nb.report import report
from turnover_nb.report import words
from turnover_nb.runs.sweep import Plan, start, sweep
from turnover_nb.report.report import latex, make_report, tex

MODELS = ("majority", "logistic", "conditional_logit", "mlp", "v5", "v6_twostage", "v6_no_graph")
TABLES = {
    "coefficients",
    "known_answers",
    "facts",
    "quality_signs",
    "quality_mixtures",
    "groups_v5",
    "groups_v6_twostage",
    "turnover",
    "turnover_differences",
    "preference_cold",
    "preference_cold_differences",
    "preference_warm",
    "preference_warm_differences",
    "comparison",
    "ablations_turnover",
    "ablations_preference_cold",
    "ablations_preference_warm",
    "path_turnover",
    "path_preference_cold",
    "path_preference_warm",
    "v5_v6",
    "criteria",
    "hard_negatives",
    "diagnosis",
    "diagnosis_run",
    "audit",
    "environment",
    "reforms",
}
FIGURES = {
    "turnover_aupr",
    "turnover_differences",
    "turnover_pr",
    "turnover_roc",
    "turnover_reliability",
    "turnover_threshold",
    "preference_cold_accuracy",
    "preference_cold_differences",
    "preference_warm_accuracy",
    "preference_warm_differences",
    "ablations_turnover",
    "ablations_preference_cold",
    "ablations_preference_warm",
    "path",
    "stage1",
    "stage2",
    "stage2_accuracy",
    "hard_negatives",
    "known_answers",
}


def sweep_of(out, models=MODELS, seeds=(0, 1), **kw):
    plan = Plan(
        models=models,
        seeds=seeds,
        **{
            **dict(employees=120, config=dict(hidden=16, heads=2, epochs=3, stage2_epochs=3, lr=0.01, stage2_lr=0.01)),
            **kw,
        },
    )
    folder = start(plan, out)
    failed = [o for o in sweep(plan, folder, 2) if not o.ok]
    assert not failed, failed[0].error
    return folder


@pytest.fixture(scope="session")
def swept(tmp_path_factory):
    folder = sweep_of(tmp_path_factory.mktemp("report"))
    make_report(folder)
    return folder


@pytest.fixture(scope="session")
def chinese(swept, tmp_path_factory):
    folder = Path(shutil.copytree(swept, tmp_path_factory.mktemp("zh") / "run"))
    make_report(folder, lang="zh")
    return folder


def text_of(folder):
    return (folder / "report" / "report.html").read_text("utf-8")


@pytest.mark.parametrize("which", ["swept", "chinese"])
def test_every_table_is_there_in_four_forms_and_every_figure_in_two(which, request):
    folder = request.getfixturevalue(which)
    for end in ("csv", "md", "html", "tex"):
        assert {p.stem for p in (folder / "report" / "tables").glob(f"*.{end}")} == TABLES | (
            {"runs"} if end == "csv" else set()
        )
    for end in ("png", "svg"):
        assert {p.stem for p in (folder / "report" / "figures").glob(f"*.{end}")} >= FIGURES
    assert (folder / "report" / "report.ipynb").exists()


def predictions(folder, variant, task, seed, phase="test"):
    d = pd.read_parquet(folder / variant / f"seed_{seed}" / "predictions.parquet")
    return d[(d.task == task) & (d.phase == phase)]


def threshold(folder, variant, seed):
    return json.loads((folder / variant / f"seed_{seed}" / "results.json").read_text())["turnover"]["threshold"][
        "value"
    ]


def test_code_of_several_commits_is_named_whole(swept, tmp_path):
    "By the environment and by the checklist"
    from turnover_nb.runs.collect import load_runs

    folder = Path(shutil.copytree(swept, tmp_path / "run"))
    f = folder / "v5" / "seed_1" / "environment.json"
    f.write_text(json.dumps({**json.loads(f.read_text()), "git_commit": "f" * 40}))
    r = load_runs(folder)
    first = report.environment_of(r)["git_commit"]
    for table in (report.environment_table(r), reforms.reforms_table(r)):
        said = " ".join(table.iloc[:, -1].astype(str))
        assert "f" * 40 in said and (not first or first in said)


def test_the_scores_of_each_run_are_there(swept):
    t = pd.read_csv(swept / "report" / "tables" / "runs.csv")
    for _, r in t.groupby(["variant", "seed", "task"]).head(2).iterrows():
        d = json.loads((swept / r.variant / f"seed_{r.seed}" / "results.json").read_text())
        d = d["turnover"] if r.task == "turnover" else d["preference"]["metrics"]
        assert d[r.metric]["value"] == pytest.approx(r.value, nan_ok=True)
    assert {
        (r["variant"], r["seed"]) for p in swept.glob("*/seed_*/results.json") for r in [json.loads(p.read_text())]
    } == set(zip(t.variant, t.seed))


@pytest.mark.parametrize("variant", ["logistic", "v6_twostage"])
def test_turnover_numbers_are_those_of_the_predictions(swept, variant):
    t = pd.read_csv(swept / "report" / "tables" / "turnover.csv").set_index(["variant", "metric"])
    ds = [predictions(swept, variant, "turnover", s) for s in (0, 1)]
    aupr = [average_precision_score(d.label, d.probability) for d in ds]
    f1 = [f1_score(d.label, d.score >= threshold(swept, variant, s)) for s, d in enumerate(ds)]
    assert t.loc[(variant, "aupr"), "value"] == pytest.approx(np.mean(aupr)) and t.loc[
        (variant, "aupr"), "sd"
    ] == pytest.approx(np.std(aupr, ddof=1))
    assert t.loc[(variant, "f1"), "value"] == pytest.approx(np.mean(f1))
    assert f"{np.mean(aupr):.3f} ± {np.std(aupr, ddof=1):.3f}" in (
        swept / "report" / "tables" / "turnover.md"
    ).read_text("utf-8")


def accuracy(d):
    best = d.groupby("situation").score.transform("max")
    tied = (d.score == best).groupby(d.situation).transform("sum")
    return ((d.score == best) * d.label / tied).groupby(d.situation).sum().mean()


@pytest.mark.parametrize(
    "variant, protocol", [("majority", "cold"), ("v6_twostage", "cold"), ("v6_twostage_warm", "warm")]
)
def test_preference_numbers_are_those_of_the_predictions(swept, variant, protocol):
    t = pd.read_csv(swept / "report" / "tables" / f"preference_{protocol}.csv").set_index(["variant", "metric"])
    assert t.loc[(variant, "accuracy"), "value"] == pytest.approx(
        np.mean([accuracy(predictions(swept, variant, "preference", s)) for s in (0, 1)])
    )


def test_differences_are_those_of_the_predictions(swept):
    tables = swept / "report" / "tables"
    score = lambda v: np.mean(
        [
            average_precision_score(d.label, d.probability)
            for d in (predictions(swept, v, "turnover", s) for s in (0, 1))
        ]
    )
    d = pd.read_csv(tables / "turnover_differences.csv").set_index("variant")
    assert d.loc["v6_twostage", "difference"] == pytest.approx(score("v6_twostage") - score("logistic"))
    a = pd.read_csv(tables / "ablations_turnover.csv").set_index("variant")
    assert a.loc["v6_no_graph", "difference"] == pytest.approx(score("v6_no_graph") - score("v6_twostage"))
    p = pd.read_csv(tables / "path_turnover.csv").set_index("variant")
    assert list(p.reference) == ["mlp", "v5"] and p.loc["v5", "difference"] == pytest.approx(score("v5") - score("mlp"))
    assert set(d.verdict) <= {"better", "worse", "no evidence of a difference", "practically equivalent"}


def test_the_trivial_baseline_and_n_are_in_every_table_of_scores(swept):
    for name in (
        "turnover",
        "preference_cold",
        "preference_warm",
        "comparison",
        "turnover_differences",
        "preference_cold_differences",
        "ablations_turnover",
        "ablations_preference_cold",
        "v5_v6",
        "criteria",
    ):
        text = (swept / "report" / "tables" / f"{name}.md").read_text("utf-8")
        assert "majority" in text and re.search(r"\| n\b|n = ", text), name


def test_latex_is_escaped():
    d = pd.DataFrame({"a_b": ["5 % & {x} [0.1, 0.2]"], "c": ["~^\\"]})
    t = latex(d, "T_1", "n#")
    assert (
        r"a\_b" in t
        and r"5 \% \& \{x\}" in t
        and r"\scriptsize [0.1, 0.2]" in t
        and r"T\_1" in t
        and r"n\#" in t
        and tex("\\") == r"\textbackslash{}"
    )
    assert "xeCJK" in latex(pd.DataFrame({"模型": ["x"]}), "T") and "xeCJK" not in t


class Page(HTMLParser):
    "Images, what would be fetched, and headings"

    def __init__(self, text):
        super().__init__()
        self.images, self.fetched, self.lang = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if tag == "html":
            self.lang = a.get("lang")
        if tag == "img":
            self.images.append(a)
        if tag in ("script", "link", "img", "iframe", "source", "object", "embed", "video", "audio"):
            self.fetched += [a[k] for k in ("src", "href", "data") if k in a and not a[k].startswith("data:")]


@pytest.mark.parametrize("which, lang", [("swept", "en"), ("chinese", "zh")])
def test_the_page_stands_on_its_own_and_every_figure_has_words(which, lang, request):
    text = text_of(request.getfixturevalue(which))
    p = Page(text)
    assert (
        not p.fetched
        and "@import" not in text
        and not re.search(r"url\(\s*['\"]?(?!data:)[^)]", text)
        and "<script" not in text
    )
    assert (
        p.lang == lang
        and len(p.images) >= 15
        and all(len(i.get("alt", "")) > 20 for i in p.images)
        and "Traceback" not in text
        and "UserWarning" not in text
    )


def test_an_id_stands_once(swept):
    ids = re.findall(r'<div id="(t_[a-z0-9_]+)"', text_of(swept))
    assert len(ids) == len(set(ids)) == len(TABLES)


# ---- headless Chromium
chromium = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome", "chrome") if (p := shutil.which(n))), None
)
PROBE = """<html><body><script>
let left = {n}, out = [];
for (const width of {widths}) {{ const f = document.createElement('iframe'); f.width = width; f.height = 900; f.style.border = 0; f.src = 'page.html';
  f.onload = () => {{ const d = f.contentDocument, e = d.documentElement; out.push({{width, inner: f.contentWindow.innerWidth, scroll: e.scrollWidth, images: d.images.length,
    broken: [...d.images].filter(i => !i.naturalWidth).length, wide: [...d.images].filter(i => i.getBoundingClientRect().right > f.contentWindow.innerWidth + 1).length}});
    if (!--left) document.title = JSON.stringify(out); }}; document.body.append(f); }}
</script></body></html>"""


def look(html, folder, widths=(1280, 390)):
    "What Chromium measures of a page at some widths, and what it says on the console"
    (folder / "page.html").write_text(html, "utf-8")
    (folder / "probe.html").write_text(PROBE.format(n=len(widths), widths=list(widths)), "utf-8")
    done = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
            "--v=0",
            "--virtual-time-budget=20000",
            f"--user-data-dir={folder}/profile",
            "--window-size=1400,1000",
            "--dump-dom",
            f"file://{folder}/probe.html",
        ],
        capture_output=True,
        text=True,
        timeout=180,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert title, done.stdout[-500:] + done.stderr[-1500:]
    return json.loads(title.group(1).replace("&quot;", '"')), [
        line for line in done.stderr.splitlines() if "CONSOLE" in line
    ]


@pytest.mark.skipif(not chromium, reason="no Chromium")
@pytest.mark.parametrize("which", ["swept", "chinese"])
def test_the_page_fits_desktop_and_phone_without_a_console_message(which, request, tmp_path):
    seen, console = look(text_of(request.getfixturevalue(which)), tmp_path)
    assert not console and {s["width"] for s in seen} == {1280, 390}
    for s in seen:
        assert (
            s["inner"] == s["width"]
            and s["scroll"] <= s["inner"]
            and s["images"] >= 15
            and not s["broken"]
            and not s["wide"]
        ), s


@pytest.mark.skipif(not chromium, reason="no Chromium")
def test_the_look_notices_what_is_planted(tmp_path):
    seen, console = look(
        '<html><body><div style="width:600px">x</div><img src="data:image/png;base64,AAAA" alt="x"><script>console.error("planted")</script></body></html>',
        tmp_path,
    )
    (phone,) = (s for s in seen if s["width"] == 390)
    assert phone["scroll"] > phone["inner"] and phone["broken"] == 1 and any("planted" in c for c in console)


# ---- languages
def test_both_languages_have_every_text_and_the_same_holes():
    holes = lambda s: sorted(re.findall(r"{(\w+)}", s))
    only_zh = {k for k, t in words.TEXT.items() if not t[0]}
    for k, t in words.TEXT.items():
        assert len(t) == 2 and t[1] and (k in only_zh or holes(t[0]) == holes(t[1])), k
    assert only_zh == {"font", "p_english"}  # there is nothing to say of these in English


def test_every_word_that_the_code_asks_for_exists():
    source = "".join(
        Path(m.__file__).read_text("utf-8") for m in (page, page_runs, report, evidence, reforms, figures, curves)
    )
    asked = set(re.findall(r"""\b(?:w|fw|EN)\(['"]([a-z_0-9]+)['"]""", source))
    assert len(asked) > 120 and asked <= set(words.TEXT), asked - set(words.TEXT)


def test_the_chinese_report_is_chinese(chinese):
    text = re.sub(r"<style>.*?</style>|data:image[^\"]*", "", text_of(chinese), flags=re.S)
    headings = re.findall(r"<h[12][^>]*>(.*?)<", text)
    assert len(headings) >= 12 and all(re.search("[一-鿿]", h) or h.startswith("REFORMS") for h in headings), headings
    for english in ("best attainable", "no evidence of a difference", "not decided", "Each cell is", "mean over seeds"):
        assert english not in text
    assert "没有差异的证据" in text and (chinese / "report" / "tables" / "turnover.md").read_text("utf-8").startswith(
        "**离职"
    )


def test_an_unknown_language_is_refused(swept):
    with pytest.raises(ValueError, match="language 'fr'; expected one of en, zh"):
        make_report(swept, lang="fr")


def test_without_a_chinese_font_figures_stay_english_and_say_how_to_get_one(swept, tmp_path, monkeypatch, capsys):
    folder = Path(shutil.copytree(swept, tmp_path / "run"))
    none = lambda: None
    for m in (words, report, page, figures):
        monkeypatch.setattr(m, "cjk_font", none)
    make_report(folder, lang="zh")
    assert (
        "fonts-noto-cjk" in capsys.readouterr().err
        and "fonts-noto-cjk" in text_of(folder)
        and "UserWarning" not in (folder / "report" / "report.ipynb").read_text("utf-8")
    )


# ---- criteria
def people(n, rate, hit, seed):
    "Test people whose flags find a share `hit` of the leavers and as many false ones"
    rng = np.random.default_rng(seed)
    y = (np.arange(n) < rate * n) * 1.0
    flag = np.where(y > 0, rng.random(n) < hit, rng.random(n) < (1 - hit) * rate / (1 - rate)) * 1.0
    return pd.DataFrame(
        dict(employee=[f"e{i}" for i in range(n)], label=y, probability=0.1 + 0.8 * flag, score=flag, flag=flag)
    )


class Stub:
    "Evidence on hand-made predictions"

    def __init__(self, names):
        self.all, self.n_boot = names, 400
        self.runs = type("R", (), dict(manifest=dict(plan=dict(seeds=[0, 1, 2]))))()

    def name(self, base, task, protocol="cold"):
        return base if task == "turnover" and base in self.all else None


@pytest.mark.parametrize(
    "mine, other, bar, share",
    [
        (0.85, 0.4, "met", "met"),
        (0.2, 0.5, "not met", "not met"),
        (0.61, 0.59, "not decided by these data", "not decided by these data"),
    ],
)
def test_criteria_on_hand_made_predictions(mine, other, bar, share, monkeypatch):
    from turnover_nb.runs.collect import turnover_summary

    frames = {
        v: [people(300, 0.2, h, s) for s in range(3)]
        for v, h in dict(majority=0.0, logistic=other, v6_twostage=mine).items()
    }
    monkeypatch.setattr(evidence, "samples", lambda runs, v, task: frames[v])
    stub = Stub(list(frames))
    t = evidence.criteria_table(
        stub,
        {
            ("turnover", "cold"): {v: turnover_summary(f, 400) for v, f in frames.items()},
            ("preference", "cold"): {},
            ("preference", "warm"): {},
        },
    )
    got = dict(zip(t.criterion, t.verdict))
    assert got["F1 > 0.60"] == bar and got["F1 at least 5% above every baseline"] == share
    assert (
        got["full ablation"] == "not met"
        and got["several seeds (at least 3)"] == "met"
        and got["significance test"] == "met"
    )


def test_a_criterion_is_judged_by_its_interval():
    e = lambda lo, hi: dict(value=(lo + hi) / 2, low=lo, high=hi)
    assert [
        evidence.judge(x, 0.6)
        for x in (e(0.61, 0.7), e(0.59, 0.7), e(0.5, 0.6), dict(value=0.9, low=None, high=None), None)
    ] == ["met", "undecided", "not_met", "undecided", "undecided"]


# ---- groups
def test_small_groups_are_suppressed_with_the_next_smallest(swept, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(swept, tmp_path / "run"))
    for s in (0, 1):
        ids = predictions(folder, "v6_twostage", "turnover", s).employee.to_numpy()
        group = np.where(np.arange(len(ids)) < 2, "tiny", np.where(np.arange(len(ids)) < 9, "small", "large"))
        pd.DataFrame(dict(employee=ids, column="site", group=group)).to_parquet(
            folder / "v6_twostage" / f"seed_{s}" / "groups.parquet"
        )
    p = page_runs.Page(folder, tmp_path / "out", n_boot=100)
    monkeypatch.setattr("IPython.display.display", lambda *a: None)
    p.groups()
    t = pd.read_csv(tmp_path / "out" / "tables" / "groups_v6_twostage.csv").set_index("group")
    assert t.loc["large", "people"].isdigit() and all(
        "suppressed" in t.loc[g, "people"] and t.loc[g, "share flagged"] == "–" for g in ("tiny", "small")
    )
    assert evidence.suppressed(dict(a=9, b=5)) == set() and evidence.suppressed(dict(a=9, b=5, c=4)) == {"b", "c"}


# ---- what does not apply is left out
def test_a_folder_of_baselines_with_one_seed_says_what_it_lacks(tmp_path):
    folder = sweep_of(tmp_path, ("majority", "logistic"), (0,), preference=("cold",))
    text = make_report(folder).read_text("utf-8")
    assert {p.stem for p in (folder / "report" / "tables").glob("*.md")} == {
        "facts",
        "quality_signs",
        "quality_mixtures",
        "turnover",
        "turnover_differences",
        "preference_cold",
        "comparison",
        "audit",
        "environment",
        "reforms",
    }
    for said in (
        "There is one seed",
        "holds no ablation variants",
        "no two steps of the path",
        "not hold both v5 and v6",
        "no graph model to judge",
        "trained by epochs",
        "not testable",
    ):
        assert said in text, said
    assert "better" not in set(pd.read_csv(folder / "report" / "tables" / "turnover_differences.csv").verdict)


def test_the_checklist_has_32_items_and_invents_nothing(swept):
    t = pd.read_csv(swept / "report" / "tables" / "reforms.csv")
    assert len(t) == 32 and t.module.nunique() == 8
    f = t.set_index("item").fact
    unknown = "not known from the runs' files"
    assert (
        f["why this population"] == unknown
        and f["sampling frame"] == unknown
        and "passed in" in f["training and test apart in every step"]
        and "120 employees" in f["number of samples, and of each class"]
    )
