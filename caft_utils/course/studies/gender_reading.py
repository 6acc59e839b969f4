"""Make cards for a blind reader of the gender task's components.

    python -m caft_utils.course.studies.gender_reading --out FOLDER [--file SENTENCES.csv] [--latents]

writes FOLDER/cards.md, the only file that the reader gets, and FOLDER/key.json, which lists what each card
shows. A card has the sentences at both ends of one direction. Components are shuffled with random directions,
and with components of a fine-tuning on rows without the cue. The cards name no concept, layer or rank.

With --latents, a card has the sentences where an SAE latent is most active and those where it is least
active. They are shuffled with cards of random directions only.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch

from caft_utils import finetune, pca_of_difference
from caft_utils.course.studies import gender_latents
from caft_utils.course.studies.gender_bias import (
    READ,
    components,
    gender_task,
    last_prompt_values,
    references,
)
from caft_utils.course.studies.gender_recipes import (
    HEADLINE,
    LAYERS,
    MODEL,
    READ_ROWS,
    RECIPES,
    REFERENCES,
)
from caft_utils.directions.subspace import Directions
from caft_utils.features import Features
from caft_utils.residual import width

SHOWN = 8  # sentences at each end
QUESTION = """Each card below shows two groups of short texts, A and B, that a program sorted by some number.
For each card, answer three things:
1. What distinguishes group A from group B, in at most 20 words? If nothing consistent does, say "nothing".
2. How sure are you, 0 to 100?
3. Does the difference hold for all texts, most, or few?
Judge each card by itself. Some cards were sorted by a meaningless number.
"""


def cards(
    model: str = MODEL,
    recipe: str = HEADLINE,
    file: str | None = None,
    seed: int = 0,
    latents: bool = False,
) -> tuple[str, list]:
    """Return the text for the reader, and for each card what it shows and which end is group A."""
    loaded, task = gender_task(model, "valid", file)
    rows = task.train[:READ_ROWS]
    texts = [row["messages"][0]["content"].replace("\n\n", "\n") for row in rows.rows]
    shown: list[tuple[str, int, int, list[float]]] = []
    tuned = references(model, recipe, file)[0]

    def add(kind: str, model_read: Any, features: Features) -> None:
        for layer, values in last_prompt_values(model_read, rows, features).items():
            of = features.indices(layer)
            shown.extend((kind, layer, i, values[:, column].tolist()) for column, i in enumerate(of))

    layers = list(gender_latents.LAYERS if latents else LAYERS)
    if latents:
        saes = gender_latents.autoencoders(loaded, task.train)
        order = gender_latents.changed_latents(references(model, recipe, file), loaded, rows, saes)
        add("latent", tuned, gender_latents.shown_latents(saes, order))
    else:
        add("component", tuned, components(model, recipe, file))
    one = Directions({layer: torch.eye(1, width(loaded)) for layer in layers})
    add("random", tuned, one.random_like(seed))
    if not latents:
        unbiased = finetune(loaded, task.control, RECIPES[recipe], seed=REFERENCES[0])
        add("unrelated", unbiased, pca_of_difference(unbiased, loaded, rows, layers=LAYERS[::3], k=1, **READ))
    rng, ties = random.Random(f"gender cards {seed}"), random.Random(f"ties {seed}")
    rng.shuffle(shown)
    parts, key = [QUESTION], []
    for number, (kind, layer, index, values) in enumerate(shown, 1):
        places = range(len(values))
        # Equal values, such as the zeros of a latent, come in random order.
        by_value = sorted(ties.sample(places, len(places)), key=values.__getitem__)
        ends = [by_value[:SHOWN], by_value[-SHOWN:]]
        swapped = rng.random() < 0.5
        low, high = (ends[1], ends[0]) if swapped else ends
        parts.append(f"\n## Card {number}\n")
        for group, members in (("A", low), ("B", high)):
            rng.shuffle(members)
            parts += [f"Group {group}:", *(f"- {_one_line(texts[i])}" for i in members), ""]
        key.append(
            {
                "card": number,
                "kind": kind,
                "layer": layer,
                "component": index,
                "A is": "high" if swapped else "low",
            }
        )
    return "\n".join(parts), key


def _one_line(text: str) -> str:
    return " / ".join(line for line in text.splitlines() if line)


def main() -> None:
    """Write the cards for the reader, and the key to them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--file", default=None, help="your own copy of the published sentences")
    parser.add_argument("--recipe", default=HEADLINE, choices=RECIPES)
    parser.add_argument("--latents", action="store_true", help="cards of SAE latents, not of components")
    options = parser.parse_args()
    text, key = cards(recipe=options.recipe, file=options.file, latents=options.latents)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "cards.md").write_text(text)
    (options.out / "key.json").write_text(json.dumps(key, indent=1))
    print(f"{len(key)} cards in {options.out}")


if __name__ == "__main__":
    main()
