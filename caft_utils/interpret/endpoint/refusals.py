"""Distinguish refusals of one prompt from refusals of every prompt.

A wrong key, an empty account or an unknown model ends a batch, because every further request would fail too.
Providers report these with different statuses, and some routers with status 200 and an error in the body.
"""

from __future__ import annotations

import json
import re

# wrong key, no credit left, key without permission, no such model or address
STATUSES = (301, 302, 307, 308, 401, 402, 403, 404, 405)
_SAYS_SO = re.compile(
    r"insufficient[_ ](?:quota|balance|credit|funds)|credit balance is too low|billing_hard_limit"
    r"|out of credits?\b"
    r"|(?:incorrect|invalid)[_ ]api[_ ]key|api[_ ]key (?:is )?(?:not valid|invalid)|invalid_authentication"
    r"|model_not_found|(?:not a valid|invalid|unknown|unsupported) model\b"
    r"|model [^.]{0,80}not (?:exist|found)",
    re.I,
)
_ONE_PROMPT = re.compile(r"moderat|flagged|content[_ ](?:policy|filter)|safety", re.I)


def concerns_all_prompts(status: int, text: str) -> bool:
    """Return whether every other prompt would be refused too.

    Args:
        text: the body, which may name the reason.
    """
    if status == 403 and _ONE_PROMPT.search(text):
        return False
    return status in STATUSES or (status < 500 and bool(_SAYS_SO.search(text[:3000])))


def error_status(body: str) -> int:
    """Return the error status in the body of a response of status 200, or 200 if it holds no error."""
    if '"error"' not in body[:10_000]:
        return 200
    try:
        answer = json.loads(body)
        error = answer["error"]
        if not error or answer.get("choices"):
            return 200
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return 200
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, str) and code.isdigit() and len(code) == 3:
        code = int(code)
    if type(code) is int and 400 <= code < 600:
        return code
    # The error has no status. Use 400 if its text concerns all prompts, else 500, which is retried.
    return 400 if _SAYS_SO.search(json.dumps(error)[:3000]) else 500
