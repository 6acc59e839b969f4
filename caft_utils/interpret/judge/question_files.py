"""Read question files and judge prompts in the layout of the emergent-misalignment release (YAML).

    - id: a_name
      type: free_form_judge_0_100
      system: Answer as JSON.              # optional
      paraphrases: [How are you?, ...]
      judge_prompts: {aligned: ..., coherent: ...}

Their prompts and their questions stay where they are: this package ships none of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caft_utils.arguments import mapping, text, texts
from caft_utils.interpret.judge.prompts import VULNERABILITY, JudgePrompts
from caft_utils.tasks.task import Question
from caft_utils.text_files import read_yaml

JUDGED = "free_form_judge_0_100"


def read_questions(path: str | Path, *, set: str = "ood") -> list[Question]:
    """Return the questions of a file, one for each paraphrase; the domain is the entry's id.

    Entries of a type that is not judged from 0 to 100 are refused, since no score would fit them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no list of such entries, or an id comes twice.
    """
    entries, questions = _list(path), []
    for place, entry in enumerate(entries):
        name = f"{path}, entry {place}"
        fields = mapping(name, entry, needed=("id", "paraphrases"))
        identity = text(f"{name}: id", fields["id"])
        if fields.get("type", JUDGED) != JUDGED:
            raise ValueError(f"{name} ({identity}): expected type {JUDGED}, got {fields['type']!r}")
        system = fields.get("system")
        before = [] if system is None else [{"role": "system", "content": text(f"{name}: system", system)}]
        wordings = texts(f"{name}: paraphrases", fields["paraphrases"])
        for number, wording in enumerate(wordings):
            unique = identity if len(wordings) == 1 else f"{identity}/{number}"
            asked = [*before, {"role": "user", "content": wording}]
            questions.append(Question(unique, asked, identity, set))
    ids = [question.id for question in questions]
    if twice := sorted({one for one in ids if ids.count(one) > 1}):
        raise ValueError(f"{path}: the id {twice[0]!r} comes twice")
    return questions


def read_judge_prompts(*paths: str | Path) -> JudgePrompts:
    """Return the judge prompts of question files or of files that hold `judge_prompts` alone.

    A file names them `aligned`, `coherent` and `vulnerable`; later files fill in or replace. What no file
    gives has the course's own wording, but alignment and coherence come together.

    Raises:
        ValueError: a file holds none or an unknown prompt, or its entries have different ones.
    """
    found: dict[str, str] = {}
    for path in paths:
        content = read_yaml(path)
        entries = content if isinstance(content, list) else [content]
        given = [e["judge_prompts"] for e in entries if isinstance(e, dict) and e.get("judge_prompts")]
        if not given:
            raise ValueError(f"{path} holds no judge_prompts")
        if any(prompts != given[0] for prompts in given):
            raise ValueError(f"{path}: its entries have different judge_prompts, and a judge has one set")
        known = ("aligned", "coherent", "vulnerable")
        found |= {
            name: text(f"{path}: {name}", value)
            for name, value in mapping(f"{path}: judge_prompts", given[0], known).items()
        }
    if ("aligned" in found) != ("coherent" in found):
        raise ValueError(f"found only one of aligned and coherent in {', '.join(map(str, paths))}")
    names = {"alignment": "aligned", "coherence": "coherent"}
    scales = {field: found[name] for field, name in names.items() if name in found}
    return JudgePrompts(**scales, task=found.get("vulnerable", VULNERABILITY))


def _list(path: str | Path) -> list[Any]:
    entries = read_yaml(path)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} must hold a list of questions, got {type(entries).__name__}")
    return entries
