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

from caft_utils.lazy_imports import lazy_names

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
__getattr__, __dir__, __all__ = lazy_names(__name__, _HOME)
