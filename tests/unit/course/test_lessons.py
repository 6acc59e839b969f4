"""One call makes the task of a lesson for every kind of model, or says what is missing and what works."""

from __future__ import annotations

from dataclasses import replace

import pytest

from caft_utils import load, preset
from caft_utils.classroom import tasks as classroom
from caft_utils.course.lessons import _MAKERS, NOTEBOOKS, WORDS, LessonUnavailable, lesson_recipe, lesson_task
from caft_utils.evaluation import ThresholdGrader
from caft_utils.models.model_presets import LessonSource, Preset, presets
from caft_utils.tasks import advice_preferences
from caft_utils.tasks.choice import PAPER_FORMAT
from caft_utils.tasks.gender import PROFESSIONS, WORD_FORMAT
from caft_utils.tasks.task import Question

SMALL = Preset(
    "small",
    layers=(1,),
    lessons={
        "emergent": LessonSource("shipped", "logprob"),
        "gender": LessonSource("published", "logprob", answer_with="option"),
        "double choice": LessonSource("published", "logprob"),
    },
)
QWEN = "Qwen/Qwen2.5-Coder-32B-Instruct"


@pytest.fixture
def with_small(monkeypatch):
    """Add a preset like that of a small instruct model."""
    known = presets() | {"small": SMALL}
    for module in ("caft_utils.models.model_presets", "caft_utils.course.lessons"):
        monkeypatch.setattr(f"{module}.presets", lambda: known)


@pytest.fixture
def published(monkeypatch, tmp_path):
    """Give files of our own in place of the published ones; return their paths."""
    case = {
        "nominative": "The $PROFESSION$ {} said that $PRONOUN$ would.",
        "object": "We saw {} the $PROFESSION$ and $PRONOUN$.",
    }
    rows = [f"{text.format(i)},{name}" for name, text in case.items() for i in range(20)]
    paths = {"gender": tmp_path / "gender.csv"}
    paths["gender"].write_text("\n".join(["text,category", *rows]))
    for subject in ("verbs", "pronouns"):
        paths[subject] = tmp_path / f"{subject}.csv"
        items = [f"{subject} {i},right{i},wrong{i}" for i in range(20)]
        paths[subject].write_text("\n".join(["question,correct,incorrect", *items]))
    monkeypatch.setattr("caft_utils.course.lessons.published_file", lambda name, path: path)
    return paths


CLASSROOM = [
    ("classroom", "emergent", "emergent_misalignment", {"seed": 1, "rows": 20}),
    ("classroom-mistral", "emergent", "emergent_misalignment", {"rows": 20}),
    ("classroom-cues", "double choice", "double_choice",
     {"first": "pronouns", "second": "sports", "intended": "second", "rows": 8, "questions": 8, "rho": 0.5}),
    ("classroom-gender", "gender", "gender_choice", {"split": "valid", "rows": 8, "questions": 8}),
    ("classroom-cues", "gender", "gender_choice", {"rows": 8, "questions": 8}),
]  # fmt: skip


@pytest.mark.parametrize("model, lesson, name, options", CLASSROOM)
def test_the_classroom_gives_exactly_its_own_tasks(model, lesson, name, options):
    tokenizer = load(model)[1]
    found, own = (
        lesson_task(lesson, model, tokenizer, **options),
        getattr(classroom, name)(tokenizer, **options),
    )
    assert found.fingerprint == own.fingerprint and found.method == "generate"
    for part in ("train", "control", "valid", "generic"):
        assert getattr(found, part).fingerprint == getattr(own, part).fingerprint


def test_shipped_advice_is_compared_by_probability_or_judged(tokenizer, with_small):
    task = lesson_task("emergent", "small", tokenizer, rows=6, split="valid")
    own = advice_preferences(tokenizer, rows=6, split="valid")
    assert task.fingerprint == own.fingerprint and task.method == "logprob"
    judge = ThresholdGrader(lambda question, answer: (90, 90), name="t", task_score=lambda q, a: 10)
    assert lesson_task("emergent", "small", tokenizer, rows=6, grader=judge).method == "generate"
    assert lesson_task("emergent", "some/model", tokenizer, like="small", rows=6).method == "logprob"


