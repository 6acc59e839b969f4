"""Strings that become code where a page forgets to escape them.

Each carries a marker. The first kind of use runs it as a script, another sends a request to a host with the
marker in its name, a third leaves an element of the page that a reader could click.
"""

from __future__ import annotations

from random import Random

from faults.mutate import TEXTS

MARK = "caftmark"
RUN = f"window.{MARK}=1"
PAYLOADS = (
    f"<script>{RUN}</script>",
    f"<img src=x onerror={RUN}>",
    f'"><svg onload={RUN}>',
    f"'><svg/onload='{RUN}'>",
    f"</style><script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"</textarea><img src=x onerror={RUN}>",
    f"<a href='javascript:{RUN}'>{MARK}</a>",
    f"<a href='https://{MARK}.example/'>{MARK}</a>",
    f"--><script>{RUN}</script>",
    f'" onmouseover="{RUN}" autofocus onfocus="{RUN}',
    f"' onfocus='{RUN}' autofocus tabindex=0 x='",
    f"`${{{RUN}}}`",
    f"<iframe srcdoc='<script>parent.{MARK}=1</script>'></iframe>",
    f"<link rel=stylesheet href=http://{MARK}.example/a>",
    f"<img src=http://127.0.0.1:9/{MARK}>",
    f"<style>*{{background:url(http://127.0.0.1:9/{MARK})}}</style>",
    f"<details open ontoggle={RUN}>",
    f"<math><mtext><script>{RUN}</script></mtext></math>",
    f"]]><script>{RUN}</script>",
    f"&lt;script&gt;{RUN}&lt;/script&gt;",
    f"{{{{ ''.__class__ }}}}<script>{RUN}</script>",
    f"${{{RUN}}}",
    f"\\u003cscript>{RUN}",
    f"[{MARK}](javascript:{RUN})",
    f"![x](http://127.0.0.1:9/{MARK})",
    f"<scr<script>ipt>{RUN}</script>",
    f"<base href=http://{MARK}.example/>",
    f"<form action=javascript:{RUN}><button autofocus>{MARK}</button></form>",
    f"<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/{MARK}'>",
    f"<object data='javascript:{RUN}'></object>",
    f"$\\href{{javascript:{RUN}}}{{{MARK}}}$",
    f"\x1b[31m<script>{RUN}</script>",
    f"expression({RUN});background:url(//{MARK}.example)",
)


def injection(rng: Random) -> str:
    """Return a payload, sometimes among other text."""
    payload = rng.choice(PAYLOADS)
    if rng.random() < 0.2:
        payload = payload.replace("script", "ScRiPt").replace(" ", rng.choice(("/", "\t", "\n")))
    around = [t for t in TEXTS if len(t) < 100 and "\ud800" not in t]
    return rng.choice((payload, payload, rng.choice(around) + payload, payload + rng.choice(PAYLOADS)))
