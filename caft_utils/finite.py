"""Stop at the first number that is NaN or infinite.

A model with broken weights, or one that overflows in float16, computes NaN without any error. Greedy decoding
then picks an arbitrary token, a comparison of two logits is False, and the resulting rate looks like a
measurement. All code that takes numbers from a model therefore checks them, and the error names the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from torch import Tensor

ADVICE = "look for NaN in the weights, or load the model in bfloat16 or float32 if float16 overflows"


class NotFiniteError(FloatingPointError, ValueError):
    """A value that should be a finite number is NaN or infinite."""


def check_finite(values: Tensor, what: str, rows: Sequence[int | str] | Tensor | None = None) -> None:
    """Raise an error if an entry of `values` is NaN or infinite.

    Args:
        values: [n, ...].
        what: names the values and the model for the message, for example "logits of Qwen2ForCausalLM".
        rows: the rows of a text that the n entries belong to, by number, or other names for the entries.

    Raises:
        NotFiniteError: the message names up to five different rows.
    """
    finite = values.isfinite()
    if not bool(finite.all()):
        bad = (~finite).reshape(len(values), -1).any(1).nonzero().flatten().tolist()
        not_finite(what, [rows[i] for i in bad] if rows is not None else ())


def not_finite(what: str, rows: Sequence[int | str] = ()) -> NoReturn:
    """Raise the error of `check_finite` for these rows."""
    rows = list(dict.fromkeys(row if isinstance(row, str) else f"row {int(row)}" for row in rows))
    more = ", ..." if len(rows) > 5 else ""
    where = f" ({', '.join(rows[:5])}{more})" if rows else ""
    raise NotFiniteError(f"{what} are not finite{where}; {ADVICE}")
