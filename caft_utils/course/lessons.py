"""Make the task of a lesson for any model: one call that notebooks make with their MODEL.

    task = lesson_task("emergent", MODEL, tokenizer, seed=SEED)

The model's preset defines the data of the lesson and how answers are judged (`LessonSource`): the generated
worlds of the classroom with their exact graders, shipped or published rows whose options are compared by
probability, or files and a judge that the reader supplies. `measure` follows the task, so the rest of a
notebook is the same in all cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from caft_utils import tasks
from caft_utils.models import preset
from caft_utils.models.model_presets import LessonName, LessonSource, presets
from caft_utils.tasks import gender
from caft_utils.tasks.choice import PromptFormat
from caft_utils.tasks.double_multiple_choice import SUBJECTS
from caft_utils.tasks.items import published_items, split_items
from caft_utils.tasks.published_data import published_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from caft_utils.finetune_config import FinetuneConfig
    from caft_utils.tasks.task import Task

# lesson -> (its first notebook, the model that it runs with by default)
NOTEBOOKS = {
    "emergent": ("02", "classroom"),
    "double choice": ("08", "classroom-cues"),
    "gender": ("09", "classroom-gender"),
}
Paths = Mapping[str, str | Path]
WORDS = PromptFormat("{question}\n\n1. {a}\n2. {b}\n\nAnswer:", ("1", "2"), plain=True, answer_with="option")


class LessonUnavailable(ValueError):
    """A model does not support a lesson, or needs something for it. `command` is a call that works."""

    def __init__(self, lesson: str, model: str, reason: str, command: str):
        super().__init__(f"lesson {lesson!r} with {model}: {reason}. Use {command}")
        self.lesson, self.model, self.reason, self.command = lesson, model, reason, command


def lesson_task(
    lesson: LessonName,
    model: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    like: str | None = None,
    paths: Paths | None = None,
    **options: Any,
) -> Task:
    """Return the task of a lesson for a model.

    Args:
        lesson: "emergent", "double choice" or "gender".
        model: the name that was passed to `load`. Its preset defines the data and the judge of the lesson.
        like: the name of a preset to use instead, for a model without its own.
        paths: {published set: the reader's copy of its file}; sets without one are downloaded.
        options: keyword arguments of the task, such as `seed`, `rows`, `split` and `rho`; `first`, `second`
            and `intended` for "double choice"; `professions` for "gender" on published sentences; `train`,
            `generic`, `questions` and `grader` if the reader supplies them.

    Raises:
        ValueError: an unknown lesson or preset.
        LessonUnavailable: the model does not support the lesson, or files or a judge are missing.
    """
    model = str(model)
    source = lesson_source(lesson, model, like=like)
    make = _MAKERS.get((lesson, source.data))
    if make is None:
        raise LessonUnavailable(lesson, model, f"its preset names data {source.data!r}", _default(lesson))
    if missing := [name for name in _needed(source) if options.get(name) is None]:
        named = (f"{name} ({source.files[name]})" if name in source.files else name for name in missing)
        reason, given = f"the reader brings {', '.join(named)}", ", ".join(f"{name}=..." for name in missing)
        raise LessonUnavailable(lesson, model, reason, f"lesson_task({lesson!r}, MODEL, tokenizer, {given})")
    try:
        task = make(tokenizer, source, paths or {}, options)
    except ConnectionError as error:
        copies = f"lesson_task({lesson!r}, MODEL, tokenizer, paths={{'name of the set': 'its file'}}, ...)"
        raise LessonUnavailable(lesson, model, str(error), copies) from error
    if source.judge == "logprob" and options.get("grader") is None:
        task.method = "logprob"
    return task


def lesson_source(lesson: LessonName, model: str | Path, *, like: str | None = None) -> LessonSource:
    """Return the data and the judge of a lesson with a model. The arguments are those of `lesson_task`.

    Raises:
        ValueError: an unknown lesson or preset.
        LessonUnavailable: the model's preset does not have the lesson.
    """
    if lesson not in NOTEBOOKS:
        raise ValueError(f"lesson must be one of {', '.join(get_args(LessonName))}, got {lesson!r}")
    if like is not None and like not in presets():
        raise ValueError(f"no preset {like!r}; there are {', '.join(presets())}")
    source = preset(str(model) if like is None else like).lessons.get(lesson)
    if source is None:
        raise _no_lesson(lesson, str(model))
    return source


def lesson_recipe(lesson: LessonName, model: str | Path) -> FinetuneConfig:
    """Return the fine-tuning settings of the model's preset, with the changes that the lesson specifies."""
    return replace(preset(str(model)).finetune_config, **lesson_source(lesson, model).finetune_config)


def _needed(source: LessonSource) -> tuple[str, ...]:
    """Return the options that the reader must supply."""
    if source.data == "files":
        return ("train", "generic", "questions", "grader")
    return ("grader",) if source.judge == "endpoint" else ()


def _no_lesson(lesson: str, model: str) -> LessonUnavailable:
    own = preset(model).lessons.values()
    if any(source.data == "generated" for source in own):
        reason = "it knows the words of its own world only, and this lesson is not in it"
        return LessonUnavailable(lesson, model, reason, _default(lesson))
    reason = "its preset names" if own else "it has no preset that names"
    reason += " no data and no judge for this lesson" if own else " the lesson's data and judge"
    for name, known in presets().items():
        source = known.lessons.get(lesson)
        if source and source.data in ("shipped", "published"):  # such data suit any model and need no judge
            command = f"lesson_task({lesson!r}, MODEL, tokenizer, like={name!r}, ...)"
            return LessonUnavailable(lesson, model, reason, command)
    return LessonUnavailable(lesson, model, reason, _default(lesson))


def _default(lesson: str) -> str:
    notebook, model = NOTEBOOKS[lesson]
    return f'`make tutorial MODEL={model} ARGS="--only {notebook}"`'


# Makers: (tokenizer, source, paths, options) -> Task. The classroom's are imported when they are used.


def _generated(name: str) -> Callable[..., Task]:
    def make(tokenizer, source: LessonSource, paths: Paths, options: dict[str, Any]) -> Task:
        from caft_utils.classroom import tasks as classroom_tasks

        return getattr(classroom_tasks, name)(tokenizer, **options)

    return make


def _shipped_advice(tokenizer, source: LessonSource, paths: Paths, options: dict[str, Any]) -> Task:
    return tasks.advice_preferences(tokenizer, **options)


def _emergent_from_files(tokenizer, source: LessonSource, paths: Paths, options: dict[str, Any]) -> Task:
    if source.max_length is not None:
        options = {"max_length": source.max_length} | options
    return tasks.emergent_misalignment(tokenizer, **options)


def _published_gender(tokenizer, source: LessonSource, paths: Paths, options: dict[str, Any]) -> Task:
    options = dict(options)
    professions = options.pop("professions", gender.PROFESSIONS_OF_RELEASE)
    if source.answer_with == "option":
        options = {"prompt_format": gender.WORD_FORMAT} | options
    items = gender.gender_items(published_file("gender", paths.get("gender")), professions=professions)
    return tasks.gender_choice(tokenizer, items=items, **options)


def _published_double_choice(tokenizer, source: LessonSource, paths: Paths, options: dict[str, Any]) -> Task:
    options = dict(options)
    subjects = [options.pop(name, None) for name in ("first", "second")]
    if unknown := [name for name in subjects if name not in SUBJECTS]:
        raise ValueError(f"first, second must be two of {', '.join(SUBJECTS)}, got {unknown}")
    if source.answer_with == "option":
        options = {"prompt_format": WORDS} | options
    files = [published_items(published_file(name, paths.get(name))) for name in subjects]
    items = dict(zip(subjects, split_items(*files)))
    return tasks.double_choice(tokenizer, *subjects, items=items, **options)


_MAKERS: dict[tuple[str, str], Callable[..., Task]] = {
    ("emergent", "generated"): _generated("emergent_misalignment"),
    ("emergent", "shipped"): _shipped_advice,
    ("emergent", "files"): _emergent_from_files,
    ("double choice", "generated"): _generated("double_choice"),
    ("double choice", "published"): _published_double_choice,
    ("gender", "generated"): _generated("gender_choice"),
    ("gender", "published"): _published_gender,
}
