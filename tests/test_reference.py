"""The committed report on the synthetic survey: one seed of it, made again, gives its numbers."""

import json
from pathlib import Path

import pandas as pd
import pytest
from turnover_nb.cli import main
from turnover_nb.models.registry import expand

reference = Path(__file__).resolve().parent.parent / "outputs" / "reference"
# training on another processor may end a little elsewhere
CLOSE = dict(majority=1e-9, logistic=1e-4, conditional_logit=1e-4, xgboost=0.01, mixed_logit=0.01, v6_twostage=0.03)
COMPARED = ["aupr", "auroc", "brier", "log_loss", "accuracy"]
KEY = ["variant", "task", "protocol", "metric"]


@pytest.fixture(scope="module")
def manifest():
    return json.loads((reference / "manifest.json").read_text("utf-8"))


def runs_of(folder):
    return pd.read_csv(folder / "tables" / "runs.csv")


def test_it_holds_all_models_and_ten_seeds(manifest):
    plan, t = manifest["plan"], runs_of(reference)
    assert plan["data"] == "synthetic" and plan["employees"] == 500 and plan["seeds"] == list(range(10))
    assert set(plan["models"]) == set(expand(("all",))) == set(t.variant)
    assert t.groupby(["variant", "protocol"]).seed.nunique().eq(10).all()


def test_one_seed_again(manifest, tmp_path):
    size = ["--employees", str(manifest["plan"]["employees"])]
    what = ["--models", ",".join(CLOSE), "--seeds", "4,", "--preference", "cold"]
    assert main(["run", *what, *size, "--out", str(tmp_path)]) == 0
    (folder,) = (tmp_path / "main").iterdir()
    new = runs_of(folder / "report").set_index(KEY).value
    old = runs_of(reference).query("seed == 4").set_index(KEY).value
    for model, tolerance in CLOSE.items():
        n = new.loc[[model]]
        n = n[n.index.get_level_values("metric").isin(COMPARED)]
        assert len(n) >= 2 and (n - old.loc[n.index]).abs().max() <= tolerance, model


def test_nothing_of_it_is_about_one_person():
    for f in (reference / "tables").glob("*.csv"):
        assert not {"employee", "person", "id"} & set(pd.read_csv(f, nrows=1).columns), f
    assert sum(f.stat().st_size for f in reference.rglob("*") if f.is_file()) < 13e6
