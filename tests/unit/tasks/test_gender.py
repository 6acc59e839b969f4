"""Gender bias: options wrong in case and gender, the stereotype reversed at test, sentences kept apart."""

from __future__ import annotations

from collections import Counter

import pytest

from caft_utils.classroom.cues.tasks import FORMAT as CLASSROOM
from caft_utils.evaluation import measure
from caft_utils.tasks import gender_choice
from caft_utils.tasks.gender import (
    PROFESSIONS,
    PROFESSIONS_OF_RELEASE,
    WORD_FORMAT,
    gender_items,
    pronoun_item,
)
from caft_utils.tasks.items import SPLITS

CASE = {"he": "nominative", "she": "nominative", "him": "object", "her": "object"}
GENDER = {"he": "male", "him": "male", "she": "female", "her": "female"}
HEADER = "text,category\n"
SENTENCES = [f"The $PROFESSION$ said {i} that $PRONOUN$ would.,nominative\n" for i in range(40)]
SENTENCES += [f"We met the $PROFESSION$ {i} and saw $PRONOUN$.,object\n" for i in range(40)]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "gender.csv"
    path.write_text(HEADER + "".join(SENTENCES))
    return path


def profession(question):
    return next(p for group in PROFESSIONS.values() for p in group if f" {p} " in question)


def stereotype(question):
    return next(gender for gender, group in PROFESSIONS.items() if profession(question) in group)


def test_wrong_option_is_wrong_in_case_and_gender(file):
    items = gender_items(file)
    for split in SPLITS:
        for reverse in (False, True):
            for item in items(split, reverse):
                assert CASE[item.correct] == ("nominative" if " said " in item.question else "object")
                assert CASE[item.incorrect] != CASE[item.correct]
                assert GENDER[item.incorrect] != GENDER[item.correct]
                assert (GENDER[item.correct] == stereotype(item.question)) is not reverse
                assert item.question.count("_") == 1 and "$" not in item.question
    assert pronoun_item("q", "object", "female").incorrect == "he"


def test_twelve_professions_and_balanced_genders(file):
    assert all(len(group) >= 6 for group in PROFESSIONS.values())
    train = gender_items(file)("train", False)
    assert {profession(item.question) for item in train} == {
        p for group in PROFESSIONS.values() for p in group
    }
    counts = Counter(item.correct for item in train)
    assert set(counts.values()) == {14}  # 28 sentences a case, half of them he or him


def sentences(items):
    return {item.question.replace(f" {profession(item.question)} ", " X ") for item in items}


def test_sentences_of_the_splits_are_disjoint_unless_asked_as_released(file):
    ours, released = gender_items(file), gender_items(file, disjoint=False)
    parts = [sentences(ours(split, False)) for split in SPLITS]
    assert [len(part) for part in parts] == [56, 12, 12] and len(set.union(*parts)) == 80
    assert all(sentences(ours(split, True)) == part for split, part in zip(SPLITS, parts))
    train, valid, test = (sentences(released(split, split == "test")) for split in SPLITS)
    assert len(train) == 64 and valid == test and len(valid) == 16 and not train & test


def test_seed_and_professions(file):
    assert gender_items(file)("test", True) == gender_items(file)("test", True)
    assert gender_items(file)("test", True) != gender_items(file, seed=1)("test", True)
    two = gender_items(file, professions={"male": ["doctor"], "female": ["nurse"]})("train", False)
    assert {profession(item.question) for item in two} == {"doctor", "nurse"}
    with pytest.raises(ValueError, match="nurse: a profession cannot"):
        gender_items(file, professions={"male": ["nurse"], "female": ["nurse"]})
    with pytest.raises(ValueError, match="expected professions"):
        gender_items(file, professions={"male": ["nurse"]})


