"""An experiment as a value that a YAML file can hold, and the table of studies that can run it.

study: emergent
model: classroom-qwen
seeds: [0, 1, 2, 3, 4]
conditions: [base, plain, CAFT, random directions]   # default: all conditions of the study
options: {fast: true}                                # keyword arguments of the study
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from caft_utils.arguments import mapping, refuse_unknown, text, texts, wholes
from caft_utils.course.studies.study_rows import Row
from caft_utils.finetuning import processes
from caft_utils.text_files import read_yaml

# study -> function (model, seeds, conditions, **options) -> rows, imported when the study runs
STUDIES = {
    "emergent": "emergent:emergent_rows",
    "why": "persona_rivals:why_rows",
    "rivals": "persona_rivals:persona_rival_rows",
    "frontier": "frontier:frontier_rows",
    "twins": "twins:twin_rows",
    "reading": "reading:reading_rows",
    "cues": "cues:cue_rows",
    "double choice": "double_choice:double_choice_rows",
    "gender": "gender_bias:gender_rows",
    "gender rivals": "gender_bias:gender_rival_rows",
    "advice": "advice:advice_rows",
    "advice rivals": "advice:advice_rival_rows",
    "focus": "focus:focus_study_rows",
    "focus real": "focus_real:focus_real_rows",
    "scale": "full_size:scale_rows",
    "engines": "engines:engine_rows",
    "architectures": "architectures:architecture_rows",
    "judge": "judge_calibration:calibration_rows",
    "windows": "windows:window_rows",
    "windows memory": "windows:memory_rows",
    "fakers": "faker_benchmark:faker_rows",
    "published fakers": "faker_published:published_faker_rows",
}
# These take times or memory of one process, or start processes or servers of their own.
ONE_PROCESS = ("scale", "engines", "architectures", "judge", "windows", "windows memory")
# These share their parts (course/sharing.py, course/grid.py), so several processes can measure them together.
SHARED = (
    "emergent",
    "why",
    "rivals",
    "frontier",
    "twins",
    "cues",
    "double choice",
    "gender",
    "gender rivals",
    "advice",
    "advice rivals",
    "focus",
    "focus real",
    "fakers",
)
SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Experiment:
    """A study of one model.

    Args:
        study: a key of `STUDIES`.
        model: a name that `load` accepts.
        seeds: seeds of fine-tuning and sampling. Each seed is one run.
        conditions: names of the conditions to measure, in this order; None: all conditions of the study.
        options: further keyword arguments of the study.

    Raises:
        ValueError: the study is unknown, or there are no seeds, or a seed or a condition is listed twice.
    """

    study: str
    model: str
    seeds: tuple[int, ...] = SEEDS
    conditions: tuple[str, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if text("study", self.study) not in STUDIES:
            raise ValueError(f"unknown study {self.study!r}; expected one of {', '.join(STUDIES)}")
        text("model", self.model)
        object.__setattr__(self, "seeds", tuple(wholes("seeds", self.seeds)))
        if self.conditions is not None:
            object.__setattr__(self, "conditions", tuple(texts("conditions", self.conditions)))
        object.__setattr__(self, "options", mapping("options", self.options))
        for name in ("seeds", "conditions"):
            values = getattr(self, name) or ()
            if len(set(values)) != len(values):
                raise ValueError(f"{name} lists an entry twice: {list(values)}")
        if not self.seeds:
            raise ValueError("seeds must list at least one whole number")

    @classmethod
    def from_yaml(cls, path: str | Path) -> Experiment:
        """Read an experiment from a YAML file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a mapping, has an unknown field or lacks a required one.
        """
        known = [each.name for each in fields(cls)]
        content = mapping(str(path), read_yaml(path), known, needed=("study", "model"))
        try:
            return cls(**content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def run(experiment: Experiment) -> list[Row]:
    """Measure an experiment and return its rows, one per condition, as `save_record` stores them.

    Raises:
        ValueError: the study does not have one of the options or conditions, or runs in one process only and
            a launcher has started several.
    """
    if experiment.study in ONE_PROCESS and not processes.is_alone():
        raise ValueError(
            f"study {experiment.study!r} runs in one process, and this is one of {processes.count()}: its "
            "times or servers would disturb each other. Start it without accelerate launch"
        )
    study = _study(experiment.study)
    accepted = [
        name for name, each in inspect.signature(study).parameters.items() if each.kind is each.KEYWORD_ONLY
    ]
    refuse_unknown(f"options of study {experiment.study!r}", experiment.options, accepted)
    return study(experiment.model, experiment.seeds, experiment.conditions, **experiment.options)


def _study(name: str) -> Callable[..., list[Row]]:
    module, function = STUDIES[name].split(":")
    return getattr(import_module(f"caft_utils.course.studies.{module}"), function)
