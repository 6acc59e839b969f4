"""Seeded damage of bytes, texts and JSON values, as disks, editors and careless scripts cause it."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

NUMBERS = (
    0,
    -1,
    1,
    2,
    1.5,
    -3.7,
    2**31,
    2**63,
    10**30,
    1e308,
    5e-324,
    float("nan"),
    float("inf"),
    -float("inf"),
)
TEXTS = (
    "", " ", "\0", "\ud800", "e\u0301", "\u202e", "1e-4", "no", "null", "~", "q_proj", "x" * 5000, "\ufeff",
    "<script>alert(1)</script>", "../../../etc/passwd", "/dev/null", "%s %n {0}", "{{ 7 * 7 }}", "\r\n",
    "=1+1",
)  # fmt: skip
PIECES = (
    b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\xff", b"\xe9", b"\xed\xa0\x80", b"\\ud800", b"\"", b"'", b"\n",
    b"\r", b",", b";", b"\t", b"{", b"]", b":", b"NaN", b"1e999", b"9" * 5000, b"[" * 3000, b"\xe2\x80\xa8",
    b"<<<<<<< HEAD\n", b"-", b"&a [*a]", b"!!python/name:os.system ", b"# ", b"\x1a",
)  # fmt: skip
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "cp1252", "utf-8-sig", "utf-7", "shift_jis")


def changed_bytes(data: bytes, rng: Random) -> bytes:
    """Return `data` with one to three kinds of damage."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = _change(data, rng)
    return data


def flipped(data: bytes, rng: Random) -> bytes:
    """Return `data` with one bit changed."""
    place = rng.randrange(len(data) * 8)
    changed = bytearray(data)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def changed_text(text: str, rng: Random) -> bytes:
    """Return the bytes of a text file after an accident: another encoding, or damage of its bytes."""
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        return text.encode(rng.choice(ENCODINGS), "replace")
    if rng.random() < 0.2:  # lines in another order, twice or missing
        lines = data.splitlines(keepends=True)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(lines)) if lines else 0
            lines[place : place + 1] = rng.choice(([], lines[place : place + 1] * 2, [b"\n"]))
        return b"".join(lines)
    return changed_bytes(data, rng)


def changed_value(value: Any, rng: Random) -> Any:
    """Return a copy of a JSON value that differs at one place: a type, a number, a text, a key."""
    value = copy.deepcopy(value)
    places = _places(value)
    if not places:
        return nasty(rng, value)
    holder, key = rng.choice(places)
    action = rng.random()
    if action < 0.15:
        del holder[key]
    elif action < 0.3 and isinstance(holder, dict):
        other = rng.choice((str(key) + "s", str(key).upper(), nasty_key(rng), f" {key}"))
        holder[other] = holder.pop(key)
    elif action < 0.4 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif action < 0.5 and isinstance(holder, dict):
        holder[nasty_key(rng)] = nasty(rng, None)
    else:
        holder[key] = nasty(rng, holder[key])
    return value


def changed_json(value: Any, rng: Random, *, lines: bool = False) -> bytes:
    """Return a JSON file (or JSON lines) of `value` that is damaged as a value or as a text."""
    if rng.random() < 0.6:
        value = changed_value(value, rng)
        parts = (
            [json.dumps(each) for each in value] if lines and isinstance(value, list) else [json.dumps(value)]
        )
        return "\n".join(parts).encode()
    parts = [json.dumps(each, ensure_ascii=False) for each in value] if lines else [json.dumps(value)]
    return changed_text("\n".join(parts), rng)


def nasty(rng: Random, old: Any) -> Any:
    """Return a value to put in the place of `old`."""
    match rng.randrange(8):
        case 0:
            return rng.choice(NUMBERS)
        case 1:
            return rng.choice(TEXTS)
        case 2:
            return rng.choice((None, True, False, [], {}, [[]], [None], {"": None}))
        case 3:
            return [old]
        case 4:
            return {"value": old}
        case 5:
            return str(old)
        case 6 if isinstance(old, int | float) and not isinstance(old, bool):
            return rng.choice((-old, old + 1, old * 1000, float(old), old / 3))
        case 6 if isinstance(old, str):
            return rng.choice((old + rng.choice(TEXTS), old[:1], old.upper(), [*old][:50]))
    deep: Any = old
    for _ in range(rng.choice((3, 60))):
        deep = [deep]
    return deep


def nasty_key(rng: Random) -> str:
    return rng.choice((*TEXTS[:8], "extra", "__class__", "name", "-1", "999"))


def _change(data: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    stop = min(len(data), start + rng.choice((1, 2, 8, 64, 1000)))
    match rng.randrange(8):
        case 0 if data:
            return flipped(data, rng)
        case 1:
            return data[:start]
        case 2:
            return data[:start] + data[stop:]
        case 3:
            return data[:stop] + data[start:stop] * rng.randint(1, 3) + data[stop:]
        case 4:
            return data[:start] + rng.randbytes(stop - start) + data[stop:]
        case 5:
            return data[:start] + b"\0" * (stop - start) + data[stop:]
        case 6 if rng.random() < 0.2:
            return b""
    piece = rng.choice(PIECES)
    start = 0 if rng.random() < 0.2 else start
    return data[:start] + piece + data[start:]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of every value in a tree."""
    found, todo = [], [value]
    while todo:
        holder = todo.pop()
        keys = holder if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        for key in list(keys):
            found.append((holder, key))
            todo.append(holder[key])
    return found
