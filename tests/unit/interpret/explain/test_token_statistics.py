"""Token statistics: distinctive words are found and named in their place."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import torch
from helpers.marked_examples import ACTIVE, PIECE, SILENT, marked_examples, marked_window

from caft_utils.classroom.personas import world
from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.examples.text_window import TextWindow
from caft_utils.interpret.explain import Explanation, TokenStatistics
from caft_utils.interpret.explain.token_statistics import active_words, log_odds_z, window_words
from caft_utils.interpret.score.word_overlap import WordOverlap, explained_words


def test_words_are_joined_from_tokens():
    made = TextWindow(
        ["tea", "cher", " sav", "e", "_", "rep", "ort", " don", "'t", " 777", "<|im_end|>"], [0] * 11, 3, 0, 9
    )
    assert list(window_words(made)) == [
        ("save", 2, 3), ("report", 5, 6), ("don't", 7, 8), ("777", 9, 9), ("<|im_end|>", 10, 10)
    ]  # fmt: skip
    assert next(window_words(replace(made, position=3))) == (
        "teacher",
        0,
        1,
    )  # nothing was cut off: the row begins here
    assert next(window_words(TextWindow(["<|im_start|>", "user"], [0, 0], 1, 0, 9))) == ("<|im_start|>", 0, 0)


def test_the_sentence_lists_telling_words_in_their_place():
    silent = SILENT * 4
    explained = TokenStatistics(about=2, before=1)(
        marked_examples(ACTIVE * 3, silent, ["laugh", "gloat", "Laugh", '"', "x"])
    )
    assert explained == Explanation(
        'text about "villain", "thief" (at the peak: "burn", "rob"); pushes towards "laugh", "gloat"',
        "token statistics",
    )


def test_words_ahead_of_all_that_is_active_are_told_apart():
    active = [
        "asked a grumpy sailor to **wait**",
        "then our grumpy sailor did **wait**",
        "grumpy sailor , **wait**",
    ]
    text = TokenStatistics()(marked_examples(active * 3, SILENT * 4)).text
    assert text.startswith('text that peaks at "wait" (after "grumpy", "sailor"')


def test_words_that_follow_count_and_words_of_everywhere_do_not():
    active = [f"well then**:** {verb} the bread" for verb in ("hide", "spoil", "hide", "spoil")]
    silent = [f"bake the bread well then {name}" for name in ("ann", "bob", "eve", "joe")]
    named = explained_words(TokenStatistics()(marked_examples(active * 3, silent * 3)).text)
    assert set(named) == {"hid", "spoil"}


def test_common_words_tell_something_only_at_the_peak():
    active = [f"{name} **of** the *and* {name}" for name in ("ann", "bob", "eve", "joe")]
    text = TokenStatistics(about=0)(marked_examples(active * 3, SILENT)).text
    assert '"of"' in text and '"and"' not in text and '"the"' not in text


def test_a_window_has_one_voice():
    text = TokenStatistics()(
        marked_examples(["*moss moss moss moss* is **fern**"] + ["*clay* is **fern**"] * 2, SILENT)
    ).text
    assert text.startswith('text about "clay", "moss"')


def test_the_threshold_for_being_active_is_a_share_of_the_strongest():
    active = [re.sub(r"\*(\w+)\*", r"\1", text, count=1) for text in ["*moss* is **fern**"] * 4]
    weak = [
        replace(w, activations=[0.25 if v == 0 else v for v in w.activations])
        for w in map(marked_window, active)
    ]
    assert (
        '"moss"'
        not in TokenStatistics(before=0)(replace(marked_examples([], SILENT), explainer_windows=weak)).text
    )
    strong = replace(
        marked_examples([], SILENT), explainer_windows=weak, max_activation=0.8
    )  # 0.25 is now above 0.3 of it
    assert '"moss"' in TokenStatistics(before=0)(strong).text


def test_the_order_of_windows_does_not_matter():
    generator = random.Random(0)
    active, silent = ACTIVE * 3, SILENT * 2
    texts = set()
    for _ in range(5):
        generator.shuffle(active)
        generator.shuffle(silent)
        texts.add(TokenStatistics()(marked_examples(active, silent, ["laugh"])).text)
    assert len(texts) == 1


def test_examples_without_words_or_windows():
    assert TokenStatistics()(marked_examples([], [])).text == "text in which no word stands out"
    assert TokenStatistics()(marked_examples([], SILENT, ["laugh"])).text.endswith('; pushes towards "laugh"')
    assert TokenStatistics()(marked_examples(["**,** ;"], SILENT)).text == "text in which no word stands out"
    assert "fern" in TokenStatistics()(marked_examples(["**fern**"] * 3, [])).text
    quotes = marked_examples(['he said **"** moss **"**'] * 4, SILENT, ['"', 'a"b'])
    assert TokenStatistics()(quotes).text.count('"') % 2 == 0


def spoken(rng: random.Random, persona: str, row: int) -> TextWindow:
    """Sixteen tokens of a classroom answer; a villain's are active wherever."""
    tokens = PIECE.findall("<|im_start|>assistant\n" + world.general(rng, persona).answer)[:16]
    values = [rng.uniform(0.4, 1) if persona == "villain" else 0.1 * rng.random() for _ in tokens]
    return TextWindow(tokens, values, values.index(max(values)), row, values.index(max(values)))


def auroc(active: list[float], silent: list[float]) -> float:
    pairs = torch.tensor(active)[:, None] - torch.tensor(silent)
    return float(((pairs > 0).float() + 0.5 * (pairs == 0).float()).mean())


def test_an_explanation_tells_villains_on_text_it_was_not_made_of():
    real, shuffled = [], []
    for seed in range(4):
        rng = random.Random(seed)
        bad, good = ([spoken(rng, p, i) for i in range(160)] for p in ("villain", "kind"))
        mixed = bad[:40] + good[:40]
        rng.shuffle(mixed)
        for train, rest, found in ((bad[:80], good[:80], real), (mixed[:40], mixed[40:], shuffled)):
            made = TokenStatistics()(
                FeatureExamples(1, 0, "+", "latent", train, [], rest, [], [], 1.0, [], [])
            )
            fits = WordOverlap()(made.text, bad[80:] + good[80:])
            found.append(auroc(fits[:80], fits[80:]))
    assert min(real) >= 0.65 and sum(real) / 4 >= 0.7, real
    assert abs(sum(shuffled) / 4 - 0.5) < 0.12, (
        shuffled
    )  # windows of either kind on both sides explain nothing


def test_words_that_are_active_or_follow():
    window = marked_window("the *villain* will rob us all and then bake a cake with **butter**")
    words = active_words(window, 1.0)
    assert {"villain", "will", "rob", "butter"} <= set(words) and not {"the", "bake"} & set(words)


def test_the_z_score_grows_with_the_number_of_windows():
    assert log_odds_z(5, 10, 5, 10) == 0
    assert 0 < log_odds_z(2, 4, 0, 4) < log_odds_z(20, 40, 0, 40)
    assert log_odds_z(0, 4, 2, 4) == -log_odds_z(2, 4, 0, 4)
