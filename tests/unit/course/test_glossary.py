"""Terms are linked at their first use: what counts as a use, what is left alone, and the notebooks."""

from __future__ import annotations

import nbformat
import pytest
from helpers.paths import REPOSITORY

from caft_utils.course.glossary import Term, glossary_terms, link_first_uses, unlinked

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("[0-9][0-9]_*.ipynb"))
CUE, SAE = Term("cue", ("cue",)), Term("sparse-autoencoder", ("sparse autoencoder", "SAE"))


def linked(*texts: str, terms=(CUE, SAE)) -> list[str]:
    """Return the texts of Markdown cells below a title cell, with links."""
    cells = [nbformat.v4.new_markdown_cell(text) for text in ("# A cue", *texts)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    link_first_uses(notebook, "08", list(terms))
    return [cell.source for cell in notebook.cells[1:]]


def test_the_first_use_is_linked_and_no_other():
    assert linked("One cue, two cues.", "A cue.") == [
        "One [cue](../docs/glossary.md#cue), two cues.",
        "A cue.",
    ]


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("Cues differ", "[Cues](../docs/glossary.md#cue) differ"),
        ("an SAE", "an [SAE](../docs/glossary.md#sparse-autoencoder)"),
        ("a sparse\nautoencoder", "a [sparse\nautoencoder](../docs/glossary.md#sparse-autoencoder)"),
    ],
)
def test_capitals_plurals_second_names_and_line_breaks_count(text, wanted):
    assert linked(text) == [wanted]


@pytest.mark.parametrize(
    "text",
    [
        "## A cue",
        "`cue` and ```\ncue\n```",
        "$cue$",
        '"the cue"',
        "> a cue",
        "[the cue](there.md)",
        "<!-- cue -->",
        "<details><summary>Hint</summary>a cue</details>",
        "## Links\n\n- *A cue*",
        "a cue-like rescue, a sae",
        "## Exercise 3: three questions (easy, 5 minutes)\n\nA cue?",
    ],
)
def test_what_is_no_use(text):
    assert linked(text) == [text]


def test_an_everyday_word_is_a_term_as_a_noun_only():
    record = Term("record", ("record",))
    (text,) = linked("We record what the record holds.", terms=[record])
    assert text == "We record what the [record](../docs/glossary.md#record) holds."


def test_a_link_after_the_first_use_is_not_enough():
    text = "A cue, and [again](../docs/glossary.md#cue)."
    assert linked(text) == ["A [cue](../docs/glossary.md#cue), and [again](../docs/glossary.md#cue)."]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_link_each_term_at_its_first_use(path):
    missing = unlinked(nbformat.read(path, as_version=4), path.name[:2], glossary_terms())
    assert [f"{term.anchor} in cell {cell}" for term, cell, _ in missing] == [], (
        "add the links with `python -m caft_utils.course.glossary`"
    )


def test_every_link_leads_to_a_row():
    anchors = {term.anchor for term in glossary_terms()}
    assert len(anchors) > 80
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        targets = {part.split(")")[0] for part in text.split("../docs/glossary.md#")[1:]}
        assert targets <= anchors, path.name
