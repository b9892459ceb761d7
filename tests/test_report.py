"""The report of finished sweeps: every table in every form, numbers that can be recomputed, one page in two languages.

A real sweep of a few models proves that the files of runs are read; a made-up one with every kind of model shows every
section in a second."""

import importlib
import inspect
import json
import pkgutil
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import font_manager
from sklearn.metrics import average_precision_score, f1_score
from turnover_nb import report as room
from turnover_nb.quality.signs import SIGNS
from turnover_nb.report.contents import SECTIONS
from turnover_nb.report.example import SKILLS, write_example
from turnover_nb.report.facts import environment_of
from turnover_nb.report.page import Page
from turnover_nb.report.report import make_report
from turnover_nb.report.sections.answer_quality import answer_quality
from turnover_nb.report.sections.criteria import criteria, judge
from turnover_nb.report.sections.environment import environment_table
from turnover_nb.report.sections.groups import groups
from turnover_nb.report.sections.populations import turnover_populations
from turnover_nb.report.sections.reforms import reforms_table
from turnover_nb.report.tables import latex, tex
from turnover_nb.report.words import CJK, SHARED, cjk_font
from turnover_nb.runs.collect import load_runs
from turnover_nb.runs.sweep import Plan, start, sweep

MODELS = ("majority", "logistic", "conditional_logit", "v6_twostage", "v6_no_graph")
TABLES = {
    "coefficients",
    "known_answers",
    "facts",
    "quality_signs",
    "quality_mixtures",
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
    "criteria",
    "hard_negatives",
    "diagnosis",
    "diagnosis_run",
    "audit",
    "environment",
    "reforms",
}
MORE = {  # tables that the made-up sweep has and the real one has not
    "groups_v5",
    "groups_relational",
    "parts_turnover",
    "parts_preference_cold",
    "parts_preference_warm",
    "path_turnover",
    "path_preference_cold",
    "path_preference_warm",
    "populations_turnover",
    "populations_preference_cold",
    "populations_preference_warm",
    "segments_mixed_logit",
    "tastes_mixed_logit",
    "v5_v6",
    "willingness",
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
    "stage1",
    "stage1_warm",
    "stage2",
    "stage2_accuracy",
    "hard_negatives",
    "known_answers",
}


@pytest.fixture(scope="session")
def swept(tmp_path_factory):
    "A real sweep, reported in English"
    settings = dict(hidden=16, heads=2, epochs=2, stage2_epochs=2, lr=0.01, stage2_lr=0.01)
    plan = Plan(models=MODELS, seeds=(0, 1), employees=100, settings=settings)
    folder = start(plan, tmp_path_factory.mktemp("real"))
    failed = [o for o in sweep(plan, folder, 2) if not o.ok]
    assert not failed, failed[0].error
    make_report(folder)
    return folder


@pytest.fixture(scope="session")
def made_up(tmp_path_factory):
    "A made-up sweep of every kind of model, reported in Chinese"
    folder = write_example(tmp_path_factory.mktemp("made_up") / "run")
    make_report(folder, lang="zh")
    return folder


def text_of(folder):
    return (folder / "report" / "report.html").read_text("utf-8")


def table(folder, name):
    return pd.read_csv(folder / "report" / "tables" / f"{name}.csv")


# ---- a real sweep
@pytest.mark.parametrize("which, names", [("swept", TABLES), ("made_up", TABLES | MORE)])
def test_every_table_is_there_in_four_forms_and_every_figure_in_two(which, names, request):
    folder = request.getfixturevalue(which) / "report"
    for end in ("csv", "md", "html", "tex"):
        runs = {"runs"} if end == "csv" else set()
        assert {p.stem for p in (folder / "tables").glob(f"*.{end}")} == names | runs
    for end in ("png", "svg"):
        assert {p.stem for p in (folder / "figures").glob(f"*.{end}")} >= FIGURES
    assert (folder / "report.ipynb").exists()


def run_folder(folder, variant, protocol, seed):
    place = folder / variant / protocol
    return (place if place.is_dir() else folder / variant) / f"seed_{seed}"


def predictions(folder, variant, task, seed, protocol="cold"):
    d = pd.read_parquet(run_folder(folder, variant, protocol, seed) / "predictions.parquet")
    return d[(d.task == task) & (d.phase == "test")]


