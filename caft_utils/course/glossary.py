"""Link the terms of docs/glossary.md where a notebook uses them first.

    python -m caft_utils.course.glossary

adds the links that are missing, and a test finds them. A use is a whole word in a Markdown cell below the
title cell. Headings, code, formulas, quotations, links, reading lists, hints, solutions and quizzes do not
count.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from caft_utils.disk import write_atomically

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "glossary.md"
TARGET = "../docs/glossary.md#"
_ROW = re.compile(r'^\| <a id="([\w-]+)"></a>(.*?) \|', re.M)
# Everyday words, which are terms only as nouns.
_NOUNS = {"claim", "judge", "rank", "record", "reference", "tick", "trace", "window"}
_BEFORE_NOUN = r"(?:\b(?:an?|the|this|its|one|equal|of|as|each|every|that|same|by|per) )"
# Terms with another meaning elsewhere: the notebooks in which the word is the term.
_ONLY = {
    "window-of-attention": {"01", "08"},
    "window-of-text": {"03", "04", "05", "06", "07", "09"},
    "explanation": {"05", "06"},
    "detector": {"13"},
}
_PROTECTED = re.compile(
    r"^## (?:Links|Further reading)\b.*\Z|```.*?```|<details>.*?</details>|<!--.*?-->|^#.*?$|^>.*?$"
    r"|\$\$.*?\$\$|\$[^$\n]+\$|`[^`]*`"
    r"|!?\[[^\]]*\]\([^)]*\)|<[^>]+>|\"[^\"]{1,200}\"|https?://\S+",
    re.S | re.M,
)


@dataclass(frozen=True)
class Term:
    """A term of the glossary: the anchor of its row, and the names under which texts use it."""

    anchor: str
    names: tuple[str, ...]

    @property
    def pattern(self) -> re.Pattern[str]:
        """Return what finds a use; the group is the text to link."""
        parts = []
        for name in self.names:
            word = re.escape(name).replace(r"\ ", r"\s")
            if name == name.lower():
                word = f"[{name[0].upper()}{name[0]}]{word[len(re.escape(name[0])) :]}"
            before = _BEFORE_NOUN if name in _NOUNS else r"(?<![\w-])"
            parts.append(f"{before}(?P<use{len(parts)}>{word}s?)(?![\\w-])")
        return re.compile("|".join(parts))


def glossary_terms(page: Path = PAGE) -> list[Term]:
    """Return the terms of the page, those with the longest name first."""
    terms = []
    for anchor, cell in _ROW.findall(page.read_text(encoding="utf-8")):
        names = tuple(re.sub(r" *\(.*?\)", "", name).strip() for name in cell.split(", "))
        terms.append(Term(anchor, names))
    return sorted(terms, key=lambda term: -max(map(len, term.names)))


def unlinked(
    notebook: NotebookNode, number: str, terms: list[Term]
) -> list[tuple[Term, int, tuple[int, int]]]:
    """Return the terms that are used before a link to them: the term, the cell, and where the use stands."""
    missing = []
    for term in terms:
        if number not in _ONLY.get(term.anchor, {number}):
            continue
        if (use := _first_use(notebook, term)) and not _is_linked_before(notebook, term, *use):
            missing.append((term, *use))
    return missing


def link_first_uses(notebook: NotebookNode, number: str, terms: list[Term]) -> int:
    """Link each term at its first use, in place, and return how many links were added."""
    added = 0
    for term in terms:  # one at a time: a link moves what stands behind it, and protects its words
        for _, i, (start, end) in unlinked(notebook, number, [term]):
            text = notebook.cells[i].source
            link = f"[{text[start:end]}]({TARGET}{term.anchor})"
            notebook.cells[i].source = text[:start] + link + text[end:]
            added += 1
    return added


def _first_use(notebook: NotebookNode, term: Term) -> tuple[int, tuple[int, int]] | None:
    for i, cell in enumerate(notebook.cells):
        if i == 0 or cell.cell_type != "markdown" or ": three questions (" in cell.source:
            continue
        free = _PROTECTED.sub(lambda match: "\0" * len(match[0]), cell.source)
        if match := term.pattern.search(free):
            group = next(name for name, value in match.groupdict().items() if value)
            return i, match.span(group)
    return None


def _is_linked_before(notebook: NotebookNode, term: Term, cell: int, span: tuple[int, int]) -> bool:
    link = f"({TARGET}{term.anchor})"
    if any(link in each.source for each in notebook.cells[:cell] if each.cell_type == "markdown"):
        return True
    return link in notebook.cells[cell].source[: span[0]]


def main() -> int:
    """Add the links that are missing in the notebooks."""
    terms = glossary_terms()
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if added := link_first_uses(notebook, path.name[:2], terms):
            write_atomically(path, nbformat.writes(notebook) + "\n")
            print(f"{path.name}: {added} links added")
    return 0


if __name__ == "__main__":
    sys.exit(main())
