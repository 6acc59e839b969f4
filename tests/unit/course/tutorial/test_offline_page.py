"""Pages of notebooks ask no host for anything, and show formulas without MathJax."""

from __future__ import annotations

import re

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from caft_utils.course.tutorial.html import write_guide, write_html
from caft_utils.course.tutorial.offline_page import formula

REMOTE = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)\s*=\s*["']?(?:https?:)?//""")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    html = (
        "<b>kept</b><script src='https://cdn.example/a.js'></script><SCRIPT SRC=//b.example/b.js></SCRIPT >"
        "<script>inline()</script><img alt=x src=https://i.example/x.png>"
        "<a href='https://a.example'>kept link</a>"
    )
    printed = (
        "<img src=x onerror=f()> **bold** [x](javascript:f()) ![p](http://p.example/p.png) `a$b` $x_1$ \ud83d"
    )
    outputs = [
        new_output("display_data", data={"text/html": html}),
        new_output("display_data", data={"text/markdown": printed}),
        new_output("stream", text="<script>f()</script> \ud83d"),
    ]
    cells = [
        new_markdown_cell("# T\n\n<details>open</details>\n\n$$W_{enc} \\approx 0 < 1$$"),
        new_code_cell("1", outputs=outputs),
    ]
    notebook = new_notebook(cells=cells)
    state = {"state": {}, "version_major": 2, "version_minor": 0}
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": state}
    path = tmp_path_factory.mktemp("pages") / "toy.html"
    write_html(notebook, path)
    return path.read_text(encoding="utf-8")


def test_nothing_comes_from_another_host(page):
    assert not REMOTE.search(page) and "cdnjs" not in page and "unpkg" not in page
    assert page.index("Content-Security-Policy") < page.index("<style")
    assert 'href="https://a.example"' in page and 'href="http://p.example/p.png"' in page
    assert "<b>kept</b>" in page and "inline()" in page


def test_printed_markdown_is_formatted_but_its_html_is_text(page):
    assert "<strong>bold</strong>" in page and "&lt;img src=x" in page and "javascript:f()" not in page
    assert "<details>open</details>" in page  # a notebook's own text keeps its HTML
    assert "<script>f()" not in page


def test_formulas_are_text(page):
    assert '<p class="formula">W<sub>enc</sub> ≈ 0 &lt; 1</p>' in page and "x<sub>1</sub>" in page
    assert "a$b" in page and "\ufffd" in page


@pytest.mark.parametrize(
    "tex, expected",
    [
        (r"h - (h Q^T) Q", "h - (h Q<sup>T</sup>) Q"),
        (r"\mathrm{ReLU}\big(x\big), \qquad \lambda_{i_j}^2", None),
        (r"\frac{a}{b}", "(a)/(b)"),
        (r"\unknown{x} <b>", r"\unknownx &lt;b&gt;"),
        ("}x_{", "x<sub></sub>"),
        (r"50\% \{a\}", "50% {a}"),
    ],
)
def test_simple_tex_as_html(tex, expected):
    made = formula(tex)
    assert expected in (None, made)
    assert made.count("<sub>") == made.count("</sub>") and made.count("<sup>") == made.count("</sup>")


@pytest.mark.parametrize(
    "target, page",
    [
        ("../docs/glossary.md#cue", "glossary.html#cue"),
        ("../notebooks/03_directions.ipynb", "03_directions.html"),
        ("03_directions.ipynb", "03_directions.html"),
        ("../docs/models.md", "../docs/models.md"),
        ("https://a.example/03_directions.ipynb", "https://a.example/03_directions.ipynb"),
    ],
)
def test_links_to_notebooks_and_the_glossary_lead_to_their_pages(tmp_path, target, page):
    (tmp_path / "guide.md").write_text(f'<a id="cue"></a>[word]({target})')
    write_guide(tmp_path / "guide.md", tmp_path / "guide.html")
    text = (tmp_path / "guide.html").read_text(encoding="utf-8")
    assert f'<a href="{page}">word</a>' in text and '<a id="cue"></a>' in text
