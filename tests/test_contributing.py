"""The worked examples of CONTRIBUTING.md: each is run as it stands there, and what it promises is seen to happen."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from turnover_nb.data.split import make_split
from turnover_nb.graph.audit import leak_audit
from turnover_nb.graph.graph import build_graph
from turnover_nb.models.gnn.losses import PREFERENCE_LOSSES
from turnover_nb.models.registry import REGISTRY, load_model, make_model, members
from turnover_nb.report.contents import SECTIONS
from turnover_nb.report.example import example_sweep
from turnover_nb.report.page import Page
from turnover_nb.synthetic.world import tiny_world

root = Path(__file__).resolve().parent.parent
text = (root / ".github" / "CONTRIBUTING.md").read_text("utf-8")
EXAMPLES = dict(re.findall(r"<!-- example: ([\w ]+) -->\n```python\n(.*?)```", text, re.S))


@pytest.fixture
def contributed(tmp_path, monkeypatch):
    "Import an example as a module of its own"
    monkeypatch.syspath_prepend(tmp_path)

    def make(example: str):
        name = f"contributed_{example}"
        (tmp_path / f"{name}.py").write_text(EXAMPLES[example], "utf-8")
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    return make


@pytest.fixture
def graph():
    survey = tiny_world().survey
    return build_graph(survey, make_split(survey, seed=0))


def test_a_model_is_run_audited_compared_and_reported(contributed, graph, tmp_path):
    from turnover_nb.cli import main

    try:
        contributed("model")
        model = make_model("neighbours", n_neighbors=(3,)).fit(graph)
        assert leak_audit(model, graph).passed and model.facts()["turnover"]["chosen"] == dict(n_neighbors=3)
        model.save(tmp_path / "model")
        again = load_model(tmp_path / "model").predict(graph).turnover
        np.testing.assert_array_equal(again, model.predict(graph).turnover)
        assert "neighbours" in members("baselines")
        options = ["--models", "majority,logistic,neighbours", "--employees", "80", "--seeds", "2", "--lang", "zh"]
        assert main(["run", *options, "--out", str(tmp_path / "out")]) == 0
    finally:
        REGISTRY.pop("neighbours", None)
    (tables,) = (tmp_path / "out").glob("main/run_*/report/tables")
    assert "最近邻" in (tables / "turnover.md").read_text("utf-8")
    assert "neighbours" in set(pd.read_csv(tables / "turnover_differences.csv").variant)


def test_a_loss_trains_by_its_name(contributed, graph):
    try:
        contributed("loss")
        short = dict(hidden=8, epochs=3)
        a, b = (make_model(f"hgt+preference_loss={x}", **short).fit(graph).history for x in ("exponential", "margin"))
        assert a[-1]["train_preference_loss"] != b[-1]["train_preference_loss"]
    finally:
        PREFERENCE_LOSSES.pop("exponential", None)


def test_a_section_is_written_in_both_languages(contributed, tmp_path):
    section = contributed("section").test_people
    assert section.name not in {s.name for s in SECTIONS}
    for lang, title in (("en", "Test people"), ("zh", "测试员工")):
        out = tmp_path / lang
        section.show(Page(example_sweep(), out, lang))
        assert title in (out / "tables" / "test_people.md").read_text("utf-8")


def test_a_type_of_feature_is_read_encoded_and_audited(tmp_path):
    "In a copy of the package, since the example adds to two of its modules"
    shutil.copytree(root / "turnover_nb", tmp_path / "turnover_nb", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(root / "nbs" / "codebooks", tmp_path / "nbs" / "codebooks")
    sections, kinds = (tmp_path / "turnover_nb" / "data" / f"{m}.py" for m in ("sections", "kinds"))
    s, k = sections.read_text("utf-8"), kinds.read_text("utf-8")
    union = re.search(r"^Feature = Annotated\[.*?^\]", s, re.M | re.S)[0]
    more = union.replace("| Multi", "| Multi | Cyclic").replace("'multi')", "'multi', 'cyclic')")
    sections.write_text(s.replace(union, f"{EXAMPLES['section of the codebook']}\n\n{more}"), "utf-8")
    table = re.search(r"^KINDS: .*", k, re.M)[0]
    more = table.replace("CategoricalKind())", "CategoricalKind(), CyclicKind())")
    kinds.write_text(k.replace(table, f"{EXAMPLES['kind']}\n\n{more}"), "utf-8")
    n = 120
    rng = np.random.default_rng(0)
    people = pd.DataFrame(
        dict(id=range(n), age=rng.integers(20, 60, n), month=rng.integers(1, 13, n), left=np.arange(n) % 4 == 0)
    )
    people.astype(dict(left=int)).to_csv(tmp_path / "people.csv", index=False)
    (tmp_path / "codebook.yaml").write_text(
        "version: 1\nname: made up\ntable: {file: people.csv}\nid: id\n"
        "features: {age: numeric, month: {type: cyclic, period: 12}}\n"
        'turnover: {column: left, positive: "1", negative: "0"}\n'
    )
    script = (
        "from turnover_nb.api import *\n"
        "survey = read_survey('.', 'codebook.yaml')\n"
        "graph = build_graph(survey, make_split(survey, seed=0))\n"
        "model = make_model('logistic').fit(graph)\n"
        "assert leak_audit(model, graph).passed\n"
        "from turnover_nb.data.people import PeopleEncoder\n"
        "encoder = PeopleEncoder.fit(survey, graph.split.train)\n"
        "X, names = encoder.transform(survey), encoder.names\n"
        "j = names.index('month: cosine')\n"
        "assert abs((X[:, j:j + 2] ** 2).sum(1) - 1).max() < 1e-5, names\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
