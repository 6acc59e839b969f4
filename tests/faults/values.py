"""Nonsense from code and from the browser: settings of training and of clients, messages to the explorer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from helpers.explorers import component_explorer

from caft_utils.finetune_config import FinetuneConfig
from caft_utils.interpret.endpoint import ClientConfig
from caft_utils.saes.config import SAETrainingConfig
from faults.mutate import changed_value, nasty
from faults.outcomes import Outcome, reading
from faults.running import Attempt

Check = Callable[[Any], bool]


def whole(low: int) -> Check:
    return lambda value: type(value) is int and value >= low


def number(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Check:
    def check(value: Any) -> bool:
        right = type(value) in (int, float) and math.isfinite(value)
        return (
            right and (low < value if above else low <= value) and (value < high if below else value <= high)
        )

    return check


def maybe(check: Check) -> Check:
    return lambda value: value is None or check(value)


def listed(check: Check) -> Check:
    return lambda value: isinstance(value, tuple) and len(value) > 0 and all(map(check, value))


def text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def flag(value: Any) -> bool:
    return type(value) is bool


POSITIVE = number(0, above=True)
# What a field may hold once it was accepted. Fields that are not listed are not checked.
LEGAL: dict[type, dict[str, Check]] = {
    FinetuneConfig: {
        "method": lambda value: value in ("lora", "full"), "r": whole(1), "alpha": POSITIVE, "rslora": flag,
        "dropout": number(0, 1, below=True), "lr": POSITIVE, "epochs": POSITIVE, "steps": maybe(whole(1)),
        "batch_size": whole(1), "accumulate": whole(1), "warmup_steps": number(0), "weight_decay": number(0),
        "betas": listed(number(0, 1, below=True)), "max_grad_norm": number(0), "gradient_checkpointing": flag,
        "bf16": flag, "optimizer": text, "schedule": text, "blocks": maybe(listed(whole(0))),
        "targets": lambda value: text(value) or listed(text)(value),
    },
    SAETrainingConfig: {
        "architecture": text, "width": whole(1), "k": whole(1), "sparsity": number(0), "lr": POSITIVE,
        "steps": whole(1), "batch_tokens": whole(1), "buffer_tokens": whole(1), "warmup": whole(0),
        "silence": whole(0),
    },
    ClientConfig: {
        "per_minute": maybe(POSITIVE), "workers": whole(1), "timeout": POSITIVE, "attempts": whole(1),
        "max_retry_after": POSITIVE, "backoff": listed(number(0)),
    },
}  # fmt: skip


def settings(home: Path) -> Attempt:
    """One or two fields of a config with a value of another kind."""

    def attempt(rng: Random, folder: Path) -> Outcome:
        of = rng.choice(list(LEGAL))
        good = {name: [*value] if isinstance(value, tuple) else value for name, value in asdict(of()).items()}
        given = {}
        for name in rng.sample(sorted(good), rng.choice((1, 1, 2))):
            value = nasty(rng, good[name]) if rng.random() < 0.8 else changed_value(good[name], rng)
            if rng.random() < 0.1 and type(value) in (int, float) and abs(value) < 2**62:
                value = np.array(value)[()]  # a scalar of numpy
            given[name] = value
        (folder / "input.txt").write_text(f"{of.__name__}(**{given!r})", "utf-8", "backslashreplace")

        def agrees(config: Any) -> str | None:
            wrong = {
                name: getattr(config, name) for name in given if not LEGAL[of][name](getattr(config, name))
            }
            return f"{of.__name__} took {wrong}" if wrong else None

        return reading(lambda: of(**given), about=given, agrees=agrees)

    return attempt


def widget_messages(home: Path) -> Attempt:
    """Messages that explorer.js never sends, from a browser that anybody may have."""
    good = [
        {"do": "step", "by": 1}, {"do": "show", "at": 2}, {"do": "decide", "what": "ablate"},
        {"do": "name", "at": 1, "name": "malice"}, {"do": "export"},
    ]  # fmt: skip

    def attempt(rng: Random, folder: Path) -> Outcome:
        view = component_explorer()
        view.folder = folder / "selection"
        view.select(2, 1)
        view.name(2, 1, "kept")
        messages = [
            changed_value(rng.choice(good), rng) if rng.random() < 0.8 else rng.choice(good) for _ in range(4)
        ]
        if rng.random() < 0.2:
            messages.append(nasty(rng, "decide"))
        (folder / "input.txt").write_text(repr(messages), "utf-8", "backslashreplace")

        def send() -> list[dict]:
            seen = []
            for message in messages:
                for handle in view.widget._msg_callbacks.callbacks:  # ipywidgets would only log an error
                    handle(view.widget, message, [])
                seen.append(view.widget.view)
            return seen

        def agrees(seen: list[dict]) -> str | None:
            for view_ in seen:
                json.dumps(view_)
                if type(view_["at"]) is not int or not 0 <= view_["at"] < len(view.components):
                    return f"at {view_['at']!r}"
                if len(view_["tiles"]) != len(view.components):
                    return "tiles are missing"
            states = [view.state(*component) for component in view.components]
            names = [view.names.get(component, "") for component in view.components]
            if not set(states) <= {"", "ablate", "discard"} or not all(
                isinstance(name, str) for name in names
            ):
                return f"states {states}, names {names}"
            return None

        return reading(send, about=["direction", "component", "layer", "message"], agrees=agrees)

    return attempt
