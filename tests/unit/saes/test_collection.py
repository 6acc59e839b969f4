"""SAEs: what is trained is what is reloaded, measured as defined, and read as directions."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import torch

from caft_utils.chats import Chats
from caft_utils.interventions import ablate
from caft_utils.residual import site, stream_activations
from caft_utils.saes import Latents, SAEs, SAETrainingConfig, sae_quality, train_saes
from caft_utils.saes.latents import sae_directions
from caft_utils.store import Store

WORDS = "open the file and return what is question you are to do with import def of system self user".split()
SMALL = SAETrainingConfig(
    width=64, k=8, steps=100, batch_tokens=128, buffer_tokens=1024, silence=50, warmup=5
)
ARCHITECTURES = ["batchtopk", "topk", "matryoshka", "jumprelu", "standard"]


def make_sae(w_enc, w_dec, *, b_enc=None, b_dec=None, threshold=None):
    """A JumpReLU SAE with given weights, [d, F] and [F, d]."""
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig

    d, latents = w_enc.shape
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=d, d_sae=latents))
    weights = {"b_enc": b_enc, "threshold": threshold, "b_dec": b_dec}
    sizes = {"b_enc": latents, "threshold": latents, "b_dec": d}
    state = {name: torch.zeros(sizes[name]) if w is None else w for name, w in weights.items()}
    sae.load_state_dict({"W_enc": w_enc.clone(), "W_dec": w_dec.clone(), **state})
    return sae


def random_sae(latents=32, d=64, seed=0):
    torch.manual_seed(seed)
    return make_sae(
        torch.randn(d, latents) * 0.3,
        torch.randn(latents, d) * torch.rand(latents, 1),
        b_enc=torch.randn(latents),
        b_dec=torch.randn(d),
        threshold=torch.rand(latents),
    )


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


def test_the_store_is_asked_first_and_seeds_differ(trained, model, chats, store, tmp_path):
    saes, state = trained("batchtopk"), torch.get_rng_state()
    again = train_saes(model, chats, [2, 0], SMALL, store=store)
    assert again.about == saes.about and again.fingerprint == saes.fingerprint  # `seconds` tells a new run
    short = replace(SMALL, steps=2)
    first, *others = (
        train_saes(model, chats, [0, 2], short, seed=seed, store=Store(tmp_path / name))
        for name, seed in (("a", 0), ("b", 0), ("b", 1))
    )
    assert [first.fingerprint == other.fingerprint for other in others] == [True, False]
    assert first.about[0]["seconds"] != others[0].about[0]["seconds"]
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


def test_quality_is_as_defined(model, chats):
    saes = SAEs({1: random_sae()})
    states, kept = [], [c for c in chats[:40]]
    for example in kept:
        with torch.no_grad():
            hidden = model(torch.tensor([example.input_ids]), output_hidden_states=True).hidden_states[2]
        states.append(hidden[0, 1:])
    h = torch.cat(states).double()
    latents = saes.encode(1, h.float())
    rest = h - saes[1].decode(latents).double()
    expected = 1 - rest.square().sum() / (h - h.mean(0)).square().sum()
    found = sae_quality(model, chats[:40], saes)[1]
    assert found["explained_variance"] == pytest.approx(expected.item(), rel=1e-4)
    assert found["l0"] == pytest.approx((latents > 0).sum(1).double().mean().item(), abs=2e-3)
    assert found["dead"] == pytest.approx((latents <= 0).all(0).double().mean().item(), abs=1e-6)
    assert 0 < found["dead"] < 1 and "loss_recovered" not in found


def test_loss_recovered_is_one_for_a_perfect_sae_and_zero_for_a_useless_one(tiny, chats):
    model = tiny("gemma2")
    both_signs = torch.cat([torch.eye(64), -torch.eye(64)])
    perfect = SAEs({1: make_sae(both_signs.T, both_signs)})
    useless = SAEs({1: make_sae(torch.zeros(64, 4), torch.eye(64)[:4])})
    found = sae_quality(model, chats[:20], perfect, loss=True)[1]
    assert found["explained_variance"] == pytest.approx(1, abs=1e-6)
    assert found["l0"] == pytest.approx(64) and found["loss_recovered"] == pytest.approx(1, abs=1e-4)
    found = sae_quality(model, chats[:20], useless, loss=True)[1]
    assert found["loss_recovered"] == pytest.approx(0, abs=1e-6) and found["dead"] == 1
    assert not any(m._forward_hooks for m in model.modules())


def test_loss_recovered_is_as_defined(model, chats):
    from caft_utils.losses import mean_answer_loss

    saes = SAEs({1: random_sae()})

    def loss_with(change):
        def hook(module, args, output):
            return torch.stack([torch.cat([row[:1], change(row[1:])]) for row in output])

        handle = site(model, 1).register_forward_hook(hook)
        try:
            return mean_answer_loss(model, chats[:20])
        finally:
            handle.remove()

    sae, zero, clean = (
        loss_with(change) for change in (lambda h: saes.reconstruct(1, h), torch.zeros_like, lambda h: h)
    )
    found = sae_quality(model, chats[:20], saes, loss=True)[1]["loss_recovered"]
    assert found == pytest.approx((zero - sae) / (zero - clean), rel=1e-3)


def test_decoder_rows_get_length_one_and_nothing_else_changes():
    sae = random_sae()
    h = torch.randn(20, 64)
    latents, output, norms = sae.encode(h), sae(h), sae.W_dec.norm(dim=1)
    saes = SAEs({3: sae})
    torch.testing.assert_close(saes.decoder(3).norm(dim=1), torch.ones(32))
    torch.testing.assert_close(saes.encode(3, h), latents * norms)
    torch.testing.assert_close(saes.reconstruct(3, h), output)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), norms)  # the caller's own SAE is left alone
    assert not saes.encode(3, h).requires_grad and saes.encode(3, h.bfloat16()).dtype == torch.float32


def test_latents_are_read_like_directions(model):
    from caft_utils.features import Features

    saes = SAEs({0: random_sae(), 1: random_sae(seed=1)})
    latents = Latents(saes, {1: [7, 3], 0: []})
    assert isinstance(latents, Features) and isinstance(latents, Latents)
    assert (latents.noun, latents.signed, latents.layers) == ("latent", False, [1])
    assert latents.indices(1) == [7, 3] and latents.width == 64
    h = torch.randn(9, 64)
    assert torch.equal(latents.values(1, h), saes.encode(1, h)[:, [7, 3]])
    assert torch.equal(Latents(saes).values(1, h), saes.encode(1, h))
    assert torch.equal(latents.vector(1, 3), saes.decoder(1)[3])
    assert Latents(saes).indices(0) == list(range(32))
    with pytest.raises(IndexError, match="latent 4 of layer 1 is not among the chosen"):
        latents.vector(1, 4)
    with pytest.raises(KeyError, match="no latent is chosen at layer 0"):
        latents.values(0, h)
    with pytest.raises(IndexError, match=r"layer 1 has latents 0 to 31, got \[32\]"):
        Latents(saes, {1: [32]})
    with pytest.raises(ValueError, match="chosen twice"):
        Latents(saes, {1: [3, 3]})
    with pytest.raises(ValueError, match="no latent chosen"):
        Latents(saes, {1: []})


def test_ablating_latents_takes_their_directions_out_of_the_stream(model, chats):
    saes = SAEs({1: random_sae()})
    directions = sae_directions(saes, {1: [5, 11, 2]})
    torch.testing.assert_close(directions[1] @ directions[1].T, torch.eye(3), atol=1e-5, rtol=0)
    assert directions.about["selected"] == {"1": [5, 11, 2]} and directions.about["saes"] == saes.fingerprint
    with ablate(directions).on(model):
        after = next(stream_activations(model, chats, [1])).hidden[1]
    before = next(stream_activations(model, chats, [1])).hidden[1]
    rows = saes.decoder(1)[[5, 11, 2]]
    assert (after @ rows.T).abs().max() < 1e-5 < (before @ rows.T).abs().max()


@pytest.fixture
def saved(tmp_path):
    saes = SAEs({-1: random_sae(), 2: random_sae(16, seed=1)}, {2: {"l0": 3.5}})
    return saes, saes.save(tmp_path / "saes")


def test_save_and_load_give_the_same_bits(saved):
    saes, folder = saved
    loaded = SAEs.load(folder)
    assert loaded.layers == [-1, 2] and loaded.about == {-1: {}, 2: {"l0": 3.5}}
    assert loaded.fingerprint == saes.fingerprint and "2: 16" in repr(loaded)
    SAEs({0: random_sae()}).save(folder)
    assert SAEs.load(folder).layers == [0] and not (folder / "layer_2").exists()


@pytest.mark.parametrize("what", ["weights", "config", "missing", "card", "format"])
def test_damaged_files_are_refused(saved, what):
    folder = saved[1]
    if what == "weights":
        path = folder / "layer_2" / "sae_weights.safetensors"
        path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    elif what == "config":
        path = folder / "layer_2" / "cfg.json"
        path.write_text(path.read_text().replace("true", "false", 1))
    elif what == "missing":
        (folder / "layer_-1" / "cfg.json").unlink()
    elif what == "card":
        (folder / "saes.json").write_text("{")
    else:
        card = json.loads((folder / "saes.json").read_text())
        (folder / "saes.json").write_text(json.dumps(card | {"format": 99}))
    with pytest.raises(ValueError, match="damaged; train or save them again"):
        SAEs.load(folder)


def test_a_folder_without_a_card_is_not_saes(saved):
    (saved[1] / "saes.json").unlink()
    with pytest.raises(FileNotFoundError, match="no saes.json"):
        SAEs.load(saved[1])


def test_wrong_saes_are_refused():
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

    with pytest.raises(ValueError, match="no SAE given"):
        SAEs({})
    with pytest.raises(TypeError, match="training SAE, in which the tokens of a batch compete"):
        SAEs({0: BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=8, d_sae=16, k=2))})
    with pytest.raises(ValueError, match="one width, got {0: 64, 1: 32}"):
        SAEs({0: random_sae(), 1: random_sae(d=32)})
    spoilt = random_sae()
    spoilt.W_enc.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="layer 4 holds weights that are not finite"):
        SAEs({4: spoilt})
    saes = SAEs({0: random_sae()})
    with pytest.raises(ValueError, match="reads hidden states of width 64, got shape"):
        saes.encode(0, torch.randn(3, 65))
    with pytest.raises(KeyError, match=r"no SAE at layer 1; there are some at \[0\]"):
        saes[1]
    with pytest.raises(ValueError, match=r"names the layers \[3\]"):
        SAEs({0: random_sae()}, {3: {}})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"architecture": "gated"}, "unknown architecture 'gated'"),
        ({"k": 65}, "k must be 1 to 64"),
        ({"architecture": "matryoshka", "width": 4, "k": 2}, "at least 8 latents"),
        ({"batch_tokens": 4096}, "batch_tokens from 1 to buffer_tokens"),
        ({"steps": 0}, "expected steps >= 1"),
    ],
)
def test_wrong_recipes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


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
