"""The repository keeps its own rules: notebooks and package in sync, notebooks clean, README current, nothing stray."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
import pytest

root = Path(__file__).resolve().parent.parent
notebooks = sorted(p for p in (root / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
library = [p for p in notebooks if not {"experiments", "tutorials"} & {*p.parts} and p.name != "index.ipynb"]
experiments = [p for p in notebooks if p.parent.name == "experiments"]
name = lambda p: p.relative_to(root / "nbs").as_posix()
LAID_OUT = ("nbs", "tests", "setup.py", ".ci")
tool = lambda t: str(Path(sys.executable).with_name(t))


def code_cells(path):
    return [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "A copy of the sources, on which nbdev may write"
    dest = tmp_path_factory.mktemp("copy") / "repo"
    shutil.copytree(
        root,
        dest,
        ignore=shutil.ignore_patterns(
            ".git", ".venv*", "outputs", "__pycache__", "*.egg-info", ".pytest_cache", "build"
        ),
    )
    subprocess.run(["git", "init", "-q", str(dest)], check=True)
    return dest


def tree(folder, pattern):
    return {
        p.relative_to(folder).as_posix(): p.read_text("utf-8")
        for p in sorted(folder.rglob(pattern))
        if "__pycache__" not in p.parts
    }


def differing(a, b):
    return sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))


def test_package_is_what_the_notebooks_export(copy):
    before = tree(copy / "turnover_nb", "*.py")
    for p in (copy / "turnover_nb").rglob("*.py"):
        if p.name not in ("__init__.py",):
            p.unlink()
    subprocess.run([tool("nbdev_export")], cwd=copy, check=True, capture_output=True)
    assert not differing(before, tree(copy / "turnover_nb", "*.py")), "edit the notebook, then run nbdev_export"


def test_an_edited_module_is_noticed(copy):
    "The guard above fires"
    f = copy / "turnover_nb" / "core" / "tables.py"
    good = f.read_text("utf-8")
    f.write_text(good + "\n# edited by hand\n", "utf-8")
    before = tree(copy / "turnover_nb", "*.py")
    subprocess.run([tool("nbdev_export")], cwd=copy, check=True, capture_output=True)
    assert differing(before, tree(copy / "turnover_nb", "*.py")) == ["core/tables.py"]


def test_notebooks_are_clean(copy):
    before = tree(copy / "nbs", "*.ipynb")
    subprocess.run([tool("nbdev_clean")], cwd=copy, check=True, capture_output=True)
    assert not differing(before, tree(copy / "nbs", "*.ipynb")), "run nbdev_clean"


def test_cleaning_keeps_the_parameters_tag(copy):
    subprocess.run([tool("nbdev_clean")], cwd=copy, check=True, capture_output=True)
    for p in (copy / "nbs" / "experiments").glob("*.ipynb"):
        assert sum("parameters" in c["metadata"].get("tags", []) for c in code_cells(p)) == 1, p.name


@pytest.mark.parametrize("path", experiments, ids=name)
def test_an_experiment_has_one_parameters_cell_and_defines_nothing(path):
    cells = code_cells(path)
    assert sum("parameters" in c["metadata"].get("tags", []) for c in cells) == 1
    assert not [c for c in cells if re.search(r"^\s*(def|class) ", "".join(c["source"]), re.M)]


def test_readme_comes_from_the_index_notebook():
    subprocess.run([sys.executable, str(root / ".ci" / "readme.py"), "--check"], check=True)


def test_ci_runs_the_readmes_test_command():
    out = subprocess.run(
        [sys.executable, str(root / ".ci" / "readme.py"), "--command", "test"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "pip install" in out and "pytest" in out and "\n" not in out.strip()
    assert "--command test" in (root / ".ci" / "run").read_text("utf-8")


def test_ruff():
    subprocess.run(
        [tool("ruff"), "check", "--config", str(root / ".ruff.toml"), "turnover_nb", "nbs", "tests", "setup.py", ".ci"],
        cwd=root,
        check=True,
    )


def test_top_level_is_as_fixed():
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    top = {p.split("/")[0] for p in tracked.stdout.splitlines()}
    assert {p for p in top if not p.startswith(".")} <= {
        "nbs",
        "turnover_nb",
        "settings.ini",
        "outputs",
        "tests",
        "setup.py",
        "README.md",
        "LICENSE",
    }


def test_notebooks_run_and_show_what_is_committed():
    "Each library notebook and tutorial top to bottom, in its own process; a re-run changes nothing but what may change"
    done = subprocess.run([sys.executable, ".ci/notebooks.py", "--check"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]


def test_code_is_laid_out_by_ruff():
    command = [tool("ruff"), "format", "--check", "--config", str(root / ".ruff.toml"), *LAID_OUT]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize(
    "module",
    [
        "data.survey",
        "data.codebook",
        "data.split",
        "data.features",
        "synthetic.world",
        "evaluate.metrics",
        "evaluate.compare",
        "cli",
    ],
)
def test_light_modules_do_not_import_torch(module):
    code = f"import sys, turnover_nb.{module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
