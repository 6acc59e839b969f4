"""Windows of text: tokens around a peak, with the activation of the feature at each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from caft_utils.interpret.examples.detokenize import token_texts

if TYPE_CHECKING:
    from caft_utils.chats import Chats


@dataclass(frozen=True)
class TextWindow:
    """Some consecutive tokens of a row.

    tokens: their texts.
    activations: the feature's activation, or projection, at each token.
    peak: index of the most extreme token in the window.
    row, position: the position of that token in the chats.
    """

    tokens: list[str]
    activations: list[float]
    peak: int
    row: int
    position: int

    @property
    def peak_activation(self) -> float:
        return self.activations[self.peak]


class WindowRef(NamedTuple):
    """A window that is not decoded yet: its row, the positions of its peak and first token, activations."""

    row: int
    position: int
    start: int
    activations: list[float]

    @property
    def peak_activation(self) -> float:
        return self.activations[self.position - self.start]

    @property
    def stop(self) -> int:
        return self.start + len(self.activations)

    def ids(self, chats: Chats) -> list[int]:
        """Return the token ids of the window."""
        return chats[self.row].input_ids[self.start : self.stop]


class WindowTexts:
    """Decode `WindowRef`s into `TextWindow`s. A span of text that many features share is decoded once."""

    def __init__(self, chats: Chats):
        self._chats = chats
        self._decoded: dict[tuple[int, int, int], list[str]] = {}

    def __call__(self, ref: WindowRef) -> TextWindow:
        span = (ref.row, ref.start, ref.stop)
        if span not in self._decoded:
            ids = self._chats[ref.row].input_ids
            self._decoded[span] = token_texts(self._chats.tokenizer, ids, ref.start, ref.stop)
        tokens = list(self._decoded[span])
        return TextWindow(tokens, ref.activations, ref.position - ref.start, ref.row, ref.position)
