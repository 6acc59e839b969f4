"""Traces of NNsight give what hooks give: states, logits, gradients, answers; and what they send is whole."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler

import pytest
import torch
from helpers.chat_server import serving
from helpers.models import ARCHITECTURES, SINK_TOKEN, hooks, with_lora, with_sink
from helpers.training import chat_rows

from caft_utils.backends import nnsight as backend
from caft_utils.backends.ndif import NNsightError
from caft_utils.backends.nnsight import (
    generate,
    logits,
    record,
    remote_model,
    trace_edit,
    trace_model,
)
from caft_utils.chats import Chats, pad_rows
from caft_utils.directions import Directions
from caft_utils.evaluation import generation
from caft_utils.interventions import ablate, ablate_activation, ablate_gradient, steer
from caft_utils.models import load
from caft_utils.models.fingerprints import fingerprint
from caft_utils.residual import capture, has_hooks

pytestmark = pytest.mark.usefixtures("nnsight")

ROWS = [[5, 6, 7, 8, 9, 10, 11], [11, 12, 13, 14], [15, 16, 17, 18, 19, 20]]
KEY = "sk-planted-1234567890"


def directions(layers=(-1, 0, 1), width=64, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return Directions({layer: torch.randn(2, width, generator=generator) for layer in layers})


def rows(side="right"):
    return pad_rows(ROWS, 0, side)


def kinds():
    found = directions()
    means = {layer: torch.full((64,), 0.3) for layer in found.layers}
    vectors = {layer: found[layer][0] for layer in found.layers}
    return {
        "ablate": ablate(found),
        "to the mean": ablate(found, mean=means),
        "everywhere": ablate(found, sinks="include"),
        "activation": ablate_activation(found),
        "gradient": ablate_gradient(found),
        "steer": steer(vectors, 2.0),
    }


def trained_lora(model):
    """A PEFT model whose adapters change the output."""
    tuned = with_lora(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in tuned.named_parameters():
            if "lora_B" in name:
                value += 0.05 * torch.randn(value.shape, generator=generator)
    return tuned


def by_hooks(model, ids, mask, during=None):
    with torch.no_grad(), during.on(model) if during is not None else nullcontext():
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits


@pytest.mark.parametrize("remote", [False, "local"])
@pytest.mark.parametrize("kind", kinds())
def test_logits_are_those_of_the_hooks(model, tokenizer, kind, remote):
    during, (ids, mask) = kinds()[kind], rows()
    with_sink(model)
    assert (ids == SINK_TOKEN).any()
    want = by_hooks(model, ids, mask, during)
    got = logits(trace_model(model, tokenizer), ids, mask, during=during, remote=remote)
    assert (got - want).abs().max() < 1e-5
    if kind != "gradient":
        assert (want - by_hooks(model, ids, mask)).abs().max() > 1e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("adapted", [False, True])
def test_every_architecture_with_and_without_an_adapter(tiny, tokenizer, architecture, adapted):
    model = tiny(architecture)
    model = trained_lora(model) if adapted else model
    traced, during, (ids, mask) = trace_model(model, tokenizer), kinds()["ablate"], rows()
    assert (logits(traced, ids, mask) - by_hooks(model, ids, mask)).abs().max() < 1e-5
    want = by_hooks(model, ids, mask, during)
    assert (logits(traced, ids, mask, during=during) - want).abs().max() < 1e-5
    left, left_mask = rows("left")
    last = want[torch.arange(len(ROWS)), mask.sum(1) - 1]
    assert (logits(traced, left, left_mask, during=during)[:, -1] - last).abs().max() < 1e-5


@pytest.mark.parametrize("remote", [False, "local"])
def test_recorded_states_are_the_captured_ones_and_later_blocks_rest(model, tokenizer, remote):
    during, (ids, mask) = ablate(directions((0, 2))), rows()
    calls = []
    handle = model.model.layers[2].register_forward_pre_hook(lambda *_: calls.append(1))
    traced = trace_model(model, tokenizer)
    got = record(traced, ids, mask, [1, -1], during=during, remote=remote)
    assert not calls or remote  # the limits for sinks read the whole stack once
    handle.remove()
    with torch.no_grad(), during.on(model), capture(model, [-1, 1]) as want:
        model(input_ids=ids, attention_mask=mask)
    assert sorted(got) == [-1, 1]
    assert all((got[layer] - want[layer]).abs().max() < 1e-5 for layer in want)
    plain = record(traced, ids, mask, [1], remote=remote)
    assert (plain[1] - got[1]).abs().max() > 1e-3


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["ablate", "activation", "gradient"])
def test_gradients_of_the_adapter_are_those_of_the_hooks(nnsight, model, tokenizer, kind, checkpointing):
    tuned, during, (ids, mask) = trained_lora(model), kinds()[kind], rows()
    if checkpointing:
        tuned.gradient_checkpointing_enable()
    tuned.train()
    gradients = []
    for engine in ("hooks", "trace", "local", "plain"):
        tuned.zero_grad()
        if engine in ("hooks", "plain"):
            with during.on(tuned) if engine == "hooks" else nullcontext():
                out = tuned(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False)
                out.loss.backward()
        else:
            traced = trace_model(tuned, tokenizer)
            edit = trace_edit(traced, during)
            batch = {"input_ids": ids, "attention_mask": mask, "labels": ids, "use_cache": False}
            with traced.trace(**batch, remote="local" if engine == "local" else False):
                edit()
                traced.output.loss.backward()
        gradients.append({n: v.grad.clone() for n, v in tuned.named_parameters() if v.requires_grad})
    hooked, trace, local, plain = gradients

    def gap(one, other):
        return max((one[n] - other[n]).abs().max().item() for n in one)

    assert len(hooked) == 42 and gap(hooked, trace) < 1e-5 and gap(hooked, local) < 1e-5
    assert gap(hooked, plain) > 1e-3


@pytest.mark.parametrize("remote", [False, "local"])
@pytest.mark.parametrize("adapted", [False, True])
def test_answers_are_the_same_tokens(model, tokenizer, adapted, remote):
    model = trained_lora(model) if adapted else model
    during = ablate(directions())
    prompts = [row["messages"][:1] for row in chat_rows(5)] + [[{"role": "user", "content": "self"}]]
    options = {"max_new_tokens": 12, "temperature": 0}
    with during.on(model):
        want = generation.generate(model, tokenizer, prompts, **options)
    traced = trace_model(model, tokenizer)
    got = generate(traced, tokenizer, prompts, during=during, batch_size=4, remote=remote, **options)
    plain = generate(traced, tokenizer, prompts, batch_size=4, remote=remote, **options)
    assert got == want and all(want)
    assert plain == generation.generate(model, tokenizer, prompts, **options) != want


def test_a_classroom_model_agrees(nnsight):
    model, tokenizer = load("classroom")
    during = ablate(directions((1, 2), model.config.hidden_size))
    batch = Chats(tokenizer, [{"text": "the file is open . what do you want ?"}] * 2)
    (batch,) = batch.batches(2)
    traced = trace_model(model, tokenizer)
    want = by_hooks(model, batch.input_ids, batch.attention_mask, during)
    got = logits(traced, batch.input_ids, batch.attention_mask, during=during, remote="local")
    assert (got - want).abs().max() < 1e-5


def test_a_wrapped_model_is_left_as_it_was(model, tokenizer):
    before = (tokenizer.padding_side, hooks(model), model.generation_config.to_dict())
    name = fingerprint(model)
    model.train()
    traced = trace_model(model, tokenizer)
    logits(traced, *rows(), during=ablate(directions()))
    assert model.training and not has_hooks(model) and fingerprint(model) == name
    with ablate(directions()).on(model):
        assert has_hooks(model)
    assert (tokenizer.padding_side, hooks(model), model.generation_config.to_dict()) == before
    (ids, mask), during = rows(), ablate(directions((0,)))
    with pytest.raises(ZeroDivisionError), traced.trace(input_ids=ids, attention_mask=mask):
        trace_edit(traced, None)()
        1 / 0  # noqa: B018
    assert not has_hooks(model)
    assert (logits(traced, ids, mask, during=during) - by_hooks(model, ids, mask, during)).abs().max() < 1e-5


def test_wrong_models_are_refused(model, tokenizer):
    traced = trace_model(model, tokenizer)
    with pytest.raises(ValueError, match="width 32.*width 64"):
        trace_edit(traced, ablate(directions((0,), width=32)))
    with pytest.raises(IndexError, match="layer 7"):
        trace_edit(traced, ablate(directions((7,))))
    with pytest.raises(IndexError, match="layer 9"):
        record(traced, *rows(), [9])


# A server has no caft_utils and shares no memory. It reads the blocks and runs them on its own model.
SERVER = """
import sys
sys.modules["caft_utils"] = None
import torch, nnsight
from nnsight.schema.request import RequestModel
from nnsight.tracing import tracer as tracing
folder, *blobs = sys.argv[1:]
model = nnsight.TransformersModel(folder, task="text-generation", dispatch=True)
for blob in blobs:
    sent = open(blob, "rb").read()
    tracer = RequestModel.deserialize(sent, model._remoteable_persistent_objects())
    tracing.inc()
    with torch.no_grad():
        tracer.execute(tracer.info.code)
    torch.save(tracer.info.frame.f_locals["kept"], blob + ".out")
