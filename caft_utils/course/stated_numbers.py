"""Find numbers in text that no measurement carries.

    python -m caft_utils.course.stated_numbers

checks README.md, data/results/README.md and the Markdown cells of all notebooks, and prints what it finds.

**Which numbers count.** A number with a unit of `UNITS` ("93 %", "57 to 68 %", "3.6 points"), and any number
with a decimal point ("0.98"). These do not count: headings, code, formulas, targets of links, versions, the
level of an interval ("95 % intervals"), and hints and solutions of exercises.

**What carries a number.** One of these:

1. An output of the same notebook prints it, rounded to the digits stated. On a page, a table of `make pages`.
2. A code cell of the same notebook contains it (70 % as 0.7), so it is a setting.
3. Its sentence (or its table) says "paper" or links to another site, so it is quoted.
4. Its paragraph ends with a mark, an HTML comment that no reader sees:

   `<!-- record: emergent; classroom-qwen; CAFT; misaligned -->` names a value of data/results/emergent.json:
   the claim, values that select exactly one row (model, condition, setting, split ...), and the key. Several
   marks may follow each other.

   `<!-- given: why -->` says why no record holds the number: a definition, or a time that somebody took.

The check compares numbers, and cannot tell whether the sentence around a number is true.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caft_utils.course.records import FOLDER, load_record
from caft_utils.text_files import read_json

ROOT = Path(__file__).parents[2]
UNITS = ("%", "percent", "point", "points", "nats", "times", "second", "seconds", "minute", "minutes")
PAGES = ("README.md", "data/results/README.md")

_DIGITS = r"\d{1,3}(?: \d{3})+|\d+(?:\.\d+)?(?:e-?\d+)?"
_UPPER = rf"(?:(?:\s(?:to|and|or|-|–)\s|[-–])(?P<upper>{_DIGITS}))?"
_UNIT = rf"(?:\s?(?P<percent>%)|\s(?P<unit>{'|'.join(UNITS[1:])})\b|(?![A-Za-z]))"
_NUMBER = re.compile(rf"(?<![\w.,:/])(?<!\w[-–])(?P<digits>{_DIGITS})(?!\.?\d){_UPPER}{_UNIT}")
_MARK = re.compile(r"<!--\s*(record|given):(.*?)-->", re.S)
_LEVEL = re.compile(r"\b9[059] % (?:confidence )?intervals?")
_INTERVAL = re.compile(rf"({_DIGITS})\s?%\s*[\[(]({_DIGITS})(?:,|-)\s*({_DIGITS})[\])]")
_WRITTEN = re.compile(r"<!-- ([\w-]+) -->.*?<!-- /\1 -->", re.S)


@dataclass(frozen=True)
class Number:
    """A number as a text states it: value, unit ("" without one), and the number of its decimals."""

    value: float
    unit: str
    decimals: int

    def carried_by(self, other: Number) -> bool:
        """Return whether `other` has the same unit and, rounded to this number's decimals, is this number."""
        return self.unit in ("", other.unit) and self.rounds(other.value)

    def rounds(self, value: float) -> bool:
        """Return whether `value`, rounded to this number's decimals, is this number."""
        return abs(self.value - value) <= 0.5 * 10**-self.decimals + 1e-9

    def __str__(self) -> str:
        return f"{self.value:.{self.decimals}f} {self.unit}".strip()


@dataclass(frozen=True)
class Uncarried:
    """A number that nothing carries: where it stands, the number, its sentence, and what is wrong."""

    place: str
    number: str
    sentence: str
    problem: str = "no output, record, setting or quotation carries it"

    def __str__(self) -> str:
        return f"{self.place}: {self.number}: {self.problem}\n    {self.sentence}"


def numbers(text: str, *, all_of_them: bool = False) -> list[Number]:
    """Return the numbers of a text that have a unit or a decimal point, or all numbers."""
    found = []
    for match in _NUMBER.finditer(_INTERVAL.sub(r"\1 % \2 % \3 %", text)):
        unit = match["percent"] or (match["unit"] or "").replace("percent", "%").rstrip("s")
        for digits in (match["digits"], match["upper"]):
            if digits and (unit or "." in digits or all_of_them):
                plain = digits.replace(" ", "")
                decimals = len(plain.partition(".")[2]) if "e" not in plain else 12
                found.append(Number(float(plain), unit, decimals))
    return found


def uncarried_in_notebook(path: Path, *, records: Path = FOLDER) -> list[Uncarried]:
    """Return the numbers in a notebook's Markdown cells that nothing carries."""
    notebook = read_json(path)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    printed = [number for cell in code for text in _texts(cell["outputs"]) for number in numbers(text)]
    settings = [number for cell in code for number in numbers("".join(cell["source"]), all_of_them=True)]
    if minutes := notebook["metadata"].get("caft", {}).get("minutes"):
        printed.append(Number(minutes, "minute", 1))
    found = []
    for index, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "markdown":
            place = f"{path.stem}, cell {index}"
            found += _uncarried("".join(cell["source"]), place, printed, settings, records)
    return found


