"""Fine-tuning, with or without an intervention: `finetune(model, chats, during=ablate(bad))`.

The given model is never changed; adapters.py says what is copied. The loss is the mean cross-entropy over
answer tokens, plus an optional objective:

    L = - 1/N  sum_{t in answer} log p(x_t | x_<t),     N = number of answer tokens of one optimiser step.

An intervention is on in every forward pass of training, so it shapes activations and gradients. It is off
afterwards. Runs are content-addressed (store.py): an identical run is loaded instead of trained, and a killed
run resumes from its last checkpoint and ends with the same weights. The default settings are those of the
model's preset, else of CAFT's emergent misalignment experiment (arXiv 2507.16795, section 4).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from caft_utils.arguments import instance, whole, wholes
from caft_utils.chats import Chats
from caft_utils.code_fingerprints import user_code
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.finetuning import processes, sharding
from caft_utils.finetuning.adapters import (
    check_trainable,
    in_half_precision,
    restore,
    save_weights,
    trainable_copy,
)
from caft_utils.finetuning.checkpoints import COMPLETE, IDENTITY
from caft_utils.finetuning.objective import check_objective
from caft_utils.finetuning.prefix import frozen_prefix
from caft_utils.interventions.base import check_intervention
from caft_utils.models.content import unwrapped
from caft_utils.models.fingerprints import fingerprint, name_model
from caft_utils.models.positions import check_ids, check_positions
from caft_utils.models.quantisation import check_optimizer
from caft_utils.store import Store, default_store, digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from caft_utils.finetuning.objective import Objective
    from caft_utils.interventions.base import Intervention

FORMAT = 1  # increase it when the same key would give different weights
KIND = "finetune"


def finetune(
    model: PreTrainedModel,
    chats: Chats,
    config: FinetuneConfig | None = None,
    *,
    during: Intervention | None = None,
    objective: Objective | None = None,
    seed: int = 0,
    snapshots: Sequence[int] = (),
    store: Store | None = None,
    progress: bool = False,
    save_every: int = 50,
    reuse_prefix: bool = True,
) -> PreTrainedModel:
    """Fine-tune on the answers of `chats` and return the new model in evaluation mode; `model` is unchanged.

    Under a launcher of several processes (torchrun, accelerate) every process calls this with the same
    arguments, and gets the same model. They share the work of each step (processes.py), and with a config of
    FSDP2 the frozen weights too (sharding.py).

    With method="full" the new model is float32 if `model` is in half precision (adapters.py says why).

    Args:
        config: default: the config of the model's preset.
        during: an intervention that acts during training only.
        objective: a further term of the loss.
        seed: determines the adapter's initial weights, the order of the rows and dropout. The state of the
        global generators is restored afterwards.
        snapshots: optimiser steps after which the weights are kept too, for `at_step`. A stored run that kept
            more of them is taken as it is.
        save_every: optimiser steps between the checkpoints from which a killed run resumes.
        reuse_prefix: compute the blocks below the first trained or edited one once for all steps, where that
            is possible. It changes the result by rounding only (prefix.py).

    Returns:
        The model, with `.caft_run`: "loss" (one value per step; nats per answer token plus the objective),
        "objective_loss" (the objective's part of it, if there is one), "seconds", "reused_blocks" (the blocks
        of the prefix, if there is one), the config under "recipe", fingerprints, and the folder of the stored
        artefact.

    Raises:
        ValueError: an argument of another kind (a list of rows, a dict as config, the function `ablate`), no
            rows, a token without an embedding, a row without a token to learn or with more tokens than the
            model has positions, a snapshot outside the run, a block or target that the model does not have,
            a term of the objective that is no number or has no gradient, or weights that are offloaded or,
            with method="full", quantised; or several processes cannot share this run.
        RuntimeError: the optimiser needs a GPU or a package that is missing.
        FloatingPointError: the loss became infinite or NaN.
    """
    instance("model", model, nn.Module, "the model alone, as in model, tokenizer = load(name)")
    instance("chats", chats, Chats, "Chats; write finetune(model, Chats(tokenizer, rows))")
    if config is None:
        config = getattr(getattr(model, "caft_preset", None), "finetune_config", FinetuneConfig())
    instance(
        "config", config, FinetuneConfig, "a FinetuneConfig; write FinetuneConfig(**settings) for a dict"
    )
    if during is not None:
        check_intervention("during", during)
    if objective is not None:
        check_objective(objective)
    store = store or default_store()
    if not len(chats):
        raise ValueError(f"{chats.source} holds no rows to fine-tune on")
    check_trainable(model, config)
    check_positions(model, chats.lengths, chats.source)
    check_ids(model, (example.input_ids for example in chats), chats.source)
    # The token at position 0 has none before it that could predict it.
    if silent := [n for n, example in enumerate(chats) if not any(example.answer[1:])]:
        named = f"{', '.join(map(str, silent[:5]))} ({len(silent)} in all, counted from 0)"
        raise ValueError(
            f"{chats.source}: rows {named} have no answer token with a token before it, so nothing is learnt "
            "from them; leave them out, or raise max_length if it cut them"
        )
    seed, save_every = whole("seed", seed), whole("save_every", save_every, 1)
    snapshots = wholes("snapshots", snapshots)
    steps = config.total_steps(len(chats))
    if outside := [step for step in snapshots if not 0 < step <= steps]:
        raise ValueError(f"snapshots {outside} lie outside this run, whose steps are 1 to {steps}")
    run = {
        "format": FORMAT,
        "model": fingerprint(model),
        "chats": chats.fingerprint,
        "recipe": config.key(),
        "during": during.fingerprint if during is not None else None,
        "seed": seed,
    }
    if objective is not None:
        run["objective"] = objective.fingerprint
        if code := user_code(objective):
            run["objective_code"] = code
    if config.method == "full" and in_half_precision(model):
        run["weights"] = "float32"  # earlier versions trained them in half precision
    frozen = {name: run[name] for name in ("model", "weights") if name in run}
    key = run | {"snapshots": sorted(set(snapshots))}
    train = partial(
        _train_in,
        model=model,
        chats=chats,
        config=config,
        during=during,
        objective=objective,
        seed=seed,
        snapshots=key["snapshots"],
        progress=progress,
        save_every=save_every,
        prefix_of=partial(frozen_prefix, name=frozen, store=store) if reuse_prefix else None,
    )
    if not processes.is_alone():
        processes.share_of_step(config)
        if sharding.is_requested():
            sharding.check(model, config, objective=objective is not None)
    processes.connect(sharding.training_device(model))
    folder = processes.from_main(lambda: _stored(store, key)) or _train_and_store(store, key, train)
    return _load_run(model, config, folder, folder, run)


def at_step(model: PreTrainedModel, base: PreTrainedModel, step: int) -> PreTrainedModel:
    """Return the model as it was after `step` optimiser steps of the run that made `model` from `base`.

    Raises:
        ValueError: `model` is not a result of `finetune`, `base` is not what it started from, or the run kept
            no snapshot of that step.
    """
    run = getattr(model, "caft_run", None)
    if run is None:
        raise ValueError("this model is not a result of finetune, so it has no snapshots")
    if fingerprint(base) != run["model"]:
        raise ValueError("base is not the model that this run started from")
    folder = Path(run["folder"])
    if not (folder / f"step-{step}").is_dir():
        kept = sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))
        raise ValueError(
            f"no snapshot of step {step}; this run kept {kept}: call finetune(..., snapshots=[{step}])"
        )
    names = ("format", "model", "chats", "recipe", "during", "seed", "objective", "objective_code", "weights")
    own = {name: run[name] for name in names if name in run}
    return _load_run(base, FinetuneConfig(**run["recipe"]), folder / f"step-{step}", folder, own, step)


def _stored(store: Store, key: Mapping[str, Any]) -> Path | None:
    """Return the folder of the stored run, or of the same run with more snapshots, or None."""
    if (folder := store.get(KIND, key)) is not None:
        return folder
    wanted, name = set(key["snapshots"]), digest(key)
    for other in store.keys(KIND):
        same = digest({**other, "snapshots": key["snapshots"]}) == name
        if same and wanted <= set(other["snapshots"]) and (folder := store.get(KIND, other)) is not None:
            return folder
    return None


def _train_and_store(
    store: Store, key: Mapping[str, Any], train: Callable[[Path], Callable[[Path], None]]
) -> Path:
    """Train under the store's lock and return the folder of the stored run."""
    with _work_folder(store, key) as work:
        # Look again: another run may have trained it while we waited for the lock.
        folder = processes.from_main(lambda: _stored(store, key))
        if folder is None:
            write = train(work)
            processes.barrier()
            folder = processes.from_main(lambda: store.put(KIND, key, write))
    return folder


