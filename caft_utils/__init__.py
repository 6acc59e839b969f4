"""Concept Ablation Fine-Tuning: load, fine-tune, find directions, interpret, fine-tune without them, measure.

    model, tokenizer = load("classroom")
    task  = emergent_misalignment(tokenizer)             # from caft_utils.classroom.tasks
    naive = finetune(model, task.train)
    found = pca_of_difference(naive, model, task.generic, layers=[1, 2, 3])
    explore(model, task.generic, found)
    bad   = found.select({1: [0], 2: [0]})
    safe  = finetune(model, task.train, during=ablate(bad))
    compare({"plain": naive, "CAFT": safe}, task)

Everything else is one level down: `caft_utils.residual`, `.directions`, `.saes`, `.interventions`,
`.evaluation`, `.interpret`, `.plots`, ... Names are imported on first use (PEP 562), so importing the package
costs nothing.
"""

from __future__ import annotations

from importlib import import_module

_HOME = {
    "chats": ("Chats",),
    "directions": ("Directions", "class_means", "mean_difference", "pca_of_difference"),
    "evaluation": ("compare", "measure"),
    "finetune_config": ("FinetuneConfig",),
    "finetuning": ("at_step", "finetune"),
    "interpret.explorer": ("Explorer", "explore"),
    "interventions": ("ablate", "steer"),
    "models": ("load", "preset"),
    "saes": ("SAEs", "attribution", "published_saes", "train_saes"),
    "tasks": (
        "Task",
        "advice_preferences",
        "double_choice",
        "emergent_misalignment",
        "gender_choice",
    ),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE)


def __getattr__(name: str):
    if name not in _MODULE:
        raise AttributeError(f"module 'caft_utils' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULE[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