def uncarried_on_page(path: Path, *, records: Path = FOLDER) -> list[Uncarried]:
    """Return the numbers on a Markdown page that nothing carries."""
    text = path.read_text(encoding="utf-8")
    printed = [number for table in _WRITTEN.finditer(text) for number in numbers(table[0])]
    place = "/".join(path.parts[-2:])
    return list(_uncarried(_WRITTEN.sub("", text), place, printed, [], records))


def _uncarried(
    text: str, place: str, printed: list[Number], settings: list[Number], records: Path
) -> Iterator[Uncarried]:
    for paragraph in _paragraphs(text):
        marks = _MARK.findall(paragraph)
        measured, problems = _measured([entry for kind, entry in marks if kind == "record"], records)
        yield from (Uncarried(place, "mark", paragraph.strip()[:200], problem) for problem in problems)
        if any(kind == "given" and entry.strip() for kind, entry in marks):
            continue
        for sentence in _sentences(_MARK.sub("", paragraph)):
            if re.search(r"\bpapers?\b|\]\(https?://", sentence, re.I):
                continue
            for number in numbers(_prose(sentence)):
                setting = any(_is_setting(number, other) for other in settings)
                stated = any(number.carried_by(other) for other in printed)
                if not (setting or stated or any(number.rounds(value) for value in measured)):
                    yield Uncarried(place, str(number), " ".join(sentence.split()))


def _measured(entries: list[str], folder: Path) -> tuple[list[float], list[str]]:
    """Return the values that marks name, as they are and in percent, and what is wrong with the marks."""
    values, problems = [], []
    for entry in entries:
        claim, *names, key = (part.strip() for part in entry.split(";"))
        try:
            rows = [row for row in load_record(claim, folder)["rows"] if key in row and _is_row(row, names)]
        except (FileNotFoundError, ValueError) as error:
            problems.append(str(error))
            continue
        if len(rows) != 1:
            problems.append(
                f"the mark {entry.strip()!r} selects {len(rows)} rows of {claim}.json; expected one"
            )
            continue
        for value in _flat(rows[0][key]):
            values += [abs(value), 100 * abs(value)]
    return values, problems


def _is_row(row: dict[str, Any], names: list[str]) -> bool:
    return set(names) <= {value for value in row.values() if isinstance(value, str)}


def _is_setting(number: Number, other: Number) -> bool:
    """Return whether code contains the number: a decimal as it is, a percentage as a share, nothing else."""
    scale = {"": 1, "%": 100}.get(number.unit, 0)
    return other.value != 0 and abs(number.value - scale * other.value) < 1e-9


def _flat(value: Any) -> Iterator[float]:
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        yield float(value)
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _flat(entry)


def _texts(outputs: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what outputs print: streams, Markdown, and HTML without its tags."""
    for output in outputs:
        yield "".join(output.get("text", ""))
        for kind, data in output.get("data", {}).items():
            if kind in ("text/markdown", "text/plain", "text/html"):
                text = re.sub(r"<(style|script|svg).*?</\1>", "", "".join(data), flags=re.S)
                yield re.sub(r"<[^>]*>", " ", text)


def _paragraphs(text: str) -> list[str]:
    """Split at blank lines and at list items, and leave out code blocks, hints and solutions."""
    text = re.sub(r"```.*?```|<details>.*?</details>", "", text, flags=re.S)
    return [part for part in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.)\s)", text) if part.strip()]


def _sentences(paragraph: str) -> list[str]:
    if paragraph.lstrip().startswith("|"):
        return [paragraph]  # a table is one sentence
    return re.split(r"(?<=[.!?])[*)\"]*\s+(?=[\"*(`\[]*[A-Z])", paragraph)


def _prose(sentence: str) -> str:
    """Take away headings, code, formulas, targets of links, tags, versions and levels of intervals."""
    sentence = re.sub(r"^#+ .*", " ", sentence, flags=re.M)
    for pattern in (
        r"`[^`]*`",
        r"\$[^$]*\$",
        r"\]\([^)]*\)",
        r"<[^>]*>",
        r"(?i)\b(?:python|torch|arxiv|gpt-)\s?\d[\w.]*",
    ):
        sentence = re.sub(pattern, " ", sentence)
    return _LEVEL.sub(" ", sentence)


def main() -> int:
    """Check all pages and notebooks of the repository, and print what nothing carries."""
    found = [each for page in PAGES for each in uncarried_on_page(ROOT / page)]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        found += uncarried_in_notebook(path)
    print("\n".join(map(str, found)) or "every number is carried")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