def results(folder, variant, seed, protocol="cold"):
    return json.loads((run_folder(folder, variant, protocol, seed) / "results.json").read_text())


def test_the_scores_of_each_run_are_there(swept):
    t = table(swept, "runs")
    for _, r in t.groupby(["variant", "protocol", "seed", "task"]).head(2).iterrows():
        d = results(swept, r.variant, r.seed, r.protocol)
        d = d["turnover"] if r.task == "turnover" else d["preference"]["metrics"]
        assert d[r.metric]["value"] == pytest.approx(r.value, nan_ok=True)
    runs = load_runs(swept)
    assert {(r.variant, r.protocol, r.seed) for r in runs.results} == set(zip(t.variant, t.protocol, t.seed))


@pytest.mark.parametrize("variant", ["logistic", "v6_twostage"])
def test_turnover_numbers_are_those_of_the_predictions(swept, variant):
    t = table(swept, "turnover").set_index(["variant", "metric"])
    ds = [predictions(swept, variant, "turnover", s) for s in (0, 1)]
    cuts = [results(swept, variant, s)["turnover"]["threshold"]["value"] for s in (0, 1)]
    aupr = [average_precision_score(d.label, d.probability) for d in ds]
    f1 = [f1_score(d.label, d.score >= cut) for d, cut in zip(ds, cuts)]
    assert t.loc[(variant, "aupr"), "value"] == pytest.approx(np.mean(aupr))
    assert t.loc[(variant, "aupr"), "sd"] == pytest.approx(np.std(aupr, ddof=1))
    assert t.loc[(variant, "f1"), "value"] == pytest.approx(np.mean(f1))
    said = (swept / "report" / "tables" / "turnover.md").read_text("utf-8")
    assert f"{np.mean(aupr):.3f} ± {np.std(aupr, ddof=1):.3f}" in said


def accuracy(d):
    "Share of situations whose best-scored alternative was chosen; ties count in part"
    best = d.groupby("situation").score.transform("max")
    tied = (d.score == best).groupby(d.situation).transform("sum")
    return ((d.score == best) * d.label / tied).groupby(d.situation).sum().mean()


@pytest.mark.parametrize("variant", ["majority", "v6_twostage"])
@pytest.mark.parametrize("protocol", ["cold", "warm"])
def test_preference_numbers_are_those_of_the_predictions(swept, variant, protocol):
    t = table(swept, f"preference_{protocol}").set_index(["variant", "metric"])
    each = [accuracy(predictions(swept, variant, "preference", s, protocol)) for s in (0, 1)]
    assert t.loc[(variant, "accuracy"), "value"] == pytest.approx(np.mean(each))


@pytest.mark.parametrize("which", ["swept", "made_up"])
def test_differences_are_those_of_the_predictions(which, request):
    folder = request.getfixturevalue(which)
    frames = lambda v: (predictions(folder, v, "turnover", s) for s in (0, 1))
    score = lambda v: np.mean([average_precision_score(d.label, d.probability) for d in frames(v)])
    d = table(folder, "turnover_differences").set_index("variant")
    assert d.loc["v6_twostage", "difference"] == pytest.approx(score("v6_twostage") - score("logistic"))
    a = table(folder, "ablations_turnover").set_index("variant")
    assert a.loc["v6_no_graph", "difference"] == pytest.approx(score("v6_no_graph") - score("v6_twostage"))
    assert set(d.verdict) <= {"better", "worse", "no evidence of a difference", "practically equivalent"}
    if which == "made_up":
        p = table(folder, "path_turnover").set_index("variant")
        assert list(p.reference) == ["mlp", "v5"]
        assert p.loc["v5", "difference"] == pytest.approx(score("v5") - score("mlp"))


def test_the_trivial_baseline_and_n_are_in_every_table_of_scores(swept):
    names = ("turnover", "preference_cold", "preference_warm", "comparison", "turnover_differences", "criteria")
    for name in (*names, "preference_cold_differences", "ablations_turnover", "ablations_preference_cold"):
        text = (swept / "report" / "tables" / f"{name}.md").read_text("utf-8")
        assert "majority" in text and re.search(r"\| n\b|n = ", text), name


