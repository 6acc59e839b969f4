"""What a fault led to, in one word, and the judge of readers that decides on it.

fine       the right answer, or a legal reading of the changed input
refused    an error of this package whose message names the file, row or field
raw        any other exception, or a message that names nothing the user can look up
silent     a wrong answer, or damage that was taken without a word
lost       finished work is gone, or a command cannot be completed any more
executed   text became code, or a page sent a request
leaked     the planted key is in a file, a log, an output or a repr
hung       no end within the limit of one try, or the process died
broken     the harness itself failed
skipped    this machine cannot make the fault
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import caft_utils

KINDS = ("silent", "lost", "executed", "leaked", "hung", "broken", "raw", "refused", "fine", "skipped")
NEVER = ("silent", "lost", "executed", "leaked", "hung", "broken")  # one of these fails the target
RAW_SHARE = 0.01  # largest share of raw exceptions among the inputs of a target
PACKAGE = str(Path(caft_utils.__file__).parent)


@dataclass(frozen=True)
class Outcome:
    """A kind and what was seen, in a line."""

    kind: str
    detail: str = ""


class Hung(BaseException):
    """One try took longer than it may."""


def failed(tally: dict[str, int]) -> list[str]:
    """Return the bounds that a target's counts break, in words."""
    tries = sum(tally.values()) - tally.get("skipped", 0)
    broken = [f"{tally[kind]} {kind}" for kind in NEVER if tally.get(kind)]
    if tally.get("raw", 0) > RAW_SHARE * tries:
        broken.append(f"{tally['raw']} raw of {tries}")
    return broken


def reading(read: Callable[[], Any], *, about: Iterable[str], agrees: Callable[[Any], str | None]) -> Outcome:
    """Call a reader of a damaged input and judge what it did.

    Args:
        about: names of which the message of a refusal has to hold one: the file's, or those of fields.
        agrees: returns None for a value that is right or a legal reading, else what is wrong with it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = read()
    except (KeyboardInterrupt, Hung):
        raise
    except BaseException as error:  # panics of Rust extensions are no Exception
        return refusal(error, about)
    wrong = agrees(value)
    return Outcome("silent", wrong) if wrong else Outcome("fine")


def refusal(error: BaseException, about: Iterable[str]) -> Outcome:
    """Return "refused" for a clear error of this package, "raw" for any other."""
    text = str(error)
    shown = f"{type(error).__name__}: {text[:300]}"
    clear = isinstance(error, ValueError | OSError | LookupError | RuntimeError)
    if clear and (_is_ours(error) or _names_file(error)) and any(name in text for name in about):
        return Outcome("refused", shown)
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" at {Path(place[0].filename).name}:{place[0].lineno}" if place else ""
    return Outcome("raw", shown + where)


def _is_ours(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    # A KeyError of a dictionary is raised in our line too; a message for people is a sentence.
    return bool(frames) and frames[-1].filename.startswith(PACKAGE) and len(str(error).split()) > 3


def _names_file(error: BaseException) -> bool:
    """Return whether this is an error of the system with the path in it, which is clear as it stands."""
    return isinstance(error, OSError) and error.filename is not None
