"""The cache has delphi's layout and the model's activations; delphi reads it where it is installed."""

from __future__ import annotations

import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.chat_server import alternatives, chat_server
from helpers.models import with_sink
from safetensors.numpy import load_file

from caft_utils.backends.delphi import delphi_client, delphi_tokenizer, write_latent_cache
from caft_utils.chats import Chats
from caft_utils.directions import Directions
from caft_utils.evaluation.generation import generate
from caft_utils.interpret.endpoint import Endpoint
from caft_utils.residual import capture

WORDS = "open the file and return what is question you are to do with self import def of system".split()
CONTEXT = 32


class Rectified:
    """Latents max(0, w . h - bias) with random w, at the layers and indices in `selection`."""

    kind, two_sided = "latent", False

    def __init__(self, selection: dict[int, list[int]], bias: float = 0.0):
        self.selection, self.layers, self.bias = selection, list(selection), bias

    def indices(self, layer):
        return self.selection[layer]

    def vector(self, layer, i):
        return torch.nn.functional.normalize(
            torch.randn(64, generator=torch.Generator().manual_seed(i)), dim=0
        )

    def values(self, layer, hidden):
        return (
            hidden @ torch.stack([self.vector(layer, i) for i in self.indices(layer)]).T - self.bias
        ).relu()


class OneWord(Rectified):
    """A latent of the embedding that is active on one token only, so explanations and scores are known."""

    def __init__(self, model, token: int):
        super().__init__({-1: [5]})
        self.embedding = model.get_input_embeddings().weight[token].detach()

    def values(self, layer, hidden):
        return ((hidden - self.embedding).norm(dim=1, keepdim=True) < 1e-5) * (2.0 + hidden[:, :1].sigmoid())


@pytest.fixture
def chats(tokenizer):
    generator = torch.Generator().manual_seed(0)
    picks = [torch.randint(len(WORDS), (int(n),), generator=generator) for n in torch.arange(60) % 14 + 2]
    return Chats(tokenizer, [{"text": " ".join(WORDS[i] for i in row)} for row in picks])