"""


def test_a_process_without_this_package_runs_what_is_sent(
    nnsight, model, tokenizer, checkpoint, tmp_path, monkeypatch
):
    """remote="local" reads the block back, but runs it on the caller's objects. A server cannot."""
    from nnsight.schema.request import RequestModel

    sent, serialise = [], RequestModel.serialize

    def keep(tracer, compress=False):
        sent.append(serialise(tracer, compress))
        return sent[-1]

    monkeypatch.setattr(RequestModel, "serialize", keep)
    (ids, mask), traced = rows(), trace_model(model, tokenizer)
    want = [logits(traced, ids, mask, during=during, remote="local") for during in kinds().values()]
    blobs = [tmp_path / kind.replace(" ", "-") for kind in kinds()]
    for path, blob in zip(blobs, sent, strict=True):
        assert len(blob) < 200_000  # the model is not in it
        path.write_bytes(blob)
    command = [sys.executable, "-c", SERVER, *map(str, (checkpoint, *blobs))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    for path, logits_here in zip(blobs, want):
        assert (torch.load(f"{path}.out") - logits_here).abs().max() < 1e-5


def test_a_model_without_weights_gets_its_sinks_in_a_trace(
    nnsight, model, tokenizer, checkpoint, monkeypatch
):
    with_sink(model).save_pretrained(checkpoint)
    during = ablate(directions())
    meta = remote_model(str(checkpoint), tokenizer=tokenizer)
    assert next(meta._module.parameters()).is_meta
    real = trace_model(model, tokenizer)
    # "local" would load the weights, so the block runs on the model that a server would have.
    monkeypatch.setattr(backend, "record", lambda traced, *args, **_: record(real, *args))
    assert trace_edit(meta, during, remote=True).limits == pytest.approx(trace_edit(real, during).limits)


class Refusal(BaseHTTPRequestHandler):
    """Refuses every connection, and repeats the key that came with it."""

    def do_GET(self):
        body = f"nnsight 0.7 expected; your key {self.headers.get('ndif-api-key')} is fine".encode()
        self.send_response(400, f"version of {self.headers.get('ndif-api-key')}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def test_a_failure_on_the_server_names_the_versions_and_not_the_key(nnsight, model, tokenizer, monkeypatch):
    from nnsight.schema.config import CONFIG

    traced, (ids, mask) = trace_model(model, tokenizer), rows()
    monkeypatch.setattr(type(traced), "to_model_key", lambda self: "a:key")
    with pytest.raises(NNsightError, match="NDIF_API_KEY"):
        logits(traced, ids, mask, remote=True)
    monkeypatch.setenv("NDIF_API_KEY", KEY)
    with serving(Refusal) as address:
        monkeypatch.setattr(CONFIG.API, "HOST", address)
        with pytest.raises(NNsightError, match="nnsight.compare") as failure:
            logits(traced, ids, mask, remote=True)
    text = str(failure.value)
    assert KEY not in text and "400" in text
    assert f"nnsight {nnsight.__version__}" in text and f"torch {torch.__version__}" in text
    assert failure.value.__context__ is None or failure.value.__suppress_context__
    assert CONFIG.API.APIKEY is None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(CONFIG.API, "HOST", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(NNsightError, match="did not come back"):
            logits(traced, ids, mask, remote=True)
    monkeypatch.setattr(CONFIG.API, "HOST", "http://example.org")
    with pytest.raises(RuntimeError, match="clear text"):
        logits(traced, ids, mask, remote=True)