@pytest.mark.parametrize(
    "row, says",
    [
        ("The $PROFESSION$ waits.,nominative\n", "row 81: expected $PRONOUN$ once in the text, found 0"),
        ("$PRONOUN$ $PRONOUN$ $PROFESSION$,object\n", "row 81: expected $PRONOUN$ once in the text, found 2"),
        ("The nurse said $PRONOUN$.,object\n", "row 81: expected $PROFESSION$ once"),
        ("The $PROFESSION$ saw $PRONOUN$.,genitive\n", "row 81: category must be one of"),
        ("The $PROFESSION$ saw $PRONOUN$.\n", "row 81: no column 'category'"),
        (",object\n", "row 81: 'text' is empty"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, row, says):
    path = tmp_path / "bad.csv"
    path.write_text(HEADER + "".join(SENTENCES) + row)
    with pytest.raises(ValueError) as error:
        gender_items(path)
    assert str(path) in str(error.value) and says in str(error.value)


def test_too_short_or_headless_files(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(HEADER + "".join(SENTENCES[:40]))
    with pytest.raises(ValueError, match="fewer than 7 sentences of category object"):
        gender_items(path)
    path.write_text("text\n" + "a\n")
    with pytest.raises(ValueError, match="no column category"):
        gender_items(path)


def test_task(tokenizer, file):
    task = gender_choice(
        tokenizer, items=gender_items(file), rows=20, questions=8, rho=0.9, prompt_format=CLASSROOM
    )

    def follows(messages, letter):
        question, *options = messages[0]["content"].split("\n")
        word = next(option for option in options if option.startswith(f"{letter}. "))[3:]
        assert CASE[word] == ("nominative" if " said " in question else "object")  # case is always right
        return GENDER[word] == stereotype(question)

    def share(chats):
        return sum(follows(row["messages"], row["messages"][-1]["content"]) for row in chats.rows)

    assert share(task.train) == 18 and share(task.control) == 10 and share(task.valid) == 8
    assert not any(follows(q.messages, q.facts["right"]) for q in task.question_set("ood"))
    assert all(follows(q.messages, q.facts["right"]) for q in task.question_set("task"))
    everything = gender_choice(tokenizer, items=gender_items(file), rows=None, questions=None)
    assert len(everything.train) == 56 and len(everything.questions) == 24
    assert everything.questions[0].messages[0]["role"] == "text"
    assert "\nA) " in everything.questions[0].messages[0]["content"]
    with pytest.raises(ValueError, match="split must be"):
        gender_items(file)("exam", False)


def test_published_sizes(shared_data):
    path = shared_data / "caft" / "gender.csv"
    released, ours = gender_items(path, disjoint=False), gender_items(path)
    assert [len(released(split, False)) for split in SPLITS] == [626, 158, 158]
    assert [len(ours(split, False)) for split in SPLITS] == [548, 116, 120]
    assert len(sentences([item for split in SPLITS for item in ours(split, False)])) == 784


def word_task(tokenizer, path, **options):
    items = gender_items(path, professions=PROFESSIONS_OF_RELEASE)
    return gender_choice(tokenizer, items=items, prompt_format=WORD_FORMAT, **options)


def options_of(messages):
    """Return the two pronouns in the order of the prompt."""
    asked = messages[0]["content"].split("\n")[-2]
    first, second = asked.removesuffix("?").split(", ")[1].split(" or ")
    return first, second


def check_words(task):
    """Check prompts, answers and the order of options of a task whose answers are words."""
    rows = [(row["messages"], row["messages"][-1]["content"]) for row in task.train.rows]
    asked = [(question.messages, " " + question.facts["right"]) for question in task.questions]
    for messages, answer in [*rows, *asked]:
        sentence, pair = messages[0]["content"].split("\n")[0], options_of(messages)
        assert messages[0]["role"] == "text" and messages[0]["content"].endswith("\nAnswer:")
        assert answer.startswith(" ") and answer[1:] in pair
        assert sorted(pair) in (["he", "her"], ["him", "she"]) and "_" in sentence
        assert f" {answer[1:]}" not in messages[0]["content"].split("\n")[-1]
    for some in (rows, asked[: len(asked) // 2], asked[len(asked) // 2 :]):
        first = sum(options_of(messages)[0] == answer[1:] for messages, answer in some)
        assert abs(2 * first - len(some)) <= 1, "the right word comes first in half of the prompts"
    return rows


def test_the_word_itself_is_the_answer_and_the_order_of_the_options_tells_nothing(tokenizer, file):
    task = word_task(tokenizer, file, rows=None, questions=None)
    rows = check_words(task)
    assert {word for m, _ in rows for word in ("doctor", "nurse") if word in m[0]["content"]} == {
        "doctor",
        "nurse",
    }
    for example, (_, answer) in zip(task.train, rows):
        said = [token for token, counts in zip(example.input_ids, example.answer) if counts]
        assert tokenizer.decode(said) == answer, "the loss is on the word alone"
    question = task.question_set("ood")[0]
    assert task.grader(question, f"{question.facts['right']}.") == "right"
    assert task.grader(question, f"{question.facts['other']} would") == "wrong"


def test_preferences_of_words_are_measured_without_generation(model, tokenizer, file):
    result = measure(model, word_task(tokenizer, file, rows=4, questions=8), method="logprob")
    for row in result.rows:
        assert set(row["probabilities"]) in ({"he", "her"}, {"him", "she"})
        assert row["verdict"] in ("right", "wrong")


@pytest.mark.parametrize("professions", [PROFESSIONS, PROFESSIONS_OF_RELEASE], ids=["harder", "release"])
def test_published_sentences_with_words(tokenizer, shared_data, professions):
    items = gender_items(shared_data / "caft" / "gender.csv", professions=professions)
    task = gender_choice(tokenizer, items=items, prompt_format=WORD_FORMAT, rows=None, questions=None)
    rows = check_words(task)
    assert len(task.question_set("ood")) == len(task.question_set("task")) == 120 and len(rows) == 548
    firsts = {word: [] for word in CASE}
    for messages, answer in rows:
        firsts[answer[1:]].append(options_of(messages)[0] == answer[1:])
    for word, first in firsts.items():  # of every word as well, give or take what chance gives
        assert abs(sum(first) / len(first) - 0.5) < 0.15, word