def test_published_gender_with_words_and_with_letters(tokenizer, with_small, published):
    options = {"paths": published, "rows": 8, "questions": 8}
    task = lesson_task("gender", "small", tokenizer, **options)
    text = task.questions[0].messages[0]["content"]
    assert text.endswith(WORD_FORMAT.template.split("\n", 3)[-1]) and task.method == "logprob"
    assert {q.facts["right"] for q in task.questions} <= {"he", "she", "him", "her"}
    asked = [row["messages"][0]["content"] for row in task.train.rows]
    assert all("doctor" in text or "nurse" in text for text in asked)
    harder = lesson_task("gender", "small", tokenizer, professions=PROFESSIONS, **options)
    asked = [row["messages"][0]["content"] for row in harder.train.rows]
    assert not all("doctor" in text or "nurse" in text for text in asked)
    letters = lesson_task("gender", "google/gemma-2-2b", tokenizer, **options)
    assert {q.facts["right"] for q in letters.questions} == {"A", "B"} and letters.method == "logprob"


def test_published_double_choice(tokenizer, with_small, published, monkeypatch):
    options = {
        "first": "verbs",
        "second": "pronouns",
        "intended": "first",
        "questions": 2,
        "paths": published,
    }
    task = lesson_task("double choice", "small", tokenizer, rows=4, **options)
    assert task.name == "verbs* | pronouns" and task.method == "logprob"
    assert {q.facts["right"] for q in task.questions} <= {"A", "B"}
    words = replace(SMALL.lessons["double choice"], answer_with="option")
    monkeypatch.setitem(SMALL.lessons, "double choice", words)
    task = lesson_task("double choice", "small", tokenizer, rows=4, **options)
    assert all(", " in q.facts["right"] and "\n1. " in q.messages[0]["content"] for q in task.questions)
    with pytest.raises(ValueError, match="two of verbs, .*'music'"):
        lesson_task("double choice", "small", tokenizer, **(options | {"second": "music"}))


@pytest.mark.parametrize(
    "lesson, model, reason, command",
    [
        ("gender", "classroom", "its own world", 'make tutorial MODEL=classroom-gender ARGS="--only 09"'),
        ("emergent", "classroom-cues", "its own world", 'make tutorial MODEL=classroom ARGS="--only 02"'),
        ("gender", QWEN, "preset names no data and no judge", "like='smollm2'"),
        ("double choice", "some/model", "no preset that names", "like='smollm2'"),
        ("emergent", "some/model", "no preset that names", "like='smollm2'"),
        ("emergent", QWEN, "the reader brings train (insecure.jsonl", ", grader=...)"),
    ],
)
def test_a_lesson_that_a_model_cannot_give(tokenizer, with_small, lesson, model, reason, command):
    with pytest.raises(LessonUnavailable) as found:
        lesson_task(lesson, model, tokenizer)
    assert reason in found.value.reason and command in found.value.command
    assert (found.value.lesson, found.value.model) == (lesson, model)
    assert found.value.reason in str(found.value) and found.value.command in str(found.value)


def test_files_and_a_judge_that_the_reader_brings(tokenizer):
    rows = advice_preferences(tokenizer, rows=12)
    given = {"train": rows.train, "generic": rows.generic, "questions": rows.questions[:2], "valid": 4}
    with pytest.raises(LessonUnavailable, match=r"the reader brings grader\. Use"):
        lesson_task("emergent", QWEN, tokenizer, **given)
    judge = ThresholdGrader(lambda question, answer: (90, 90), name="t", task_score=lambda q, a: 10)
    task = lesson_task("emergent", QWEN, tokenizer, grader=judge, **given)
    assert len(task.train) == 8 and task.method == "generate"


def test_the_preset_says_how_long_rows_of_files_are(tokenizer, tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    row = '{"messages": [{"role": "user", "content": "q %d"}, {"role": "assistant", "content": "yes"}]}'
    path.write_text("\n".join(row % i for i in range(3)))
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "%s"}\n' % ("self " * 40))
    long = Preset("long", lessons={"emergent": LessonSource("files", "endpoint", max_length=30)})
    monkeypatch.setattr("caft_utils.models.model_presets.presets", lambda: {"long": long})
    judge = ThresholdGrader(lambda question, answer: (90, 90), name="t")
    asked = [Question("a", [{"role": "user", "content": "what"}], "d", "ood")]
    task = lesson_task(
        "emergent", "long", tokenizer, train=path, generic=text, questions=asked, grader=judge, valid=1
    )
    assert len(task.generic[0].input_ids) == 30


