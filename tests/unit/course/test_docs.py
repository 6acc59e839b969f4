"""The guides: every term of the glossary is in its notebook, every message quoted is one of the package's."""

from __future__ import annotations

import re

import nbformat
import pytest
from helpers.paths import REPOSITORY

from caft_utils.course.records import load_record
from caft_utils.formatting import format_rate

DOCS = REPOSITORY / "docs"


def table_rows(page: str) -> list[list[str]]:
    """Return the cells of all table rows of a page, without headings and rulers."""
    lines = [line for line in (DOCS / page).read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    rows = [
        [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines
    ]
    rulers = [i for i, row in enumerate(rows) if set(row[0]) == {"-"}]
    return [row for i, row in enumerate(rows) if i not in rulers and i + 1 not in rulers]


TERMS = [[re.sub("<a .*?</a>", "", cell) for cell in row] for row in table_rows("glossary.md")]


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"[*`_]", "", text))


@pytest.fixture(scope="module")
def text_of():
    """Return a function: path of a notebook -> its text, code included."""
    texts = {}
    for path in (REPOSITORY / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        texts[path.name] = plain(" ".join(cell.source for cell in cells))
    return texts.__getitem__


def test_terms_of_the_glossary_are_in_the_notebooks_that_it_names(text_of):
    missing = []
    for term, meaning, where in TERMS:
        number, name = re.fullmatch(r"\[(\d\d)\]\(\.\./notebooks/(\1_\w+\.ipynb)\)", where).groups()
        first = re.sub(r"\s*\(.*?\)| score$", "", term.split(",")[0])
        flags = 0 if first.isupper() else re.I
        if not re.search(rf"\b{re.escape(first)}", text_of(name), flags):
            missing.append(f"{number}: {term}")
        assert meaning.endswith((".", "?"))
    assert not missing


def test_every_term_is_explained_once():
    terms = [term for term, *_ in TERMS]
    assert len(terms) == len(set(terms)) > 80


def test_messages_in_the_troubleshooting_page_are_those_of_the_package():
    sources = [*(REPOSITORY / "caft_utils").rglob("*.py"), REPOSITORY / "Makefile"]
    raw = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    joined = re.sub(
        r"\"\s*\n\s*f?\"|\"'?\s*\n\s*f?'|'\s*\n\s*f?[\"']", "", raw
    )  # literals over several lines
    quoted = [piece for row in table_rows("troubleshooting.md") for piece in re.findall(r"`([^`]+)`", row[0])]
    parts = [part.strip() for piece in quoted for part in re.split(r"\.\.\.", piece)]
    unknown = [part for part in parts if len(part) > 12 and part not in raw and part not in joined]
    assert not unknown


def test_links_of_the_guides_lead_somewhere():
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_figures_to_expect_are_those_of_the_records():
    figures = [row for row in table_rows("teaching.md") if row[-1].count("; ") >= 3]
    assert len(figures) >= 20
    for _, quantity, shown, source in figures:
        assert shown == format_rate(*rate_of(*source.split("; "))), quantity


def rate_of(record: str, *names: str) -> list[float]:
    """Return [value, low, high] of the row that has all names but the last, which is the rate's."""
    rows = load_record(record)["rows"]
    *wanted, rate = names
    found = [row for row in rows if all(name in row.values() for name in wanted)]
    assert len(found) == 1, f"{record}: {len(found)} rows have {wanted}"
    return found[0][rate] if rate in found[0] else found[0]["rates"][rate]
