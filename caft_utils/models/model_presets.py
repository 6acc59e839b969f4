"""Presets: the settings that repeat the paper's experiment on a model, each value with its source.

They stand in presets.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from caft_utils.arguments import from_fields, mapping, text, whole, wholes
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.text_files import read_yaml

PRESETS = Path(__file__).with_name("presets.yaml")
LessonName = Literal["emergent", "double choice", "gender"]
Data = Literal["generated", "shipped", "published", "files"]
Judge = Literal["exact", "logprob", "endpoint"]
AnswerWith = Literal["letter", "option"]


@dataclass(frozen=True)
class SAESource:
    """The location of published SAEs of a model.

    Attributes:
        repo: hub id of a repository, or a release of sae-lens with format="sae_lens".
        folder: the folder of one SAE in it; "{layer}" stands for the layer, any other word in braces for one
            unknown part of the path.
        format: "dictionary_learning", "gemma_scope" or "sae_lens".
        latents: number of latents of each SAE.
    """

    repo: str
    folder: str
    format: str
    latents: int

    def __post_init__(self):
        for name in ("repo", "folder", "format"):
            text(name, getattr(self, name))
        object.__setattr__(self, "latents", whole("latents", self.latents, 1))


@dataclass(frozen=True)
class LessonSource:
    """What a lesson of the course uses with a model: the data of its task, and what judges the answers.

    Attributes:
        data: "generated" by the classroom's world; "shipped" in data/advice; "published", see
            data/sources.yaml; or "files" that the user has.
        judge: "exact" compares answers that the model writes with the right ones; "logprob" compares the
            probabilities of given answers; "endpoint" is a language model, which the user brings.
        answer_with: whether a choice is answered with the option's letter or with the option itself.
        files: {argument of the task: the source of its file}, for data="files".
        max_length: tokens kept of each row of a file; None: the task's own number.
        finetune_config: {field: value} of the preset's fine-tuning settings that differ in this lesson.
    """

    data: Data
    judge: Judge
    answer_with: AnswerWith = "letter"
    files: Mapping[str, str] = field(default_factory=dict)
    max_length: int | None = None
    finetune_config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for name, known in (("data", Data), ("judge", Judge), ("answer_with", AnswerWith)):
            if (value := getattr(self, name)) not in get_args(known):
                raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, got {value!r}")
        mapping("files", self.files)
        from_fields(FinetuneConfig, "finetune_config", self.finetune_config)
        if self.max_length is not None:
            object.__setattr__(self, "max_length", whole("max_length", self.max_length, 1))


@dataclass(frozen=True)
class Preset:
    """The settings for one model.

    Attributes:
        layers: 0-based decoder blocks at whose outputs directions are found and ablated.
        finetune_config: the fine-tuning settings.
        dtype: dtype of the weights; "auto" is the checkpoint's own.
        revision: the revision on the hub to load; None is the main branch.
        sae: the location of its published SAEs, if there are any.
        lessons: what each lesson of the course uses with this model; it cannot give the others.
        sources: {field: the source of its value}.
    """

    name: str
    layers: tuple[int, ...] = ()
    finetune_config: FinetuneConfig = FinetuneConfig()
    dtype: str = "auto"
    revision: str | None = None
    sae: SAESource | None = None
    lessons: Mapping[str, LessonSource] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


@cache
def presets() -> dict[str, Preset]:
    """Return all presets of presets.yaml by name.

    Raises:
        ValueError: an entry has an unknown field or a wrong value; the message names both.
    """
    entries = mapping(str(PRESETS), read_yaml(PRESETS))
    return {name: _preset(str(name), entry) for name, entry in entries.items()}


def _preset(name: str, entry: Any) -> Preset:
    where = f"{PRESETS}, {name}"
    known = {f.name for f in fields(Preset)} - {"name"}
    values = mapping(where, entry, sorted(known), needed=("layers", "finetune_config"))
    try:
        values["layers"] = tuple(wholes("layers", values["layers"], -1))
        values["finetune_config"] = from_fields(FinetuneConfig, "finetune_config", values["finetune_config"])
        if values.get("sae"):
            values["sae"] = from_fields(SAESource, "sae", values["sae"])
        for field_name in ("dtype", "revision"):
            if values.get(field_name) is not None:
                text(field_name, values[field_name])
        mapping("sources", values.get("sources", {}))
        lessons = mapping("lessons", values.get("lessons", {}), get_args(LessonName))
        values["lessons"] = {
            name: from_fields(LessonSource, f"lessons, {name}", entry) for name, entry in lessons.items()
        }
    except ValueError as error:
        raise ValueError(f"{where}, {error}") from error
    return Preset(name, **values)


def preset(name: str = "classroom") -> Preset:
    """Return the preset of a name or hub id. Any other model gets the general settings and no layers."""
    name = str(name)
    return presets().get(name) or Preset(name)
