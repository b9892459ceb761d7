"""Make outputs/reference from a finished sweep of all models on the synthetic survey:

    turnover-nb run --models all --seeds 10 --experiment reference
    python .ci/reference.py outputs/reference/run_<time>

Kept is what a reader needs: the page, the tables as Markdown and CSV, and the pictures of README.md."""

import json
import shutil
import sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
FIGURES = ("path.png",)


def main_models() -> set[str]:
    "The models of the main table and figure: no variants"
    from turnover_nb.models.registry import expand
    from turnover_nb.report.words import BAYES

    return {*expand(("baselines", "choice", "presets")), BAYES}


def main_table(out: Path, sweep: Path):
    "The full comparison, of those models alone"
    from turnover_nb.report.words import EN

    lines = (sweep / "report" / "tables" / "comparison.md").read_text("utf-8").splitlines()
    keep = {EN.model(v) for v in main_models()}
    shown = lambda line: line.startswith(f"| {EN('model')}") or line.split(" | ")[0][2:] in keep
    rows = [line for line in lines if not line.startswith("| ") or shown(line)]
    (out / "tables" / "main.md").write_text("\n".join(rows) + "\n", "utf-8")


def main_figure(out: Path, sweep: Path):
    "AUPR of those that score turnover"
    import matplotlib
    import pandas as pd

    matplotlib.use("agg")
    from turnover_nb.report.figures import dot_figure
    from turnover_nb.report.shown import save_figure

    t = pd.read_csv(sweep / "report" / "tables" / "turnover.csv")
    number = lambda x: None if pd.isna(x) else x
    rows = {
        r.variant: dict(aupr=dict(value=r.value, low=number(r.low), high=number(r.high)))
        for r in t[t.metric == "aupr"].itertuples()
        if r.variant in main_models()
    }
    note = f"n = {int(t.n.dropna().iloc[0])} test people per seed, {int(t.seeds.dropna().iloc[0])} seeds"
    fig = dot_figure(rows, "aupr", "AUPR (mean over seeds, 95 % interval by person)", note=note)
    save_figure(fig, out, "main", "")


def keep(out: Path, sweep: Path):
    "Copy what a reader needs, in place of what was there"
    report = sweep / "report"
    if not (report / "report.html").exists():
        sys.exit(f"{report}/report.html: missing; expected the folder of a finished sweep")
    for folder in ("tables", "figures"):
        shutil.rmtree(out / folder, ignore_errors=True)
        (out / folder).mkdir(parents=True)
    for end in ("csv", "md"):
        for f in sorted((report / "tables").glob(f"*.{end}")):
            shutil.copy(f, out / "tables")
    for f in FIGURES:
        shutil.copy(report / "figures" / f, out / "figures")
    shutil.copy(report / "report.html", out)
    manifest = json.loads((sweep / "manifest.json").read_text("utf-8"))
    text = json.dumps({k: v for k, v in manifest.items() if k != "runs"}, indent=1, ensure_ascii=False)
    (out / "manifest.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    sweep, out = Path(sys.argv[1]), root / "outputs" / "reference"
    keep(out, sweep)
    main_table(out, sweep)
    main_figure(out, sweep)
