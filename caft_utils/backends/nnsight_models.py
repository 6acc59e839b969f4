"""Models as NNsight wraps them: one that is loaded, or one of the hub whose weights are elsewhere."""

from __future__ import annotations

import copy
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from nnsight import TransformersModel
    from transformers import PreTrainedTokenizerBase

TESTED = "0.8.1"
INSTALL = f'NNsight is not installed: `pip install nnsight=={TESTED}` or `pip install -e ".[nnsight]"`'


def import_nnsight() -> ModuleType:
    """Return the module nnsight, and let this package's classes travel with remote blocks.

    It is imported here only, because importing it changes torch and gives every Python object a `save`.

    Raises:
        ImportError: it is not installed, or an earlier generation with another interface is.
    """
    try:
        import nnsight
    except ImportError as error:
        raise ImportError(INSTALL) from error
    try:
        nnsight.TransformersModel  # noqa: B018 - loaded lazily
    except AttributeError:
        raise ImportError(
            f"nnsight {nnsight.__version__} has no TransformersModel, which came with 0.8; "
            f"`pip install nnsight=={TESTED}`"
        ) from None
    nnsight.register("caft_utils")
    return nnsight


def trace_model(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> TransformersModel:
    """Wrap a loaded model, also one inside PEFT, without changing it or its tokenizer.

    NNsight pads on the left and sets the tokenizer accordingly, so it gets a copy.
    """
    nnsight = import_nnsight()
    device = next(model.parameters()).device
    training, own = model.training, getattr(model, "generation_config", None)
    traced = nnsight.TransformersModel(
        model, tokenizer=copy.deepcopy(tokenizer), task="text-generation", device=device
    )
    model.train(training)
    if own is not None:
        model.generation_config = own
    return traced


def remote_model(name: str, **options: Any) -> TransformersModel:
    """Return a model of the hub without weights, for blocks with `remote=True`.

    Args:
        name: of a model that NDIF serves; `print(nnsight.status())` lists them.
        options: of `nnsight.TransformersModel`, such as `revision`, or `peft` with an adapter of the hub.
    """
    return import_nnsight().TransformersModel(name, task="text-generation", **options)
