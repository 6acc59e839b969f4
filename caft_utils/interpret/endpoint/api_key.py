"""The API key: where it may be sent, and how it is removed from what a server sends back.

No object holds the key. It is read from the environment for each request.
"""

from __future__ import annotations

import base64
import html
import os
import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from caft_utils.interpret.endpoint.reply import EndpointError

MIN_REDACTED_LENGTH = 8  # shorter keys are placeholders for local servers, and may be common words


def is_https(url: str) -> bool:
    """Return whether a request to `url` is encrypted. The scheme may be in capitals."""
    return urlsplit(url).scheme == "https"


def is_loopback(url: str) -> bool:
    """Return whether the host of `url` is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def read_api_key(key_env: str | None, url: str) -> str:
    """Return the key in the environment variable `key_env`, or "" if it is not set.

    Raises:
        EndpointError: The key cannot be an HTTP header, or `url` would carry it in clear text.
    """
    key = os.environ.get(key_env or "", "").strip()
    if not all("!" <= character <= "~" for character in key):  # the HTTP library's own error would show it
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

    Servers repeat the request in their errors, as JSON, HTML or a URL. This recognises escaped characters in
    any mixture, and the whole key in base64 or hexadecimal.
    """
    if len(key) < MIN_REDACTED_LENGTH:
        return text
    escaped = "".join(_any_escape(character) for character in key)
    encoded = [re.escape(form) for form in (*_base64_forms(key.encode()), key.encode().hex())]
    return re.sub("|".join([escaped, *encoded]), "[key]", text, flags=re.IGNORECASE)


def _any_escape(character: str) -> str:
    """Return a pattern for a character as itself or escaped in JSON, Python, a URL or HTML."""
    code, named = ord(character), html.escape(character)
    # The number of backslashes is bounded. Nested JSON strings double them, and an unbounded pattern could
    # search long runs of them for ever.
    forms = [rf"\\{{0,8}}(?:u00{code:02x}|x{code:02x}|{re.escape(character)})", re.escape(named)]
    forms += [rf"%(?:25){{0,2}}{code:02x}", rf"&\#(?:0{{0,4}}{code}|x0{{0,4}}{code:x});"]
    return f"(?:{'|'.join(forms)})"


def _base64_forms(data: bytes) -> list[str]:
    """Return `data` in base64 at each of three offsets, without characters that depend on its neighbours."""
    forms = []
    for offset in range(3):
        first, last = -(-offset * 8 // 6), (offset + len(data)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            forms.append(encode(b"\0" * offset + data).decode()[first:last])
    return forms
