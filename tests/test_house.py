"""The house keeps its rules: rooms import from rooms below only, a line holds one thought, every part is shown at work.

Each rule is a function over sources, so that a planted violation proves that it fires."""

import ast
import importlib.util
import json
import re
from pathlib import Path

import pytest

from turnover_nb.models.registry import REGISTRY

root = Path(__file__).resolve().parent.parent
package = root / "turnover_nb"
FLOORS = "core data synthetic evaluate graph quality choice tastes models runs report api cli".split()
modules = {
    p.relative_to(package).with_suffix("").as_posix().replace("/", "."): p.read_text("utf-8")
    for p in sorted(package.rglob("*.py"))
    if p.name not in ("__init__.py", "_modidx.py")
}
notebooks = sorted(
    p for p in (root / "nbs").rglob("*.ipynb") if "experiments" not in p.parts and p.name != "index.ipynb"
)
name = lambda p: p.relative_to(root / "nbs").as_posix()

spec = importlib.util.spec_from_file_location("run_notebooks", root / ".ci" / "notebooks.py")
run_notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_notebooks)


def imports(module: str, source: str, known) -> list:
    "(imported module, name or '') of every import from the package, lazy ones and those for type checking too"
    out = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [(a.name, "") for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ["turnover_nb", *module.split(".")][: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found = [(base, a.name) for a in node.names]
        else:
            continue
        for base, imported in found:
            base = base.removeprefix("turnover_nb").removeprefix(".") if base.startswith("turnover_nb") else None
            if base is None:
                continue
            whole = f"{base}.{imported}" if base else imported
            out.append((whole, "") if whole in known else (base, imported))
    return [(m, n) for m, n in out if m in known]


def floor(module: str) -> int:
    return FLOORS.index(module.split(".")[0])


def upward(sources: dict) -> list:
    "Imports from a higher floor"
    return [
        f"{m} imports {other}"
        for m, s in sources.items()
        for other, _ in imports(m, s, sources)
        if floor(other) > floor(m)
    ]


def circles(sources: dict) -> list:
    "Modules that import each other, directly or through others"
    below = {m: {other for other, _ in imports(m, s, sources)} - {m} for m, s in sources.items()}
    while leaves := [m for m, others in below.items() if not others]:
        below = {m: others - {*leaves} for m, others in below.items() if m not in leaves}
    reached = {m: set(others) for m, others in below.items()}
    for _ in below:
        reached = {m: others | {x for o in others for x in reached[o]} for m, others in reached.items()}
    return sorted(m for m in reached if m in reached[m])


def private(sources: dict) -> list:
    "Private names taken from another module"
    return [
        f"{m} imports {other}.{n}"
        for m, s in sources.items()
        for other, n in imports(m, s, sources)
        if n.startswith("_") or other.split(".")[-1].startswith("_")
    ]


def unused(source: str) -> list:
    "Names imported from the package and never used: an import for its side effects, or litter"
    tree = ast.parse(source)
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    used |= {
        w
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str)
        for w in re.findall(r"\w+", n.value)
    }
    taken = [
        (a.asname or a.name).split(".")[0]
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom) and (n.level or (n.module or "").startswith("turnover_nb"))
        for a in n.names
    ]
    bare = [
        a.name
        for n in ast.walk(tree)
        if isinstance(n, ast.Import)
        for a in n.names
        if a.name.startswith("turnover_nb.") and not a.asname
    ]
    return [n for n in taken if n not in used and n != "annotations"] + bare


def crowded(source: str) -> list:
    "Lines with more than two statements"
    at = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt):
            at[node.lineno] = at.get(node.lineno, 0) + 1
    return [line for line, n in at.items() if n > 2]


def defined(source: str) -> set:
    "Names that a cell defines: functions, classes, methods, constants"
    tree = ast.parse(source)
    out = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))}
    targets = [
        t
        for n in tree.body
        if isinstance(n, (ast.Assign, ast.AnnAssign))
        for t in getattr(n, "targets", None) or [n.target]
    ]
    return out | {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}


