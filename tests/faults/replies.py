"""Hostile replies of a chat server to the real client, and the search for a planted API key.

The server is on this machine. It damages answers, lies in headers, redirects, and echoes the key of a
request in many spellings. Afterwards the files of the store, logs, output and reprs are searched for it.
"""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
import logging
import os
import random
import re
import string
import traceback
from collections.abc import Iterator
from pathlib import Path
from random import Random
from urllib.parse import quote, unquote

from helpers.chat_server import Response, alternatives, chat_server, completion

from caft_utils.interpret.endpoint import Endpoint, EndpointError, Reply
from faults.mutate import changed_bytes, changed_json
from faults.outcomes import Outcome, refusal
from faults.running import Attempt

KEY = "sk-" + "".join(random.Random(7).choices(string.ascii_letters + string.digits, k=37))
VARIABLE = "CAFT_PLANTED_KEY"
GOOD = json.loads(
    completion(
        {
            "message": {"role": "assistant", "content": "yes"},
            "finish_reason": "stop",
            "logprobs": alternatives({"yes": -0.1, "no": -2.5}),
        }
    )
)
HEADERS = (
    ("Retry-After", "0"),
    ("Retry-After", "-5"),
    ("Retry-After", "nan"),
    ("Retry-After", "1e400"),
    ("Retry-After", "Wed, 21 Oct 2015 07:28:00 +9999"),
    ("Retry-After", "never"),
    ("Content-Encoding", "gzip"),
    ("Content-Encoding", "zstd, br, deflate"),
    ("Content-Type", "text/html; charset=utf-7"),
    ("Set-Cookie", "a=b"),
    ("Location", "http://127.0.0.1:9/elsewhere"),
    ("Transfer-Encoding", "chunked"),
    ("X-Long", "x" * 60000),
)
STATUSES = (
    200,
    200,
    200,
    201,
    204,
    301,
    302,
    307,
    308,
    400,
    401,
    402,
    403,
    404,
    408,
    413,
    418,
    429,
    500,
    503,
    599,
)
SPELLINGS = {
    "plain": str,
    "upper": str.upper,
    "base64": lambda key: base64.b64encode(f"Bearer {key}".encode()).decode(),
    "base64, shifted": lambda key: base64.urlsafe_b64encode(f"x{key}!".encode()).decode(),
    "hex": lambda key: key.encode().hex(),
    "percent": lambda key: "".join(f"%{ord(c):02X}" for c in key),
    "percent, twice": lambda key: quote("".join(f"%{ord(c):02x}" for c in key)),
    "json": lambda key: "".join(f"\\u{ord(c):04x}" for c in key),
    "json in json": lambda key: json.dumps("".join(f"\\u{ord(c):04x}" for c in key))[1:-1],
    "html": lambda key: "".join(f"&#{ord(c)};" for c in key),
    "mixed": lambda key: "".join(f"\\u{ord(c):04x}" if n % 3 else c for n, c in enumerate(key)),
}


def hostile_replies(home: Path) -> Attempt:
    """Answers, statuses and headers that no server should send."""
    os.environ[VARIABLE] = KEY

    def attempt(rng: Random, folder: Path) -> Outcome:
        sent = [_hostile(rng) for _ in range(3)]
        (folder / "input.txt").write_text(repr(sent)[:20000], "utf-8", "backslashreplace")
        seen = io.StringIO()
        with _watched(seen), chat_server(lambda request: sent[len(requests) % 3]) as (address, requests):
            endpoint = Endpoint(
                address,
                "m",
                key_env=VARIABLE,
                cache=folder / "replies",
                timeout=2,
                attempts=2,
                workers=1,
                backoff=(0.001, 0.002),
                max_retry_after=0.01,
            )
            outcome = _ask(endpoint, seen)
        texts = [
            seen.getvalue(),
            *(
                p.read_text("utf-8", "replace")
                for p in folder.rglob("*")
                if p.name != "input.txt" and p.is_file()
            ),
        ]
        if places := [n for n, text in enumerate(texts) if spells_key(text)]:
            return Outcome("leaked", f"in {'the log, output or a repr' if places[0] == 0 else 'a file'}")
        return outcome

    return attempt


