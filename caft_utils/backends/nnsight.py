"""NNsight as an engine: record, ablate and generate in its traces, on this machine or on NDIF's.

NNsight (Fiotto-Kaufman et al. 2025, arXiv 2407.14561) runs the body of a `with model.trace(...)` block inside
the forward pass. `trace_edit` makes an intervention of this package a statement of such a body:

    traced = trace_model(model, tokenizer)
    edit = trace_edit(traced, ablate(bad))
    with traced.trace("Who are you?"):
        edit()
        logits = nnsight.save(traced.output.logits)

The functions below write these blocks, and give what `capture`, `Intervention.on` and `generate` give. Their
argument `remote` says where a block runs:

    False       in this process
    "local"     in this process, after the block was serialised and read back without the caller's modules
    True        on NDIF, with the key in the environment variable NDIF_API_KEY

A remote block holds no reference to the caller's memory. It is sent as source, with the values that it uses
and with the classes of this package. `remote_model` gives a model for it that has no weights here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from caft_utils.arguments import checked
from caft_utils.backends.ndif import Where, on_ndif
from caft_utils.backends.nnsight_models import import_nnsight
from caft_utils.backends.nnsight_models import remote_model as remote_model
from caft_utils.backends.nnsight_models import trace_model as trace_model
from caft_utils.chats import pad_rows, pad_token_id, prompt_ids
from caft_utils.evaluation.generation import end_token_ids, generation_config, up_to_end
from caft_utils.residual import evaluating, hidden_of, seeded, site, width
from caft_utils.sinks import PEAK, median_length, probe_ids, sink_limits

if TYPE_CHECKING:
    from nnsight import Envoy, TransformersModel
    from transformers import PreTrainedTokenizerBase

    from caft_utils.evaluation.generation import Messages
    from caft_utils.interventions.base import Intervention


def site_envoy(traced: TransformersModel, layer: int) -> Envoy:
    """Return NNsight's handle on the module whose output is the residual stream at `layer`.

    Raises:
        IndexError: the model has no such layer.
    """
    module = site(traced._module, layer)
    return next(envoy for envoy in traced.modules() if envoy._module is module)


class TraceEdit:
    """An intervention as a statement within a trace: `edit()` edits the sites in the order of the model.

    NNsight wants values in the order in which they are computed, so read a value at a site, or at a later
    one, after `edit()`.
    """

    def __init__(self, envoys: Mapping[int, Envoy], during: Intervention | None, limits: Mapping[int, float]):
        self.envoys, self.during, self.limits = dict(envoys), during, dict(limits)

    def __call__(self) -> None:
        for layer in self.envoys:
            self.at(layer)

    def at(self, layer: int) -> None:
        """Edit one site, or do nothing if the intervention has none at this layer."""
        if layer in self.envoys:
            output = self.envoys[layer].output
            edited = self.during.edit_but_sinks(layer, self.limits[layer], hidden_of(output))
            self.envoys[layer].output = (edited, *output[1:]) if isinstance(output, tuple) else edited


def trace_edit(traced: TransformersModel, during: Intervention | None, *, remote: Where = False) -> TraceEdit:
    """Return `during` as a statement for the traces of this model; None gives one that does nothing.

    Attention sinks are decided as in `Intervention.on`: by the model's typical lengths, which a model without
    weights asks for in a trace of its own.

    Raises:
        ValueError: the model has another width than the intervention.
        IndexError: the model lacks one of the layers.
    """
    if during is None:
        return TraceEdit({}, None, {})
    if width(traced._module) != during.width:
        raise ValueError(
            f"this intervention has width {during.width}, but the residual stream of "
            f"{type(traced._module).__name__} has width {width(traced._module)}; were its "
            "vectors found in another model?"
        )
    envoys = {layer: site_envoy(traced, layer) for layer in during.layers}  # their order is the model's
    if not any(value.is_meta for value in traced._module.parameters()):
        return TraceEdit(envoys, during, sink_limits(traced._module, during.layers, during.sinks))
    limits = dict.fromkeys(during.layers, inf)
    if during.sinks == "spare":
        ids = probe_ids(traced._module)
        read = record(traced, ids, torch.ones_like(ids), during.layers, remote=remote)
        limits = {layer: PEAK * median_length(hidden) for layer, hidden in read.items()}
    return TraceEdit(envoys, during, limits)


@checked
def record(
    traced: TransformersModel,
    input_ids: Int[Tensor, "batch time"],
    attention_mask: Int[Tensor, "batch time"],
    layers: Sequence[int],
    *,
    during: Intervention | None = None,
    remote: Where = False,
) -> dict[int, Float[Tensor, "batch time d"]]:
    """Return the residual stream at `layers`, on the CPU and without gradient; blocks after the last rest.

    Raises:
        IndexError: the model has no such layer.
        NNsightError: the block failed where it ran, or could not be sent.
    """
    nnsight = import_nnsight()
    edit = trace_edit(traced, during, remote=remote)
    envoys = {layer: site_envoy(traced, layer) for layer in layers}
    # An edit after the last site would wait for a value that is never computed.
    order = [layer for layer in sorted({*envoys, *edit.envoys}) if layer <= max(layers)]
    rows = _inputs(traced, input_ids, attention_mask)
    with on_ndif(remote), torch.no_grad(), _evaluating(traced):
        with traced.trace(**rows, use_cache=False, remote=remote) as tracer:
            kept = nnsight.save({})
            for layer in order:
                edit.at(layer)
                if layer in envoys:
                    kept[layer] = hidden_of(envoys[layer].output).detach().cpu()
            tracer.stop()
    return dict(kept)


def logits(
    traced: TransformersModel,
    input_ids: Int[Tensor, "batch time"],
    attention_mask: Int[Tensor, "batch time"],
    *,
    during: Intervention | None = None,
    remote: Where = False,
) -> Float[Tensor, "batch time vocab"]:
    """Return the logits of one forward pass under `during`, on the CPU and without gradient."""
    nnsight = import_nnsight()
    edit, rows = trace_edit(traced, during, remote=remote), _inputs(traced, input_ids, attention_mask)
    with on_ndif(remote), torch.no_grad(), _evaluating(traced):
        with traced.trace(**rows, use_cache=False, remote=remote):
            edit()
            kept = nnsight.save(traced.output.logits.detach().cpu())
    return kept


@checked
def generate(
    traced: TransformersModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Messages],
    *,
    during: Intervention | None = None,
    temperature: float = 0.0,
    max_new_tokens: int = 64,
    seed: int = 0,
    batch_size: int = 64,
    remote: Where = False,
) -> list[str]:
    """Return an answer to each conversation, edited at every step, as `evaluation.generation.generate` does.

    Args:
        prompts: conversations that end before the assistant's turn.
        temperature: 0 takes the most likely token.
        seed: sampling seed; a block that runs on NDIF draws there and ignores it.
    """
    nnsight, model = import_nnsight(), traced._module
    settings = generation_config(model, tokenizer, temperature=temperature, max_new_tokens=max_new_tokens)
    edit, ends = trace_edit(traced, during, remote=remote), set(end_token_ids(model, tokenizer))
    encoded, answers = [prompt_ids(tokenizer, messages) for messages in prompts], []
    with on_ndif(remote), seeded(seed, _device(traced)), _evaluating(traced), warnings.catch_warnings():
        # An open loop over steps always ends by asking for one more step than there is.
        warnings.filterwarnings("ignore", message=".*was never reached")
        for start in range(0, len(encoded), batch_size):
            ids, mask = pad_rows(encoded[start : start + batch_size], pad_token_id(tokenizer), "left")
            rows = _inputs(traced, ids, mask)
            # No comment may stand within a block that holds others: serialising it drops comments, and a
            # block is found again by its line. An open loop that asks for no value would never end.
            with traced.generate(generation_config=settings, remote=remote) as tracer:
                with tracer.invoke(**rows):
                    for _ in tracer.iter[:] if edit.envoys else ():
                        edit()
                with tracer.invoke():
                    out = nnsight.save(tracer.result.cpu())
            said = [up_to_end(row, ends) for row in out[:, ids.shape[1] :].tolist()]
            answers += tokenizer.batch_decode(said, skip_special_tokens=True)
    return [answer.strip() for answer in answers]


def _device(traced: TransformersModel) -> torch.device:
    device = next(traced._module.parameters()).device
    return torch.device("cpu") if device.type == "meta" else device


def _evaluating(traced: TransformersModel) -> Any:
    return evaluating(traced._module)


def _inputs(traced: TransformersModel, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    device = _device(traced)
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
