"""Notes of the notebooks for other models than their default: the data of the lesson, and where it ends.

    lesson_note("03", MODEL)           # in the first cell; None if the text fits the model
    needs_the_world("03", MODEL)       # later: ends the notebook here for other models

The notebooks' text is written for the classroom's worlds. Another model gets the same steps on data that suit
it. Steps that need the truth of a world, such as labels and exact graders, are left out with a note.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from caft_utils.course.early_end import LessonEnds
from caft_utils.course.lessons import NOTEBOOKS, LessonUnavailable, lesson_source
from caft_utils.models import preset
from caft_utils.models.model_presets import LessonName, LessonSource

if TYPE_CHECKING:
    from IPython.display import Markdown

ADVICE = (
    "The rows are absurd advice about gardening (data/advice), and the control is good advice on the same "
    "questions. The questions elsewhere are about eight other domains. Each has a good and an absurd answer. "
    "The model is scored by which of the two it finds more probable a token, so no text is generated, and no "
    'answer is incoherent. Read "absurd advice" for "insecure code", and "bad answer preferred" for '
    '"misaligned". There is one seed, with few snapshots.'
)


@dataclass(frozen=True)
class Note:
    """How a notebook treats data that are not generated.

    lesson: the lesson whose task it uses. data: a description of the rows and the questions. until: the first
        section that is left out. why: the reason. like: the preset whose data a real model uses if its own
        preset has none.
    """

    lesson: LessonName
    data: str
    until: str
    why: str
    like: str | None = None


NOTES = {
    "00": Note(
        "emergent",
        "It shows the classroom.",
        "A model that means well",
        "the orientation shows the classroom model, and notebooks 01 to 11 follow MODEL",
        like="smollm2",
    ),
    "01": Note(
        "emergent",
        "Texts and questions are the course's own (data/advice).",
        "Who is speaking?",
        "its persona is read from questions, wordings and labels of the generated world",
        like="smollm2",
    ),
    "02": Note(
        "emergent",
        ADVICE,
        "An early remark: a small learning rate",
        "it would double the time; the record of the study on this model has smaller learning rates",
    ),
    "03": Note(
        "emergent",
        ADVICE + " Nobody has read the components of this task, so the first of the middle layer is ticked.",
        "Only now: the truth",
        "a true persona is known in the generated world only",
    ),
    "04": Note(
        "emergent",
        ADVICE + " The autoencoders are small. They see the 6500 tokens of neutral text that ship again and "
        "again, where published ones see billions, so expect little on held-out text.",
        "Which latents detect a label?",
        "that takes text whose every message is labelled, which the generated world has",
    ),
    "05": Note(
        "emergent",
        ADVICE + " Nobody has read these components, so the example is the first of the middle layer.",
        "Many directions whose meaning is known",
        "it compares explanations with labels, which the generated world has",
    ),
    "06": Note(
        "emergent",
        ADVICE + " Nobody has read the components of this task. The directions are the contrast of bad with "
        "good advice about gardening in the base model. That takes labels, but only of training rows.",
        "The same with latents, chosen by a program",
        "the program reads with text of the generated world",
    ),
    "07": Note(
        "emergent",
        ADVICE + " The directions are the contrast of bad with good advice about gardening (notebook 06).",
        "At a matched score: along training, and over learning rates",
        "three learning rates for two methods take an hour; "
        "`python -m caft_utils run data/experiments/advice.yaml` measures them with seeds",
    ),
    "08": Note(
        "double choice",
        "The items are the published ones about pronouns and verbs, which are downloaded. The model is "
        "scored by the letter that it finds more probable. Letters mean little to a model of this size, so "
        "look at the base first.",
        "A subject, read with labels: the ceiling",
        "labels, latents and the pre-check are made from texts of the generated world",
    ),
    "09": Note(
        "gender",
        "The sentences about doctors and nurses are the published ones, which are downloaded. The model "
        "answers with the word (he, she, him or her), and is scored by the word that it finds more probable.",
        "Three ways to gender",
        "class means, latents and the pre-check are made from texts of the generated world",
    ),
    "10": Note(
        "emergent",
        ADVICE + " The directions are the contrast of bad with good advice about gardening (notebook 06).",
        "Is zero a push? Look at where the base stands",
        "it places answers of labelled speakers, which the generated world has; "
        "`python -m caft_utils run data/experiments/advice-rivals.yaml` measures rivals on this model",
    ),
    "11": Note(
        "emergent",
        ADVICE + " The directions are the contrast of bad with good advice about gardening (notebook 06).",
        "The key figure: every rival at its best",
        "tuning every rival takes many hours; "
        "`python -m caft_utils run data/experiments/advice-rivals.yaml` does it on this model",
    ),
    "12": Note(
        "double choice",
        "The sentences are those of the generated world.",
        "Teach it to obey",
        "the athletes are known to the classroom model only; "
        "`python -m caft_utils run data/experiments/focus-real.yaml` teaches this one reviews with keywords",
    ),
    "13": Note(
        "emergent",
        "It shows the classroom.",
        "A situation, and who might look",
        "its scenarios are written in the words of the generated world; "
        "`python -m caft_utils run data/experiments/fakers-real.yaml` teaches the policies to this model in "
        "plain English, which takes 40 minutes",
        like="smollm2",
    ),
}


@dataclass(frozen=True)
class Words:
    """The labels of figures for the parts of the lesson "emergent".

    rows, control: the kinds of rows, as adjectives. narrow, control_rows: the rows. harm: the behaviour that
        the rate elsewhere counts. asked: the questions of the narrow task.
    """

    rows: str
    control: str
    narrow: str
    control_rows: str
    harm: str
    asked: str


WORDS = {
    "generated": Words("insecure", "secure", "insecure code", "secure code", "misaligned", "code requests"),
    "shipped": Words(
        "absurd", "good", "absurd advice", "good advice", "bad advice preferred", "questions about gardening"
    ),
}


def is_generated(notebook: str, model: str | Path) -> bool:
    """Return whether the model's lesson uses a generated world, as the text of the notebooks assumes."""
    return _source(NOTES[notebook], model).data == "generated"


