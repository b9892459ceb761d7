"""Make outputs/reference from a finished sweep of all models on the synthetic survey:

    turnover-nb run --models all --seeds 10 --experiment reference
    python .ci/reference.py outputs/reference/run_<time>

Kept is what a reader needs: the page, the tables as Markdown and CSV, and the pictures of README.md."""

import json, shutil, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
FIGURES = ("path.png",)


def main_table(out: Path, sweep: Path):
    "The full comparison, of the baselines and presets alone"
    import pandas as pd
    from turnover_nb.models.gnn.config import GROUPS
    from turnover_nb.report.figures import label

    lines = (sweep / "report" / "tables" / "comparison.md").read_text("utf-8").splitlines()
    keep = {label(m) for m in (*GROUPS["baselines"], *GROUPS["choice"], *GROUPS["presets"], "bayes")}
    rows = [
        line
        for line in lines
        if not line.startswith("| ") or line.startswith("| model") or line.split(" | ")[0][2:] in keep
    ]
    (out / "tables" / "main.md").write_text("\n".join(rows) + "\n", "utf-8")
    main_figure(
        pd.read_csv(sweep / "report" / "tables" / "turnover.csv"),
        {*GROUPS["baselines"], *GROUPS["presets"], "bayes"},
        out,
    )


def main_figure(t, keep: set, out: Path):
    "AUPR of the same models"
    import matplotlib

    matplotlib.use("agg")
    from turnover_nb.report.figures import dot_figure
    from turnover_nb.report.report import figure

    number = lambda x: None if x != x else x
    rows = {
        r.variant: dict(aupr=dict(value=r.value, low=number(r.low), high=number(r.high)))
        for r in t[t.metric == "aupr"].itertuples()
        if r.variant in keep
    }
    n, seeds = int(t.n.dropna().iloc[0]), int(t.seeds.dropna().iloc[0])
    figure(
        dot_figure(
            rows,
            "aupr",
            "AUPR (mean over seeds, 95 % interval by person)",
            note=f"n = {n} test people per seed, {seeds} seeds",
        ),
        out,
        "main",
        "",
    )


if __name__ == "__main__":
    sweep, out = Path(sys.argv[1]), root / "outputs" / "reference"
    report = sweep / "report"
    if not (report / "report.html").exists():
        sys.exit(f"{report}/report.html: missing; expected the folder of a finished sweep")
    for d in ("tables", "figures"):
        shutil.rmtree(out / d, ignore_errors=True)
        (out / d).mkdir(parents=True)
    for f in sorted([*(report / "tables").glob("*.csv"), *(report / "tables").glob("*.md")]):
        shutil.copy(f, out / "tables")
    for f in FIGURES:
        shutil.copy(report / "figures" / f, out / "figures")
    shutil.copy(report / "report.html", out)
    m = json.loads((sweep / "manifest.json").read_text("utf-8"))
    (out / "manifest.json").write_text(
        json.dumps({k: v for k, v in m.items() if k != "runs"}, indent=1, ensure_ascii=False) + "\n", "utf-8"
    )
    main_table(out, sweep)
