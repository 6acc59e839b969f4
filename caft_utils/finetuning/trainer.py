"""The training run itself: transformers' Trainer, made exactly repeatable and resumable, and quiet.

The order of the rows is fixed in advance from the seed, checkpoints count only when they are complete, and
the global random generators are given back as they were.
"""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from caft_utils.chats import Batch, Chats, Example
from caft_utils.models import no_file_bars
from caft_utils.residual import seeded

if TYPE_CHECKING:
    from caft_utils.finetune_config import FinetuneConfig
    from caft_utils.interventions.base import Intervention

COMPLETE = "complete"


def train(
    model: torch.nn.Module,
    chats: Chats,
    recipe: FinetuneConfig,
    *,
    during: Intervention | None,
    seed: int,
    snapshots: Sequence[int],
    save: Callable[[Path], None],
    work: Path,
    progress: bool,
    save_every: int,
) -> dict[str, Any]:
    """Train `model` in place, with checkpoints and snapshots (`work`/step-N, written by `save`) in `work`.

    Returns:
        {"loss": nats per answer token, one value a step, "steps", "seconds"}.

    Raises:
        FloatingPointError: the loss became infinite or NaN.
    """
    started = time.monotonic()
    steps = recipe.total_steps(len(chats))
    device = next(model.parameters()).device
    model.config.use_cache = False  # keys and values of earlier tokens are of no use in training
    settings = TrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.accumulate,
        train_sampling_strategy="sequential",
        learning_rate=recipe.lr,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        adam_beta1=recipe.betas[0],
        adam_beta2=recipe.betas[1],
        max_grad_norm=recipe.max_grad_norm,
        activation_checkpointing=recipe.gradient_checkpointing,
        bf16=recipe.bf16,
        use_cpu=device.type == "cpu",
        seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=save_every,
        save_total_limit=2,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
    )
    # On a machine with several GPUs Trainer would copy the model to all of them, and hooks would miss the
    # copies.
    settings._n_gpu = min(settings.n_gpu, 1)
    with seeded(seed, device), warnings.catch_warnings():
        # PEFT and Trainer still ask each other by the old name of activation checkpointing.
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
        trainer = Trainer(
            model=model,
            args=settings,
            train_dataset=_Rows(chats, steps * recipe.batch_size * recipe.accumulate, seed),
            data_collator=lambda examples: _collate(examples, chats.pad),
            callbacks=[_Keeper(snapshots, save, work, progress)],
        )
        trainer.remove_callback(PrinterCallback)
        try:
            with no_file_bars(), during.on(model) if during is not None else nullcontext():
                trainer.train(resume_from_checkpoint=_last_checkpoint(work))
        finally:
            _last_checkpoint(work)  # leaves no half-written checkpoint behind, e.g. when the disk is full
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if not np.isfinite(losses).all():
        bad = int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
        raise FloatingPointError(
            f"the loss is not finite from step {bad} on; try a smaller lr than {recipe.lr}"
        )
    return {"loss": losses, "steps": steps, "seconds": round(time.monotonic() - started, 3)}


class _Rows(torch.utils.data.Dataset):
    """All rows of a run in the order in which it sees them: one permutation after the other.

    The order is fixed here rather than by a sampler, so that it depends on nothing but the seed, also after a
    resume.
    """

    def __init__(self, chats: Chats, size: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        epochs = -(-size // len(chats))
        order = [torch.randperm(len(chats), generator=generator) for _ in range(epochs)]
        self.chats, self.order = chats, torch.cat(order)[:size].tolist()

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> Example:
        return self.chats[self.order[i]]


def _collate(examples: list[Example], pad: int) -> dict[str, torch.Tensor]:
    batch = Batch.of(examples, range(len(examples)), pad)
    labels = batch.input_ids.masked_fill(~batch.answer, -100)  # -100: no loss at this position
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}


class _Keeper(TrainerCallback):
    """Writes snapshots, marks checkpoints as complete, shows progress."""

    def __init__(self, snapshots: Sequence[int], save: Callable[[Path], None], work: Path, progress: bool):
        self.snapshots, self.save, self.work, self.progress = set(snapshots), save, work, progress

    def on_train_begin(self, args, state, control, **_):
        from tqdm.auto import tqdm

        total, done = state.max_steps, state.global_step
        self.bar = tqdm(total=total, initial=done, desc="fine-tuning", disable=not self.progress)

    def on_step_end(self, args, state, control, **_):
        step = state.global_step
        if step in self.snapshots:
            part, folder = self.work / "snapshot.part", self.work / f"step-{step}"
            for path in (part, folder):
                shutil.rmtree(path, ignore_errors=True)
            self.save(part)
            part.rename(folder)
        if step >= state.max_steps:
            control.should_save = False  # the result itself is stored next
        self.bar.update()

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in (logs or {}):
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)

    def on_save(self, args, state, control, **_):
        (self.work / f"checkpoint-{state.global_step}" / COMPLETE).touch()

    def on_train_end(self, args, state, control, **_):
        self.bar.close()


def _last_checkpoint(work: Path) -> str | None:
    """The newest complete checkpoint; incomplete ones, left by a kill or a full disk, are removed."""
    folders = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.removeprefix("checkpoint-")))
    for folder in folders:
        if not (folder / COMPLETE).exists():
            shutil.rmtree(folder)
    complete = [folder for folder in folders if folder.exists()]
    return str(complete[-1]) if complete else None
