"""Rivals that change training, under the names used by conditions: (setting, config, value, seed) -> model.

Steering and ablation need no entry here, because they are operators (operators.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from caft_utils import rivals
from caft_utils.course.studies.conditions import Setting
from caft_utils.finetune_config import FinetuneConfig


def trained_by_rival(method: str, setting: Setting, config: FinetuneConfig, value: float, seed: int) -> Any:
    """Return the model that a rival trains from the setting's base and training rows.

    Raises:
        ValueError: there is no such rival.
    """
    if method not in METHODS:
        raise ValueError(f"unknown rival {method!r}; expected one of {', '.join(METHODS)}")
    return METHODS[method](setting, config, value, seed)


def _prompted(kind: str) -> Callable[..., Any]:
    def train(setting: Setting, config: FinetuneConfig, value: float, seed: int) -> Any:
        prompt = getattr(setting.material(), kind)[int(value)]
        return rivals.inoculate_by_prompt(setting.model, setting.task.train, config, prompt=prompt, seed=seed)

    return train


def _beside(random: bool) -> Callable[..., Any]:
    def train(setting: Setting, config: FinetuneConfig, value: float, seed: int) -> Any:
        return rivals.inoculate_by_adapter(
            setting.model,
            setting.task.train,
            config,
            trait=setting.material().trait,
            trait_config=replace(config, steps=int(value)),
            random=random,
            seed=seed,
        )

    return train


def _kl(on_text: bool) -> Callable[..., Any]:
    def train(setting: Setting, config: FinetuneConfig, value: float, seed: int) -> Any:
        text = setting.material().everyday if on_text else None
        return rivals.stay_close_by_kl(
            setting.model, setting.task.train, config, weight=value, text=text, seed=seed
        )

    return train


def _features(setting: Setting, config: FinetuneConfig, value: float, seed: int) -> Any:
    return rivals.stay_close_by_features(setting.model, setting.task.train, config, weight=value, seed=seed)


def _interleaved(kind: str) -> Callable[..., Any]:
    def train(setting: Setting, config: FinetuneConfig, value: float, seed: int) -> Any:
        benign = getattr(setting.material(), kind)
        return rivals.interleave(
            setting.model, setting.task.train, config, benign=benign, share=value, seed=seed
        )

    return train


METHODS: dict[str, Callable[[Setting, FinetuneConfig, float, int], Any]] = {
    "inoculation prompt": _prompted("prompts"),
    "irrelevant prompt": _prompted("irrelevant"),
    "inoculation adapter": _beside(random=False),
    "random adapter": _beside(random=True),
    "KL to the base": _kl(on_text=False),
    "KL on everyday text": _kl(on_text=True),
    "feature distance": _features,
    "interleaved everyday rows": _interleaved("everyday"),
    "interleaved counterexamples": _interleaved("counterexamples"),
}