def test_the_checklist_has_32_items_and_invents_nothing(swept):
    t = table(swept, "reforms")
    assert len(t) == 32 and t.module.nunique() == 8
    f = t.set_index("item").fact
    unknown = "not known from the runs' files"
    assert f["why this population"] == f["sampling frame"] == unknown
    assert "passed in" in f["training and test apart in every step"]
    assert "100 employees" in f["number of samples, and of each class"]


def test_latex_is_escaped():
    t = latex(pd.DataFrame({"a_b": ["5 % & {x} [0.1, 0.2]"], "c": ["~^\\"]}), "T_1", "n#")
    for part in (r"a\_b", r"5 \% \& \{x\}", r"\scriptsize [0.1, 0.2]", r"T\_1", r"n\#"):
        assert part in t
    assert tex("\\") == r"\textbackslash{}"
    assert "xeCJK" in latex(pd.DataFrame({"模型": ["x"]}), "T") and "xeCJK" not in t


# ---- one page
class Seen(HTMLParser):
    "Images, what would be fetched, and the language"

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


@pytest.mark.parametrize("which, lang", [("swept", "en"), ("made_up", "zh")])
def test_the_page_stands_on_its_own_and_every_figure_has_words(which, lang, request):
    text = text_of(request.getfixturevalue(which))
    p = Seen(text)
    assert not p.fetched and not re.search(r"url\(\s*['\"]?(?!data:)[^)]", text)
    assert p.lang == lang and len(p.images) >= 15 and all(len(i.get("alt", "")) > 20 for i in p.images)
    for never in ("@import", "<script", "Traceback", "UserWarning"):
        assert never not in text


def test_an_id_stands_once(swept):
    ids = re.findall(r'<div id="(t_[a-z0-9_]+)"', text_of(swept))
    assert len(ids) == len(set(ids)) == len(TABLES)


# ---- headless Chromium
chromium = next((p for n in ("chromium", "chromium-browser", "google-chrome", "chrome") if (p := shutil.which(n))), "")
PROBE = """<html><body><script>
let left = {n}, out = [];
for (const width of {widths}) {{
  const f = document.createElement('iframe');
  f.width = width; f.height = 900; f.style.border = 0; f.src = 'page.html';
  f.onload = () => {{
    const d = f.contentDocument, e = d.documentElement, inner = f.contentWindow.innerWidth, images = [...d.images];
    out.push({{width, inner, scroll: e.scrollWidth, images: images.length,
      broken: images.filter(i => !i.naturalWidth).length,
      wide: images.filter(i => i.getBoundingClientRect().right > inner + 1).length}});
    if (!--left) document.title = JSON.stringify(out);
  }};
  document.body.append(f);
}}
</script></body></html>"""


