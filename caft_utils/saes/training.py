"""Train sparse autoencoders on the residual stream of a model, all layers in one pass over the text.

Hidden states are streamed out of the model and shuffled in a buffer, so that a batch mixes many
conversations. The SAEs of all layers take their steps on the same tokens. Two measures make short runs work:

- Hidden states are scaled to length sqrt(d) on average, and the decoder bias starts at their mean, so one
  learning rate suits all layers and models. The weights absorb the scale at the end.
- Latents that have been inactive for a long time are trained on the reconstruction error of the others (arXiv
  2406.04093, appendix A.2).

The first token of a row is excluded, because its hidden state is atypical. Attention sinks elsewhere in a row
are excluded too (see `caft_utils.sinks`). All layers train on the same tokens, so a token that is a sink at
one layer is excluded at every layer.
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

from caft_utils.arguments import checked
from caft_utils.disk import make_folder
from caft_utils.models import fingerprint
from caft_utils.residual import seeded, site, stream_activations, width
from caft_utils.saes.collection import SAEs
from caft_utils.saes.config import SAETrainingConfig, new_training_sae
from caft_utils.saes.quality import compute_quality
from caft_utils.sinks import Sinks, is_sink, key_of_sinks, sink_limits
from caft_utils.store import default_store
from caft_utils.stored_results import fetch_result

if TYPE_CHECKING:
    from sae_lens.training.sae_trainer import SAETrainer

    from caft_utils.chats import Chats
    from caft_utils.store import Store

STORE_KEY_FORMAT = 1
HELD_OUT_EVERY = 20  # every 20th row is held out for measurements
CURVE_POINTS = 200  # largest number of points of a training curve


@checked
def train_saes(
    model: nn.Module,
    chats: Chats,
    layers: Sequence[int],
    config: SAETrainingConfig | None = None,
    *,
    seed: int = 0,
    sinks: Sinks = "spare",
    store: Store | None = None,
    batch_size: int = 32,
    progress: bool = False,
) -> SAEs:
    """Return one SAE for each of `layers`, trained on `chats` or read from the store.

    Every 20th row is held out for the measurements. Text that is too short for the number of steps is read
    more than once.

    Args:
        chats: text similar to the text on which the SAEs will be used. All tokens of a row count except the
            first.
        sinks: "spare" leaves out attention sinks after the first token too, "include" reads them.
        batch_size: rows in one forward pass of the model.
        progress: show a progress bar.

    Returns:
        SAEs with `about[layer]` = explained_variance, l0 and dead on the held-out rows (see `sae_quality`),
        the training `curves` (step, loss as the share of variance not explained, l0, dead), tokens, seconds,
        recipe (the config), seed, model and data.

    Raises:
        ValueError: there are fewer than two rows, or no row has two tokens.
        IndexError: a layer is out of range.
        FloatingPointError: the loss became infinite or NaN.
    """
    config, layers = config or SAETrainingConfig(), sorted(set(layers))
    for layer in layers:
        site(model, layer)  # raises an IndexError before any work
    if not layers:
        raise ValueError("no layers given; name at least one, for example layers=[1]")
    if len(chats) < 2:
        raise ValueError(
            f"{len(chats)} row of text is too few; one in {HELD_OUT_EVERY} is held out for measuring"
        )
    key = {
        "format": STORE_KEY_FORMAT,
        "model": fingerprint(model),
        "data": chats.fingerprint,
        "layers": layers,
        "recipe": asdict(config),
        "seed": seed,
        **key_of_sinks(sinks, width(model)),
    }

    def compute() -> SAEs:
        # Temporary files go to the store's disk, because errors about a full disk name this disk.
        scratch = make_folder((store or default_store()).root)
        return _train(model, chats, layers, config, key, sinks, batch_size, progress, scratch)

    return fetch_result("saes", key, compute, save=SAEs.save, load=SAEs.load, models=[model], store=store)


def _train(
    model,
    chats,
    layers,
    config: SAETrainingConfig,
    key: dict,
    sinks: Sinks,
    batch_size: int,
    progress: bool,
    scratch: Path,
) -> SAEs:
    """Train and measure. `key` is the store key, parts of which go into `about`.

    scratch: folder for temporary files, on the disk that errors will name.
    """
    from sae_lens import SAE
    from sae_lens.training.mixing_buffer import multi_hook_concat_split_iter
    from tqdm.auto import tqdm

    started = time.monotonic()
    device = next(model.parameters()).device
    blocks = _training_blocks(chats, 8 * batch_size)
    with seeded(key["seed"], device):
        limits = sink_limits(model, layers, sinks)
        first, stream = _peek(
            _endless_stream(model, blocks, limits, batch_size, device), config.buffer_tokens // 4
        )
        trainers = {layer: _trainer(config, first[layer], f"model.layers.{layer}") for layer in layers}
        mixed = multi_hook_concat_split_iter(config.buffer_tokens, config.batch_tokens, stream, layers)
        curves: dict[int, dict[str, list]] = {
            l: {"step": [], "loss": [], "l0": [], "dead": []} for l in layers
        }
        bar = tqdm(total=config.steps, desc="training SAEs", unit="step", disable=not progress)
        for step, batch in zip(range(1, config.steps + 1), mixed):
            for layer, trainer in trainers.items():
                output = trainer.step(batch[layer])
                trainer.n_training_steps += 1
                if step in (1, config.steps) or step % -(-config.steps // CURVE_POINTS) == 0:
                    _add_curve_point(curves[layer], step, trainer, output)
            bar.set_postfix({f"loss {l}": f"{c['loss'][-1]:.3f}" for l, c in curves.items()}, refresh=False)
            bar.update()
        bar.close()
        saes = {}
        for layer, trainer in trainers.items():
            trained = trainer.sae
            trained.fold_activation_norm_scaling_factor(trainer.activation_scaler.scaling_factor)
            with TemporaryDirectory(dir=scratch) as folder:
                trained.save_inference_model(folder)
                saes[layer] = SAE.load_from_disk(folder, device=str(device))
    seconds = round(time.monotonic() - started, 3)
    measured = compute_quality(model, chats[::HELD_OUT_EVERY], SAEs(saes), sinks=sinks, batch_size=batch_size)
    shared = {
        **{name: key[name] for name in ("recipe", "seed", "model", "data")},
        "tokens": config.steps * config.batch_tokens,
        "seconds": seconds,
    }
    return SAEs(saes, {layer: {**measured[layer], "curves": curves[layer], **shared} for layer in layers})


def _training_blocks(chats: Chats, rows: int) -> list[Chats]:
    """Return the rows that are not held out in blocks of at most `rows`, each spread over the whole text."""
    strides = [chats[i::HELD_OUT_EVERY] for i in range(1, min(HELD_OUT_EVERY, len(chats)))]
    n = -(-len(strides[0]) // rows)
    blocks = [block for stride in strides for j in range(n) if len(block := stride[j::n])]
    if not any(len(example.input_ids) > 1 for block in blocks for example in block):
        raise ValueError(f"{chats!r}: no row to train on has a second token, and first tokens are left out")
    return blocks


def _endless_stream(
    model, blocks: list[Chats], limits: dict[int, float], batch_size: int, device
) -> Iterator[dict]:
    """Yield {layer: hidden states} of tokens without end, each epoch in a new order.

    Skips first tokens, and tokens that exceed the sink limit at any of the layers.
    """
    layers = list(limits)
    while True:
        for i in torch.randperm(len(blocks)).tolist():
            for batch in stream_activations(model, blocks[i], layers, batch_size=batch_size):
                keep = batch.position > 0
                for layer, limit in limits.items():
                    keep &= ~is_sink(batch.hidden[layer], limit).cpu()
                yield {layer: batch.hidden[layer].to(device)[keep.to(device)] for layer in layers}


def _peek(stream: Iterator[dict[int, Tensor]], tokens: int) -> tuple[dict[int, Tensor], Iterator]:
    """Return at least `tokens` hidden states from the start of a stream, and the whole stream again."""
    taken: list[dict[int, Tensor]] = []
    while sum(len(next(iter(batch.values()))) for batch in taken) < tokens:
        taken.append(next(stream))
    return {l: torch.cat([batch[l] for batch in taken]) for l in taken[0]}, chain(taken, stream)


def _trainer(config: SAETrainingConfig, first: Float[Tensor, "n d"], hook_name: str) -> SAETrainer:
    """Return a sae-lens trainer of a new SAE, with mean and scale taken from the hidden states `first`."""
    from sae_lens import SAETrainer
    from sae_lens.config import SAETrainerConfig

    device = str(first.device)
    sae = new_training_sae(config, first.shape[1], device)
    sae.cfg.metadata.hook_name = hook_name
    mean = first.mean(0)
    scale = first.shape[1] ** 0.5 / (first - mean).norm(dim=1).mean().item()
    sae.b_dec.data.copy_(mean * scale)
    decay = config.steps // 5
    trainer_config = SAETrainerConfig(
        total_training_samples=config.steps * config.batch_tokens,
        train_batch_size_samples=config.batch_tokens,
        lr=config.lr,
        lr_end=config.lr,  # the value at which the decay starts; the default, None, is refused
        lr_warm_up_steps=min(config.warmup, config.steps - decay - 1),
        lr_decay_steps=decay,
        dead_feature_window=config.silence,
        device=device,
    )
    trainer = SAETrainer(cfg=trainer_config, sae=sae, data_provider=iter(()))
    trainer.activation_scaler.scaling_factor = scale
    return trainer


def _add_curve_point(curve: dict[str, list[Any]], step: int, trainer: SAETrainer, output) -> None:
    """Append the measurements of a step to a training curve.

    Raises:
        FloatingPointError: the loss is infinite or NaN.
    """
    x = output.sae_in
    loss = (output.sae_out - x).square().sum() / (x - x.mean(0)).square().sum()
    if not loss.isfinite():
        raise FloatingPointError(
            f"the loss is not finite at step {step}; try a smaller lr than {trainer.cfg.lr}, and check "
            "that the hidden states are finite (float16 overflows)"
        )
    curve["step"].append(step)
    curve["loss"].append(round(loss.item(), 5))
    curve["l0"].append(round((output.feature_acts > 0).float().sum(1).mean().item(), 3))
    curve["dead"].append(round(trainer.dead_neurons.float().mean().item(), 5))
