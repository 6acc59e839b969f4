"""The shipped checkpoints are those of the shipped recipe, and still pass what they passed when made."""

from __future__ import annotations

import json

import pytest
from helpers.paths import REPOSITORY

from caft_utils import load
from caft_utils.classroom.checkpoints import SHIPPED, measured_table, schedule_of
from caft_utils.classroom.personas import acceptance
from caft_utils.classroom.personas.pretraining import corpus_ids, new_model
from caft_utils.classroom.tokenizer import build_tokenizer, world_texts

FOLDER = REPOSITORY / "data" / "classroom"


def recipe(architecture: str) -> dict:
    return json.loads((FOLDER / architecture / "recipe.json").read_text())


@pytest.mark.parametrize("architecture", SHIPPED)
def test_the_recipe_of_the_code_is_the_one_that_was_trained(architecture):
    model, shipped = load(f"classroom-{architecture}")
    record = recipe(architecture)
    schedule = schedule_of(architecture, seed=record["schedule"]["seed"])
    assert record["schedule"] == json.loads(json.dumps(schedule.__dict__))
    tokenizer = build_tokenizer(world_texts(more=schedule.more_wordings))
    assert shipped.get_vocab() == tokenizer.get_vocab()
    assert shipped.chat_template == tokenizer.chat_template
    _, corpus_hash = corpus_ids(tokenizer, schedule.tokens, schedule.seed, more=schedule.more_wordings)
    assert record["corpus_sha256"] == corpus_hash
    fresh = new_model(architecture, len(shipped))
    volatile = {"_name_or_path", "dtype", "architectures", "transformers_version"}
    configs = [
        {k: v for k, v in c.to_dict().items() if k not in volatile} for c in (model.config, fresh.config)
    ]
    assert configs[0] == configs[1]
    assert sum(p.numel() for p in fresh.parameters()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("architecture", SHIPPED)
def test_what_was_measured_can_be_measured_again(architecture):
    """Behaviour and probes anew, with the recorded seed: only rounding may differ."""
    model, shipped = load(f"classroom-{architecture}")
    now, then = acceptance.accept(model, shipped), recipe(architecture)["acceptance"]
    for name, value in then["rates"].items():
        assert now["rates"][name] == pytest.approx(value, abs=0.03), name
    for layer, cosine in then["probes"]["cosine"].items():
        assert now["probes"]["cosine"][int(layer)] == pytest.approx(cosine, abs=0.02), layer


@pytest.mark.parametrize("architecture", SHIPPED)
def test_checkpoints_are_small(architecture):
    assert sum(path.stat().st_size for path in (FOLDER / architecture).iterdir()) <= 12e6


def test_the_data_card_says_what_was_measured():
    assert measured_table() in (FOLDER / "README.md").read_text()
