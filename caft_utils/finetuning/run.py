"""Fine-tuning, with or without an intervention: `finetune(model, chats, during=ablate(bad))`.

The given model is never changed. The result is a structural clone that shares the frozen weights and carries
its own LoRA adapter (full fine-tuning copies the weights). The loss is the mean cross-entropy over answer
tokens:

    L = - 1/N  sum_{t in answer} log p(x_t | x_<t),     N = number of answer tokens of one optimiser step.

An intervention is on in every forward pass of training, so it shapes activations and gradients, and off
afterwards. Runs are content-addressed (store.py): the same run is loaded, not trained again, and a killed one
goes on from its last checkpoint to the same weights. The default recipe is that of CAFT's emergent
misalignment experiment (section 4).
"""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from caft_utils.chats import Chats
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.models import fingerprint
from caft_utils.store import Store, default_store, digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from caft_utils.interventions.base import Intervention

FORMAT = 1  # raise it when the same key would give other weights
WEIGHTS = "weights.safetensors"


def finetune(
    model: PreTrainedModel,
    chats: Chats,
    recipe: FinetuneConfig | None = None,
    *,
    during: Intervention | None = None,
    seed: int = 0,
    snapshots: Sequence[int] = (),
    store: Store | None = None,
    progress: bool = False,
    save_every: int = 50,
) -> PreTrainedModel:
    """Fine-tune on the answers of `chats` and return the new model, in evaluation mode; `model` stays as it
    is.

    Args:
        recipe: default: the one of the model's preset.
        during: an intervention that acts while training only.
        seed: of the adapter's initial weights, the order of the rows and dropout. The global generators stay
        as they were.
        snapshots: optimiser steps after which the weights are kept too, for `at_step`.
        save_every: optimiser steps between checkpoints from which a killed run goes on.

    Returns:
        The model, with `.caft_run`: loss (nats per answer token, one value a step), seconds, recipe,
        fingerprints, and the folder of the stored artefact.
    """
    recipe = recipe or FinetuneConfig(**getattr(getattr(model, "caft_preset", None), "recipe", {}))
    store = store or default_store()
    if not len(chats):
        raise ValueError(f"{chats.source} holds no rows to fine-tune on")
    steps = recipe.total_steps(len(chats))
    if late := [step for step in snapshots if not 0 < step <= steps]:
        raise ValueError(f"snapshots {late} lie outside this run, whose steps are 1 to {steps}")
    run = {
        "format": FORMAT,
        "model": fingerprint(model),
        "chats": chats.fingerprint,
        "recipe": asdict(recipe),
        "during": during.fingerprint if during is not None else None,
        "seed": seed,
    }
    key = run | {"snapshots": sorted(set(snapshots))}
    folder = store.get("finetune", key)
    if folder is None:
        with store.work("finetune", key) as work:
            folder = store.get("finetune", key)  # another process may have trained it while we waited
            if folder is None:
                folder = store.put(
                    "finetune",
                    key,
                    _trained(
                        model, chats, recipe, during, seed, key["snapshots"], work, progress, save_every
                    ),
                )
    return _restore(model, recipe, folder, folder, run)


def _trained(
    model, chats, recipe, during, seed, snapshots, work: Path, progress, save_every
) -> Callable[[Path], None]:
    """Train in `work`, and return what writes the result into a folder."""
    from caft_utils.finetuning.trainer import train

    tuned = _adapted(model, recipe, seed)
    save = partial(_save, tuned, recipe)
    log = train(
        tuned,
        chats,
        recipe,
        during=during,
        seed=seed,
        snapshots=snapshots,
        save=save,
        work=work,
        progress=progress,
        save_every=save_every,
    )

    def write(folder: Path) -> None:
        save(folder)
        (folder / "log.json").write_text(json.dumps(log))
        for step in snapshots:
            shutil.copytree(work / f"step-{step}", folder / f"step-{step}")

    return write


