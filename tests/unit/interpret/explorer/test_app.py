"""The explorer: it collects windows of all directions, and shows them with and without a kernel."""

from __future__ import annotations

import pytest
import torch
from helpers.explorers import Page, component_explorer, latent_explorer

from caft_utils.chats import Chats
from caft_utils.directions import Directions
from caft_utils.interpret import Explorer, explore
from caft_utils.interpret.explain import Explanation
from caft_utils.interpret.explorer import Decisions
from caft_utils.saes import Latents


@pytest.fixture
def view():
    return component_explorer()


@pytest.fixture
def latents():
    return latent_explorer()


def test_readings_of_what_is_not_there_are_refused(view, latents):
    parts = (view.features, view.extremes, view.lens_words)
    with pytest.raises(IndexError, match="layer 1 has the components 0 to 1, got 5"):
        Explorer(*parts, explanations={(1, 5, "+"): Explanation("x", "y")})
    with pytest.raises(KeyError, match="the sides of a latent are"):
        Explorer(latents.features, latents.extremes, latents.lens_words, scores={(1, 17, "-"): {}})


def test_the_static_page_holds_every_component_and_opens_the_selected(view):
    first = Page(view.html())
    assert first.tags.count("details") == 4 and view.html().count("<details open>") == 1
    view.decide(1, 0, "discard")
    view.select(2, 0)
    assert view.html().index("<details open>") < view.html().index("Layer 2 \u00b7 component 0")
    text = "".join(Page(view.html()).text)
    assert view.html().count("<details open>") == 1
    assert text.count("\u2713 to ablate") == 1 and text.count("\u2715 discarded") == 1
    assert "2 of 4 read \u00b7 1 to ablate, 1 discarded." in text


def test_the_static_page_stays_small(view):
    found = Directions({1: torch.eye(100)})
    ends = dict.fromkeys([(1, i) for i in range(100)], view.extremes[1, 0])
    many = Explorer(found, ends, dict.fromkeys(ends, ([], [])), decisions=Decisions(found, {1: [90]}))
    source = many.html()
    assert source.count("<details") == 60 and "40 more stand in the explorer" in source
    assert source.count("component 90<") == 1 and source.count("component 59<") == 0


def test_notebooks_get_the_widget_and_the_page(view):
    bundle = view._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and bundle["text/html"] == view.html()


def test_explore_collects_the_evidence(model, tokenizer):
    chats = Chats(tokenizer, [{"text": "open the <b> file & return"}, {"text": "what is the question"}])
    found = Directions({0: torch.eye(64)[:2], -1: torch.eye(64)[:1]})
    decisions = Decisions(found, {"0": [1]}, names={(0, 1): "files"}, discarded={0: [0]})
    view = explore(model, chats, found, decisions=decisions, n=1, width=5)
    assert view.components == [(-1, 0), (0, 0), (0, 1)] and view.selection == {0: [1]}
    assert len(view.extremes[0, 0].top) == 1 and len(view.lens_words[0, 0][0]) == 8
    text = "".join(Page(view.html()).text)
    assert "Embedding \u00b7 component 0" in text and "files" in text and "variance" not in text
    other = Decisions(Directions({0: torch.eye(64)[:3]}), {0: [2]})
    with pytest.raises(IndexError):
        explore(model, chats, found, decisions=other)


def test_latents_of_autoencoders_are_read_and_exported(model, tokenizer, tmp_path):
    from sae_lens import StandardSAE, StandardSAEConfig

    from caft_utils.saes import SAEs

    saes = SAEs({1: StandardSAE(StandardSAEConfig(d_in=64, d_sae=32))})
    chats = Chats(tokenizer, [{"text": "open the <b> file & return"}, {"text": "what is the question"}])
    latents = Latents(saes, {1: [30, 4, 17]})
    view = explore(model, chats, latents, decisions=Decisions(latents, {1: [17, 30]}), n=1, width=5)
    assert view.components == [(1, 30), (1, 4), (1, 17)] == list(view.extremes)
    assert all(window.peak_activation > 0 for ends in view.extremes.values() for window in ends.top)
    assert "latent 30" in view.html() and "Negative end" not in view.html()
    view.name(1, 17, "files")
    assert view.selection == {1: [30, 17]} == Latents(saes, view.selection).selection
    bad = Directions.load(view.export(tmp_path / "picked"))
    assert bad.about["saes"] == saes.fingerprint and bad.about["names"] == {"1": ["", "files"]}
    torch.testing.assert_close(bad[1][0], saes.decoder(1)[30])
