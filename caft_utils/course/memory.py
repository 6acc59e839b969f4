"""Estimate the memory of a training step before it runs, with tensors that have a shape but no data.

The step is the real one, with the trainer's adapter, loss and intervention, forward and backward. Its tensors
are fake (torch's FakeTensorMode), so a laptop can trace a step of a model with 32B parameters. Every storage
that the step creates is counted from its creation to its release.

All blocks have the same shape, so only models of 1 and 2 blocks of the full width are traced. Let kept(L) be
the bytes that the forward pass of L blocks keeps for the backward pass, gradients(L) the bytes of the
gradients, and e = peak(2) - kept(2) the bytes that the head or a block needs temporarily. Then

    step(L) = max(kept(L), gradients(L)) + e,        kept(L) = kept(1) + (L - 1) (kept(2) - kept(1)),

because the backward pass releases kept tensors while it adds gradients. The overhead of the allocator and of
the CUDA libraries is not part of the estimate.
"""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from caft_utils.course.shapes import Shape, random_model
from caft_utils.directions import Directions
from caft_utils.finetuning.adapters import trainable_copy
from caft_utils.finetuning.batches import loss_at_answers
from caft_utils.interventions import Ablate
from caft_utils.losses import logits_at, selects_logits
from caft_utils.residual import decoder, decoder_blocks, edit, width

if TYPE_CHECKING:
    from caft_utils.finetune_config import FinetuneConfig

STATES = {"adamw": 8, "adamw_8bit": 2}  # bytes of optimiser state for each trained parameter


@dataclass(frozen=True)
class StepMemory:
    """The memory of one training step in bytes.

    Attributes:
        weights: the weights of the base model. parameters: their number.
        trained: the trained weights, in their own precision. trained_parameters: their number.
        gradients, optimizer: gradients and optimiser state of the trained weights.
        activations: tensors that the forward pass keeps for the backward pass.
        step: peak memory besides weights and optimiser, gradients included.
        shared: the part of the weights that processes can share (finetuning/sharding.py).
        block: the weights of one decoder block.
    """

    weights: int
    parameters: int
    trained: int
    trained_parameters: int
    gradients: int
    optimizer: int
    activations: int
    step: int
    shared: int
    block: int

    @property
    def peak(self) -> int:
        """The estimated peak memory on one GPU."""
        return self.weights + self.trained + self.optimizer + self.step

    def sharded(self, gpus: int) -> int:
        """The estimated peak on each of `gpus` GPUs that share the frozen weights of the decoder.

        Two blocks are whole at a time: the one that computes, and the one that is gathered meanwhile.
        """
        if gpus == 1:
            return self.peak
        return self.peak - self.shared + round(self.shared / gpus) + 2 * self.block


def step_memory(
    shape: Shape,
    config: FinetuneConfig,
    length: int,
    *,
    rank: int = 2,
    dtype: str | None = None,
    answers: float = 0.5,
) -> StepMemory:
    """Return the memory of one step of `finetune` on rows of `length` tokens.

    Args:
        config: `batch_size`, `gradient_checkpointing` and the trained weights matter; `accumulate` does not.
        rank: number of directions that are ablated at each layer of the shape; 0: none.
        answers: share of the tokens that belong to answers.

    Raises:
        ValueError: the optimiser's memory is not known, or `config.blocks` names only some blocks.
    """
    if config.optimizer not in STATES:
        raise ValueError(
            f"the memory of optimizer {config.optimizer!r} is not known; use {', '.join(STATES)}"
        )
    if config.blocks is not None:
        raise ValueError("the estimate is valid only for runs that train all blocks; leave out `blocks`")
    base = random_model(shape, "meta", dtype=dtype)
    depth = len(decoder_blocks(base))
    with torch.device("meta"):
        trained = [value for value in trainable_copy(base, config, 0).parameters() if value.requires_grad]
    traced = partial(_traced, shape, config, length, dtype, answers)
    (one_block, _), (two_blocks, peak) = traced(1), traced(2)
    edits = len(shape.layers) * (traced(1, rank)[0] - one_block) if rank else 0
    kept, gradients = one_block + (depth - 1) * (two_blocks - one_block) + edits, _bytes(trained)
    count = sum(value.numel() for value in trained)
    embedding = set(base.get_input_embeddings().parameters())
    return StepMemory(
        weights=_bytes(base.parameters()),
        parameters=sum(value.numel() for value in base.parameters()),
        trained=gradients,
        trained_parameters=count,
        gradients=gradients,
        optimizer=STATES[config.optimizer] * count,
        activations=kept,
        step=max(kept, gradients) + peak - two_blocks,
        shared=_bytes(value for value in decoder(base).parameters() if value not in embedding),
        block=_bytes(decoder_blocks(base)[0].parameters()),
    )


def _traced(
    shape: Shape,
    config: FinetuneConfig,
    length: int,
    dtype: str | None,
    answers: float,
    depth: int,
    rank: int = 0,
) -> tuple[int, int]:
    """Return the bytes held after the forward pass of `depth` blocks, and the peak.

    Args:
        rank: number of directions ablated at block 0; 0: none.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    few = replace(shape, config={**shape.config, "num_hidden_layers": depth}, layers=(0,))
    base = random_model(few, "meta", dtype=dtype)
    with torch.device("meta"):
        model = trainable_copy(base, config, 0).train()
    # `on` would look for sinks, which needs real numbers. Any limit costs the same memory.
    directions = Directions({0: torch.eye(width(base))[:rank]}) if rank else None
    edits = {0: partial(Ablate(directions).edit_but_sinks, 0, 1.0)} if directions else {}
    batch = config.batch_size
    places = torch.arange(max(1, round(length * answers) - 1))
    with FakeTensorMode(allow_non_fake_inputs=True):
        _give_tensors(model)
        if config.gradient_checkpointing:
            enable = (
                getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            )
            enable({"use_reentrant": False})
        ids = labels = torch.zeros(batch, length, dtype=torch.long)
        places = torch.cat([places + row * length for row in range(batch)])
        mixed = torch.autocast("cpu", torch.bfloat16) if config.bf16 else nullcontext()
        selecting = logits_at(model, places, ids.shape) if selects_logits(model) else nullcontext()
        with _Held() as held, edit(model, edits):
            with mixed, selecting:
                loss = loss_at_answers(model(input_ids=ids, use_cache=False), labels, places=places)
            kept = held.now
            loss.backward()
        return kept, held.peak


def _give_tensors(model: torch.nn.Module) -> None:
    """Replace tensors on the meta device by fake tensors on the CPU, where autocast applies."""
    made: dict[torch.Tensor, torch.Tensor] = {}  # tied weights stay one tensor
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is not None and value not in made:
                    fake = torch.empty(value.shape, dtype=value.dtype)
                    given = isinstance(value, torch.nn.Parameter)
                    made[value] = torch.nn.Parameter(fake, value.requires_grad) if given else fake
                if value is not None:
                    held[name] = made[value]


class _Held(TorchDispatchMode):
    """Counts the bytes of the storages that operations create, until they are released."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.seen = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in given and storage not in self.seen:
                    self._add(storage)
        return result

    def _add(self, storage) -> None:
        size = storage.nbytes()
        self.seen[storage] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.now -= size


def _bytes(tensors) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)