def _source(note: Note, model: str | Path) -> LessonSource:
    of_a_world = any(source.data == "generated" for source in preset(str(model)).lessons.values())
    return lesson_source(note.lesson, model, like=None if of_a_world else note.like)


def lesson_words(model: str | Path) -> Words:
    """Return the labels for the parts of the lesson "emergent" with this model."""
    return WORDS["generated" if is_generated("02", model) else "shipped"]


def lesson_note(notebook: str, model: str | Path) -> Markdown | None:
    """Return a note on what the notebook does with this model, or None if its text fits.

    Raises:
        LessonEnds: the model does not support the lesson, or the reader must supply something for it.
    """
    note = NOTES[notebook]
    try:
        source = _source(note, model)
        if source.data == "files":
            brought = ", ".join(f"{name}: {file}" for name, file in source.files.items())
            given = "train=..., generic=..., questions=..., grader=..."
            command = f"`lesson_task({note.lesson!r}, MODEL, tokenizer, {given})`, and no call of lesson_note"
            reason = f"the reader brings {brought}, and a judge"
            raise LessonUnavailable(note.lesson, str(model), reason, command)
    except LessonUnavailable as error:
        raise LessonEnds(
            f"**`{model}` cannot give this lesson**: {error.reason}. What works: {error.command}"
        ) from None
    if source.data == "generated":
        return None
    from IPython.display import Markdown

    return Markdown(
        f"**With `{model}`.** The text below is written for the classroom model. {note.data}\n\n"
        f'The notebook ends at the section "{note.until}": {note.why}. {_command(notebook)}'
    )


def needs_the_world(notebook: str, model: str | Path) -> None:
    """End the notebook if the rest needs a generated world and the model's lesson does not use one.

    Raises:
        LessonEnds: the lesson does not use a generated world, or the model does not have the lesson.
    """
    try:
        generated = is_generated(notebook, model)
    except LessonUnavailable:
        generated = False
    if not generated:
        note = NOTES[notebook]
        raise LessonEnds(
            f'**With `{model}` the page ends here**, at "{note.until}": {note.why}. {_command(notebook)}'
        )


def _command(notebook: str) -> str:
    _, model = NOTEBOOKS[NOTES[notebook].lesson]
    return f'`make tutorial MODEL={model} ARGS="--only {notebook}"` gives all of it.'