def expected(model, chats, features, layer):
    """[tokens, k] activations of the joined chats, each read by itself, without their first tokens."""
    parts = []
    for example in chats:
        with torch.no_grad(), capture(model, [layer]) as hidden:
            model(torch.tensor([example.input_ids]))
        values = features.values(layer, hidden[layer][0])
        values[0] = 0
        parts.append(values)
    joined = torch.cat(parts)
    return joined[: len(joined) // CONTEXT * CONTEXT].numpy()


def shards(folder):
    found = {tuple(map(int, p.stem.split("_"))): load_file(p) for p in folder.glob("*.safetensors")}
    return dict(sorted(found.items()))


def dense(folder, latents):
    """[tokens, latents] from the shards of a hookpoint."""
    found = shards(folder)
    tokens = next(iter(found.values()))["tokens"]
    values = np.zeros((tokens.size, max(latents) + 1), np.float32)
    for (first, last), shard in found.items():
        row, position, latent = shard["locations"].astype(np.int64).T
        assert position.max(initial=0) < CONTEXT and latent.max(initial=0) <= last - first
        values[row * CONTEXT + position, first + latent] = shard["activations"]
    return values[:, latents]


@pytest.mark.parametrize("batch_size, splits", [(1, 1), (7, 2), (64, 9)])
def test_the_cache_gives_back_the_activations(model, chats, tmp_path, batch_size, splits):
    features = Rectified({-1: [4], 1: [11, 2, 7, 300]})
    folder = write_latent_cache(
        model, chats, features, tmp_path / "c", context=CONTEXT, splits=splits, batch_size=batch_size
    )
    assert {path.name for path in tmp_path.iterdir()} == {"c"}
    assert {path.name for path in folder.iterdir()} == {"embed_tokens", "layers.1"}
    joined = sum((example.input_ids for example in chats), [])
    rows = len(joined) // CONTEXT
    for layer, name in ((-1, "embed_tokens"), (1, "layers.1")):
        got, want = dense(folder / name, features.indices(layer)), expected(model, chats, features, layer)
        assert np.abs(got - want).max() < 1e-3 * want.max() and ((got > 0) == (want > 1e-5)).mean() > 0.999
        config = json.loads((folder / name / "config.json").read_text())
        assert config["cache_ctx_len"] == CONTEXT and config["n_tokens"] == rows * CONTEXT
        for shard in shards(folder / name).values():
            n = len(shard["activations"])
            assert shard["locations"].shape == (n, 3) and shard["locations"].dtype == np.uint16
            assert shard["activations"].dtype == np.float16 and (shard["activations"] > 0).all()
            assert shard["tokens"].tolist() == np.array(joined[: rows * CONTEXT]).reshape(rows, -1).tolist()
            keys = shard["locations"].astype(np.int64) @ [CONTEXT * 1000, 1000, 1]
            assert (np.diff(keys) > 0).all()  # by row, position, latent, and nothing twice
    edges = list(shards(folder / "layers.1"))
    wanted = {1: [(2, 300)], 2: [(2, 10), (11, 300)], 9: [(2, 6), (7, 10), (11, 299), (300, 300)]}
    assert edges == wanted[splits]


def test_a_component_becomes_two_latents_with_what_activates_them(model, chats, tmp_path):
    found = Directions({2: torch.eye(64)[[3, 9]]})
    folder = write_latent_cache(model, chats, found, tmp_path / "c", context=CONTEXT, batch_size=5)
    projections = expected(model, chats, found, 2)
    assert list(shards(folder / "layers.2")) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    got = dense(folder / "layers.2", [0, 1, 2, 3])
    for i in (0, 1):
        for end, sign in ((0, 1), (1, -1)):
            side = sign * projections[:, i]
            want = np.where(side > 0.3 * side.max(), side, 0)
            assert 0 < (want > 0).mean() < 0.5
            assert (
                (got[:, 2 * i + end] > 0) == (want > 0)
            ).mean() > 0.998  # float16 may move one over the edge
            assert np.abs(got[:, 2 * i + end] - want)[got[:, 2 * i + end] > 0].max() < 2e-3 * side.max()


def test_large_numbers_and_dead_latents(model, chats, tmp_path):
    features = Rectified({0: [3, 70003]})
    write_latent_cache(model, chats, features, tmp_path / "one", context=CONTEXT, splits=1)
    (one,) = shards(tmp_path / "one" / "layers.0").values()
    assert one["locations"].dtype == np.uint32 and one["locations"][:, 2].max() == 70000
    write_latent_cache(model, chats, features, tmp_path / "two", context=CONTEXT, splits=2)
    assert list(shards(tmp_path / "two" / "layers.0")) == [(3, 70002), (70003, 70003)]
    assert {s["locations"].dtype for s in shards(tmp_path / "two" / "layers.0").values()} == {
        np.dtype(np.uint16)
    }
    write_latent_cache(model, chats, Rectified({0: [3]}, bias=1e4), tmp_path / "dead", context=CONTEXT)
    (dead,) = shards(tmp_path / "dead" / "layers.0").values()
    assert dead["locations"].shape == (0, 3) and dead["tokens"].shape[1] == CONTEXT


def test_errors_leave_nothing_behind(model, chats, tmp_path, monkeypatch):
    def full(arrays, path):
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    features = Rectified({0: [1]})
    for wrong in ({"context": 0}, {"splits": 0}, {"context": 10**6}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            write_latent_cache(model, chats, features, tmp_path / "c", **wrong)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="is full; free some space"):
        patch.setattr("safetensors.numpy.save_file", full)
        write_latent_cache(model, chats, features, tmp_path / "c", context=CONTEXT)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1e9)
    with pytest.raises(ValueError, match="embed_tokens.*float16"):
        write_latent_cache(model, chats, Rectified({-1: [1]}), tmp_path / "c", context=CONTEXT)
    assert not list(tmp_path.iterdir())
    (tmp_path / "c").mkdir()
    with pytest.raises(FileExistsError, match="exists"):
        write_latent_cache(model, chats, features, tmp_path / "c", context=CONTEXT)


