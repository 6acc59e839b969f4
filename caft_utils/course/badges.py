"""Links that open the notebooks on Binder and Colab, all made from one address.

    python -m caft_utils.course.badges

writes them to the README and to the first cell of each notebook, and writes the cell that installs the course
on Colab. Set REPOSITORY to the address at which you publish, and run it. The account in it is a placeholder
that nobody can register, so nothing is ever installed from a stranger's repository.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from caft_utils.disk import write_atomically

REPOSITORY = "YOUR_ACCOUNT/caft"  # owner and name on GitHub
ROOT = Path(__file__).parents[2]
INSTALL = "install"  # tag of the cell; its code computes nothing, so it is not part of the stamp
EXTRAS = {"14": "[nnsight]"}
README = re.compile(r"(<!-- badges -->\n).*?(<!-- /badges -->)", re.S)
LINKS = re.compile(r"^\[Open in Colab\].*\n\n", re.M)


def colab(notebook: str) -> str:
    """Return the address that opens a notebook (its file name) on Colab."""
    return f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/notebooks/{notebook}"


def binder(notebook: str) -> str:
    """Return the address that opens a notebook (its file name) on Binder."""
    return f"https://mybinder.org/v2/gh/{REPOSITORY}/HEAD?labpath=notebooks%2F{notebook}"


def badges(notebook: str) -> str:
    """Return both badges as Markdown, with pictures."""
    on_colab = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    on_binder = "[![Open on Binder](https://mybinder.org/badge_logo.svg)]"
    return f"{on_colab}({colab(notebook)})\n{on_binder}({binder(notebook)})"


def install_code(number: str) -> str:
    """Return the code of the cell that installs the course where Colab runs the notebook."""
    return f"""# Colab lacks the course: this installs it there. Everywhere else the cell does nothing.
import importlib.util
import subprocess
import sys

if "google.colab" in sys.modules and importlib.util.find_spec("caft_utils") is None:
    course = "caft-utils{EXTRAS.get(number, "")} @ git+https://github.com/{REPOSITORY}"
    subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", course])"""


def with_links(notebook: NotebookNode, name: str) -> NotebookNode:
    """Put the links below the title, and the cell that installs below the first cell.

    The links are text: a page that is read offline loads no picture from elsewhere.
    """
    title, _, rest = LINKS.sub("", notebook.cells[0].source).partition("\n\n")
    links = f"[Open in Colab]({colab(name)}) or [on Binder]({binder(name)}), or run it on your own machine."
    notebook.cells[0].source = f"{title}\n\n{links}\n\n{rest}"
    if INSTALL not in notebook.cells[1].metadata.get("tags", []):
        notebook.cells.insert(1, nbformat.v4.new_code_cell(metadata={"tags": [INSTALL]}))
    notebook.cells[1].source = install_code(name[:2])
    return notebook


def main() -> int:
    """Write links and cells from REPOSITORY."""
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        notebook = with_links(nbformat.read(path, as_version=4), path.name)
        write_atomically(path, nbformat.writes(notebook) + "\n")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    first = "00_orientation.ipynb"
    write_atomically(readme, README.sub(rf"\g<1>{badges(first)}\n\g<2>", text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
