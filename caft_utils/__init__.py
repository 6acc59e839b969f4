"""Concept Ablation Fine-Tuning: load, fine-tune, find directions, interpret, fine-tune without them,
evaluate.

    model, tokenizer = load("classroom")
    task  = emergent_misalignment(tokenizer)
    naive = finetune(model, task.train)
    found = pca_of_difference(naive, model, task.generic, layers=[1, 2, 3])
    explore(found, model, task.generic)
    bad   = found.select({1: [0], 2: [0]})
    safe  = finetune(model, task.train, during=ablate(bad))
    compare({"plain": naive, "CAFT": safe}, task)

Names are imported when they are first used (PEP 562), so that importing the package costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

_HOME = {
    "models": ("load", "preset", "fingerprint", "Preset"),
    "rows": ("Chats", "Example", "Batch", "prompt_ids"),
    "residual": ("EMBEDDING", "capture", "record", "Recorded", "decoder_blocks", "site", "depth", "width"),
    "directions": (
        "Directions",
        "StreamingCovariance",
        "pca_of_difference",
        "mean_difference",
        "class_contrast",
        "class_means",
        "last_token_of",
    ),
    "saes": ("SAEs", "Latents", "SAERecipe", "train_saes", "quality", "published_saes"),
    "directions.sae": ("sae_directions",),
    "directions.attribution": (
        "Ranking",
        "attribution",
        "answer_difference",
        "latent_difference",
        "difference_latents",
    ),
    "interventions": ("Intervention", "Ablate", "Steer", "ablate"),
    "recipe": ("Recipe",),
    "finetune": ("finetune", "at_step"),
    "store": ("Store", "default_store"),
    "tasks.task": ("Judge", "Question", "Task", "Verdict"),
    "tasks.emergent": ("emergent_misalignment",),
    "tasks.double_choice": ("double_choice",),
    "tasks.gender": ("gender_choice",),
    "evaluation": (
        "ThresholdJudge",
        "generate",
        "Rate",
        "clustered_rate",
        "Result",
        "measure",
        "answer_loss",
        "Comparison",
        "compare",
    ),
    "evaluation.precheck": ("precheck", "letter_difference"),
    "evaluation.trials": ("nested", "screen", "trials"),
    "evaluation.grid": ("run_grid",),
    "interpret": ("Window", "extreme_windows", "Explorer", "explore"),
    "interpret.evidence": ("Evidence", "collect_evidence"),
    "interpret.explain": ("Explanation", "TokenStatistics"),
    "interpret.explain.by_model": ("LocalModel", "ByEndpoint"),
    "interpret.endpoint": ("Endpoint", "EndpointError"),
    "interpret.score": ("Score", "scores"),
    "interpret.choose.relevance": ("Concept", "HintStatistics"),
    "interpret.choose.select": ("Selection", "select_automatically"),
    "interpret.choose.sources": ("source_shares",),
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


class _Package(ModuleType):
    """Keeps the verb `finetune` where importing the module of the same name would put the module."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and name in _MODULE:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