def test_without_delphi_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "delphi.clients.client", None)  # as for a module that is not installed
    with pytest.raises(ImportError, match="install eai-delphi==0.1.3 into an environment of its own"):
        delphi_client(Endpoint("http://127.0.0.1:9/v1", "m"))


def test_a_tokenizer_that_gives_delphi_one_text_for_each_token(tokenizer):
    window = torch.tensor(tokenizer("open the file")["input_ids"])
    texts = delphi_tokenizer(tokenizer).batch_decode(window)
    assert texts == [tokenizer.decode([t]) for t in window.tolist()] and len(texts) > 1
    assert delphi_tokenizer(tokenizer).batch_decode(window.unsqueeze(-1)) == texts
    assert delphi_tokenizer(tokenizer).decode(window) == tokenizer.decode(window) == "open the file"
    assert len(tokenizer.batch_decode(window)) == 1  # transformers 5; the tokenizer itself is left alone


# The tests below run delphi itself, in an environment that has it.


@pytest.fixture
def delphi():
    reason = "delphi (eai-delphi 0.1.3, with vLLM and faiss) is optional and not installed here"
    for name in ("delphi.scorers", "delphi.explainers"):
        pytest.importorskip(name, reason=reason, exc_type=ImportError)
    import delphi.clients
    import delphi.config
    import delphi.latents.loader

    return delphi


def settings(delphi):
    return (
        delphi.config.SamplerConfig(n_examples_train=10, n_examples_test=10, n_quantiles=5),
        delphi.config.ConstructorConfig(example_ctx_len=8, min_examples=10, n_non_activating=10),
    )


def test_delphi_reads_the_cache(delphi, model, chats, tokenizer, tmp_path):
    features = Rectified({1: [70003, 2, 7, 300]}, bias=0.02)
    folder = write_latent_cache(model, chats, features, tmp_path / "c", context=CONTEXT, splits=3)
    dataset = delphi.latents.LatentDataset(folder, *settings(delphi), delphi_tokenizer(tokenizer))
    got = np.zeros((dataset.tokens.numel(), 4), np.float32)
    for buffer in dataset.buffers:
        for latent, module, data in buffer:
            assert module == "layers.1"
            column = features.indices(1).index(latent.latent_index)
            got[(data.locations[:, 0] * CONTEXT + data.locations[:, 1]).numpy(), column] = data.activations
    want = expected(model, chats, features, 1)
    assert np.abs(got - want).max() < 1e-3 * want.max() and want.max() > 0
    assert (
        dataset.tokens.flatten().tolist() == sum((e.input_ids for e in chats), [])[: dataset.tokens.numel()]
    )
    chosen = delphi.latents.LatentDataset(
        folder, *settings(delphi), delphi_tokenizer(tokenizer), latents={"layers.1": torch.tensor([7, 70003])}
    )
    assert sorted(d.latent.latent_index for b in chosen.buffers for d in b) == [7, 70003]


def test_delphi_writes_the_same_cache(delphi, model, tokenizer, tmp_path):
    text = [
        {"text": " ".join(WORDS[(i + j) ** 2 % len(WORDS)] for j in range(2 * CONTEXT))} for i in range(12)
    ]
    chats = Chats(tokenizer, text, max_length=CONTEXT)  # rows are chats: now both read the same contexts
    features = Rectified({1: list(range(6))})
    ours = write_latent_cache(model, chats, features, tmp_path / "ours", context=CONTEXT, splits=2)

    def encode(hidden):
        values = features.values(1, hidden.flatten(0, 1)).view(*hidden.shape[:2], -1)
        values[:, 0] = 0
        return values

    cache = delphi.latents.LatentCache(model.model, {"layers.1": encode}, batch_size=4)
    cache.run(10**6, torch.tensor([example.input_ids for example in chats]))
    cache.save_splits(2, tmp_path / "theirs")
    a, b = shards(ours / "layers.1"), shards(tmp_path / "theirs" / "layers.1")
    assert list(a) == list(b) == [(0, 2), (3, 5)]
    for edge in a:
        for name in ("locations", "activations", "tokens"):
            assert a[edge][name].shape == b[edge][name].shape
            assert np.allclose(a[edge][name], b[edge][name], rtol=2e-3, atol=1e-4)
        assert a[edge]["locations"].dtype == b[edge]["locations"].dtype
        assert a[edge]["activations"].dtype == b[edge]["activations"].dtype


