"""Translate a `FinetuneConfig` into the arguments of transformers' Trainer."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import TrainingArguments

from caft_utils.finetuning import processes

if TYPE_CHECKING:
    import torch

    from caft_utils.finetune_config import FinetuneConfig

CHECKPOINTING = (
    "activation_checkpointing",
    "gradient_checkpointing",
)  # its name, and the one in earlier versions


def make_training_arguments(
    config: FinetuneConfig, steps: int, work: Path, device: torch.device, *, seed: int, save_every: int
) -> TrainingArguments:
    """Return the config as arguments of Trainer."""
    # "adamw" is Trainer's default: the implementation of AdamW that suits this version of torch.
    optimizer = {} if config.optimizer == "adamw" else {"optim": config.optimizer}
    known = {one.name for one in fields(TrainingArguments)}
    checkpointing = next(name for name in CHECKPOINTING if name in known)
    batch_size, accumulate = processes.share_of_step(config)
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulate,
        train_sampling_strategy="sequential",
        learning_rate=config.lr,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        adam_beta1=config.betas[0],
        adam_beta2=config.betas[1],
        max_grad_norm=config.max_grad_norm,
        bf16=config.bf16,
        use_cpu=device.type == "cpu",
        ddp_find_unused_parameters=False,  # every adapter takes part in every step
        seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=save_every,
        save_total_limit=None,  # Trainer would rotate by the time of files, and clocks are set back
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        **optimizer,
        **{checkpointing: config.gradient_checkpointing},
    )
    # With several GPUs in one process Trainer would copy the model to each, and hooks would miss the copies.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