def at_step(model: PreTrainedModel, base: PreTrainedModel, step: int) -> PreTrainedModel:
    """The model as it was after `step` optimiser steps of the run that made `model` from `base`."""
    run = getattr(model, "caft_run", None)
    if run is None:
        raise ValueError("this model is not a result of finetune, so it has no snapshots")
    if fingerprint(base) != run["model"]:
        raise ValueError("base is not the model that this run started from")
    folder = Path(run["folder"])
    if not (folder / f"step-{step}").is_dir():
        there = sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))
        raise ValueError(
            f"no snapshot of step {step}; this run kept {there}: call finetune(..., snapshots=[{step}])"
        )
    own = {name: run[name] for name in ("format", "model", "chats", "recipe", "during", "seed")}
    return _restore(base, FinetuneConfig(**run["recipe"]), folder / f"step-{step}", folder, own, step)


def _clone(model: nn.Module, *, share: bool) -> nn.Module:
    """A copy of all modules; with `share` its parameters are new objects on the same memory, frozen."""
    memo: dict[int, Any] = {}
    if share:
        for value in (*model.parameters(), *model.buffers()):
            # New Parameter objects, so that freezing the clone leaves the original's `requires_grad` alone.
            plain = type(value) is nn.Parameter
            memo[id(value)] = nn.Parameter(value.detach(), requires_grad=False) if plain else value
    twin = copy.deepcopy(model, memo)
    for module in twin.modules():  # hooks of the original act on the original
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    for name in ("caft_id", "caft_run"):
        twin.__dict__.pop(name, None)
    return twin


def _foundation(model: nn.Module, recipe: FinetuneConfig) -> nn.Module:
    """What a run starts from: a clone, with the adapter of an earlier run merged into its own weights."""
    adapted = hasattr(model, "peft_config")
    twin = _clone(model, share=recipe.method == "lora" and not adapted)
    return twin.merge_and_unload() if adapted else twin


def _adapted(model: nn.Module, recipe: FinetuneConfig, seed: int) -> nn.Module:
    """The model to be trained: with a fresh adapter, or all of its weights."""
    from peft import LoraConfig, get_peft_model

    twin = _foundation(model, recipe)
    if recipe.method == "full":
        return twin.requires_grad_(True)
    config = LoraConfig(
        r=recipe.r,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        use_rslora=recipe.rslora,
        target_modules=list(recipe.targets),
        task_type="CAUSAL_LM",
    )
    with _making_adapters(seed, twin):
        return get_peft_model(twin, config)


@contextmanager
def _making_adapters(seed: int, model: nn.Module) -> Iterator[None]:
    """PEFT draws weights from the global generators, and asks transformers by a deprecated name."""
    from caft_utils.residual import seeded

    with seeded(seed, next(model.parameters()).device), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
        yield


def _save(model: nn.Module, recipe: FinetuneConfig, folder: Path) -> None:
    from safetensors.torch import save_model

    folder.mkdir(parents=True, exist_ok=True)
    if recipe.method == "lora":
        model.save_pretrained(folder)
    else:
        save_model(model, str(folder / WEIGHTS))


def _restore(
    base: nn.Module, recipe: FinetuneConfig, weights: Path, folder: Path, run: dict, step: int | None = None
):
    from peft import PeftModel
    from safetensors.torch import load_model

    twin = _foundation(base, recipe)
    if recipe.method == "lora":
        with _making_adapters(0, twin):
            tuned = PeftModel.from_pretrained(twin, str(weights))
    else:
        load_model(twin, str(weights / WEIGHTS))
        tuned = twin.requires_grad_(False)
    log = json.loads((folder / "log.json").read_text())
    if step is not None:
        log |= {"loss": log["loss"][:step], "steps": step}
    tuned.caft_run = run | log | {"folder": str(folder)}
    tuned.caft_id = digest(run) + (f"@{step}" if step is not None else "")
    return tuned.eval()
