"""A notebook says what its model gives: nothing where the text fits, a note, or an end with the reason."""

from __future__ import annotations

import nbformat
import pytest
from helpers.paths import REPOSITORY

from caft_utils.course.early_end import LessonEnds
from caft_utils.course.lesson_notes import NOTES, is_generated, lesson_note, lesson_words, needs_the_world

DEFAULTS = {"emergent": "classroom", "double choice": "classroom-cues", "gender": "classroom-gender"}


@pytest.mark.parametrize("notebook", NOTES)
def test_nothing_is_said_and_nothing_ends_with_the_notebooks_own_model(notebook):
    model = DEFAULTS[NOTES[notebook].lesson]
    assert lesson_note(notebook, model) is None and is_generated(notebook, model)
    needs_the_world(notebook, model)


@pytest.mark.parametrize("notebook", NOTES)
def test_a_real_model_gets_a_note_and_an_end_at_a_section_that_exists(notebook):
    note = NOTES[notebook]
    said = lesson_note(notebook, "smollm2").data
    assert note.until in said and note.why in said and f"--only {notebook}" in said
    with pytest.raises(LessonEnds, match="the page ends here") as ended:
        needs_the_world(notebook, "smollm2")
    assert note.why in str(ended.value) and f"MODEL={DEFAULTS[note.lesson]}" in str(ended.value)
    (path,) = (REPOSITORY / "notebooks").glob(f"{notebook}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    text = [cell.source for cell in cells if cell.cell_type == "markdown"]
    assert any(line.lstrip("# ") == note.until for source in text for line in source.splitlines())
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert f'needs_the_world("{notebook}", MODEL)' in code
    assert f'lesson_note("{notebook}", MODEL)' in code or notebook == "00"  # it ends at once


@pytest.mark.parametrize(
    "notebook, model, reason, command",
    [
        ("09", "classroom", "words of its own world only", "make tutorial MODEL=classroom-gender"),
        ("02", "classroom-cues", "words of its own world only", "make tutorial MODEL=classroom"),
        ("02", "Qwen/Qwen2.5-7B-Instruct", "the reader brings train: ", "grader=..."),
        ("08", "Qwen/Qwen2.5-7B-Instruct", "no data and no judge for this lesson", "like='smollm2'"),
        ("03", "someone/unknown", "it has no preset", "like='smollm2'"),
    ],
)
def test_a_model_without_the_lesson_ends_with_the_reason_and_what_works(notebook, model, reason, command):
    with pytest.raises(LessonEnds) as ended:
        lesson_note(notebook, model)
    assert reason in str(ended.value) and command in str(ended.value)


def test_every_real_model_can_read_shipped_text_in_the_first_notebook():
    assert not is_generated("01", "someone/unknown") and "data/advice" in lesson_note("01", "a/b").data
    with pytest.raises(LessonEnds):
        lesson_note("01", "classroom-cues")


def test_figures_use_the_words_of_the_lesson():
    assert lesson_words("classroom").narrow == "insecure code"
    assert lesson_words("smollm2").harm == "bad advice preferred"
