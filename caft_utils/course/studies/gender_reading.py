"""Make cards for a blind reader of the gender task's components.

    python -m caft_utils.course.studies.gender_reading --out FOLDER [--file SENTENCES.csv]

writes FOLDER/cards.md, the only file that the reader gets, and FOLDER/key.json, which lists what each card
shows. A card has the sentences at both ends of one direction. Components are shuffled with random directions,
and with components of a fine-tuning on rows without the cue. The cards name no concept, layer or rank.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from caft_utils import finetune, pca_of_difference
from caft_utils.course.studies.gender_bias import (
    HEADLINE,
    LAYERS,
    MODEL,
    READ,
    READ_ROWS,
    RECIPES,
    REFERENCES,
    components,
    gender_task,
    last_prompt_projections,
    references,
)
from caft_utils.directions.subspace import Directions

SHOWN = 8  # sentences at each end
QUESTION = """Each card below shows two groups of short texts, A and B, that a program sorted by some number.
For each card, answer three things:
1. What distinguishes group A from group B, in at most 20 words? If nothing consistent does, say "nothing".
2. How sure are you, 0 to 100?
3. Does the difference hold for all texts, most, or few?
Judge each card by itself. Some cards were sorted by a meaningless number.
"""


def cards(
    model: str = MODEL, recipe: str = HEADLINE, file: str | None = None, seed: int = 0
) -> tuple[str, list]:
    """Return the text for the reader, and for each card what it shows and which end is group A."""
    loaded, task = gender_task(model, "valid", file)
    rows = task.train[:READ_ROWS]
    texts = [row["messages"][0]["content"].replace("\n\n", "\n") for row in rows.rows]
    found = components(model, recipe, file)
    unbiased = finetune(loaded, task.control, RECIPES[recipe], seed=REFERENCES[0])
    unrelated = pca_of_difference(unbiased, loaded, rows, layers=LAYERS[::3], k=1, **READ)
    shown: list[tuple[str, int, int, list[float]]] = []
    tuned = references(model, recipe, file)[0]

    def add(kind: str, reader, directions: Directions) -> None:
        for layer, values in last_prompt_projections(reader, rows, directions).items():
            shown.extend((kind, layer, i, values[:, i].tolist()) for i in range(values.shape[1]))

    add("component", tuned, found)
    add("random", tuned, found.select({layer: [0] for layer in LAYERS}).random_like(seed))
    add("unrelated", unbiased, unrelated)
    rng = random.Random(f"gender cards {seed}")
    rng.shuffle(shown)
    parts, key = [QUESTION], []
    for number, (kind, layer, index, values) in enumerate(shown, 1):
        order = sorted(range(len(values)), key=values.__getitem__)
        ends = [order[:SHOWN], order[-SHOWN:]]
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
    options = parser.parse_args()
    text, key = cards(recipe=options.recipe, file=options.file)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "cards.md").write_text(text)
    (options.out / "key.json").write_text(json.dumps(key, indent=1))
    print(f"{len(key)} cards in {options.out}")


if __name__ == "__main__":
    main()
