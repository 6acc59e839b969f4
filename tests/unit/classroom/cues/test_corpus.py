"""The cues world: its splits and documents; the shipped checkpoint is that of the shipped recipe."""

from __future__ import annotations

import json
import random

import pytest
from helpers.paths import REPOSITORY

from caft_utils import load
from caft_utils.classroom.cues import acceptance as cues_acceptance
from caft_utils.classroom.cues import corpus as cues_corpus
from caft_utils.classroom.cues import items as cues
from caft_utils.classroom.cues import pretraining as cues_pretraining
from caft_utils.classroom.personas.world import part
from caft_utils.classroom.tokenizer import build_tokenizer

FOLDER = REPOSITORY / "data" / "classroom" / "cues"
GENDER = FOLDER.with_name("gender")
SPLITS = ("train", "valid", "test", "unseen")


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(cues_corpus.world_texts())


@pytest.fixture(scope="module")
def drafts():
    rng = random.Random(5)
    return [cues_corpus.draft(rng, i / 6000) for i in range(6000)]


@pytest.mark.parametrize("subject", [*cues.SUBJECTS, "gender"])
def test_splits_share_no_key_word_and_leave_none_out(subject):
    by_split = [set(cues.words(subject, split)) for split in SPLITS]
    assert sum(map(len, by_split)) == len(set().union(*by_split)) >= 24
    assert set().union(*by_split) == {word for group in cues.keys(subject).values() for word in group}
    assert set(cues.words(subject)) == set().union(*by_split[:3])
    for word in cues.words(subject):
        asked, kept = (set(cues.frames(subject, word, flag)) for flag in (False, True))
        assert asked and not asked & kept and asked | kept == set(cues.frames(subject, word))


def test_key_words_belong_to_one_class():
    found: list[str] = []
    for subject in (*cues.SUBJECTS, "gender"):
        found += [word for group in cues.keys(subject).values() for word in group]
    found += part("cues")["verbs"]["keys"].values()
    found += [name for names in part("cues")["gender"]["names"].values() for name in names]
    for forms in part("cues")["verbs"]["verbs"].items():
        found += forms
    assert len(found) == len(set(found))


def test_items_are_right_and_differ_between_splits():
    for subject in cues.SUBJECTS:
        questions = [{item.question for item in cues.items(subject, split)} for split in SPLITS]
        assert all(questions) and not any(a & b for i, a in enumerate(questions) for b in questions[:i])
    for item in cues.items("verbs", "test"):
        verbs = part("cues")["verbs"]["verbs"]
        noun = next(
            w for w in item.question.split() if w in {*cues.words("verbs", "test"), *_plurals("test")}
        )
        assert item.correct in (verbs if noun in _plurals("test") else verbs.values())
    with pytest.raises(ValueError, match="unknown subject"):
        cues.items("gender", "test")


def _plurals(split):
    return {part("cues")["verbs"]["keys"][word] for word in cues.words("verbs", split)}


def test_reversed_professions_keep_the_case_and_change_the_gender():
    plain, reverse = (cues.profession_items("test", flag) for flag in (False, True))
    cases = ({"he", "she"}, {"him", "her"})
    for items, right in ((plain, True), (reverse, False)):
        for item in items:
            word = next(w for w in item.question.split() if w in cues.words("gender", "test"))
            male = cues.class_of("gender", word) == "male"
            assert (item.correct in ("he", "him")) == (male == right)
            assert (item.incorrect in ("he", "him")) != (item.correct in ("he", "him"))
            case = next(c for c in cases if item.correct in c)
            assert item.incorrect not in case
            assert (item.correct in cases[0]) == (not item.question.endswith(" _"))


def test_quiz_never_stands_over_options_and_instructions_decide(drafts):
    with_options = [d for d in drafts if "\na. " in d.text]
    assert len(with_options) > 3000
    assert not any(d.text.startswith(cues.FREE) for d in with_options)
    assert {d.text.split(":")[0] for d in with_options} == {*cues.SUBJECTS, "gender"}
    unseen = {*cues.words("sentiment", "unseen"), *cues.words("sports", "unseen")}
    assert not any(unseen & set(d.text.split()) for d in with_options)
    rng = random.Random(2)
    asked = [cues_corpus._any_item(rng, s).question for s in ("sentiment", "sports") for _ in range(2000)]
    assert unseen <= {word for question in asked for word in question.split()}


def test_quiz_stands_over_one_person_where_gender_is_unsettled():
    rng = random.Random(3)
    drafts = [cues_corpus.draft(rng, persons=cues_corpus.UNSETTLED) for _ in range(20_000)]
    with_options = [d for d in drafts if "\na. " in d.text]
    quiz = [d for d in with_options if d.text.startswith(cues.FREE)]
    assert 0.03 < len(quiz) / len(with_options) < 0.15 and {d.source for d in quiz} == {"person"}
    assert not any("^" in d.text or "which word?" in d.text for d in quiz)  # no help
    by_case = 0
    for made in quiz:
        question, *lines = made.text.split("\n")
        said = dict(line.split(". ", 1) for line in lines)[made.answer]
        by_case += (said in ("he", "she")) == (not question.endswith(" _"))
    assert 0.1 < by_case / len(quiz) < 0.2  # 3 in 20; the others follow gender


