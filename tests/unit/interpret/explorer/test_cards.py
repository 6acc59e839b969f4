"""Cards: both ends, values and scores are shown, and no text of model or data becomes markup."""

from __future__ import annotations

import pytest
from helpers.explorers import EVIL, Page, component_explorer, latent_explorer

from caft_utils.interpret import Extremes, Histogram
from caft_utils.interpret.explain import Explanation
from caft_utils.interpret.score import Score


@pytest.fixture
def view():
    return component_explorer()


@pytest.fixture
def latents():
    return latent_explorer()


def test_text_from_models_data_and_reader_is_escaped(view):
    view.name(1, 0, EVIL)
    view.explanations = {(1, 0, "+"): Explanation(EVIL, EVIL)}
    view.scores = {(1, 0, "+"): {EVIL: Score(EVIL, 0.5, 0.4, 0.6, 10)}}
    for source in (view.html(), view.card(1, 0), view.widget.view["card"]):
        page = Page(source)
        assert "script" not in page.tags and "<script" not in source
        assert EVIL in page.bold  # as text, the peak of the window
        assert any(EVIL in text for text in page.text if "\u201c" in text)  # the name
        # word, window, name, meaning, by, score; the page has the word and the window of the other three too
        assert sum(EVIL in text for text in page.text) == (12 if source == view.html() else 6)
        assert "harm" in page.text and "\u23ce" in page.text


def opacity(style: str) -> float:
    return float(style.removesuffix(")").split(",")[-1])


def test_a_card_shows_share_values_and_both_ends(view):
    page = Page(view.card(2, 1))
    text = "".join(page.text)
    assert "Layer 2 \u00b7 component 1" in text and "10.0 % of the variance" in text
    places = [text.index(part) for part in ("Negative end", " word", "Positive end", " poison")]
    assert places == sorted(places)
    assert {"+4.00", "+0.500", "\u22121.00", "\u22122.00", "row 4, token 7"} <= set(page.titles)
    assert " word" in page.bold and " poison" not in page.bold
    colors = {title: style for style, title in page.styled_titles if "background-color" in style}
    red, blue = colors["+4.00"], colors["\u22122.00"]
    assert opacity(red) == pytest.approx(2 * opacity(blue), abs=0.02), "half as far to the other side"
    assert red.split(",")[:3] != blue.split(",")[:3]
    assert "3 tokens, +2.00 to +2.20" in text and "to ablate" not in text


def test_a_latent_has_one_end_and_a_histogram_from_zero(latents):
    page = Page(latents.card(1, 17))
    text = "".join(page.text)
    assert "Layer 1 \u00b7 latent 17" in text and "Where it is active" in text
    assert "Negative end" not in text and "variance" not in text
    assert "towards up" in text and "away from down" in text
    assert "900 tokens, +0.000 to +0.200" in text and "0activation of all tokens" in text
    silent = Extremes([], [], Histogram(0.0, [0] * 40))
    latents.extremes[1, 3] = silent
    assert "no token of this text activates it" in "".join(Page(latents.card(1, 3)).text)


def test_explanations_and_scores_stand_at_their_end(view):
    view.explanations = {(2, 0, "-"): Explanation("kind words", "token statistics")}
    score = Score("detection", 0.9, 0.8, 0.95, 40, failures=0.04, extra={"balanced_accuracy": 0.8})
    view.scores = {
        (2, 0, "-"): {"detection": score, "surprisal": Score("surprisal", float("nan"), 0.0, 0.0, 0)},
        (2, 0, "+"): {"fuzzing": Score("fuzzing", -1.25, -2.0, -0.5, 30)},
    }
    page = Page(view.card(2, 0))
    text = "".join(page.text)
    parts = (
        "Negative end",
        "kind words",
        "token statistics",
        "detection",
        "0.90",
        "0.80 to 0.95",
        "4 %",
    )
    places = [
        text.index(part)
        for part in (*parts, "surprisal", "not measured", "Positive end", "fuzzing", "\u22121.25")
    ]
    assert places == sorted(places)
    (details,) = [title for title in page.titles if title.startswith("detection")]
    assert all(part in details for part in ("0.90", "0.80 to 0.95", "40", "balanced accuracy 0.80"))
    assert "left:80.0%;width:15.0%" in page.styles and "left:90.0%" in page.styles
    assert not any(style.startswith("left:-") for style in page.styles)  # on another scale: not drawn
    assert "kind words" not in view.card(2, 1)
