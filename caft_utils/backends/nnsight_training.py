"""Fine-tuning through NNsight: the loss, the ablation and the backward pass are statements of a trace.

`finetune` hands the model to transformers' Trainer, which calls the model without NNsight, so an ablation
would be missing there. This loop takes the same steps in traces: the same adapter at the start, the same rows
in the same order, the same loss, clipping, AdamW and schedule. Without dropout it ends with the weights of
`finetune`, up to rounding. It keeps no checkpoints and stores nothing.
"""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import nn

from caft_utils.backends.ndif import Where
from caft_utils.backends.nnsight import trace_edit
from caft_utils.backends.nnsight_models import import_nnsight, trace_model
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.finetuning.adapters import check_trainable, trainable_copy
from caft_utils.finetuning.batches import RowOrder, collate, loss_at_answers
from caft_utils.losses import logits_at, selects_logits
from caft_utils.models.positions import check_positions
from caft_utils.residual import seeded

if TYPE_CHECKING:
    from nnsight import TransformersModel
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from caft_utils.backends.nnsight import TraceEdit
    from caft_utils.chats import Chats
    from caft_utils.interventions.base import Intervention


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Chats,
    config: FinetuneConfig,
    *,
    during: Intervention | None = None,
    seed: int = 0,
    remote: Where = False,
) -> tuple[PreTrainedModel, list[float]]:
    """Return the model with its trained adapter, in evaluation mode, and the loss of each step.

    `model` is unchanged. The loss is in nats per answer token, as that of `finetune`.

    Args:
        remote: False, or "local" to serialise each step's block.

    Raises:
        ValueError: full fine-tuning, 8-bit AdamW, or `remote=True`.
    """
    if config.method != "lora" or config.optimizer != "adamw":
        raise ValueError(
            f"NNsight trains adapters with AdamW here, got method={config.method!r} and optimizer="
            f"{config.optimizer!r}; use finetune for these"
        )
    if remote is True:
        raise ValueError(
            "the adapter lives in this process, so its gradients cannot come from NDIF: train with remote="
            'False (remote="local" checks that the block serialises), publish the adapter on the hub, and '
            "read it there with remote_model(name, peft=...)"
        )
    import_nnsight()
    check_trainable(model, config)
    check_positions(model, chats.lengths, chats.source)
    steps = config.total_steps(len(chats))
    tuned = trainable_copy(model, config, seed)
    tuned.config.use_cache = False
    tuned.train()
    if config.gradient_checkpointing:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
            tuned.gradient_checkpointing_enable()
    traced = trace_model(tuned, tokenizer)
    edit = trace_edit(traced, during)
    trained = [value for value in tuned.parameters() if value.requires_grad]
    optimizer, scheduler = _optimizer(trained, config, steps)
    size = config.batch_size
    order = iter(RowOrder(chats, steps * size * config.accumulate, seed).order)
    losses = []
    with seeded(seed, trained[0].device):
        for _ in range(steps):
            rows = [[next(order) for _ in range(size)] for _ in range(config.accumulate)]
            parts = [collate(part, chats, None) for part in rows]
            answers = sum(len(part["places"]) for part in parts)
            losses.append(sum(_step(traced, edit, part, answers, config.bf16, remote) for part in parts))
            if config.max_grad_norm:
                nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    return tuned.eval(), losses


def _step(
    traced: TransformersModel,
    edit: TraceEdit,
    part: dict[str, Tensor],
    answers: int,
    bf16: bool,
    remote: Where,
) -> float:
    """Add the gradients of one forward pass, and return its share of the step's loss."""
    import nnsight

    model = traced._module
    part = {name: value.to(next(model.parameters()).device) for name, value in part.items()}
    labels, places = part["labels"], part["places"]
    selected = len(places) and selects_logits(model)
    rows = {name: part[name] for name in ("input_ids", "attention_mask")}
    with (
        logits_at(model, places, labels.shape) if selected else nullcontext(),
        torch.autocast(labels.device.type, torch.bfloat16, enabled=bf16),
    ):
        with traced.trace(**rows, use_cache=False, remote=remote):
            edit()
            loss = loss_at_answers(traced.output, labels, answers, places=places)
            loss.backward()
            value = nnsight.save(loss.detach())
    return value.item()


def _optimizer(
    trained: list[nn.Parameter], config: FinetuneConfig, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return AdamW and the learning rate's schedule as Trainer makes them. Every matrix of LoRA decays."""
    from transformers import get_scheduler

    optimizer = torch.optim.AdamW(trained, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
    warmup = config.warmup_steps
    warmup = int(warmup) if warmup >= 1 else math.ceil(steps * warmup)
    return optimizer, get_scheduler(
        config.schedule, optimizer, num_warmup_steps=warmup, num_training_steps=steps
    )