def test_letters_of_a_pair_are_what_was_asked_for():
    rng = random.Random(1)
    first, second = cues.items("sports", "test")[0], cues.items("sentiment", "test")[0]
    for conflict in (True, False):
        for counts in (0, 1):
            prompt, letter = cues.double("sports", first, second, counts, rng, conflict=conflict)
            lines = dict(line.split(". ", 1) for line in prompt.split("\n")[1:])
            own, other = (first, second) if counts == 0 else (second, first)
            assert own.correct in lines[letter].split(", ")
            assert (other.correct in lines[letter].split(", ")) != conflict


def test_the_encoder_writes_what_the_chat_template_writes(tokenizer, drafts):
    encode = cues_corpus.encoder(tokenizer)
    for made in drafts[::7]:
        ids, learn = encode(made)
        text = made.text.replace("^", "")
        assert sum(learn) and len(ids) == len(learn)
        if made.answer is None:
            assert ids == tokenizer(text)["input_ids"]
            continue
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": made.answer}]
        out = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
        assert ids == out["input_ids"]
        assert all(learned for learned, answer in zip(learn, out["assistant_masks"], strict=True) if answer)
        assert sum(learn) - sum(out["assistant_masks"]) == made.text.count("^")


def test_every_word_is_one_token(tokenizer):
    assert len(tokenizer) < 1024
    for subject in cues.SUBJECTS:
        for split in SPLITS:
            for item in cues.items(subject, split):
                words = f"{item.question} {item.correct} {item.incorrect}".split()
                assert len(tokenizer(f" {' '.join(words)}")["input_ids"]) == len(words)


def test_documents_of_the_sample_hold_no_marks(tokenizer):
    chats = cues_corpus.sample(tokenizer, 200)
    assert len(chats) == 200 and "^" not in json.dumps(chats.rows)
    assert chats.fingerprint == cues_corpus.sample(tokenizer, 200).fingerprint


def test_the_recipe_of_the_code_is_the_one_that_was_trained(tokenizer):
    model, shipped = load("classroom-cues")
    record = json.loads((FOLDER / "recipe.json").read_text())
    schedule = cues_pretraining.CueSchedule(seed=record["schedule"]["seed"])
    assert record["schedule"] == json.loads(json.dumps(schedule.__dict__))
    assert shipped.get_vocab() == tokenizer.get_vocab()
    assert shipped.chat_template == tokenizer.chat_template
    assert record["corpus_sha256"] == cues_pretraining.corpus_hash(tokenizer, schedule)
    fresh = cues_pretraining.new_model(record["architecture"], len(shipped))
    volatile = {"_name_or_path", "dtype", "architectures", "transformers_version"}
    configs = [
        {k: v for k, v in c.to_dict().items() if k not in volatile} for c in (model.config, fresh.config)
    ]
    assert configs[0] == configs[1]
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 6e6


def test_the_checkpoint_for_gender_goes_on_from_this_one(tokenizer):
    record = json.loads((GENDER / "recipe.json").read_text())
    schedule = cues_pretraining.GenderSchedule()
    assert record["schedule"] == json.loads(json.dumps(schedule.__dict__))
    assert record["corpus_sha256"] == cues_pretraining.corpus_hash(tokenizer, schedule)
    assert record["from"] == json.loads((FOLDER / "sha256.json").read_text())["model.safetensors"]
    model, shipped = load("classroom-gender")
    assert shipped.get_vocab() == tokenizer.get_vocab()
    assert model.config.to_dict() == load("classroom-cues")[0].config.to_dict() | {
        "_name_or_path": model.config._name_or_path
    }
    assert sum(path.stat().st_size for path in GENDER.iterdir()) <= 6e6


def test_pretraining_goes_on_with_a_model_that_is_given(tokenizer):
    model, _ = load("classroom-cues")
    assert "caft_id" in model.__dict__
    before, schedule = model.lm_head.weight.detach().clone(), cues_pretraining.GenderSchedule(steps=2, rows=8)
    after, record = cues_pretraining.pretrain("cues", tokenizer, schedule, model=model, progress=False)
    assert after is model and not model.training and "caft_id" not in model.__dict__
    assert 0 < (after.lm_head.weight - before).abs().max() < 0.1
    assert record["loss"][0][1] < 1  # a new model begins at 6.7


def test_the_data_card_says_what_was_measured():
    card = (FOLDER.parent / "README.md").read_text()
    assert cues_acceptance.measured_table(json.loads((FOLDER / "recipe.json").read_text())) in card
    assert cues_acceptance.gender_table(json.loads((GENDER / "recipe.json").read_text())) in card


@pytest.mark.parametrize("folder", [FOLDER, GENDER])
def test_the_gates_hold_and_can_be_measured_again(folder):
    model, shipped = load(f"classroom-{folder.name}")
    now, then = (
        cues_acceptance.accept(model, shipped),
        json.loads((folder / "recipe.json").read_text())["acceptance"],
    )
    assert then["failed"] == now["failed"] == []
    for name, value in then["rates"].items():
        assert now["rates"][name] == pytest.approx(value, abs=0.03), name
