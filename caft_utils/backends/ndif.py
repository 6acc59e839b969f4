"""NDIF, which runs blocks of NNsight on its servers: the key, and what a failure there may be about.

The key is read from the environment for each call and held only while it lasts. NNsight unpickles what a
server returns, so let NDIF_HOST name servers that you trust only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from caft_utils.interpret.endpoint.api_key import read_api_key, redact

KEY_ENV = "NDIF_API_KEY"
Where = Literal[False, True, "local"]


class NNsightError(RuntimeError):
    """A block could not be sent, or failed where it ran."""


@contextmanager
def on_ndif(remote: Where) -> Iterator[None]:
    """Take the key of the environment for blocks that run on NDIF, and explain a failure there.

    Blocks with `remote=False` or "local" need neither.

    Raises:
        NNsightError: there is no key, or the block failed.
    """
    if remote in (False, "local"):
        yield
        return
    import httpx
    from nnsight.intervention.backends.remote import RemoteError
    from nnsight.schema.config import CONFIG
    from websocket import WebSocketException

    host = CONFIG.API.HOST
    key, before = read_api_key(KEY_ENV, host), CONFIG.API.APIKEY
    if not key:
        raise NNsightError(
            f"remote=True needs a key of NDIF in the environment variable {KEY_ENV} (https://login.ndif.us "
            'gives one); remote="local" runs the same block here, without a key'
        )
    CONFIG.API.APIKEY = key
    try:
        yield
    except (RemoteError, WebSocketException, httpx.HTTPError, OSError) as error:
        said = redact(key, f"{type(error).__name__}: {error}")
        raise NNsightError(
            f"the block did not come back from {host}. {said}\nThis side runs {_versions()}. Where the "
            "server runs others, names of modules and the format of blocks can differ: "
            "`print(nnsight.compare())` lists both sides, and `print(nnsight.status())` the models that are "
            "up."
        ) from None
    finally:
        CONFIG.API.APIKEY = before


def _versions() -> str:
    """Return the versions that both sides of a remote block should share."""
    named = []
    for package in ("nnsight", "transformers", "torch", "peft"):
        try:
            named.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join([f"Python {sys.version.split()[0]}", *named])