def silent(cells: list) -> list:
    "Export cells whose names no cell uses before the next export cell"
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    out = []
    for i, source in enumerate(code):
        if not re.search(r"^#\|\s*export", source, re.M) or not (names := defined(source)):
            continue
        shown = []
        for later in code[i + 1 :]:
            if re.search(r"^#\|\s*export", later, re.M):
                break
            shown.append(later)
        words = set(re.findall(r"\w+", "\n".join(shown)))
        if not names & words:
            out.append(f"{', '.join(sorted(names)[:4])}")
    return out


def test_imports_go_down_only():
    assert not upward(modules)
    planted = {"core.errors": "from ..report.words import Words", "report.words": "Words = 1"}
    assert upward(planted) == ["core.errors imports report.words"]
    lazy = {"data.split": "def f():\n    from turnover_nb.runs.run import run_one", "runs.run": ""}
    assert upward(lazy) == ["data.split imports runs.run"]


def test_no_circle():
    assert not circles(modules)
    planted = {
        "data.a": "from .b import x",
        "data.b": "from ..data.c import y",
        "data.c": "def f():\n    from .a import z",
    }
    assert circles(planted | {"data.d": "from .a import x"}) == ["data.a", "data.b", "data.c", "data.d"][:3]


def test_no_private_name_of_another_module():
    assert not private(modules)
    assert private({"data.a": "from .b import _secret", "data.b": ""}) == ["data.a imports data.b._secret"]


def test_no_import_without_use():
    assert not {m: u for m, s in modules.items() if (u := unused(s))}
    assert unused("from .b import x, y\nprint(x)") == ["y"]
    assert unused("import turnover_nb.report.page") == ["turnover_nb.report.page"]


def test_at_most_two_statements_a_line():
    tests = {p.name: p.read_text("utf-8") for p in (root / "tests").rglob("*.py")}
    assert not {m: c for m, s in (modules | tests).items() if (c := crowded(s))}
    assert crowded("a = 1; b = 2\na = 1; b = 2; c = 3") == [2]


@pytest.mark.parametrize("path", [p for p in notebooks if "tutorials" not in p.parts], ids=name)
def test_every_export_is_shown(path):
    assert not silent(json.loads(path.read_text("utf-8"))["cells"])


def test_an_export_that_is_not_shown_is_noticed():
    cell = lambda s: dict(cell_type="code", source=[s])
    export = "#| export\ndef double(x): return 2 * x"
    assert silent([cell(export), cell("#| export\ndef f(): pass"), cell("double(2), f()")]) == ["double"]
    assert silent([cell(export), cell("print(1)")]) == ["double"]
    assert not silent([cell(export), cell("double(2)")])


@pytest.mark.parametrize("path", notebooks, ids=name)
def test_what_a_cell_shows_is_committed(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = [("".join(c["source"]), c["outputs"]) for c in cells if c["cell_type"] == "code"]
    code = [(s, outputs) for s, outputs in code if not run_notebooks.skipped(s) and not s.startswith("#| export")]
    assert not [s for s, outputs in code if run_notebooks.shows(s) and not outputs]


def test_a_model_is_named_in_the_registry_alone():
    "A name that means something else too, as an encoder or a package, is let through; so is a made-up sweep"
    also = {"hgt", "mlp", "majority", "relational", "v5", "xgboost"}
    names = {*REGISTRY} - also

    def found(source):
        return {n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and n.value in names}

    listed = {m: f for m, s in modules.items() if m not in ("models.registry", "report.example") and (f := found(s))}
    assert not listed
    assert found("MODELS = ('majority', 'mixed_logit')") == {"mixed_logit"}


def fives(source: str) -> list:
    "Lines that compare something with 5 or call a number of people 5"
    tree = ast.parse(source)
    is_five = lambda n: isinstance(n, ast.Constant) and n.value == 5 and not isinstance(n.value, (float, bool))
    compared = [n for n in ast.walk(tree) if isinstance(n, ast.Compare) and any(map(is_five, [n.left, *n.comparators]))]
    named = [n for n in tree.body if isinstance(n, ast.Assign) and is_five(n.value)]
    return [n.lineno for n in compared + named]


def test_the_rule_of_five_is_in_one_place():
    assert not {m: f for m, s in modules.items() if m != "core.disclosure" and (f := fives(s))}
    assert fives("LEAST = 5\nsmall = n < 5\nx = n < 6") == [2, 1]
