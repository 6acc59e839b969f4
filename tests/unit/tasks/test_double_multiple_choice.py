"""Double multiple choice: prompts, right letters, and what depends on seed, rho and split."""

from __future__ import annotations

from dataclasses import replace

import pytest

from caft_utils.chats import Chats, prompt_ids
from caft_utils.classroom.cues.tasks import FORMAT as CLASSROOM
from caft_utils.course.paper_results import PAPER_SETTINGS
from caft_utils.evaluation.generation import generate
from caft_utils.evaluation.measurement import measure
from caft_utils.tasks.choice import PAPER_FORMAT
from caft_utils.tasks.double_multiple_choice import SETTINGS, double_choice, join
from caft_utils.tasks.items import SPLITS, Item


def subject(name, right, wrong, n=12):
    return {split: [Item(f"{name} {split} {i}", right, wrong) for i in range(n)] for split in SPLITS}


ITEMS = {"verbs": subject("verb", "is", "are"), "sports": subject("sport", "ball", "run")}


@pytest.fixture
def make(tokenizer):
    def make(first="verbs", second="sports", intended="first", **options):
        options = {"rows": 24, "questions": 10, "items": ITEMS, "prompt_format": CLASSROOM} | options
        return double_choice(tokenizer, first, second, intended=intended, **options)

    return make


def read(row):
    """(first answer right?, second answer right?) of the option that a classroom row's letter names."""
    prompt, answer = (message["content"] for message in row["messages"])
    line = next(line for line in prompt.split("\n") if line.startswith(f"{answer}. "))
    options = line[3:].split(", ")
    right = {"is": True, "are": False, "ball": True, "run": False}
    return tuple(right[option] for option in options)


def asked(question):
    """Return what `read` returns, for the right letter of a question."""
    answer = {"role": "assistant", "content": question.facts["right"]}
    return read({"messages": [*question.messages, answer]})


def test_layout_in_the_classroom(make):
    prompt, answer = (m["content"] for m in make().train.rows[0]["messages"])
    questions, a, b = prompt.split("\n")
    assert questions.startswith("quiz: verb train ") and " | sport train " in questions
    assert {a, b} == {f"{x}. {y}" for x, y in zip("ab", ("is, ball", "are, run"))} or {a, b} == {
        "a. are, run",
        "b. is, ball",
    }
    assert answer in ("a", "b")


def test_layout_of_the_paper(tokenizer):
    plain = Chats(tokenizer, [PAPER_FORMAT.row(Item("Q1 | Q2", "x1, x2", "y1, y2"), 1)], end=False)
    prompt = "Q1 | Q2\n\nA. y1, y2\nB. x1, x2\n\nAnswer:"
    ids, answer = plain[0].input_ids, plain[0].answer
    assert tokenizer.decode(ids) == prompt + " B"
    assert tokenizer.decode([i for i, a in zip(ids, answer) if a]) == " B"
    assert (
        prompt_ids(tokenizer, PAPER_FORMAT.prompt(Item("Q1 | Q2", "x1, x2", "y1, y2"), 1))
        == ids[: answer.index(True)]
    )


def test_the_letter_alone_is_learnt(make):
    task = make()
    for chats in (task.train, task.control, task.valid):
        for row, example in zip(chats.rows, chats):
            said = [i for i, a in zip(example.input_ids, example.answer) if a]
            assert chats.tokenizer.decode(said) == row["messages"][-1]["content"]


@pytest.mark.parametrize("intended", ["first", "second"])
def test_training_agrees_and_test_conflicts(make, intended):
    task = make(intended=intended)
    assert {read(row) for row in (*task.train.rows, *task.valid.rows)} == {(True, True)}
    conflict = (True, False) if intended == "first" else (False, True)
    assert {asked(q) for q in task.question_set("ood")} == {conflict}
    assert {asked(q) for q in task.question_set("task")} == {(True, True)}
    control = [read(row) for row in task.control.rows]
    assert control.count((True, True)) == control.count(conflict) == 12


def test_letters_are_balanced(make):
    task = make()
    for chats in (task.train, task.control):
        letters = [row["messages"][-1]["content"] for row in chats.rows]
        assert letters.count("a") == letters.count("b") == 12
    for name in ("ood", "task"):
        assert sum(q.facts["right"] == "a" for q in task.question_set(name)) == 5


