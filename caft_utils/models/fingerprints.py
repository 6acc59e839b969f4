"""Names of what a model computes. Keys of stored results have these, never a name that was true once.

A model computes the same while its weights, its config and the adapters in effect are the same (see
models/content.py). `fingerprint` reads all of them in every call, because a changed weight may leave no other
trace: merging adapters keeps the model, its parameters and their version counters. `name_model` records a
readable name with the checksum of the content, and the name answers only while the checksum is the same. Any
other content is named by a sha256 of itself.

The names of adapters do not count; their tensors, scaling and settings do. Hooks and replaced methods are no
part of the content. `residual.has_hooks` sees them, and nothing is stored under them.

Cost of a call, at 2 GB/s on one CPU core: 4 ms for a classroom model, 0.5 s for 0.5B and 33 s for 32B
parameters in bfloat16. A GPU with 2 TB/s takes about 0.2 s for 32B. A sha256 is computed once for each
content that has no name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from caft_utils.checksums import tensors_checksum
from caft_utils.models.content import Content, Tensors, content_of, fetched_tensors, unwrapped
from caft_utils.store import digest, tensors_sha256

RECORD = "_caft_names"
VOLATILE = {"_name_or_path", "transformers_version", "dtype", "use_cache"}
# These do not change what is computed either, but stored names depend on them.
BESIDE = VOLATILE | {"architectures", "pad_token_id", "bos_token_id", "eos_token_id", "id2label", "label2id"}


def fingerprint(model: nn.Module) -> str:
    """Return a name for what a model computes at this moment: another content has another name.

    It is the name that `load` or `finetune` gave to this content, else a sha256 of it.

    Raises:
        ValueError: a weight is on the meta device, and accelerate holds no copy of it.
    """
    content, names = content_of(model), _record(model)
    plain, whole = _checksums(model, content)
    if whole not in names and plain not in names:
        names[plain] = _plain_sha256(model, content)
    if whole not in names:
        acting = (tensors_sha256(_labelled(tensors), start=about) for about, tensors in content.adapters)
        names[whole] = digest([names[plain], sorted(acting)])
    return names[whole]


def name_model(model: nn.Module, name: str) -> None:
    """Make `name` the fingerprint of what `model` computes now, and set `model.caft_id` to it for readers.

    Results are stored under this name, so no other content may ever have it. Without a name, a content is
    named by its sha256.
    """
    _record(model)[_checksums(model, content_of(model))[1]] = name
    model.caft_id = name


def _record(model: nn.Module) -> dict[str, str]:
    """Return the names of the contents that this model has had, {checksum: name}.

    The model inside all wrappers keeps them, so a fine-tuned model with its adapter off is its base again.
    """
    return vars(unwrapped(model)).setdefault(RECORD, {})


def _checksums(model: nn.Module, content: Content) -> tuple[str, str]:
    """Return the checksums of the content without adapters and of all of it."""
    settings = _settings(getattr(unwrapped(model), "config", None))
    start = json.dumps(settings, sort_keys=True, default=str)
    plain = tensors_checksum(fetched_tensors(content.weights + content.rotary), start=start)
    if not content.adapters:
        return plain, plain
    acting = (tensors_checksum(fetched_tensors(tensors), start=about) for about, tensors in content.adapters)
    return plain, digest([plain, sorted(acting)])


def _plain_sha256(model: nn.Module, content: Content) -> str:
    """Return a sha256 of the content without adapters."""
    name = tensors_sha256(_labelled(content.weights), start=digest(_architecture(unwrapped(model))))
    return tensors_sha256(_labelled(content.rotary), start=name) if content.rotary else name


def _labelled(tensors: Tensors) -> Iterator[tuple[str, Tensor]]:
    for name, value in fetched_tensors(sorted(tensors, key=lambda entry: entry[0])):
        yield f"{name} {value.dtype} {tuple(value.shape)}", value


def _architecture(model: nn.Module) -> dict[str, Any]:
    """Return the part of the config that determines what the weights compute."""
    config = getattr(model, "config", None)
    values = config.to_dict() if hasattr(config, "to_dict") else {}
    return json.loads(json.dumps({k: v for k, v in values.items() if k not in VOLATILE}, default=str))


def _settings(config: Any) -> dict[str, Any]:
    """Return the settings of a config that determine what is computed, in less time than `to_dict` takes."""
    return {
        name: _settings(value) if hasattr(value, "to_dict") else value
        for name, value in (vars(config) if config is not None else {}).items()
        if not name.startswith("_") and name not in BESIDE
    }