@contextmanager
def _work_folder(store: Store, key: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the run's scratch folder in every process; only the main process takes its lock."""
    with ExitStack() as stack:
        yield processes.from_main(lambda: stack.enter_context(store.work(KIND, key)))


def _train_in(
    work: Path, *, model, chats, config, during, seed, snapshots, prefix_of, **training
) -> Callable[[Path], None]:
    """Train in `work` and return the function that writes the result into a folder."""
    from caft_utils.finetuning.trainer import train

    check_optimizer(config.optimizer, sharding.training_device(model))
    tuned = trainable_copy(model, config, seed)
    save = partial(save_weights, tuned, config)
    prefix = prefix_of(tuned, chats, config, during=during) if prefix_of is not None else None
    run = {"during": during, "prefix": prefix, "seed": seed, "snapshots": snapshots}
    log = train(tuned, chats, config, save=save, work=work, **run, **training)

    def write(folder: Path) -> None:
        save(folder)
        (folder / "log.json").write_text(json.dumps(log))
        for step in snapshots:
            ignored = shutil.ignore_patterns(COMPLETE, IDENTITY)
            shutil.copytree(work / f"step-{step}", folder / f"step-{step}", ignore=ignored)

    return write


def _load_run(
    base: PreTrainedModel,
    config: FinetuneConfig,
    weights: Path,
    folder: Path,
    run: Mapping[str, Any],
    step: int | None = None,
) -> PreTrainedModel:
    """Return the model with the stored `weights` of the run in `folder`, with its log and identity."""
    tuned = restore(base, config, weights)
    log = json.loads((folder / "log.json").read_text())
    if step is not None:
        log |= {name: log[name][:step] for name in ("loss", "objective_loss") if name in log}
        log["steps"] = step
    tuned.caft_run = {**run, **log, "folder": str(folder)}
    # PEFT writes this name into adapters that are trained on the result, merged or not. The name of the model
    # before the fine-tuning would put them on other weights later; `load` refuses a stored run.
    unwrapped(tuned).name_or_path = str(folder)
    name_model(tuned, digest(run) + (f"@{step}" if step is not None else ""))
    return tuned