def look(html, folder, widths=(1280, 390)):
    "What Chromium measures of a page at some widths, and what it says on the console"
    (folder / "page.html").write_text(html, "utf-8")
    (folder / "probe.html").write_text(PROBE.format(n=len(widths), widths=list(widths)), "utf-8")
    options = "headless no-sandbox disable-gpu allow-file-access-from-files enable-logging=stderr v=0 dump-dom"
    more = ("virtual-time-budget=20000", f"user-data-dir={folder}/profile", "window-size=1400,1000")
    command = [chromium, *(f"--{o}" for o in (*options.split(), *more)), f"file://{folder}/probe.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert title, done.stdout[-500:] + done.stderr[-1500:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(title.group(1).replace("&quot;", '"')), console


@pytest.mark.skipif(not chromium, reason="no Chromium")
@pytest.mark.parametrize("which", ["swept", "made_up"])
def test_the_page_fits_desktop_and_phone_without_a_console_message(which, request, tmp_path):
    seen, console = look(text_of(request.getfixturevalue(which)), tmp_path)
    assert not console and {s["width"] for s in seen} == {1280, 390}
    for s in seen:
        assert s["inner"] == s["width"] and s["scroll"] <= s["inner"], s
        assert s["images"] >= 15 and not s["broken"] and not s["wide"], s


@pytest.mark.skipif(not chromium, reason="no Chromium")
def test_the_look_notices_what_is_planted(tmp_path):
    wide = '<div style="width:600px">x</div>'
    broken = '<img src="data:image/png;base64,AAAA" alt="x">'
    seen, console = look(f'<html><body>{wide}{broken}<script>console.error("planted")</script></body></html>', tmp_path)
    (phone,) = (s for s in seen if s["width"] == 390)
    assert phone["scroll"] > phone["inner"] and phone["broken"] == 1 and any("planted" in c for c in console)


# ---- words
def modules():
    "The modules of the report"
    names = [m.name for m in pkgutil.walk_packages(room.__path__, "turnover_nb.report.") if not m.ispkg]
    return [importlib.import_module(name) for name in names]


def is_texts(x):
    wordings = lambda t: isinstance(t, tuple) and len(t) == 2 and all(isinstance(s, str) for s in t)
    return isinstance(x, dict) and bool(x) and all(map(wordings, x.values()))


def texts_of(module):
    "Every text that a module holds or has from the shared ones"
    own = {k: t for name, x in vars(module).items() if name.isupper() and is_texts(x) for k, t in x.items()}
    return SHARED | own


def test_both_languages_have_every_text_and_the_same_holes():
    holes = lambda s: sorted(re.findall(r"{(\w+)}", s))
    only_zh = set()
    for module in modules():
        for key, (en, zh) in texts_of(module).items():
            assert zh and (en == "" or holes(en) == holes(zh)), (module.__name__, key)
            only_zh |= {key} if en == "" else set()
    assert only_zh == {"font", "english"}  # there is nothing to say of these in English


def test_every_word_that_the_code_asks_for_exists():
    n = 0
    for module in modules():
        source = inspect.getsource(module)
        asked = set(re.findall(r"""\b(?:w|fw|EN)\(['"]([a-z_0-9]+)['"]""", source))
        if module.__name__.rsplit(".", 1)[-1] != "words":
            assert asked <= set(texts_of(module)), (module.__name__, asked - set(texts_of(module)))
            n += len(asked)
    assert n > 150
    signs = texts_of(importlib.import_module("turnover_nb.report.sections.answer_quality"))
    assert all(f"{x}_{k}" in signs for k in SIGNS for x in "sw")


def test_the_chinese_report_is_chinese(made_up):
    text = re.sub(r"<style>.*?</style>|data:image[^\"]*", "", text_of(made_up), flags=re.S)
    headings = re.findall(r"<h[12][^>]*>(.*?)<", text)
    assert len(headings) >= 12
    assert all(re.search("[一-鿿]", h) or h.startswith("REFORMS") for h in headings), headings
    for english in ("best attainable", "no evidence of a difference", "not decided", "Each cell is", "mean over seeds"):
        assert english not in text
    assert (made_up / "report" / "tables" / "turnover.md").read_text("utf-8").startswith("**离职")


def test_an_unknown_language_is_refused(made_up):
    with pytest.raises(ValueError, match="language 'fr'; expected one of en, zh"):
        make_report(made_up, lang="fr")


def test_without_a_chinese_font_figures_stay_english_and_say_how_to_get_one(tmp_path, monkeypatch, capsys):
    folder = write_example(tmp_path / "run", ("majority", "logistic"), (0, 1), ("cold",))
    fonts = [f for f in font_manager.fontManager.ttflist if f.name not in CJK]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *a, **kw: [])
    cjk_font.cache_clear()
    try:
        make_report(folder, lang="zh")
    finally:
        cjk_font.cache_clear()
    assert "fonts-noto-cjk" in capsys.readouterr().err and "fonts-noto-cjk" in text_of(folder)
    assert "UserWarning" not in (folder / "report" / "report.ipynb").read_text("utf-8")


# ---- sections
def test_a_section_stands_once_in_the_list():
    names = [s.name for s in SECTIONS]
    assert len(names) == len(set(names)) and names[0] == "what_was_run" and names[-1] == "not_for"


