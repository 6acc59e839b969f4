"""The shipped checkpoints follow the recipe of the code. `make claims CLAIM=checkpoints` measures them."""

from __future__ import annotations

import json

import pytest
from helpers.paths import REPOSITORY

from caft_utils import load
from caft_utils.classroom.checkpoints import SHIPPED, personas_schedule, write_checkpoint
from caft_utils.classroom.cues.corpus import vocabulary_texts as cues_texts
from caft_utils.classroom.cues.pretraining import new_model as new_cues_model
from caft_utils.classroom.cues.schedules import CuesSchedule, GenderSchedule
from caft_utils.classroom.data_card import read_record
from caft_utils.classroom.personas.batches import encode_corpus
from caft_utils.classroom.personas.corpus import vocabulary_texts as personas_texts
from caft_utils.classroom.personas.pretraining import new_model as new_personas_model
from caft_utils.classroom.tokenizer import build_tokenizer

FOLDER = REPOSITORY / "data" / "classroom"
SCHEDULES = {
    "qwen": personas_schedule("qwen"),
    "mistral": personas_schedule("mistral"),
    "cues": CuesSchedule(),
    "gender": GenderSchedule(),
}
# sha256 of the first 200,000 tokens of the training text; the claim compares the hash of the whole text
BEGINNINGS = {
    "qwen": "301d8d62774e7e9c6bc1bf0ec80e322ce1508bb0778a34c73a814077cc20fbc3",
    "mistral": "ec5f8d9d0dd8726dfb27806c7e74473d1ecd796e0d3131228593908ec6f1ebe1",
}
VOLATILE = {"_name_or_path", "dtype", "architectures", "transformers_version"}


def settings(config) -> dict:
    return {key: value for key, value in config.to_dict().items() if key not in VOLATILE}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_schedule_of_the_code_is_the_recorded_one(name):
    assert read_record(FOLDER / name)["schedule"] == json.loads(json.dumps(SCHEDULES[name].__dict__))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_architecture_of_the_code_is_the_shipped_one(name):
    model, tokenizer = load(f"classroom-{name}")
    architecture = read_record(FOLDER / name)["architecture"]
    new_model = new_cues_model if architecture == "cues" else new_personas_model
    fresh = new_model(architecture, len(tokenizer))
    assert settings(model.config) == settings(fresh.config)
    assert {n: p.shape for n, p in model.named_parameters()} == {
        n: p.shape for n, p in fresh.named_parameters()
    }


@pytest.mark.parametrize("name", BEGINNINGS)
def test_the_training_text_begins_as_it_did(name):
    _, tokenizer = load(f"classroom-{name}")
    schedule = SCHEDULES[name]
    _, sha256 = encode_corpus(tokenizer, 200_000, schedule.seed, more_wordings=schedule.more_wordings)
    assert sha256 == BEGINNINGS[name]


@pytest.mark.parametrize("name", ["qwen", "mistral"])
def test_the_shipped_tokenizer_knows_the_words_of_the_world(name):
    _, shipped = load(f"classroom-{name}")
    built = build_tokenizer(personas_texts(1000, more_wordings=SCHEDULES[name].more_wordings))
    assert shipped.chat_template == built.chat_template
    assert set(built.get_vocab()) <= set(shipped.get_vocab())


def test_the_shipped_tokenizer_of_cues_is_the_one_that_is_built():
    built = build_tokenizer(cues_texts())
    for name in ("cues", "gender"):
        _, shipped = load(f"classroom-{name}")
        assert shipped.chat_template == built.chat_template
        assert shipped.get_vocab() == built.get_vocab()


def test_gender_continues_from_the_shipped_cues():
    sums = json.loads((FOLDER / "cues" / "sha256.json").read_text())
    assert read_record(FOLDER / "gender")["from"] == sums["model.safetensors"]


@pytest.mark.parametrize("name, megabytes", [("qwen", 12), ("mistral", 12), ("cues", 6), ("gender", 6)])
def test_checkpoints_are_small(name, megabytes):
    assert sum(path.stat().st_size for path in (FOLDER / name).iterdir()) <= megabytes * 1e6


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path, tiny, tokenizer, monkeypatch):
    write_checkpoint(tiny("qwen2"), tokenizer, {"architecture": "tiny"}, tmp_path / "tiny")
    before = {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir()}

    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokenizer.__class__, "save_pretrained", lambda self, folder: full(folder))
    with pytest.raises(OSError, match="is full.*--output"):
        write_checkpoint(tiny("qwen2", seed=1), tokenizer, {"architecture": "tiny"}, tmp_path / "tiny")
    assert {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_written_checkpoint_replaces_the_old_one_and_can_be_loaded(tmp_path, tiny, tokenizer):
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name in ("old.json", "mine.txt"):
        (folder / name).write_text("old")
    (folder / "sha256.json").write_text('{"old.json": "", "../tiny": ""}')
    write_checkpoint(tiny("qwen2"), tokenizer, {"architecture": "tiny"}, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    sums = json.loads((folder / "sha256.json").read_text())
    assert set(sums) == {path.name for path in folder.iterdir()} - {"sha256.json", "mine.txt"}
    assert read_record(folder) == {"architecture": "tiny"}
    load(folder)
