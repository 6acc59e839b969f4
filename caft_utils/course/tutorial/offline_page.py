"""Export notebooks as HTML that needs no network: no script, font or picture comes from another host.

nbconvert's pages load require.js, MathJax, mermaid and the widget manager from a CDN, and plotly adds MathJax
to each figure. None of them is needed here: pictures are embedded, widgets would need a kernel, and the few
formulas are written as text. A content security policy in the page makes browsers refuse every other request,
whatever an output contains. Markdown that a cell printed may hold text of models, so its HTML is escaped.
"""

from __future__ import annotations

import html
import re
from typing import Any

from jinja2 import pass_context
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src data:; media-src data:; worker-src blob:; base-uri 'none'; "
    "form-action 'none'"
)
META = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
# A reader who prefers dark pages gets the page inverted. Pictures and figures are inverted twice, so they
# keep their colours and their white background.
DARK = """<style>
@media (prefers-color-scheme: dark) {
  html { background: white; filter: invert(0.9) hue-rotate(180deg) }
  img, .js-plotly-plot { filter: invert(1) hue-rotate(180deg) }
}
</style>"""
TEMPLATE = (
    "{%- extends 'lab/index.html.j2' -%}"
    f"{{%- block html_head -%}}{META}{{{{ super() }}}}{DARK}{{%- endblock -%}}"
    + "".join(
        f"{{%- block {name} -%}}{{%- endblock -%}}"
        for name in ("html_head_js", "html_head_js_mathjax", "html_head_js_mermaidjs", "jupyter_widgets")
    )
)
REMOTE_SCRIPT = re.compile(
    r"<script\b[^>]*\bsrc\s*=\s*[\"']?\s*(?:https?:)?//[^>]*>\s*</script\s*>", re.IGNORECASE
)
# Attributes by which any element except a link would load something from another host.
REMOTE_SOURCE = re.compile(
    r"(<(?!a\b)[a-z][^>]*?\s)(?:src|href|srcset|poster|data|background)(?=\s*=\s*[\"']?\s*(?:https?:)?//)",
    re.IGNORECASE,
)
SYMBOLS = {
    **dict(zip(("alpha", "beta", "gamma", "delta", "epsilon", "lambda", "mu", "pi", "rho"), "αβγδελμπρ")),
    **dict(zip(("sigma", "tau", "phi", "theta", "Delta", "Sigma", "Phi"), "στφθΔΣΦ")),
    **dict(zip(("approx", "cdot", "times", "le", "leq", "ge", "geq", "ne", "neq"), "≈·×≤≤≥≥≠≠")),
    **dict(zip(("sum", "prod", "in", "to", "infty", "partial", "nabla", "sqrt", "pm"), "∑∏∈→∞∂∇√±")),
    **dict(zip(("top", "perp", "mid", "ldots", "dots", "lVert", "rVert", "|", "odot"), "⊤⊥|……‖‖‖⊙")),
    **dict.fromkeys(("quad", "qquad"), " \u2003"),
    **dict.fromkeys((",", ";", ":", " ", "!"), " "),
    **dict.fromkeys(("{", "}", "%", "$", "_", "&"), None),  # escaped characters stand for themselves
}
SILENT = (
    {"mathrm", "mathbf", "mathit", "mathcal", "mathbb", "text", "textit", "operatorname"}
    | {f"{size}{side}" for size in ("big", "Big", "bigg") for side in ("", "l", "r")}
    | {"left", "right", "displaystyle", "limits"}
)
# Links that lead to another page of the same folder once both are pages.
BESIDE = re.compile(r"(?:(?:\.\./notebooks/)?(\d\d_\w+)\.ipynb|\.\./docs/(glossary)\.md)(#[\w-]+)?")
FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
TEX = re.compile(r"\\([a-zA-Z]+|.)|([_^])|([{}])|([^\\_^{}]+)", re.DOTALL)


class OfflineExporter(HTMLExporter):
    """HTMLExporter whose pages open without a network."""

    raw_template = TEMPLATE

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """Render Markdown. HTML is kept in a cell's own Markdown and escaped in printed Markdown."""
        printed = context.get("cell", {}).get("cell_type") != "markdown"
        renderer = _Renderer(
            escape=printed,
            allow_harmful_protocols=not printed,
            attachments=context.get("cell", {}).get("attachments", {}),
            anchor_link_text=self.anchor_link_text,
        )
        return MarkdownWithMath(renderer=renderer).render(source)


class _Renderer(IPythonRenderer):
    def block_math(self, body: str) -> str:
        return f'<p class="formula">{formula(body)}</p>'

    def inline_math(self, body: str) -> str:
        return f'<span class="formula">{formula(body)}</span>'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """Let links to notebooks and to the glossary lead to their pages."""
        if beside := BESIDE.fullmatch(url):
            url = f"{beside[1] or beside[2]}.html{beside[3] or ''}"
        return super().link(text, url, title)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """Show a picture of another host as a link to it."""
        if re.match(r"\s*(https?:)?//", url, re.IGNORECASE):
            return f'<a href="{html.escape(url)}">{html.escape(text or url)}</a>'
        return super().image(text, url, title)

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(body.replace("\\\\", "\n"))


def export(notebook: NotebookNode, name: str) -> str:
    """Return a notebook as a page. References to other hosts are removed from its outputs, in place."""
    notebook.metadata.pop("widgets", None)  # the state of widgets, which need a kernel
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/html" in data:
                local = REMOTE_SCRIPT.sub("", data["text/html"])
                data["text/html"] = REMOTE_SOURCE.sub(r"\1data-left-out", local)
    page, _ = OfflineExporter().from_notebook_node(notebook, {"metadata": {"name": name}})
    return page


def formula(tex: str) -> str:
    r"""Return simple TeX as HTML text: W_{enc}h \approx 0 -> W<sub>enc</sub>h ≈ 0.

    Unknown commands are left unchanged.
    """
    out: list[str] = []
    ends: list[str] = []  # what closes the groups that are open
    pending = ""  # the tag of a sub- or superscript whose argument has not come yet
    for command, script, brace, text in TEX.findall(FRACTION.sub(r"(\1)/(\2)", tex)):
        if script:
            pending = "sub" if script == "_" else "sup"
        elif brace == "{":
            out.append(f"<{pending}>" if pending else "")
            ends.append(f"</{pending}>" if pending else "")
            pending = ""
        elif brace:
            out.append(ends.pop() if ends else "")
        else:
            if command:
                known = "" if command in SILENT else SYMBOLS.get(command, f"\\{command}")
                piece, rest = html.escape(command if known is None else known), ""
            else:
                piece, rest = html.escape(text[:1]) if pending else html.escape(text), text[1:]
            if pending and (piece or rest):
                piece = f"<{pending}>{piece}</{pending}>" + html.escape(rest)
                pending = ""
            out.append(piece)
    return "".join(out + ends[::-1]).strip()
