"""Make README.md from nbs/index.ipynb, or print a command of it.

What stands between `<!-- from: FILE -->` and `<!-- end -->` is that file's text, in both.

python .ci/readme.py             write README.md, and the quoted files into nbs/index.ipynb
python .ci/readme.py --check     exit 1 when README.md is not what nbs/index.ipynb gives
python .ci/readme.py --command test|run    print that one-line command
"""

import argparse
import re
import sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent


def quote(text: str) -> str:
    "The text with the quoted files as they are now"
    return re.sub(
        r"(<!-- from: (\S+) -->\n).*?(\n<!-- end -->)",
        lambda m: m[1] + (root / m[2]).read_text("utf-8").strip() + m[3],
        text,
        flags=re.S,
    )


def render(write: bool) -> str:
    "Markdown of the index notebook without its hidden cells"
    import nbformat
    from nbconvert import MarkdownExporter

    path = root / "nbs" / "index.ipynb"
    nb = nbformat.read(path, 4)
    old = [c.source for c in nb.cells]
    for c in nb.cells:
        if c.cell_type == "markdown":
            c.source = quote(c.source)
    if write and [c.source for c in nb.cells] != old:
        path.write_text(nbformat.writes(nb) + "\n", "utf-8")
    nb.cells = [c for c in nb.cells if not c.source.startswith("#| hide")]
    text, _ = MarkdownExporter().from_notebook_node(nb)
    return re.sub(r"\n{3,}", "\n\n", text.replace("](../", "](")).strip() + "\n"


def command(which: str) -> str:
    "The command under the heading that holds `which`"
    found = re.findall(
        rf"<!-- command: {which} -->\s*```[a-z]*\n(.+?)\n```", (root / "README.md").read_text("utf-8"), re.S
    )
    if len(found) != 1:
        sys.exit(f"README.md holds {len(found)} commands marked {which!r}, expected 1")
    return found[0]


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--check", action="store_true")
    ap.add_argument("--command", choices=["run", "test"])
    a = ap.parse_args()
    if a.command:
        print(command(a.command))
        sys.exit()
    text = render(not a.check)
    if not a.check:
        (root / "README.md").write_text(text, "utf-8")
    elif text != (root / "README.md").read_text("utf-8"):
        sys.exit("README.md differs from nbs/index.ipynb: run `python .ci/readme.py`")
