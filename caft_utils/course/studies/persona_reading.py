"""Make cards for a blind reader of the components of bad advice.

    python -m caft_utils.course.studies.persona_reading --out FOLDER [--model classroom-qwen]

writes FOLDER/cards.md, the only file that the reader gets, and FOLDER/key.json, which lists what each card
shows. A card has the windows of generic text at both ends of one direction. Components are shuffled with
random directions. The cards name no concept, layer or rank.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch

from caft_utils import Directions
from caft_utils.course.studies.persona import ADVICE, MODELS, PersonaSetting, decomposed
from caft_utils.interpret.examples import extreme_windows
from caft_utils.interpret.examples.text_window import TextWindow
from caft_utils.interpret.marked_text import mark_tokens
from caft_utils.residual import width

COMPONENTS, RANDOM = 5, 2  # cards of each layer
WINDOWS, TOKENS = 10, 24
QUESTION = """A program gave every word of some short texts a number. Each card below shows two groups of
passages, A and B: those with the lowest and those with the highest numbers. << >> marks the word with the
number.
For each card, answer three things:
1. What distinguishes group A from group B, in at most 20 words? If nothing consistent does, say "nothing".
2. Is the difference about WHO speaks or how they mean it (the persona behind the text), about the form
   (markup, position, particular words), or about the topic? Name one of the three, or "mixed", and say
   which comes first.
3. How sure are you, 0 to 100?
Judge each card by itself. Some cards were made with meaningless numbers.
"""


def cards(setting: PersonaSetting, seed: int = 0) -> tuple[str, list[dict[str, Any]]]:
    """Return the text for the reader, and for each card what it shows and which end is group A."""
    components = setting.components
    shown = {"component": components.select({layer: range(COMPONENTS) for layer in components.layers})}
    one = Directions({layer: torch.eye(RANDOM, width(setting.model)) for layer in components.layers})
    shown["random"] = one.random_like(seed)
    made = [
        (kind, layer, i, ends)
        for kind, features in shown.items()
        for (layer, i), ends in extreme_windows(
            setting.model, setting.task.generic, features, n=WINDOWS, width=TOKENS
        ).items()
    ]
    rng = random.Random(f"persona cards {seed}")
    rng.shuffle(made)
    parts, key = [QUESTION], []
    for number, (kind, layer, i, ends) in enumerate(made, 1):
        swapped = rng.random() < 0.5
        groups = (ends.top, ends.bottom) if swapped else (ends.bottom, ends.top)
        parts.append(f"\n## Card {number}\n")
        for name, windows in zip("AB", groups):
            parts += [f"Group {name}:", *(f"- {_one_line(window)}" for window in windows), ""]
        end = "high" if swapped else "low"
        key.append({"card": number, "kind": kind, "layer": layer, "component": i, "A is": end})
    return "\n".join(parts), key


def _one_line(window: TextWindow) -> str:
    return mark_tokens(window, {window.peak}).replace("\n", " / ")


def main() -> None:
    """Write the cards for the reader, and the key to them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=MODELS[0], choices=MODELS)
    options = parser.parse_args()
    text, key = cards(decomposed(options.model, ADVICE))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "cards.md").write_text(text)
    (options.out / "key.json").write_text(json.dumps(key, indent=1))
    print(f"{len(key)} cards in {options.out}")


if __name__ == "__main__":
    main()
