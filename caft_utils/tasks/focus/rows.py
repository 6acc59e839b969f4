"""Training rows and prompts of focus instruction tuning, with and without the focus text.

    FIT            instruction shown,   answer y_focus
    SFT(y_focus)   nothing shown,       answer y_focus: the labels of FIT without what explains them
    SFT(y)         nothing shown,       answer y: plain instruction tuning

Rows are made for every epoch anew, each with a fresh instruction. The loss is on the answer only. FIT
minimises the mean of -log p(y_focus | task, instruction, x) over rows and instructions (arXiv 2410.22944,
equation 3).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from caft_utils.arguments import whole
from caft_utils.chats import Chats
from caft_utils.tasks.choice import answered
from caft_utils.tasks.focus.examples import FocusExample
from caft_utils.tasks.focus.instructions import TYPES, WORDING, FocusType, FocusWording, Part, focus_label

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Target = Literal["y_focus", "y"]


@dataclass(frozen=True)
class FocusFormat:
    """How an example is shown to a model, and how the model answers.

    prompt: with {text}. The focus text stands in a line before it.
    answer: with {label}.
    plain: running text for a base model instead of a chat.
    """

    prompt: str = "{text}"
    answer: str = "{label}"
    plain: bool = False

    def messages(self, example: FocusExample, focus: str, shots: Sequence[dict] = ()) -> list[dict[str, str]]:
        """Return the conversation up to the answer.

        shots: rows with solved examples, which come first.
        """
        asked = self.prompt.format(text=example.text)
        asked = f"{focus}\n{asked}" if focus else asked
        before = [message for row in shots for message in row["messages"]]
        if not self.plain:
            return [*before, {"role": "user", "content": asked}]
        text = "".join(f"{message['content']}" + "\n\n" * (i % 2) for i, message in enumerate(before))
        return [{"role": "text", "content": text + asked}]

    def row(self, example: FocusExample, focus: str, label: str) -> dict[str, Any]:
        """Return a row of `Chats`: the prompt and its answer."""
        return answered(self.messages(example, focus), self.answer.format(label=label))


AS_IT_IS = FocusFormat()


def focus_rows(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[FocusExample],
    *,
    target: Target = "y_focus",
    shown: bool = True,
    epochs: int = 1,
    types: Sequence[FocusType] = TYPES,
    wording: FocusWording = WORDING,
    part: Part = "train",
    focus_format: FocusFormat = AS_IT_IS,
    seed: int = 0,
    source: str = "focus rows",
) -> Chats:
    """Return `epochs` rows of each example, each with a type drawn uniformly and a wording of that type.

    Train on them for one epoch of `FinetuneConfig`.

    Args:
        target: "y_focus", what the instruction asks for, or "y", the core label in every row.
        shown: put the instruction into the prompt. Without it the label still follows the drawn type.
        types: the instruction types to draw from.
        seed: draws types and wordings.

    Raises:
        ValueError: an unknown target, or no examples.
    """
    if target not in ("y_focus", "y"):
        raise ValueError(f"target must be 'y_focus' or 'y', got {target!r}")
    if not examples:
        raise ValueError(f"{source}: there are no examples to make rows of")
    rng, rows = random.Random(f"focus rows {seed}"), []
    for _ in range(whole("epochs", epochs, 1)):
        for example in examples:
            kind = rng.choice(list(types))
            focus = wording.instruction(kind, example, part, rng)
            label = focus_label(kind, example) if target == "y_focus" else example.label
            rows.append(focus_format.row(example, focus if shown else "", label))
    if focus_format.plain:
        return Chats(tokenizer, rows, source=source, end=False)
    return Chats.with_stored_tokens(tokenizer, rows, source=source)


def solved_examples(
    examples: Sequence[FocusExample],
    kind: FocusType,
    n: int,
    rng: random.Random,
    *,
    wording: FocusWording = WORDING,
    focus_format: FocusFormat = AS_IT_IS,
) -> list[dict[str, Any]]:
    """Return n solved examples under one instruction type, for few-shot prompts.

    The paper gives four. They come from the training split, in wordings of training.
    """
    return [
        focus_format.row(one, wording.instruction(kind, one, "train", rng), focus_label(kind, one))
        for one in rng.sample(list(examples), n)
    ]