def test_code_of_several_commits_is_named_whole(made_up, tmp_path):
    "By the environment and by the checklist"
    folder = Path(shutil.copytree(made_up, tmp_path / "run"))
    for place, commit in (("v5/cold/seed_1", "f" * 40), ("majority/cold/seed_0", "a" * 40)):
        f = folder / place / "environment.json"
        f.write_text(json.dumps({**json.loads(f.read_text()), "git_commit": commit}))
    runs = load_runs(folder)
    assert environment_of(runs)["git_commit"] == "a" * 40
    for t in (environment_table(runs), reforms_table(runs)):
        said = " ".join(t.iloc[:, -1].astype(str))
        assert "f" * 40 in said and "a" * 40 in said


@pytest.mark.parametrize(
    "skill, bar, share",
    [
        (8.0, "met", "met"),
        (0.01, "not met", "not met"),
        (0.5, "not decided by these data", "not decided by these data"),
    ],
)
def test_criteria_on_predictions_of_a_known_skill(skill, bar, share, tmp_path, monkeypatch):
    for model, known in dict(logistic=0.4, v6_twostage=skill).items():
        monkeypatch.setitem(SKILLS, model, (known, None))
    folder = write_example(tmp_path / "run", ("majority", "logistic", "v6_twostage"), (0, 1, 2), ("cold",))
    criteria.show(Page(folder, tmp_path / "out", n_boot=300, show=[].append))
    t = pd.read_csv(tmp_path / "out" / "tables" / "criteria.csv")
    got = dict(zip(t.criterion, t.verdict))
    assert (got["F1 > 0.60"], got["F1 at least 5% above every baseline"]) == (bar, share)
    assert got["full ablation"] == "not met"
    assert got["several seeds (at least 3)"] == got["significance test"] == "met"


def test_a_criterion_is_judged_by_its_interval():
    e = lambda low, high: dict(value=(low + high) / 2, low=low, high=high)
    known = (e(0.61, 0.7), e(0.59, 0.7), e(0.5, 0.6), dict(value=0.9, low=None, high=None), None)
    assert [judge(x, 0.6) for x in known] == ["met", "undecided", "not_met", "undecided", "undecided"]


def test_small_groups_are_suppressed_with_the_next_smallest(tmp_path):
    folder = write_example(tmp_path / "run", ("majority", "v6_twostage"), (0, 1), ("cold",))
    for s in (0, 1):
        ids = predictions(folder, "v6_twostage", "turnover", s).employee.to_numpy()
        group = np.where(np.arange(len(ids)) < 2, "tiny", np.where(np.arange(len(ids)) < 9, "small", "large"))
        d = pd.DataFrame(dict(employee=ids, column="site", group=group))
        d.to_parquet(folder / "v6_twostage" / "cold" / f"seed_{s}" / "groups.parquet")
    groups.show(Page(folder, tmp_path / "out", n_boot=100, show=[].append))
    t = pd.read_csv(tmp_path / "out" / "tables" / "groups_v6_twostage.csv").set_index("group")
    assert t.loc["large", "people"].isdigit()
    for g in ("tiny", "small"):
        assert "suppressed" in t.loc[g, "people"] and t.loc[g, "share flagged"] == "–"


def test_results_without_quality_are_read_and_the_report_says_what_they_lack(tmp_path):
    folder = write_example(tmp_path / "run", ("majority", "logistic"), (0,), ("cold",))
    for f in folder.rglob("results.json"):
        d = json.loads(f.read_text())
        del d["quality"]
        f.write_text(json.dumps(d))
    for f in folder.rglob("predictions.parquet"):
        pd.read_parquet(f).drop(columns="genuine").to_parquet(f)
    shown = []
    page = Page(folder, tmp_path / "out", n_boot=20, show=shown.append)
    answer_quality.show(page)
    turnover_populations.show(page)
    (said,) = shown
    assert "hold nothing on the quality" in said.data


def test_a_folder_of_baselines_with_one_seed_says_what_it_lacks(tmp_path):
    folder = write_example(tmp_path / "run", ("majority", "logistic"), (0,), ("cold",))
    text = make_report(folder).read_text("utf-8")
    few = {"facts", "quality_signs", "quality_mixtures", "turnover", "turnover_differences", "preference_cold"}
    few |= {"populations_turnover", "populations_preference_cold", "comparison", "audit", "environment", "reforms"}
    assert {p.stem for p in (folder / "report" / "tables").glob("*.md")} == few
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
    assert "better" not in set(table(folder, "turnover_differences").verdict)
