"""Decide where the API key may be sent, and remove it from the responses of a server.

No object of this package holds the key. It is read from the environment for each request.
"""

from __future__ import annotations

import base64
import html
import os
import re
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING

from caft_utils.interpret.endpoint.reply import EndpointError

if TYPE_CHECKING:
    import httpx

MIN_REDACTED_LENGTH = 8  # shorter keys are placeholders for local servers, and may be common words
LONGEST_SEARCHED = 4000  # characters; the search for the exact place of the key is slow
WITHHELD = "[a text that holds the key]"


def is_https(url: str) -> bool:
    """Return whether a request to `url` is encrypted. The scheme may be in capitals."""
    return _parsed(url).scheme == "https"


def is_loopback(url: str) -> bool:
    """Return whether the host of `url` is this machine."""
    host = _parsed(url).host
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _parsed(url: str) -> httpx.URL:
    """Parse `url` as the HTTP client does, so that the checked address is the one that is used."""
    import httpx

    return httpx.URL(url)


def read_api_key(key_env: str | None, url: str) -> str:
    """Return the key in the environment variable `key_env`, or "" if it is not set.

    Raises:
        EndpointError: The key cannot be an HTTP header, or `url` would carry it in clear text.
    """
    key = os.environ.get(key_env or "", "").strip()
    if not all("!" <= character <= "~" for character in key):  # the HTTP library's error would show the key
        raise EndpointError(
            f"the key in ${key_env} contains a space or a character outside ASCII; set it to the key alone",
            for_all=True,
        )
    if key and not is_https(url) and not is_loopback(url):
        raise EndpointError(
            f"the key in ${key_env} would go to {url} in clear text; use https://, forward the port to "
            "localhost, or pass key_env=None if the server needs no key",
            for_all=True,
        )
    return key


def redact(key: str, text: str) -> str:
    """Return `text` with each copy of `key` replaced by "[key]", even if it is escaped or encoded.

    Servers repeat the request in their errors, as JSON, HTML or a URL. If a copy cannot be cut out exactly,
    or the text is long, WITHHELD is returned instead of the text.
    """
    if not contains(key, text):
        return text
    left = _pattern(key).sub("[key]", text) if len(text) < LONGEST_SEARCHED else text
    return WITHHELD if contains(key, left) else left


def contains(key: str, text: str) -> bool:
    """Return whether `text` holds `key`, in any case, escaped, encoded or broken into lines."""
    if len(key) < MIN_REDACTED_LENGTH:
        return False
    plain = _plain(text)
    return any(form in plain for form in _plain_forms(key))


def _plain(text: str) -> str:
    """Return `text` in lower case without escapes, spaces, and characters that break lines or hex dumps."""
    text = "".join(text.split())
    for _ in range(3):  # escapes may be escaped in turn
        before, text = text, _ESCAPE.sub(_unescape, text)
        if text == before:
            break
    return text.lower().translate(_DROPPED)


# Each repetition is bounded. An unbounded one takes quadratic time on a long run of one character.
_ESCAPE = re.compile(
    r"\\{1,8}(?:u00|x)([0-9a-f]{2})|%(?:25){0,8}([0-9a-f]{2})|&#x0{0,40}([0-9a-f]{2});?"
    r"|&#0{0,40}([0-9]{2,3});?|&(lt|gt|amp|quot|apos);?|\\{1,8}[nrt]",
    re.I,
)
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
_DROPPED = dict.fromkeys(map(ord, " \t\r\n\v\f\\:="))


def _unescape(match: re.Match[str]) -> str:
    if digits := match[1] or match[2] or match[3]:
        return chr(int(digits, 16))
    return chr(int(match[4])) if match[4] else _NAMED.get((match[5] or "").lower(), "")


@lru_cache(maxsize=8)
def _plain_forms(key: str) -> list[str]:
    data = key.encode()
    encoded = [*_shifted(data, base64.b64encode, 3, 6), *_shifted(data, base64.urlsafe_b64encode, 3, 6)]
    encoded += _shifted(data, base64.b32encode, 5, 5)
    return [_plain(form) for form in (key, key[::-1], data.hex(), *encoded)]


@lru_cache(maxsize=8)
def _pattern(key: str) -> re.Pattern[str]:
    data = key.encode()
    encoded = [*_shifted(data, base64.b64encode, 3, 6), *_shifted(data, base64.urlsafe_b64encode, 3, 6)]
    forms = ["".join(map(_any_escape, key)), *map(re.escape, encoded), data.hex()]
    return re.compile("|".join(forms), re.I)


def _any_escape(character: str) -> str:
    """Return a pattern for a character as itself or escaped in JSON, Python, a URL or HTML."""
    code, named = ord(character), html.escape(character)
    # The number of backslashes is bounded. Nested JSON strings double them, and an unbounded pattern could
    # search long runs of them for ever.
    forms = [rf"\\{{0,8}}(?:u00{code:02x}|x{code:02x}|{re.escape(character)})", re.escape(named)]
    forms += [rf"%(?:25){{0,2}}{code:02x}", rf"&\#(?:0{{0,4}}{code}|x0{{0,4}}{code:x});"]
    return f"(?:{'|'.join(forms)})"


def _shifted(data: bytes, encode: Callable[[bytes], bytes], group: int, bits: int) -> list[str]:
    """Return `data` encoded at each byte offset, without the characters that depend on neighbouring bytes.

    Args:
        bits: bits per character of the code.
    """
    forms = []
    for offset in range(group):
        first, last = -(-offset * 8 // bits), (offset + len(data)) * 8 // bits
        forms.append(encode(b"\0" * offset + data).decode()[first:last])
    return forms
