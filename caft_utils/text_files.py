"""Read text, JSON and YAML files of any origin: decode them, parse them and say what is wrong.

Files come from Excel, Notepad and other people's scripts. UTF-8 and every encoding that a byte order mark
names are read. Bytes of any other encoding are ambiguous, so they are refused with the file, the line and
the command that converts them. A key that a file gives twice is refused too, because one of its values would
be lost.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

# UTF-32 first: its little-endian mark begins with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NO_TEXT = (
    (b"\x1f\x8b", "is compressed with gzip; unpack it (gunzip) and give the file inside"),
    (b"PK\x03\x04", "is a zip archive or an Excel workbook; unpack it, or save the sheet as CSV UTF-8"),
    (b"PAR1", "is a parquet table; save its rows as JSON lines or CSV"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; unpack it and give the file inside"),
)
LINE_END = re.compile("\r\n|\r|\n")  # not str.splitlines, which also cuts at characters that JSON allows
HALF_PAIR = re.compile("[\ud800-\udfff]")


def read_text(path: str | Path) -> str:
    """Return the text of a file in UTF-8, or in the encoding that its byte order mark names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder, is not text, or has another encoding. The message names file,
            line and cure.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected a text file")
    return decoded(path.read_bytes(), str(path))


def decoded(data: bytes, name: str) -> str:
    """Return bytes as text, see `read_text`. Errors call them `name`."""
    for magic, problem in NO_TEXT:
        if data.startswith(magic):
            raise ValueError(f"{name} {problem}")
    encoding = next((encoding for mark, encoding in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        where = f"{name}, line {_line(data[: error.start])}"
        if encoding != "utf-8":
            raise ValueError(f"{where}: begins as {encoding}, but is damaged ({error.reason})") from None
        raise ValueError(
            f"{where}: the byte 0x{data[error.start]:02x} is not UTF-8. Save the file as UTF-8; if it is in "
            f"cp1252 (Windows, Excel), `iconv -f cp1252 -t utf-8` converts it"
        ) from None
    if "\0" in text:
        line = _line(text[: text.index("\0")].encode())
        raise ValueError(
            f"{name}, line {line}: has NUL bytes, so it is no text, or UTF-16 without a byte order mark; "
            "`iconv -f utf-16le -t utf-8` converts that"
        )
    return text.removeprefix("\ufeff")


def lines(text: str) -> list[str]:
    """Return the lines of a text without their ends, whichever of the three systems wrote it."""
    return LINE_END.split(text)


def parse_json(text: str, where: str, wanted: str = "JSON") -> Any:
    """Return a JSON value. ValueError: it is not `wanted`, or gives a key twice; it begins with `where`."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise ValueError(f"{where}: not {wanted}: {error.msg} at {at}") from None
    except RecursionError:
        raise ValueError(f"{where}: not usable JSON (nested too deeply)") from None
    except ValueError as error:  # a key given twice, or a number of thousands of digits
        raise ValueError(f"{where}: not usable JSON ({error})") from None


def read_json(path: str | Path) -> Any:
    """Return the value of a JSON file. Errors are those of `read_text` and `parse_json`."""
    return parse_json(read_text(path), str(path))


def json_rows(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a file of JSON lines, or of one JSON list, each after its "file:line" or "file, row".

    Blank lines are left out.

    Raises:
        ValueError: as for `read_text` and `parse_json`.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        rows = parse_json(text, str(path))
        yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows))
        return
    for number, line in enumerate(lines(text), start=1):
        if line.strip():
            where = f"{path}:{number}"
            yield where, parse_json(line, where, "a line of JSON (one object per line, or one list)")


def read_yaml(path: str | Path) -> Any:
    """Return the value of a YAML file, with 1e-4 read as a number (YAML 1.1 takes it for text).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no YAML or gives a key twice; the message names file, line and column.
    """
    import yaml

    text = read_text(path)
    try:
        return yaml.load(text, Loader=_loader())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{path}{at}: not usable YAML ({error.problem or error.context})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # such as a date in month 13
        raise ValueError(f"{path}: not usable YAML ({error})") from None


def half_pair(value: Any) -> str | None:
    """Return the first half surrogate pair in the texts of a JSON value as "\\ud83d", or None.

    It is what remains of an emoji that a program cut in two. It cannot be encoded, so no tokenizer, file or
    page takes it.
    """
    if isinstance(value, str):
        found = HALF_PAIR.search(value)
        return f"\\u{ord(found.group()):04x}" if found else None
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return next((found for each in value if (found := half_pair(each))), None)
    return None


def _line(before: bytes) -> int:
    return len(LINE_END.findall(before.decode("latin-1"))) + 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is given twice")
    return value


@cache
def _loader() -> type:
    """Return the class of the loader. yaml is imported when the first file is read."""
    import yaml

    class Loader(yaml.SafeLoader):
        """SafeLoader that refuses a key given twice, and reads numbers such as 1e-4."""

        def compose_mapping_node(self, anchor):
            node = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                    problem = f"the key {key.value!r} is given twice"
                    raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
                seen.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key))
            return node

    number = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return Loader
