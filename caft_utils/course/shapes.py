"""Models of full shape with random weights: the cost of a run depends on shapes, not on weight values.

shapes.yaml holds the configs. `random_model` makes the weights on the device itself, in the dtype of the
preset, so a model of 65 GB needs no CPU memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from caft_utils.arguments import from_fields, mapping, refuse_unknown
from caft_utils.chats import Chats, Example
from caft_utils.models import preset
from caft_utils.models.model_presets import Preset
from caft_utils.residual import seeded
from caft_utils.text_files import read_yaml

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

SHAPES = Path(__file__).with_name("shapes.yaml")


@dataclass(frozen=True)
class Shape:
    """The shape of a model.

    Attributes:
        preset: name of the preset with the recipe, dtype and layers.
        config: `model_type` and settings of the transformers config.
        layers: blocks that are read and ablated; default: from the preset.
        check: size of a check measurement at this shape, as arguments of `scale_rows`.
    """

    preset: str
    config: Mapping[str, Any]
    layers: tuple[int, ...] = ()
    check: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        mapping("config", self.config, needed=("model_type",))
        object.__setattr__(self, "layers", tuple(self.layers) or self.settings.layers)

    @property
    def settings(self) -> Preset:
        """The preset that this shape belongs to."""
        return preset(self.preset)

    def transformers_config(self) -> PreTrainedConfig:
        """Return the config of transformers."""
        from transformers import CONFIG_MAPPING

        values = dict(self.config)
        return CONFIG_MAPPING[values.pop("model_type")](**values)


@cache
def all_shapes() -> dict[str, Shape]:
    """Return the shapes of shapes.yaml by name.

    Raises:
        ValueError: an entry has an unknown field or lacks one.
    """
    entries = mapping(str(SHAPES), read_yaml(SHAPES))
    return {str(name): from_fields(Shape, f"{SHAPES}, {name}", entry) for name, entry in entries.items()}


def shape(name: str) -> Shape:
    """Return the shape of this name. The name of its preset works too.

    Raises:
        ValueError: there is no such shape.
    """
    by_preset = {one.preset: one for key, one in all_shapes().items() if key != "tiny"}
    known = {**all_shapes(), **by_preset}
    refuse_unknown("shapes", [name], known)
    return known[name]


def random_model(shape: Shape, device: Any = "cpu", *, dtype: Any = None, seed: int = 0) -> PreTrainedModel:
    """Return a model of this shape in evaluation mode, with the random initial weights of its architecture.

    Weights are made on `device` one by one, and never copied. On the device "meta" they take no memory.

    Args:
        dtype: dtype of the weights; default: from the preset.
    """
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, dtype or shape.settings.dtype) if not isinstance(dtype, torch.dtype) else dtype
    device = torch.device(device)
    with seeded(seed, device), device:
        return AutoModelForCausalLM.from_config(shape.transformers_config(), dtype=dtype).eval()


def random_chats(rows: int, length: int, vocabulary: int, *, seed: int = 0) -> Chats:
    """Return rows of `length` random tokens. The second half of each row counts as the answer."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocabulary, (rows, length), generator=generator).tolist()
    answer = [2 * position >= length for position in range(length)]
    chats = Chats(SimpleNamespace(pad_token_id=0, eos_token_id=None), [], source="random tokens")
    chats.rows, chats._examples = [{} for _ in ids], [Example(row, answer) for row in ids]
    return chats