def _ask(endpoint: Endpoint, seen: io.StringIO) -> Outcome:
    """Ask two questions, write everything that a user could see to `seen`, and judge the answers."""
    prompts = [[{"role": "user", "content": text}] for text in ("one", "two")]
    try:
        replies = endpoint.chat_all(prompts, top_logprobs=2)
    except Exception as error:
        seen.write(traceback.format_exc() + repr(error))
        return Outcome("raw", f"chat_all raised {error!r}"[:300])
    seen.write(f"{endpoint!r} {vars(endpoint)!r} {replies!r}")
    for reply in replies:
        if isinstance(reply, EndpointError):
            seen.write("".join(traceback.format_exception(reply)))
            continue
        if not isinstance(reply, Reply):
            return Outcome("silent", f"{reply!r} is no reply")
        reply.text.encode()  # a lone surrogate could not be written
        values = [value for step in reply.logprobs or () for value in step.values()]
        if not all(value < 0.01 for value in values):
            return Outcome("silent", f"log-probabilities {values}")
    if all(isinstance(reply, EndpointError) for reply in replies):
        return refusal(
            replies[0], [endpoint.base_url, "status", "attempts", "answer", "bytes", "key", "server"]
        )
    again = endpoint.chat_all(prompts, top_logprobs=2)
    if [one for one in replies if isinstance(one, Reply)] != [
        b for a, b in zip(replies, again) if isinstance(a, Reply)
    ]:
        return Outcome("silent", "the stored reply is another one")
    return Outcome("fine")


def _hostile(rng: Random) -> Response:
    body = changed_json(GOOD, rng) if rng.random() < 0.5 else json.dumps(GOOD).encode()
    if rng.random() < 0.5:  # the key in the text or in an error
        spelt = SPELLINGS[rng.choice(sorted(SPELLINGS))](KEY)
        message = {"error": {"message": f"Incorrect API key provided: {spelt}"}}
        answer = {
            **GOOD,
            "choices": [{"message": {"content": f"your key is {spelt}"}, "finish_reason": spelt}],
        }
        body = json.dumps(rng.choice((message, answer))).encode()
        if rng.random() < 0.5:
            body = body.replace(b"\\\\u", b"\\u")  # an escape of JSON itself
    elif rng.random() < 0.2:
        body = changed_bytes(body, rng)
    headers = dict(rng.sample(HEADERS, rng.choice((0, 0, 1, 2))))
    status = rng.choice(STATUSES)
    return Response(body, status, headers, missing_bytes=rng.choice((0, 0, 0, 7)))


@contextlib.contextmanager
def _watched(seen: io.StringIO) -> Iterator[None]:
    """Collect what is logged at any level or printed."""
    handler = logging.StreamHandler(seen)
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with contextlib.redirect_stdout(seen), contextlib.redirect_stderr(seen):
            yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def spells_key(text: str, key: str = KEY) -> bool:
    """Return whether a text holds the key: plain, escaped (JSON, URL, HTML), in base64 or hexadecimal."""
    forms = [key, key.encode().hex()]
    for offset in range(3):
        first, last = -(-offset * 8 // 6), (offset + len(key)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            forms.append(encode(b"\0" * offset + key.encode()).decode()[first:last])
    for _ in range(4):
        if any(form.lower() in text.lower() for form in forms):
            return True
        text = html.unescape(unquote(text))
        text = re.sub(
            r"\\+u00([0-9a-fA-F]{2})|\\+x([0-9a-fA-F]{2})", lambda m: chr(int(m[1] or m[2], 16)), text
        )
    return False
