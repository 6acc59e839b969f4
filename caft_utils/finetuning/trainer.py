"""The training run itself: transformers' Trainer, made exactly repeatable, resumable and quiet.

The order of the rows is fixed in advance from the seed (batches.py), only whole checkpoints are resumed from
(checkpoints.py), and the state of the global random generators is restored.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback

from caft_utils.arguments import kind_of
from caft_utils.chats import Batch, Chats
from caft_utils.disk import remove
from caft_utils.finetuning import processes, sharding
from caft_utils.finetuning.batches import IGNORED, RowOrder, collate, loss_at_answers
from caft_utils.finetuning.checkpoints import (
    SNAPSHOT_PART,
    newest_whole,
    remove_unfinished,
    rotate,
    seal_step,
)
from caft_utils.finetuning.objective import check_term
from caft_utils.finetuning.training_arguments import make_training_arguments
from caft_utils.losses import logits_at, selects_logits
from caft_utils.models.weight_files import hide_progress_bars
from caft_utils.residual import seeded

if TYPE_CHECKING:
    from caft_utils.finetune_config import FinetuneConfig
    from caft_utils.finetuning.objective import Objective
    from caft_utils.finetuning.prefix import FrozenPrefix
    from caft_utils.interventions.base import Intervention


def train(
    model: torch.nn.Module,
    chats: Chats,
    config: FinetuneConfig,
    *,
    during: Intervention | None,
    objective: Objective | None,
    prefix: FrozenPrefix | None,
    seed: int,
    snapshots: Sequence[int],
    save: Callable[[Path], None],
    work: Path,
    progress: bool,
    save_every: int,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, Any]:
    """Train `model` in place, with checkpoints and snapshots (`work`/step-N, written by `save`) in `work`.

    Args:
        callbacks: further callbacks of Trainer, for example one that takes times.

    Returns:
        "loss" (one value per step; nats per answer token plus the objective), "objective_loss" (the
        objective's part of it, if there is one), "steps", "seconds", and with a prefix its "reused_blocks".

    Raises:
        FloatingPointError: the loss became infinite or NaN.
    """
    started = time.monotonic()
    steps = config.total_steps(len(chats))
    device = sharding.training_device(model)
    model.config.use_cache = False  # training never reuses the keys and values of earlier tokens
    sharded = not processes.is_alone() and sharding.is_requested()
    if not processes.is_alone():
        if sharded:
            sharding.shard(model, device)
        sharding.replicate_frozen(model)
    arguments = make_training_arguments(config, steps, work, device, seed=seed, save_every=save_every)
    last_checkpoint = processes.from_main(lambda: newest_whole(work, snapshots))
    with seeded(seed, device), sharding.hidden_from_accelerate(), warnings.catch_warnings():
        # PEFT and Trainer still use a deprecated name of activation checkpointing.
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
        trainer = _AnswerTrainer(
            model=model,
            args=arguments,
            train_dataset=RowOrder(chats, steps * config.batch_size * config.accumulate, seed),
            data_collator=lambda rows: collate(rows, chats, prefix),
            callbacks=[_Checkpoints(snapshots, save, work, progress), *callbacks],
            objective=objective,
            prefix=prefix,
            sharded=sharded,
        )
        trainer.remove_callback(PrinterCallback)
        try:
            with hide_progress_bars(), during.on(model) if during is not None else nullcontext():
                trainer.train(resume_from_checkpoint=last_checkpoint)
        finally:
            if processes.is_main():
                remove_unfinished(work)  # a half-written checkpoint, for example after a full disk
    steps_logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    losses = [entry["loss"] for entry in steps_logged]
    if not np.isfinite(losses).all():
        first = int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
        remedy = f"try a smaller lr than {config.lr}"
        if first == 1:  # before the first update, so it is the model's own
            remedy = "the model computes it before any training, so look for NaN in its weights"
        for name, given in {"intervention": during, "objective": objective}.items():
            if given is not None:
                remedy += f"; or the {name} ({kind_of(given)}) computes it"
        raise FloatingPointError(f"the loss is not finite from step {first} on; {remedy}")
    log = {"loss": losses, "steps": steps, "seconds": round(time.monotonic() - started, 3)}
    if prefix is not None:
        log["reused_blocks"] = prefix.blocks
    if objective is not None:
        log["objective_loss"] = [entry["objective_loss"] for entry in steps_logged]
    return log


class _AnswerTrainer(Trainer):
    """Trainer with an optional objective beside the loss on answers, and with an optional frozen prefix."""

    def __init__(
        self, *args, objective: Objective | None, prefix: FrozenPrefix | None, sharded: bool, **options
    ):
        self.sharded = sharded  # first, because the rest of the constructor asks for it
        super().__init__(*args, **options)
        self.prefix, self.objective, self.objective_sum = prefix, objective, 0.0
        self.selects = objective is None and selects_logits(self.model)
        if self.selects:
            self.compute_loss_func = loss_at_answers  # Trainer now counts the answer tokens of a step

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        hidden, places = inputs.pop("hidden", None), inputs.pop("places")
        plain = self.accelerator.unwrap_model(model)
        with ExitStack() as stack:  # an objective may compute other batches, so it is computed outside
            if self.prefix is not None:
                stack.enter_context(self.prefix.entered(plain, hidden))
            if self.selects:
                self.compute_loss_func = partial(loss_at_answers, places=places)
                if len(places):
                    stack.enter_context(logits_at(plain, places, inputs["labels"].shape))
            if self.objective is None:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        ids = inputs["input_ids"]
        answer = inputs["labels"] != IGNORED
        batch = Batch(ids, inputs["attention_mask"], answer, list(range(len(ids))))
        term = self.objective(plain, batch, outputs.logits)
        check_term(term, self.objective)
        # Trainer adds up the parts of a step. The answer loss is divided by the tokens of all parts already.
        term = term / self.current_gradient_accumulation_steps
        self.objective_sum += term.item()
        loss = loss + term
        return (loss, outputs) if return_outputs else loss

    def _move_model_to_device(self, model, device):
        if not self.sharded:  # else every part is in its place
            super()._move_model_to_device(model, device)

    def _wrap_model(self, model, training=True, dataloader=None):
        if not (self.sharded and training):
            return super()._wrap_model(model, training, dataloader)
        # accelerate refuses DDP around sharded weights, although DDP handles the adapter alone here.
        plain = self.accelerator.prepare_model(model, device_placement=False, evaluation_mode=True)
        return sharding.averaging(plain, self.args.device)

    def log(self, logs, *args, **options):
        if self.objective is not None and "loss" in logs:
            logs["objective_loss"], self.objective_sum = processes.mean(self.objective_sum), 0.0
        super().log(logs, *args, **options)


class _Checkpoints(TrainerCallback):
    """Write snapshots, seal checkpoints, and show progress, all in the main process only."""

    def __init__(self, snapshots: Sequence[int], save: Callable[[Path], None], work: Path, progress: bool):
        self.snapshots, self.save, self.work, self.progress = set(snapshots), save, work, progress

    def on_train_begin(self, args, state, control, **_):
        from tqdm.auto import tqdm

        shown = self.progress and processes.is_main()
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc="fine-tuning", disable=not shown
        )

    def on_step_end(self, args, state, control, **_):
        step = state.global_step
        if step in self.snapshots and processes.is_main():
            part, folder = self.work / SNAPSHOT_PART, self.work / f"step-{step}"
            for path in (part, folder):
                remove(path)
            self.save(part)
            seal_step(part, self.work, step)
            part.rename(folder)
        if step >= state.max_steps:
            control.should_save = False  # the result itself is stored next
        self.bar.update()

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in (logs or {}):
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)

    def on_save(self, args, state, control, **_):
        processes.barrier()  # every process writes the state of its own random generators
        if processes.is_main():
            step = state.global_step
            seal_step(self.work / f"checkpoint-{step}", self.work, step)
            rotate(self.work)

    def on_train_end(self, args, state, control, **_):
        self.bar.close()
