"""Share the frozen weights of the decoder among the processes of a run (FSDP2).

`accelerate launch` asks for it with a config of type FSDP (data/accelerate/fsdp2.yaml). Each of n processes
keeps 1/n of every frozen matrix of the decoder. A block is gathered just before it computes and freed
afterwards, in the forward pass, in the backward pass and when activations are recomputed. The adapter, the
directions of an intervention, the embedding and the output matrix stay whole in every process. They are a
small part of a large model. The gradients of the adapter are averaged by DDP as usual, so checkpoints and
results are those of a run without sharding.

This calls PyTorch's `fully_shard` (Zhao et al., arXiv 2304.11277) instead of accelerate's plugin, because the
plugin works on GPUs only, shards the adapter too, and would therefore write checkpoints of another form.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from caft_utils.residual import decoder

if TYPE_CHECKING:
    from caft_utils.finetune_config import FinetuneConfig

ASKED = "ACCELERATE_USE_FSDP"  # set by `accelerate launch`
# Settings of accelerate's plugin that this module does not have: variable, the value that it accepts.
FIXED = {
    "FSDP_VERSION": "2",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}


def is_requested() -> bool:
    """Return whether the launcher asks for sharded weights."""
    return os.environ.get(ASKED, "false").lower() in ("true", "1")


def check(model: nn.Module, config: FinetuneConfig, *, objective: bool) -> None:
    """Refuse runs whose weights cannot be shared in this way.

    Raises:
        ValueError: full fine-tuning, quantised weights, an objective, or a setting of FSDP that has no
            meaning here.
    """
    wrong = [
        f"{name} is {os.environ[name]!r} and must be {value!r}"
        for name, value in FIXED.items()
        if os.environ.get(name, value).lower() != value
    ]
    if wrong:
        raise ValueError(
            f"the launcher's config asks for an FSDP that finetune does not have: {'; '.join(wrong)}. Use "
            "data/accelerate/fsdp2.yaml; FinetuneConfig(gradient_checkpointing=True) recomputes activations"
        )
    if config.method == "full":
        raise ValueError(
            'FSDP shares frozen weights, and method="full" freezes none. Use method="lora", or launch with '
            "data/accelerate/ddp.yaml"
        )
    packed = [name for name, value in model.named_parameters() if not value.is_floating_point()]
    if packed:
        raise ValueError(
            f"{len(packed)} weights of this model are quantised (such as {packed[0]}), and a share of packed "
            "numbers means nothing. Load the model in bfloat16, or launch with data/accelerate/ddp.yaml"
        )
    if objective:
        raise ValueError(
            "an objective cannot run on sharded weights, because it may end a forward pass early, and the "
            "gathered weights would stay. Launch with data/accelerate/ddp.yaml"
        )


def training_device(model: nn.Module) -> torch.device:
    """Return the device to train on: the model's own, or with sharding a GPU even if the model is on the CPU.

    A model that waits on the CPU needs no GPU memory, so each GPU holds its share of the weights only.
    """
    device = next(model.parameters()).device
    if is_requested() and device.type == "cpu" and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return device


def shard(model: nn.Module, device: torch.device) -> None:
    """Replace the frozen weights of the decoder by this process's share of them, in place.

    Args:
        device: where the shares and the gathered blocks lie.
    """
    from torch.distributed import get_world_size
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    inner = decoder(model)
    for module in model.modules():  # buffers are moved in place below, and the clone shares them
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.clone()
    heads = (model.get_input_embeddings(), model.get_output_embeddings())
    whole = {value for head in heads if head is not None for value in head.parameters()}
    whole |= {value for value in model.parameters() if value.requires_grad}
    mesh = init_device_mesh(device.type, (get_world_size(),))
    for module in (*inner.layers, inner):
        fully_shard(module, mesh=mesh, ignored_params=whole)
    for tensor in (*model.parameters(), *model.buffers()):
        if not isinstance(tensor, DTensor):
            tensor.data = tensor.data.to(device)


def averaging(model: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a sharded model so that the gradients of its adapter are averaged over the processes."""
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(model, device_ids=None if device.type == "cpu" else [device.index])


@contextmanager
def hidden_from_accelerate() -> Iterator[None]:
    """Keep accelerate from sharding the model once more within this context."""
    asked = os.environ.pop(ASKED, None)
    try:
        yield
    finally:
        if asked is not None:
            os.environ[ASKED] = asked


def replicate_frozen(model: nn.Module) -> None:
    """Tell DDP to leave frozen weights and buffers alone: every process has read the same ones."""
    from torch.nn.parallel import DistributedDataParallel

    frozen = [name for name, value in model.named_parameters() if not value.requires_grad]
    frozen += [name for name, _ in model.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, frozen)
