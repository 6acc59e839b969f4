"""The YAML files under world/: words, templates and facts of both worlds."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from caft_utils.arguments import mapping
from caft_utils.text_files import read_yaml


@functools.cache
def world_data(name: str) -> Any:
    """Return the content of world/<name>.yaml.

    The personas world uses domains, words, code, facts, items and scenes; the cues world uses cues. Callers
    share the returned object and must not change it.
    """
    path = Path(__file__).parent / "world" / f"{name}.yaml"
    return mapping(str(path), read_yaml(path))
