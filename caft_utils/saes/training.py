"""Train sparse autoencoders on the residual stream of a model, all layers in one pass over the text.

Hidden states are streamed out of the model, mixed in a buffer so that a batch is not one conversation, and
every layer's SAE takes a step on the same tokens. Two things make short runs work. Hidden states are brought
to mean 0 (the decoder bias starts at their mean) and length sqrt(d) on average, which the weights absorb at
the end, so one learning rate serves all layers and models. And latents that have been silent for long are
trained to explain what the others leave over (arXiv 2406.04093, appendix A.2).

The first token of a row is an attention sink with a hidden state unlike all others; it takes no part.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from caft_utils.models import fingerprint
from caft_utils.residual import site, stream_activations
from caft_utils.saes.collection import SAEs
from caft_utils.saes.config import SAETrainingConfig, fresh
from caft_utils.saes.quality import sae_quality
from caft_utils.store import Store, default_store

if TYPE_CHECKING:
    from sae_lens.training.sae_trainer import SAETrainer

    from caft_utils.chats import Chats

FORMAT = 1
HELD_OUT = 20  # one row in so many is kept for measuring
POINTS = 200  # of a training curve


def train_saes(
    model: nn.Module,
    chats: Chats,
    layers: Sequence[int],
    recipe: SAETrainingConfig | None = None,
    *,
    seed: int = 0,
    store: Store | None = None,
    batch_size: int = 32,
    progress: bool = False,
) -> SAEs:
    """One SAE for each of `layers`, from the store where they have been trained before.

    Every 20th row is held out for the measurements. Text that is too short for the steps is read again.

    Args:
        chats: text like that on which the SAEs will be used; all tokens but the first of a row are taken.
        batch_size: rows of one forward pass of the model.
        progress: show a bar.

    Returns:
        SAEs with `about[layer]` = explained_variance, l0 and dead (see `quality`) on the held-out rows, the
        training `curves` (step, loss: share of variance not explained, l0, dead), tokens, seconds, recipe,
        seed, model and data.

    Raises:
        ValueError: fewer than two rows, or no row of two tokens. IndexError: a layer is out of range.
        FloatingPointError: the loss became infinite or NaN.
    """
    recipe, layers = recipe or SAETrainingConfig(), sorted(set(layers))
    for layer in layers:
        site(model, layer)  # an IndexError now rather than after the text was prepared
    if not layers:
        raise ValueError("no layers given; name at least one, for example layers=[1]")
    if len(chats) < 2:
        raise ValueError(f"{len(chats)} row of text is too few: one in {HELD_OUT} is held out for measuring")
    key = {
        "format": FORMAT,
        "model": fingerprint(model),
        "data": chats.fingerprint,
        "layers": layers,
        "recipe": asdict(recipe),
        "seed": seed,
    }

    def write(folder: Path) -> None:
        _train(model, chats, layers, recipe, key, batch_size, progress).save(folder)

    return SAEs.load((store or default_store()).fetch("saes", key, write))


def _train(
    model, chats, layers, recipe: SAETrainingConfig, key: dict, batch_size: int, progress: bool
) -> SAEs:
    from sae_lens import SAE
    from sae_lens.training.mixing_buffer import multi_hook_concat_split_iter
    from tqdm.auto import tqdm

    from caft_utils.residual import seeded

    started = time.monotonic()
    device = next(model.parameters()).device
    parts = _parts(chats, 8 * batch_size)
    with seeded(key["seed"], device):
        first, stream = _peek(_stream(model, parts, layers, batch_size, device), recipe.buffer_tokens // 4)
        trainers = {layer: _trainer(recipe, first[layer], f"model.layers.{layer}") for layer in layers}
        mixed = multi_hook_concat_split_iter(recipe.buffer_tokens, recipe.batch_tokens, stream, layers)
        curves: dict[int, dict[str, list]] = {
            l: {"step": [], "loss": [], "l0": [], "dead": []} for l in layers
        }
        bar = tqdm(total=recipe.steps, desc="training SAEs", unit="step", disable=not progress)
        for step, batch in zip(range(1, recipe.steps + 1), mixed):
            for layer, trainer in trainers.items():
                output = trainer.step(batch[layer])
                trainer.n_training_steps += 1
                if step in (1, recipe.steps) or step % -(-recipe.steps // POINTS) == 0:
                    _note(curves[layer], step, trainer, output)
            bar.set_postfix({f"loss {l}": f"{c['loss'][-1]:.3f}" for l, c in curves.items()}, refresh=False)
            bar.update()
        bar.close()
        saes = {}
        for layer, trainer in trainers.items():
            trained = trainer.sae
            trained.fold_activation_norm_scaling_factor(trainer.activation_scaler.scaling_factor)
            with TemporaryDirectory() as folder:
                trained.save_inference_model(folder)
                saes[layer] = SAE.load_from_disk(folder, device=str(device))
    seconds = round(time.monotonic() - started, 3)
    found = sae_quality(model, chats[::HELD_OUT], SAEs(saes), batch_size=batch_size)
    facts = {
        **{name: key[name] for name in ("recipe", "seed", "model", "data")},
        "tokens": recipe.steps * recipe.batch_tokens,
        "seconds": seconds,
    }
    return SAEs(saes, {layer: {**found[layer], "curves": curves[layer], **facts} for layer in layers})


def _parts(chats: Chats, rows: int) -> list[Chats]:
    """The rows that are not held out, in parts of at most `rows`, each spread over the whole text."""
    strides = [chats[i::HELD_OUT] for i in range(1, min(HELD_OUT, len(chats)))]
    many = -(-len(strides[0]) // rows)
    parts = [part for stride in strides for j in range(many) if len(part := stride[j::many])]
    if not any(len(example.input_ids) > 1 for part in parts for example in part):
        raise ValueError(f"{chats!r}: no row to train on has a second token, and first tokens are left out")
    return parts


def _stream(model, parts: list[Chats], layers, batch_size: int, device) -> Iterator[dict[int, Tensor]]:
    """Hidden states of all tokens but first ones, without end: each time the parts come in a new order."""
    while True:
        for i in torch.randperm(len(parts)).tolist():
            for part in stream_activations(model, parts[i], layers, batch_size=batch_size):
                keep = part.position > 0
                yield {layer: part.hidden[layer].to(device)[keep.to(device)] for layer in layers}


def _peek(stream: Iterator[dict[int, Tensor]], tokens: int) -> tuple[dict[int, Tensor], Iterator]:
    """At least so many tokens from the beginning of a stream, and the stream with them put back."""
    taken: list[dict[int, Tensor]] = []
    while sum(len(next(iter(part.values()))) for part in taken) < tokens:
        taken.append(next(stream))
    return {l: torch.cat([part[l] for part in taken]) for l in taken[0]}, chain(taken, stream)


def _trainer(recipe: SAETrainingConfig, first: Float[Tensor, "n d"], name: str) -> SAETrainer:
    """sae-lens' trainer of a fresh SAE; `first` are hidden states from which mean and scale are taken."""
    from sae_lens import SAETrainer
    from sae_lens.config import SAETrainerConfig

    device = str(first.device)
    sae = fresh(recipe, first.shape[1], device)
    sae.cfg.metadata.hook_name = name
    mean = first.mean(0)
    scale = first.shape[1] ** 0.5 / (first - mean).norm(dim=1).mean().item()
    sae.b_dec.data.copy_(mean * scale)
    decay = recipe.steps // 5
    config = SAETrainerConfig(
        total_training_samples=recipe.steps * recipe.batch_tokens,
        train_batch_size_samples=recipe.batch_tokens,
        lr=recipe.lr,
        lr_end=recipe.lr,  # the decay starts there; None, its default, is refused
        lr_warm_up_steps=min(recipe.warmup, recipe.steps - decay - 1),
        lr_decay_steps=decay,
        dead_feature_window=recipe.silence,
        device=device,
    )
    trainer = SAETrainer(cfg=config, sae=sae, data_provider=iter(()))
    trainer.activation_scaler.scaling_factor = scale
    return trainer


def _note(curve: dict[str, list[Any]], step: int, trainer: SAETrainer, output) -> None:
    """Add a point to a training curve."""
    x = output.sae_in
    loss = (output.sae_out - x).square().sum() / (x - x.mean(0)).square().sum()
    if not loss.isfinite():
        raise FloatingPointError(
            f"the loss is not finite at step {step}; try a smaller lr than {trainer.cfg.lr}, and see whether "
            "the hidden states are finite (float16 overflows)"
        )
    curve["step"].append(step)
    curve["loss"].append(round(loss.item(), 5))
    curve["l0"].append(round((output.feature_acts > 0).float().sum(1).mean().item(), 3))
    curve["dead"].append(round(trainer.dead_neurons.float().mean().item(), 5))
