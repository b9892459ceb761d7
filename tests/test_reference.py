"""The committed report on the synthetic survey: one seed of it, made again, gives its numbers."""

import json
from pathlib import Path
import pandas as pd, pytest
from turnover_nb.cli import main
from turnover_nb.runs.sweep import expand

reference = Path(__file__).resolve().parent.parent / "outputs" / "reference"
CLOSE = dict(
    majority=1e-9, logistic=1e-4, conditional_logit=1e-4, xgboost=0.01, mixed_logit=0.01, v6_twostage=0.03
)  # training on another processor may end a little elsewhere


@pytest.fixture(scope="module")
def manifest():
    return json.loads((reference / "manifest.json").read_text("utf-8"))


def test_it_holds_all_models_and_ten_seeds(manifest):
    plan, t = manifest["plan"], pd.read_csv(reference / "tables" / "runs.csv")
    assert plan["data"] == "synthetic" and plan["employees"] == 500 and plan["seeds"] == list(range(10))
    assert set(plan["models"]) == set(expand(("all",))) == {v.removesuffix("_warm") for v in t.variant}
    assert t.groupby("variant").seed.nunique().eq(10).all()


def test_one_seed_again(manifest, tmp_path):
    assert (
        main(
            [
                "run",
                "--models",
                ",".join(CLOSE),
                "--seeds",
                "4,",
                "--preference",
                "cold",
                "--employees",
                str(manifest["plan"]["employees"]),
                "--out",
                str(tmp_path),
            ]
        )
        == 0
    )
    (folder,) = (tmp_path / "main").iterdir()
    key = ["variant", "task", "protocol", "metric"]
    new = pd.read_csv(folder / "report" / "tables" / "runs.csv").set_index(key).value
    old = pd.read_csv(reference / "tables" / "runs.csv").query("seed == 4").set_index(key).value
    for model, tolerance in CLOSE.items():
        n = new.loc[[model]]
        n = n[n.index.get_level_values("metric").isin(["aupr", "auroc", "brier", "log_loss", "accuracy"])]
        assert len(n) >= 2 and (n - old.loc[n.index]).abs().max() <= tolerance, model


def test_nothing_of_it_is_about_one_person():
    for f in (reference / "tables").glob("*.csv"):
        assert not {"employee", "person", "id"} & set(pd.read_csv(f, nrows=1).columns), f
    assert sum(f.stat().st_size for f in reference.rglob("*") if f.is_file()) < 13e6