def answer(request):
    """Answer as a language model that knows what the latent is about, the token " return"."""
    text = request.prompt
    if "Example 0: " not in text:
        content, steps = "[EXPLANATION]: the word return", ["[EXPLANATION]: the word return"]
    else:
        examples = re.split(r"Example \d+: ", text)[1:]
        pattern = "<<( return)+>>" if "<<" in text else " return"
        content = f"[{','.join(str(int(bool(re.search(pattern, example)))) for example in examples)}]"
        steps = list(content)
    logprobs = alternatives(*({step: -0.1, "01"[step == "0"]: -2.4} for step in steps))
    return {"message": {"content": content}, "logprobs": logprobs if request.get("logprobs") else None}


@pytest.fixture
def server():
    with chat_server(answer) as (url, requests):
        yield SimpleNamespace(url=url, requests=requests)


def test_delphi_explains_and_scores_with_our_clients(delphi, model, chats, tokenizer, tmp_path, server):
    (token,) = tokenizer(" return")["input_ids"]
    folder = write_latent_cache(model, chats, OneWord(model, token), tmp_path / "c", context=CONTEXT)
    (record,) = delphi.latents.LatentDataset(folder, *settings(delphi), delphi_tokenizer(tokenizer))
    assert record.latent.latent_index == 5 and len(record.train) == len(record.test) == 10
    assert len(record.not_active) == 10
    for example in record.examples:
        assert ((example.activations > 0) == (example.tokens == token)).all()
    assert all(len(example.str_tokens) == 8 for example in record.train + record.not_active)
    endpoint = Endpoint(server.url, "m", cache=tmp_path / "replies")
    client = delphi_client(endpoint, max_tokens=33)
    assert isinstance(client, delphi.clients.Client) and client.model == "m"
    record.explanation = delphi.explainers.DefaultExplainer(client).call_sync(record).explanation
    assert record.explanation == "the word return"
    assert server.requests[-1]["max_tokens"] == 33 and server.requests[-1]["temperature"] == 0
    assert "<< return>>" in server.requests[-1]["messages"][-1]["content"]
    for scorer in (delphi.scorers.DetectionScorer, delphi.scorers.FuzzingScorer):
        for shown in (1, 5):
            result = scorer(client, n_examples_shown=shown, log_prob=True).call_sync(record).score
            assert len(result) == 20 and all(r.correct is True for r in result)
            assert all((r.probability > 0.9) == r.activating for r in result)
            plain = scorer(client, n_examples_shown=shown).call_sync(record).score
            assert all(r.correct and r.probability is None for r in plain)


def test_delphi_can_ask_a_local_model(delphi, model, tokenizer):
    import asyncio

    client = delphi_client(SimpleNamespace(model=model, tokenizer=tokenizer))
    reply = asyncio.run(client.generate("what is self", temperature=0.0, max_tokens=5))
    asked = [{"role": "user", "content": "what is self"}]
    assert isinstance(reply, delphi.clients.client.Response) and reply.logprobs is None
    assert reply.text == generate(model, tokenizer, [asked], temperature=0, max_new_tokens=5)[0]


def test_attention_sinks_are_left_out_of_the_cache(model, chats, tmp_path):
    token = next(one.input_ids[3] for one in chats if len(one.input_ids) > 3)  # inside of the rows
    sunk = with_sink(model, token)
    found = Directions({1: torch.eye(sunk.config.hidden_size)[7:8]})  # the entry that a planted sink has
    counts = {}
    for kind in ("spare", "include"):
        folder = write_latent_cache(sunk, chats, found, tmp_path / kind, context=32, splits=1, sinks=kind)
        (file,) = folder.rglob("*.safetensors")
        cache = load_file(file)
        row, position = cache["locations"][:, 0].astype(int), cache["locations"][:, 1].astype(int)
        counts[kind] = int((cache["tokens"][row, position] == token).sum())
    assert counts["spare"] == 0 < counts["include"]
