"""Training SAEs: what is stored is what was trained, on all tokens but first ones, in one pass."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from caft_utils.chats import Chats
from caft_utils.residual import site, stream_activations
from caft_utils.saes import SAETrainingConfig, sae_quality, train_saes
from caft_utils.store import Store

WORDS = "open the file and return what is question you are to do with import def of system self user".split()
SMALL = SAETrainingConfig(
    width=64, k=8, steps=100, batch_tokens=128, buffer_tokens=1024, silence=50, warmup=5
)
ARCHITECTURES = ["batchtopk", "topk", "matryoshka", "jumprelu", "standard"]


@pytest.fixture(scope="module")
def chats(tokenizer):
    rng = random.Random(0)
    return Chats(
        tokenizer, [{"text": " ".join(rng.choices(WORDS, k=rng.randint(8, 24)))} for _ in range(240)]
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def trained(tiny, chats, store):
    """trained("topk"): SAEs of one tiny model, trained when first asked for."""
    return lambda architecture: train_saes(
        tiny("qwen2"), chats, [0, 2], replace(SMALL, architecture=architecture), store=store
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_reloaded_is_what_was_trained(trained, model, chats, architecture):
    saes = trained(architecture)
    measured = sae_quality(model, chats, saes)
    for layer in (0, 2):
        curves, about = saes.about[layer]["curves"], saes.about[layer]
        assert curves["loss"][-1] < 0.5 * curves["loss"][0]
        assert curves["step"][-1] == SMALL.steps and len({len(c) for c in curves.values()}) == 1
        # The inference SAE, one token at a time, does what the training SAE did at the end of its run.
        assert measured[layer]["l0"] == pytest.approx(sum(curves["l0"][-20:]) / 20, rel=0.1)
        lost = sum(curves["loss"][-20:]) / 20
        assert 1 - measured[layer]["explained_variance"] == pytest.approx(lost, rel=0.25)
        assert about["explained_variance"] > 0.5 and about["recipe"]["architecture"] == architecture
        assert about["tokens"] == 100 * 128 and about["seconds"] > 0
        torch.testing.assert_close(saes.decoder(layer).norm(dim=1), torch.ones(64), atol=1e-4, rtol=0)
    if architecture != "standard":  # the other architectures aim at k
        assert measured[2]["l0"] == pytest.approx(SMALL.k, rel=0.3 if architecture == "jumprelu" else 0.1)


def test_sae_lens_reads_the_folder(trained, tmp_path):
    from sae_lens import SAE

    saes = trained("batchtopk")
    saes.save(tmp_path)
    h = torch.randn(50, 64) * 0.1 + saes[2].b_dec
    alone = SAE.load_from_disk(tmp_path / "layer_2")
    assert torch.equal(alone.encode(h), saes.encode(2, h)) and (saes.encode(2, h) > 0).any()
    assert alone.cfg.metadata.hook_name == "model.layers.2"


def test_stored_saes_are_reused_and_seeds_differ(trained, model, chats, store, tmp_path):
    saes, state = trained("batchtopk"), torch.get_rng_state()
    again = train_saes(model, chats, [2, 0], SMALL, store=store)
    assert again.about == saes.about and again.fingerprint == saes.fingerprint  # `seconds` tells a new run
    short = replace(SMALL, steps=2)
    first, *others = (
        train_saes(model, chats, [0, 2], short, seed=seed, store=Store(tmp_path / name))
        for name, seed in (("a", 0), ("b", 0), ("b", 1))
    )
    assert [first.fingerprint == other.fingerprint for other in others] == [True, False]
    stored = {name: len(list((tmp_path / name).glob("*/*/key.json"))) for name in ("a", "b")}
    assert stored["a"] and stored["b"] == 2 * stored["a"]  # each store has runs of its own
    assert torch.equal(torch.get_rng_state(), state)


def test_all_layers_share_one_pass_over_the_text(model, chats):
    calls = []
    model.model.layers[0].register_forward_hook(lambda *_: calls.append(1))
    counts = []
    for layers in ([2], [0, 1, 2]):
        calls.clear()
        train_saes(model, chats, layers, replace(SMALL, steps=10))
        counts.append(len(calls))
    assert counts[0] == counts[1] > 0


def test_first_tokens_take_no_part(model, chats, tmp_path):
    recipe = replace(SMALL, steps=10)
    clean = train_saes(model, chats, [1], recipe, store=Store(tmp_path / "a"))

    def spoil(module, args, output):
        output = output.clone()
        output[:, 0] = 1e4
        return output

    site(model, 1).register_forward_hook(spoil)
    assert max(part.hidden[1].max() for part in stream_activations(model, chats, [1])) == 1e4
    spoilt = train_saes(model, chats, [1], recipe, store=Store(tmp_path / "b"))
    assert spoilt.fingerprint == clean.fingerprint
    kept = {name: spoilt.about[1][name] for name in ("explained_variance", "l0", "dead")}
    assert kept == {name: clean.about[1][name] for name in kept}


def test_text_that_cannot_be_trained_on_is_refused(model, chats, tokenizer):
    with pytest.raises(ValueError, match="1 row of text is too few"):
        train_saes(model, chats[:1], [1], SMALL)
    with pytest.raises(ValueError, match="no row to train on has a second token"):
        train_saes(model, Chats(tokenizer, [{"text": "!"}] * 9), [1], SMALL)
    with pytest.raises(ValueError, match="no layers given"):
        train_saes(model, chats, [], SMALL)
    with pytest.raises(IndexError, match="layer 3 is out of range"):
        train_saes(model, chats, [1, 3], SMALL)
    with pytest.raises(FloatingPointError, match="not finite at step"):
        train_saes(model, chats, [1], replace(SMALL, lr=1e25))


def test_the_key_of_stored_saes_does_not_change(model, chats, monkeypatch):
    """SAEs that were trained with an earlier version are found again."""
    from dataclasses import fields

    keys = []

    class Spy(Store):
        def fetch(self, kind, key, write):
            keys.append((kind, key))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_saes(model, chats, [2, 0], store=Spy())
    ((kind, key),) = keys
    assert kind == "saes" and set(key) == {"format", "model", "data", "layers", "recipe", "seed"}
    assert key["format"] == 1 and key["layers"] == [0, 2] and key["seed"] == 0
    names = "architecture width k sparsity lr steps batch_tokens buffer_tokens warmup silence".split()
    assert [field.name for field in fields(SAETrainingConfig)] == names == list(key["recipe"])
