"""Data of other shapes, described by a codebook alone, through the whole pipeline.

Interactions, several alternatives, managers, group and time splits."""

import textwrap
import numpy as np
import pandas as pd
import pytest
from turnover_nb.data.split import make_split
from turnover_nb.data.survey import read_survey
from turnover_nb.graph.graph import build_graph
from turnover_nb.models.registry import make_model
from turnover_nb.runs.run import run_one

SMALL = dict(hidden=16, heads=2, epochs=3)


def people(n, rng):
    d = pd.DataFrame(
        {
            "staff no": [f"p{i:03d}" for i in range(n)],
            "pay": rng.lognormal(8, 1, n).round(),
            "mood": rng.choice(["low", "mid", "high"], n),
            "site": rng.choice(["north", "south", "east", "west", "far"], n),
            "boss": [f"p{i // 8:03d}" if i >= 8 else "" for i in range(n)],
            "seen": pd.date_range("2024-01-01", periods=n).strftime("%d/%m/%Y"),
        }
    )
    d["left"] = np.where(rng.random(n) < np.where(d.mood == "low", 0.6, 0.2), "y", "n")
    return d


BASE = """
    name: a firm
    table: {file: staff.csv, separator: ";", encoding: utf-8}
    id: staff no
    features:
      pay: {type: numeric, unit: EUR}
      mood: {type: ordinal, levels: [low, mid, high]}
    relations:
      site: {column: site, kind: city}
      boss: {column: boss, kind: manager}
    turnover: {column: left, positive: y, negative: n}
    group: [site]
    time: {column: seen, format: "%d/%m/%Y"}
"""


@pytest.fixture
def firm(tmp_path):
    rng = np.random.default_rng(0)
    people(120, rng).to_csv(tmp_path / "staff.csv", sep=";", index=False)
    posts = pd.DataFrame(
        {
            "post": [f"j{i}" for i in range(30)],
            "salary": rng.normal(50, 9, 30).round(1),
            "place": rng.choice(["north", "south"], 30),
        }
    )
    posts.to_csv(tmp_path / "posts.csv", index=False)
    w = np.exp(posts.salary / 10)
    rows = [(f"p{i:03d}", p) for i in range(120) for p in rng.choice(posts.post, 4, replace=False, p=w / w.sum())]
    pd.DataFrame(rows, columns=["who", "post"]).to_csv(tmp_path / "clicks.csv", index=False)
    long = [
        (f"p{i:03d}", t, a, posts.salary[k], posts.place[k], 1)
        for i in range(120)
        for t in range(3)
        for a, k in enumerate(rng.choice(30, 4, replace=False))
    ]
    d = pd.DataFrame(long, columns=["who", "task", "alt", "salary", "place", "open"])
    d.loc[d.alt == 3, "open"] = rng.integers(0, 2, (d.alt == 3).sum())
    best = d.assign(u=d.salary / 10 + rng.gumbel(size=len(d))).query("open == 1").groupby(["who", "task"]).u.idxmax()
    d["took"] = 0
    d.loc[best, "took"] = 1
    d.to_csv(tmp_path / "tasks.csv", index=False)
    return tmp_path


def book(folder, more=""):
    (folder / "book.yaml").write_text("version: 1\n" + textwrap.dedent(BASE) + textwrap.dedent(more), "utf-8")
    return folder / "book.yaml"


INTERACTIONS = """
    preference:
      form: interactions
      file: clicks.csv
      employee: who
      post: post
      posts:
        file: posts.csv
        id: post
        attributes: {salary: {type: numeric}, place: {type: categorical, relation: site}}
"""
LONG = """
    preference:
      form: long
      file: tasks.csv
      employee: who
      task: task
      alternative: alt
      chosen: took
      chosen_value: "1"
      available: open
      attributes: {salary: {type: numeric}, place: {type: categorical, relation: site}}
"""


@pytest.mark.parametrize("more", [INTERACTIONS, LONG], ids=["interactions", "long"])
@pytest.mark.parametrize("preference", ["cold", "warm"])
def test_choices_of_other_shapes(firm, more, preference):
    survey = read_survey(firm, book(firm, more))
    split = make_split(survey, seed=0, preference=preference, n_known=2)
    accuracy = {}
    for model in ("majority", "conditional_logit", make_model("hgt", **SMALL)):
        r = run_one(survey, split, model, n_boot=20).results
        m = r.preference.metrics
        assert r.audit["passed"] and "mrr" in m and "top_2" in m and 0 < m["log_loss"].value < 5
        accuracy[r.variant] = m["accuracy"].value
    alternatives = 21 if more is INTERACTIONS else 4
    assert accuracy["conditional_logit"] > 1.3 / alternatives


@pytest.mark.parametrize("protocol, more", [("group", {}), ("time", {}), ("kfold", dict(fold=1))])
def test_other_splits(firm, protocol, more):
    survey = read_survey(firm, book(firm))
    split = make_split(survey, protocol, seed=0, **more)
    for model in ("logistic", make_model("hgt", **SMALL)):
        r = run_one(survey, split, model, n_boot=20).results
        assert r.audit["passed"] and r.turnover["aupr"].value > 0
        assert r.preference is None and r.split.protocol == protocol


def test_managers_become_edges(firm):
    survey = read_survey(firm, book(firm))
    graph = build_graph(survey, make_split(survey, seed=0))
    assert graph.at("test")["employee", "managed_by", "employee"].edge_index.shape[1] == 112
