"""Checks of exercises: they say what was expected, what came instead, and which idea to look at.

    with checking(1, "zero is the part of the mean that the direction holds") as expect:
        expect("score(0.9, 3)", score(0.9, 3), 0.9, "rho is the share of rows in which the two agree")
        expect.that(share > 0.9, "more than 90 % right", f"{share:.0%}", "project on the difference of means")

The block never ends in a traceback. It prints one line: right, not yet, or not answered yet. `require_right`
raises where the last check of an exercise was not right; marking and the runs of solved notebooks use it.
"""

from __future__ import annotations

import linecache
import traceback
from types import TracebackType
from typing import Any

LONGEST = 160  # characters of a value in a message
RESULTS: dict[int, str] = {}  # exercise: what its last check in this process printed
RIGHT = "right"


class NotYet(Exception):
    """Raised inside a check that an answer does not pass; the text says why."""


class NotAnswered(NotYet):
    """Raised inside a check if the stub is still there."""


class checking:  # lower case: it reads as a statement
    """Context manager that runs the check of one exercise and prints what came out.

    Args:
        number: of the exercise.
        learned: one clause that is printed after "right".
    """

    def __init__(self, number: int, learned: str = ""):
        self.number, self.learned = number, learned

    def __enter__(self) -> checking:
        RESULTS[self.number] = "its check did not finish"
        return self

    def __call__(self, what: str, got: Any, wanted: Any, idea: str, *, within: float = 0.0) -> None:
        """Go on if `got` is `wanted`.

        Args:
            what: the expression that gave `got`, as the student would write it.
            got: the answer. None and `...` count as not answered.
            wanted: the right value; tensors are compared by shape and by their largest difference.
            idea: what to think about if it is wrong.
            within: how far numbers may be apart.
        """
        self.answered(what, got)
        got, wanted = _plain(got), _plain(wanted)
        if _shape(got) != _shape(wanted):
            expected, came = (_shape(value) or describe(value) for value in (wanted, got))
            raise NotYet(f"{what}: expected {_as_shape(expected)}, got {_as_shape(came)}.\n  Idea: {idea}")
        if _is_tensor(wanted):
            differences = (got.detach().double() - wanted.detach().double().to(got.device)).abs()
            apart = float(differences.max()) if differences.numel() else 0.0
            self.that(apart <= within, f"{what} within {within:g}", f"values off by up to {apart:.3g}", idea)
        elif isinstance(wanted, int | float) and not isinstance(wanted, bool) and _is_number(got):
            close = abs(got - wanted) <= within
            room = f" (within {within:g})" if within else ""
            self.that(close, f"{what} = {describe(wanted)}{room}", describe(got), idea)
        else:
            self.that(got == wanted, f"{what} = {describe(wanted)}", describe(got), idea)

    def that(self, holds: bool, expected: str, got: str, idea: str) -> None:
        """Go on if `holds`. `expected` and `got` complete "expected ..." and "got ..."."""
        if not holds:
            raise NotYet(f"expected {expected}; got {got}.\n  Idea: {idea}")

    def answered(self, what: str, *values: Any) -> None:
        """Go on if no value is None or `...`, which is what stubs hold and return."""
        if any(value is None or value is ... for value in values):
            raise NotAnswered(f"{what} gives nothing so far")

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if error is not None and not isinstance(error, Exception):
            return False  # Ctrl-C
        if error is None:
            said = f"{RIGHT}. {self.learned[:1].upper()}{self.learned[1:]}".rstrip(". ")
        elif isinstance(error, NotAnswered):
            said = f"not answered yet ({error})"
        elif isinstance(error, NotYet):
            said = f"not yet. {str(error)[:1].upper()}{str(error)[1:]}"
        else:
            said = f"not yet. {type(error).__name__}: {error}{_where(error)}"
        RESULTS[self.number] = said
        print(f"Exercise {self.number}: {said.removesuffix('.')}.")
        return True


def require_right(number: int) -> None:
    """Raise unless the last check of this exercise was right.

    Raises:
        AssertionError: it was wrong, not answered, or did not run; the text is what the check said.
    """
    said = RESULTS.get(number, "its check has not run")
    if not said.startswith(RIGHT):
        raise AssertionError(f"exercise {number}: {said}")


def describe(value: Any) -> str:
    """Return a short text for a value in a message."""
    if _is_tensor(value):
        return _as_shape(_shape(value))
    if isinstance(value, float):
        return f"{value:.4g}"
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "numel")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """Return Python's own value for a tensor or array of one number, and the value itself otherwise."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if _is_tensor(value) else None


def _as_shape(value: Any) -> str:
    return f"a tensor of shape {value}" if isinstance(value, tuple) else str(value)


def _where(error: Exception) -> str:
    """Return the innermost line of a notebook cell that the error passed through, as the end of a sentence.

    The first frame is the check itself, so it does not count.
    """
    frames = traceback.extract_tb(error.__traceback__)[1:]
    cells = [frame for frame in frames if "ipykernel" in frame.filename or frame.filename.startswith("<")]
    if not cells or not (line := linecache.getline(cells[-1].filename, cells[-1].lineno or 0).strip()):
        return ""
    return f" (in line {cells[-1].lineno} of your cell: {line})"
