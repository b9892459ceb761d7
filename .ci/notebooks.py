"""Run notebooks as JupyterLab would, top to bottom, each in its own process and folder.

    python .ci/notebooks.py [PATH …]            run, and write the outputs into the notebooks
    python .ci/notebooks.py --check [PATH …]    run, and compare with the outputs there; exit 1 where they differ

Without PATH: all library notebooks and tutorials. Experiments have parameters and are run by papermill instead.
What may differ between machines may differ here: the pixels of a figure, and the last digits of a number.
"""

import argparse
import ast
import json
import multiprocessing
import os
import re
import sys
import time
from pathlib import Path

root = Path(__file__).resolve().parent.parent
KEPT = ("text/markdown", "text/html", "image/png", "text/plain")  # the richest forms that a code host shows
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
HEAVY = (
    "sklearn.linear_model",
    "sklearn.ensemble",
    "torch_geometric.nn",
    "xgboost",
    "turnover_nb.cli",
    "turnover_nb.report.contents",
)


def notebooks(paths: list) -> list:
    "The notebooks in the given files and folders, without experiments and the index"
    found = [q for p in paths or [root / "nbs"] for q in ([p] if p.is_file() else sorted(p.rglob("*.ipynb")))]
    return [p.resolve() for p in found if "experiments" not in p.parts and ".ipynb_checkpoints" not in p.parts]


def skipped(source: str) -> bool:
    "Is a cell not to be run? One that exports the notebook is for JupyterLab"
    return "nbdev_export(" in source or bool(re.search(r"^#\|\s*eval:\s*false", source, re.M))


def kept(output: dict) -> dict | None:
    "An output without what a re-run would change; None for one that no reader needs"
    if output["output_type"] == "stream":
        return output if output["name"] == "stdout" else None
    data = {k: v for k, v in output["data"].items() if k in KEPT}
    if len(data) > 1 and ("text/html" not in data or "".join(data.get("text/plain", "")).startswith("<")):
        data.pop("text/plain", None)  # of a figure, of Markdown, or the name of an object that shows itself as HTML
    if not data:
        return None
    out = dict(output_type=output["output_type"], data=data, metadata={})
    return out | (dict(execution_count=None) if output["output_type"] == "execute_result" else {})


def interactive(outputs: list) -> bool:
    "Do outputs hold a widget, which lives only where the notebook runs?"
    return any("widget" in kind for o in outputs for kind in o.get("data", {}))


def execute(path: Path) -> tuple:
    "A notebook with new outputs, and the error of the cell that failed or ''"
    from execnb.shell import CaptureShell

    nb = json.loads(path.read_text("utf-8"))
    os.chdir(path.parent)
    shell = CaptureShell(mpl_format="png")
    for number, cell in enumerate(nb["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or skipped(source):
            continue
        outputs = shell.run(source)
        if shell.exc:
            trace = "".join(next(o for o in outputs if o["output_type"] == "error")["traceback"])
            return nb, f"{path.relative_to(root)}, cell {number}:\n{source}\n\n{trace}"
        cell["outputs"] = [] if interactive(outputs) else [o for x in outputs if (o := kept(x))]
        cell["execution_count"] = None
    return nb, ""


def shows(source: str) -> bool:
    "Does a cell end in an expression whose value is shown, or draw or print something?"
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return False  # a magic
    if not body or not isinstance(body[-1], ast.Expr) or source.rstrip().endswith(";"):
        return False
    silent = ("test_", "assert")
    call = body[-1].value.func if isinstance(body[-1].value, ast.Call) else None
    name = getattr(call, "id", getattr(call, "attr", ""))
    return not name.startswith(silent)


def texts(cell: dict) -> list:
    "Texts of a cell's outputs; of a figure only that there is one"
    out = []
    for o in cell.get("outputs", []):
        data = o.get("data", {"text": o.get("text", "")})
        out += ["a figure" if k.startswith("image/") else f"{k}: {''.join(v)}" for k, v in sorted(data.items())]
    return out


def alike(a: str, b: str) -> bool:
    "Equal but for the last digits of numbers?"
    if NUMBER.sub("#", a) != NUMBER.sub("#", b):
        return False
    pairs = zip(map(float, NUMBER.findall(a)), map(float, NUMBER.findall(b)))
    return all(abs(x - y) <= 0.02 * max(1.0, abs(x), abs(y)) for x, y in pairs)


def changes(old: dict, new: dict) -> list:
    "Cells whose outputs are others than before"
    out = []
    for number, (a, b) in enumerate(zip(old["cells"], new["cells"])):
        x, y = texts(a), texts(b)
        if len(x) != len(y) or not all(map(alike, x, y)):
            out.append(f"cell {number}:\n  committed: {x}\n  now:       {y}")
    return out


def work(job: tuple) -> tuple:
    "Run one notebook; write it, or compare it"
    path, check = job
    start, old = time.perf_counter(), json.loads(path.read_text("utf-8"))
    new, error = execute(path)
    if not error and check:
        error = "".join(f"{path.relative_to(root)}, {c}\n" for c in changes(old, new))
    elif not error:
        text = json.dumps(new, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        if text != path.read_text("utf-8"):
            path.write_text(text, "utf-8")
    return path, error, time.perf_counter() - start


def workers() -> multiprocessing.context.BaseContext:
    "Forks whose processes may fork in turn, as a notebook does that runs a sweep"
    context = multiprocessing.get_context("fork")

    class Parent(context.Process):
        daemon = property(lambda self: False, lambda self, value: None)

    context.Process = Parent
    return context


def prepare():
    "What forked processes share: imported libraries, and the made-up sweep that the report's notebooks show"
    for module in HEAVY:
        __import__(module)
    from turnover_nb.report.example import example_sweep

    example_sweep()


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("paths", nargs="*", type=Path)
    p.add_argument("--check", action="store_true", help="compare instead of writing")
    p.add_argument("--workers", type=int, default=2)
    a = p.parse_args()
    os.environ |= dict(OMP_NUM_THREADS="1", MPLBACKEND="agg")
    jobs = [(path, a.check) for path in notebooks(a.paths)]
    if len(jobs) > 2:
        prepare()
    failed = 0
    with workers().Pool(a.workers, maxtasksperchild=1) as pool:
        for path, error, seconds in pool.imap_unordered(work, jobs, chunksize=1):
            print(f"{seconds:6.1f} s  {path.relative_to(root)}{'  FAILED' if error else ''}", flush=True)
            failed += bool(error)
            print(error, end="")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
