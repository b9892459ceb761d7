"""Make README.md from nbs/index.ipynb, or print a command of it.

    python .ci/readme.py             write README.md
    python .ci/readme.py --check     exit 1 when README.md is not what nbs/index.ipynb gives
    python .ci/readme.py --command test|run    print that one-line command
"""
import argparse, re, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent


def render() -> str:
    "Markdown of the index notebook without its hidden cells"
    import nbformat
    from nbconvert import MarkdownExporter
    nb = nbformat.read(root/"nbs"/"index.ipynb", 4)
    nb.cells = [c for c in nb.cells if not c.source.startswith("#| hide")]
    text, _ = MarkdownExporter().from_notebook_node(nb)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def command(which: str) -> str:
    "The command under the heading that holds `which`"
    found = re.findall(rf"<!-- command: {which} -->\s*```[a-z]*\n(.+?)\n```", (root/"README.md").read_text("utf-8"), re.S)
    if len(found) != 1: sys.exit(f"README.md holds {len(found)} commands marked {which!r}, expected 1")
    return found[0]


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--check", action="store_true")
    ap.add_argument("--command", choices=["run", "test"])
    a = ap.parse_args()
    if a.command: print(command(a.command)); sys.exit()
    text = render()
    if not a.check: (root/"README.md").write_text(text, "utf-8")
    elif text != (root/"README.md").read_text("utf-8"): sys.exit("README.md differs from nbs/index.ipynb: run `python .ci/readme.py`")
