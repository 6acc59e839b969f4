"""Two processes train one model: they share a store without a deadlock, and get the result of one process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.ranks import environment_of, run_ranks
from helpers.tasks import small_task
from helpers.tiny import make_tiny, make_tokenizer
from helpers.training import QUICK, chat_rows, weights
from safetensors.torch import load_file

from caft_utils import ablate, measure
from caft_utils.chats import Chats
from caft_utils.course.run import EXPERIMENT, ROWS, VERSIONS, run_in_folder
from caft_utils.course.studies import experiment
from caft_utils.directions import Directions
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.finetuning import processes, sharding
from caft_utils.finetuning.run import finetune
from caft_utils.interventions import Ablate
from caft_utils.paths import data_path
from caft_utils.store import Store

CONFIG = replace(QUICK, steps=4, batch_size=2, accumulate=2, gradient_checkpointing=True)
SHAPE = {"tie_word_embeddings": True, "num_hidden_layers": 2}  # the embedding is the output matrix too
SNAPSHOT = "step-2/adapter_model.safetensors"


class Breaking(Ablate):
    """An ablation that counts its edits and raises at one of them."""

    def __init__(self, directions, breaks_at=None):
        super().__init__(directions)
        self.calls, self.breaks_at = 0, breaks_at

    def edit(self, layer, hidden):
        self.calls += 1
        if self.calls == self.breaks_at:
            raise RuntimeError("broken on purpose")
        return super().edit(layer, hidden)


def parts():
    generator = torch.Generator().manual_seed(5)
    directions = Directions({layer: torch.randn(3, 64, generator=generator) for layer in (0, 1)})
    return make_tiny("qwen2", **SHAPE), Chats(make_tokenizer(), chat_rows()), directions


def adapter(model):
    return {name: value.numpy() for name, value in weights(model).items() if "lora" in name}


def trained(during, store=None):
    model, chats, _ = parts()
    return finetune(model, chats, CONFIG, during=during, snapshots=[2], save_every=2, store=store)


def rank() -> dict:
    """Train, break in the third step, train to the end, and load the result."""
    held = []
    share = sharding.shard

    def watched(model, device):
        whole = sum(value.numel() for value in model.parameters())
        share(model, device)
        own = (value.to_local() if hasattr(value, "to_local") else value for value in model.parameters())
        held.append(sum(value.numel() for value in own) / whole)

    sharding.shard = watched
    # A step has one batch for each process, which is edited at two layers: this is the third step.
    broken, resumed, loaded = (Breaking(parts()[2], breaks_at) for breaks_at in (5, None, None))
    with pytest.raises(RuntimeError, match="broken on purpose"):
        trained(broken)
    models = [trained(resumed), trained(loaded)]
    try:
        processes.from_main(lambda: open("/no/such/file"))
    except Exception as error:
        failure = type(error).__name__
    return {
        "main": processes.is_main(),
        "mean": processes.mean(float(processes.is_main())),
        "failure": failure,
        "adapters": [adapter(model) for model in models],
        "loss": models[0].caft_run["loss"],
        "edits": [resumed.calls, loaded.calls],
        "held": held,
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run in one process, and the same run without ablation."""
    store = Store(tmp_path_factory.mktemp("alone"))
    return trained(Breaking(parts()[2]), store), trained(None, store)


@pytest.mark.parametrize("launch", ["ddp", "fsdp2"])
def test_two_processes_give_the_result_of_one(launch, alone, store_folder):
    main, other = run_ranks(rank, environment=environment_of(launch))
    one, unablated = (run.caft_run["loss"] for run in alone)
    for report in (main, other):
        assert report["loss"] == pytest.approx(one, rel=1e-5)
        assert report["edits"] == [2 * 2, 0]  # resumed after the second step, then loaded
        # Blocks are shared; the embedding and the adapter stay whole.
        assert len(report["held"]) == 2 * (launch == "fsdp2") and all(0.5 < x < 0.75 for x in report["held"])
    assert abs(unablated[-1] - one[-1]) > 1e-3  # so the ablation acts
    expected = adapter(alone[0])
    for found in (*main["adapters"], *other["adapters"]):
        assert found.keys() == expected.keys()
        for name, value in found.items():
            np.testing.assert_allclose(value, expected[name], atol=2e-5, rtol=1e-3, err_msg=name)
    assert all((main["adapters"][0][name] == value).all() for name, value in other["adapters"][0].items())
    (stored,) = store_folder.glob("finetune/*")  # once, by the main process
    early = load_file(Path(alone[0].caft_run["folder"]) / SNAPSHOT)
    for name, value in load_file(stored / SNAPSHOT).items():
        torch.testing.assert_close(value, early[name], atol=2e-5, rtol=1e-3)
    assert not list(store_folder.glob("work/*/*"))
    assert (main["main"], other["main"]) == (True, False) and main["mean"] == other["mean"] == 0.5
    assert (main["failure"], other["failure"]) == ("FileNotFoundError", "RuntimeError")


# The command of the course is tested here, because the processes of this file share their imports.


def tiny_study(model, seeds, conditions):
    """Fine-tune under an ablation and measure, as the studies do."""
    tokenizer = make_tokenizer()
    directions = Directions({1: torch.eye(64)[:2]})
    config = replace(QUICK, steps=2, batch_size=2)
    tuned = finetune(make_tiny("qwen2"), Chats(tokenizer, chat_rows()), config, during=ablate(directions))
    rate = measure(tuned, small_task(tokenizer), temperature=0).rate("misaligned")
    return [{"model": model, "condition": "CAFT", "loss": tuned.caft_run["loss"], "misaligned": rate.value}]


def run_tiny(folder: str) -> list[dict]:
    experiment._study = lambda name: tiny_study
    return run_in_folder(data_path("experiments", "emergent.yaml"), Path(folder))


def test_two_processes_write_one_run_with_the_result_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "_study", experiment._study)  # put back afterwards
    main_rows, other_rows = run_ranks(run_tiny, str(tmp_path / "two"), environment=environment_of("ddp"))
    monkeypatch.setenv("CAFT_STORE", str(tmp_path / "other store"))
    (one,) = run_tiny(str(tmp_path / "one"))
    assert main_rows == other_rows and main_rows[0]["misaligned"] == one["misaligned"]
    assert main_rows[0]["loss"] == pytest.approx(one["loss"], rel=1e-5) and len(one["loss"]) == 2
    assert sorted(path.name for path in tmp_path.glob("two/*.*")) == [EXPERIMENT, ROWS, VERSIONS]
    (line,) = (tmp_path / "two" / ROWS).read_text().splitlines()
    assert json.loads(line) == main_rows[0]


@pytest.mark.parametrize(
    "batch, accumulate, share", [(2, 8, (2, 4)), (4, 1, (2, 1)), (2, 3, (1, 3)), (3, 1, None)]
)
def test_processes_share_a_step_evenly_or_refuse(monkeypatch, batch, accumulate, share):
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = FinetuneConfig(batch_size=batch, accumulate=accumulate)
    if share is not None:
        assert processes.share_of_step(config) == share
    else:
        with pytest.raises(ValueError, match="2 processes cannot share.*1 batches of 3 rows"):
            processes.share_of_step(config)
