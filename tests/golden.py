"""Prove that a change of the code changes no result: make the files of a set of runs twice, and compare their bits.

    python tests/golden.py make BEFORE        # at the old commit
    python tests/golden.py make AFTER         # at the new one, on the same machine
    python tests/golden.py compare BEFORE AFTER

`--only NAME` makes one part. Parts whose data are absent (the real survey) are skipped and said to be.
What is compared: results.json, every Parquet file, training histories, checkpoints, report tables and what the other
commands print. Files of the time when the relational model was called `best` and the protocol stood in a variant's
name are compared with today's (`renamed`, `today`).

What is meant to differ from that time: `schema_version`; the settings in checkpoints, which are now those of one model;
the audit of models that read no graph (then the graph's, now their own); the schema of results.json; runs.csv says the
protocol of turnover rows, too. Anything else is a mistake.
"""

import argparse
import contextlib
import io
import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
SHORT = ["--set", "epochs=8", "--set", "stage2_epochs=7"]
CHOICE = ["conditional_logit", "latent_class", "mixed_logit", "hierarchical"]
SURVEY = ["--data", f"{REAL}/survey", "--codebook", "job_choice_survey"]
MBA = ["--data", f"{REAL}/mba_job_conjoint", "--codebook", "mba_job_conjoint"]
IBM = ["--data", f"{REAL}/ibm_hr_attrition", "--codebook", "ibm_hr_attrition"]

SWEEPS = dict(
    synthetic=["--models", "all", "--employees", "150", "--seeds", "1", *SHORT],
    folds=[
        "--models",
        "logistic,conditional_logit,hgt",
        "--employees",
        "120",
        "--seeds",
        "1",
        "--protocol",
        "kfold",
        "--folds",
        "2",
        *SHORT,
    ],
    firms=[
        "--models",
        "logistic,hgt+colleagues=true",
        "--employees",
        "150",
        "--seeds",
        "2",
        "--protocol",
        "group",
        "--group",
        "employer",
        *SHORT,
    ],
    weighted=["--models", "baselines,hgt", "--employees", "300", "--seeds", "1", "--quality", "weight", *SHORT],
    survey=["--models", "baselines,choice,presets", "--seeds", "1", "--known", "3", *SHORT, *SURVEY],
    mba=["--models", "majority,choice,hgt,v6_twostage", "--seeds", "1", *SHORT, *MBA],
    ibm=["--models", "logistic,random_forest,hgt", "--seeds", "1", *SHORT, *IBM],
)
COMMANDS = dict(
    check=["check", *SURVEY],
    quality=["quality", "--employees", "300"],
    tastes=["tastes", "--employees", "150", "--resamples", "20"],
    codebook_schema=["schema", "codebook"],
    results_schema=["schema", "results"],
)
# these name the commit, the time or the machine; and audit.csv counts the audits, see above
IGNORED = {"environment.json", "run.ipynb", "report.ipynb", "manifest.json", "report.html", ".lock"}
IGNORED |= {"environment.csv", "reforms.csv", "audit.csv"}
COMPARED = {".json", ".parquet", ".pt", ".csv", ".txt"}


def present(arguments: list) -> bool:
    "Are the data that a command names on this machine?"
    return "--data" not in arguments or Path(arguments[arguments.index("--data") + 1]).exists()


def run(arguments: list) -> str:
    "What a command prints; SystemExit where it fails"
    from turnover_nb.cli import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        failed = main(arguments)
    if failed:
        sys.exit(f"turnover-nb {' '.join(arguments)}: exit status {failed}")
    return said.getvalue()


def make(folder: Path, only: str = ""):
    "Make all parts in `folder`, one folder each"
    for name, arguments in (SWEEPS | COMMANDS).items():
        if only and name not in only.split(","):
            continue
        if not present(arguments):
            print(f"{name}: skipped, its data are absent")
            continue
        place = folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        if name in COMMANDS:
            (place / "said.txt").write_text(run(arguments), "utf-8")
        else:
            run(["run", *arguments, "--out", str(place), "--experiment", "golden"])
            made = next((place / "golden").iterdir())
            for f in made.iterdir():
                shutil.move(f, place / f.name)
            shutil.rmtree(place / "golden")
        print(f"{name}: made", flush=True)