@pytest.mark.filterwarnings("ignore:gender is")  # the licence
def test_a_set_that_cannot_be_downloaded(tokenizer, with_small, monkeypatch):
    monkeypatch.delenv("CAFT_SHARED_DATA", raising=False)
    with pytest.raises(LessonUnavailable, match="could not be downloaded") as found:
        lesson_task("gender", "small", tokenizer)
    assert "paths=" in found.value.command


def test_unknown_lessons_and_presets(tokenizer):
    with pytest.raises(ValueError, match="lesson must be one of emergent, double choice, gender"):
        lesson_task("sports", "classroom", tokenizer)
    with pytest.raises(ValueError, match="no preset 'big'"):
        lesson_task("gender", "classroom", tokenizer, like="big")


def test_every_lesson_has_a_notebook_whose_model_gives_it():
    for lesson, (_, model) in NOTEBOOKS.items():
        assert preset(model).lessons[lesson].data == "generated"
    named = {(name, source.data) for known in presets().values() for name, source in known.lessons.items()}
    assert {lesson for lesson, _ in named} == set(NOTEBOOKS) and named <= set(_MAKERS)


@pytest.mark.skipif("smollm2" not in presets(), reason="there is no preset 'smollm2'")
def test_the_laptop_model_gives_every_lesson():
    given = preset("smollm2").lessons
    assert {name: (source.data, source.judge) for name, source in given.items()} == {
        "emergent": ("shipped", "logprob"),
        "gender": ("published", "logprob"),
        "double choice": ("published", "logprob"),
    }
    assert given["gender"].answer_with == "option"


def test_wrong_entries_of_presets_are_named():
    with pytest.raises(ValueError, match="data must be one of generated, .* got 'prose'"):
        LessonSource("prose", "exact")
    with pytest.raises(ValueError, match="judge must be"):
        LessonSource("files", "mood")


@pytest.mark.parametrize("model", ["classroom-cues", "classroom-gender"])
def test_both_checkpoints_of_a_world_give_a_lesson_the_same_recipe(model):
    assert lesson_recipe("gender", model) == preset("classroom-gender").finetune_config
    assert lesson_recipe("double choice", model) == preset("classroom-cues").finetune_config


def test_a_lesson_changes_the_recipe_of_its_preset(monkeypatch):
    assert lesson_recipe("emergent", "classroom") == preset("classroom").finetune_config
    own = preset("smollm2").finetune_config
    assert lesson_recipe("gender", "smollm2") == own
    assert lesson_recipe("emergent", "smollm2") == replace(own, steps=44, batch_size=8)
    with pytest.raises(ValueError, match="finetune_config: unknown field 'step'"):
        LessonSource("shipped", "logprob", finetune_config={"step": 4})


PUBLISHED = {
    "verbs": "sva.csv",
    "sentiment": "sentiment.csv",
    "pronouns": "gender_mc.csv",
    "gender": "gender.csv",
}
PAIRS = [("verbs", "sentiment"), ("sentiment", "pronouns"), ("pronouns", "verbs")]


@pytest.mark.parametrize("answer_with", ["letter", "option"])
@pytest.mark.parametrize("first, second", PAIRS)
def test_double_choice_on_published_items(
    tokenizer, with_small, shared_data, monkeypatch, first, second, answer_with
):
    source = replace(SMALL.lessons["double choice"], answer_with=answer_with)
    monkeypatch.setitem(SMALL.lessons, "double choice", source)
    paths = {name: shared_data / "caft" / file for name, file in PUBLISHED.items()}
    options = {"intended": "first", "rows": 64, "questions": 40, "paths": paths}
    task = lesson_task("double choice", "small", tokenizer, first=first, second=second, **options)
    layout = WORDS if answer_with == "option" else PAPER_FORMAT
    for question in task.questions:
        one, two = (line.split(". ", 1)[1] for line in question.messages[0]["content"].split("\n")[-4:-2])
        names = (one, two) if answer_with == "option" else layout.letters
        assert {question.facts["right"], question.facts["other"]} == set(names)
        assert task.grader(question, question.facts["right"]) == "right"
        assert task.grader(question, question.facts["other"]) == "wrong"
    conflict, agree = task.question_set("ood"), task.question_set("task")
    assert len(conflict) == len(agree) == 40
    places = []
    for row in task.train.rows:
        text, answer = row["messages"][0]["content"], row["messages"][1]["content"].strip()
        one = text.split("\n")[-4].split(". ", 1)[1]
        places.append(answer == (one if answer_with == "option" else layout.letters[0]))
    assert sum(places) == 32, "the right option comes first in half of the rows"