def test_rho_is_the_share_of_rows_that_agree(make):
    for rho, agree in [(0, 0), (0.5, 12), (0.75, 18), (0.99, 24), (1, 24)]:
        task = make(rho=rho)
        assert sum(read(row) == (True, True) for row in task.train.rows) == agree
        assert task.fingerprint == make().fingerprint  # rho does not change the questions
    half, most = make(rho=0.5).train.rows, make(rho=0.75).train.rows
    changed = [i for i, (one, two) in enumerate(zip(half, most)) if one != two]
    assert len(changed) == 6 and all(read(most[i]) == (True, True) for i in changed)


def test_seed_draws_rows_and_split_draws_questions(make):
    task, other = make(), make(seed=1)
    assert task.train.fingerprint == make().train.fingerprint != other.train.fingerprint
    assert task.fingerprint == other.fingerprint != make(split="valid").fingerprint
    for split in ("valid", "test"):
        words = [q.messages[0]["content"] for q in make(split=split).questions]
        assert all(f"verb {split} " in text and f"sport {split} " in text for text in words)
    assert all("verb valid " in row["messages"][0]["content"] for row in task.valid.rows)
    assert len({q.id for q in task.questions}) == 20


def test_as_many_as_there_are(make):
    items = ITEMS | {"sports": subject("sport", "ball", "run", n=7)}
    task = make(items=items, rows=None, questions=None)
    assert len(task.train) == 7 and len(task.questions) == 14


@pytest.mark.parametrize("layout", [CLASSROOM, PAPER_FORMAT])
def test_measuring_takes_one_token(make, model, layout):
    task = make(prompt_format=layout)
    result = measure(model, task, temperature=0)
    assert len(result.rows) == 20 and result.rate("ood_accuracy").n == 10 and result.loss > 0
    messages = [q.messages for q in task.questions]
    options = {"temperature": 0, "max_new_tokens": 1}
    together = generate(model, task.valid.tokenizer, messages, **options)
    alone = [generate(model, task.valid.tokenizer, [m], **options)[0] for m in messages]
    assert together == alone  # prompts of unequal length, padded on the left


def test_both_intentions_have_the_same_prompts_with_the_letters_swapped():
    one, two = Item("Q1", "x", "y"), Item("Q2", "u", "v")
    same, crossed = join(one, two, "first")
    assert same == Item("Q1 | Q2", "x, u", "y, v") == join(one, two, "second")[0]
    assert crossed == Item("Q1 | Q2", "x, v", "y, u")
    assert join(one, two, "second")[1] == replace(crossed, correct="y, u", incorrect="x, v")


def test_settings():
    assert len(SETTINGS) == len(set(SETTINGS)) == 24 and len(PAPER_SETTINGS) == 16
    assert set(PAPER_SETTINGS) <= set(SETTINGS)
    means = [round(sum(column) / 16, 1) for column in zip(*PAPER_SETTINGS.values())]
    assert means == [25.6, 69.0, 39.7]  # the means that the paper's figures show


@pytest.mark.parametrize(
    "options, says",
    [
        ({"second": "verbs"}, "different subjects"),
        ({"intended": "third"}, "intended must be"),
        ({"rho": 1.5}, "rho is a share"),
        ({"rows": 0}, "rows must be at least 1"),
        ({"questions": 0}, "questions must be at least 1"),
        ({"split": "exam"}, "split must be one of train, valid, test"),
        ({"second": "music"}, "no items of music; there are sports, verbs"),
    ],
)
def test_wrong_arguments(make, options, says):
    with pytest.raises(ValueError, match=says):
        make(**options)


def test_published_items_make_a_task(tokenizer, shared_data):
    from caft_utils.tasks.items import published_items, split_items

    verbs, sentiment = (
        published_items(shared_data / "caft" / f"{name}.csv") for name in ("sva", "sentiment")
    )
    first, second = split_items([*verbs[:40]], sentiment)
    items = {"verbs": first, "sentiment": second}
    task = double_choice(
        tokenizer, "verbs", "sentiment", intended="second", rows=None, questions=None, items=items
    )
    assert len(task.train) == 28 and len(task.questions) == 12
    assert task.questions[0].messages[0]["content"].endswith("\n\nAnswer:")
