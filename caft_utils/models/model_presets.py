"""Presets: the settings that repeat the paper's experiment on a model, each value with its source.

They stand in presets.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from caft_utils.arguments import from_fields, mapping, text, whole, wholes
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.text_files import read_yaml

PRESETS = Path(__file__).with_name("presets.yaml")


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
class Preset:
    """The settings for one model.

    Attributes:
        layers: 0-based decoder blocks at whose outputs directions are found and ablated.
        finetune_config: the fine-tuning settings.
        dtype: dtype of the weights; "auto" is the checkpoint's own.
        revision: the revision on the hub to load; None is the main branch.
        sae: the location of its published SAEs, if there are any.
        data_notes: the data that the paper used with this model, for human readers only.
        sources: {field: the source of its value}.
    """

    name: str
    layers: tuple[int, ...] = ()
    finetune_config: FinetuneConfig = FinetuneConfig()
    dtype: str = "auto"
    revision: str | None = None
    sae: SAESource | None = None
    data_notes: Mapping[str, Any] = field(default_factory=dict)
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
        for field_name in ("data_notes", "sources"):
            mapping(field_name, values.get(field_name, {}))
    except ValueError as error:
        raise ValueError(f"{where}, {error}") from error
    return Preset(name, **values)


def preset(name: str = "classroom") -> Preset:
    """Return the preset of a name or hub id. Any other model gets the general settings and no layers."""
    name = str(name)
    return presets().get(name) or Preset(name)