def read(path: Path):
    "Content of a file in a form that compares"
    if path.suffix == ".json":
        return json.loads(path.read_text("utf-8"))
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".pt":
        import torch

        return torch.load(path, weights_only=True)
    return path.read_text("utf-8")


def differences(a, b, where: str = "") -> list:
    "Places where two contents differ, in words"
    if isinstance(a, dict) and isinstance(b, dict):
        lost = [f"{where}.{k}: only before" for k in a if k not in b]
        new = [f"{where}.{k}: only after" for k in b if k not in a]
        return lost + new + [d for k in a if k in b for d in differences(a[k], b[k], f"{where}.{k}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b)) for d in differences(x, y, f"{where}[{i}]")]
    if isinstance(a, pd.DataFrame):
        return [] if a.equals(b) else [f"{where}: {table_difference(a, b)}"]
    if type(a).__module__ == "torch":
        same = a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all()) if hasattr(a, "shape") else a == b
        return [] if same else [f"{where}: tensors differ"]
    if a == b or (a != a and b != b):
        return []
    return [f"{where}: {str(a)[:80]!r} before, {str(b)[:80]!r} after"]


def table_difference(a: pd.DataFrame, b: pd.DataFrame) -> str:
    "How two tables differ"
    if list(a) != list(b) or len(a) != len(b):
        return f"{len(a)} rows of {list(a)} before, {len(b)} of {list(b)} after"
    return ", ".join(f"{c}: {int((a[c] != b[c]).sum())} rows" for c in a if not a[c].equals(b[c]))


def plain(variant: str) -> str:
    "Today's name of a variant"
    return re.sub(r"^best(?=$|_)", "relational", variant.removesuffix("_warm"))


def renamed(path: str, before: Path) -> str:
    "Today's path of a file: a run with the preference task lies in a folder of its protocol"
    part, *rest = path.split("/")
    path = path.replace("groups_best.", "groups_relational.")
    if len(rest) < 3 or not (before / part / rest[0] / rest[1] / "results.json").exists():
        return path
    variant, run, file = rest
    results = read(before / part / variant / run / "results.json")
    protocol = [results["preference"]["protocol"]] if results["preference"] else []
    return "/".join([part, plain(variant), *protocol, run, file])


def today(path: Path, content):
    "The content of an old file as it is written today, without what is meant to differ"
    if path.name == "results.json":
        content = content | dict(variant=plain(content["variant"]), model=plain(content["model"]))
        reads_no_graph = "chosen" in str(content["facts"])
        return {k: v for k, v in content.items() if k != "schema_version" and not (k == "audit" and reads_no_graph)}
    if path.suffix == ".pt":
        return {k: v for k, v in content.items() if k not in ("config", "format")}
    if path.name == "runs.csv":  # the protocol of a run is said of its turnover, too
        content = re.sub(r"^([^,\n]*_warm,[^,\n]*,[^,\n]*,turnover),,", r"\1,warm,", content, flags=re.M)
        content = re.sub(r"^([^,\n]*,[^,\n]*,[^,\n]*,turnover),,", r"\1,cold,", content, flags=re.M)
    if path.suffix == ".csv":
        return re.sub(r"\bbest(?=\b|_)", "relational", re.sub(r"_warm(?=[,\n])", "", content))
    return content


def compare(before: Path, after: Path, only: str = "") -> int:
    "Print what differs; the number of files that do"
    files = {
        p.relative_to(before).as_posix() for p in before.rglob("*") if p.suffix in COMPARED and p.name not in IGNORED
    }
    if only:
        files = {f for f in files if f.split("/")[0] in only.split(",")}
    bad = 0
    for name in sorted(files):
        old, new = before / name, after / renamed(name, before)
        found = differences(today(old, read(old)), today(new, read(new))) if new.exists() else [": missing after"]
        bad += bool(found)
        for d in found[:5]:
            print(f"{name}{d}")
    print(f"{len(files) - bad} of {len(files)} files are equal")
    return bad


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("action", choices=("make", "compare"))
    p.add_argument("folders", nargs="+", type=Path)
    p.add_argument("--only", default="", help="names of parts, with commas")
    a = p.parse_args()
    if a.action == "make":
        make(a.folders[0], a.only)
    else:
        sys.exit(bool(compare(*a.folders, a.only)))
