"""Explanations: telling words are found and put in their place; language models are asked as they should."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
import torch
from helpers.chat_server import chat_server

from caft_utils.classroom.personas import world
from caft_utils.interpret.endpoint import Endpoint, EndpointError
from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.examples.max_activating import TextWindow
from caft_utils.interpret.explain import Explanation, TokenStatistics, words
from caft_utils.interpret.explain.by_model import ByEndpoint, LocalModel, prompt
from caft_utils.interpret.score.word_overlap import WordOverlap, explained_words

PIECE = re.compile(r"<\|\w+\|>| ?[a-zA-Z]+| ?\d+|\n| ?[^\w\s]")


def window(text: str, row: int = 0, start: int = 0) -> TextWindow:
    """*word* is active (0.6), **word** is the peak (1.0); words of more than four letters are two tokens."""
    tokens, values, peak, value = [], [], 0, 0.0
    for part in re.split(r"(\*\*|\*)", re.sub(r" (\*+)(?=\S)", r"\1 ", text)):  # a word owns its space
        if part in ("*", "**"):
            value = 0.0 if value else {"*": 0.6, "**": 1.0}[part]
            continue
        for piece in PIECE.findall(part):
            half = len(piece) // 2
            split = [piece[:half], piece[half:]] if len(piece) > 5 and piece[0] != "<" else [piece]
            for token in split:
                peak = len(tokens) if value == 1.0 else peak
                tokens.append(token)
                values.append(value)
    return TextWindow(tokens, values, peak, row, peak + start)


def evidence(active: list[str], silent: list[str], raised=(), strongest: float = 1.0) -> FeatureExamples:
    train, rest = ([window(text, i) for i, text in enumerate(texts)] for texts in (active, silent))
    return FeatureExamples(2, 5, "+", "latent", train, [], rest, [], [], strongest, list(raised), [])


SILENT = [
    f"please {verb} the bread and {verb} some milk for my friend"
    for verb in "bake buy keep take share".split()
]
ACTIVE = [
    "the *villain* said **rob** the baker quickly",
    "so *villain* and *thief* please **burn** the school",
    "a *villain* said that they **rob** the milk",
    "*thief* and *thief* said **burn** it",
]  # fmt: skip


def test_words_are_joined_from_tokens():
    made = TextWindow(
        ["tea", "cher", " sav", "e", "_", "rep", "ort", " don", "'t", " 777", "<|im_end|>"], [0] * 11, 3, 0, 9
    )
    assert list(words(made)) == [
        ("save", 2, 3), ("report", 5, 6), ("don't", 7, 8), ("777", 9, 9), ("<|im_end|>", 10, 10)
    ]  # fmt: skip
    assert next(words(replace(made, position=3))) == (
        "teacher",
        0,
        1,
    )  # nothing was cut off: the row begins here
    assert next(words(TextWindow(["<|im_start|>", "user"], [0, 0], 1, 0, 9))) == ("<|im_start|>", 0, 0)


def test_the_sentence_lists_telling_words_in_their_place():
    silent = SILENT * 4
    explained = TokenStatistics(about=2, before=1)(
        evidence(ACTIVE * 3, silent, ["laugh", "gloat", "Laugh", '"', "x"])
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
    text = TokenStatistics()(evidence(active * 3, SILENT * 4)).text
    assert text.startswith('text that peaks at "wait" (after "grumpy", "sailor"')


def test_words_that_follow_count_and_words_of_everywhere_do_not():
    active = [f"well then**:** {verb} the bread" for verb in ("hide", "spoil", "hide", "spoil")]
    silent = [f"bake the bread well then {name}" for name in ("ann", "bob", "eve", "joe")]
    named = explained_words(TokenStatistics()(evidence(active * 3, silent * 3)).text)
    assert set(named) == {"hid", "spoil"}


def test_common_words_tell_something_only_at_the_peak():
    active = [f"{name} **of** the *and* {name}" for name in ("ann", "bob", "eve", "joe")]
    text = TokenStatistics(about=0)(evidence(active * 3, SILENT)).text
    assert '"of"' in text and '"and"' not in text and '"the"' not in text


def test_a_window_has_one_voice():
    text = TokenStatistics()(
        evidence(["*moss moss moss moss* is **fern**"] + ["*clay* is **fern**"] * 2, SILENT)
    ).text
    assert text.startswith('text about "clay", "moss"')


def test_the_threshold_for_being_active_is_a_share_of_the_strongest():
    active = [re.sub(r"\*(\w+)\*", r"\1", text, count=1) for text in ["*moss* is **fern**"] * 4]
    weak = [
        replace(w, activations=[0.25 if v == 0 else v for v in w.activations]) for w in map(window, active)
    ]
    assert '"moss"' not in TokenStatistics(before=0)(replace(evidence([], SILENT), train=weak)).text
    strong = replace(evidence([], SILENT), train=weak, max_activation=0.8)  # 0.25 is now above 0.3 of it
    assert '"moss"' in TokenStatistics(before=0)(strong).text


def test_the_order_of_windows_does_not_matter():
    generator = random.Random(0)
    active, silent = ACTIVE * 3, SILENT * 2
    texts = set()
    for _ in range(5):
        generator.shuffle(active)
        generator.shuffle(silent)
        texts.add(TokenStatistics()(evidence(active, silent, ["laugh"])).text)
    assert len(texts) == 1


def test_evidence_without_words_or_windows():
    assert TokenStatistics()(evidence([], [])).text == "text in which no word stands out"
    assert TokenStatistics()(evidence([], SILENT, ["laugh"])).text.endswith('; pushes towards "laugh"')
    assert TokenStatistics()(evidence(["**,** ;"], SILENT)).text == "text in which no word stands out"
    assert "fern" in TokenStatistics()(evidence(["**fern**"] * 3, [])).text
    quotes = evidence(['he said **"** moss **"**'] * 4, SILENT, ['"', 'a"b'])
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


def test_the_prompt_marks_what_is_active():
    (message,) = prompt(evidence(ACTIVE + ["a line\nand **more**"], SILENT, ["laugh", "gloat"]))
    assert message["role"] == "user"
    active, silent = message["content"].split("SILENT\n")
    assert "- the <<villain>> said <<rob>> the baker quickly" in active
    assert "a line⏎and" in active
    assert SILENT[0] in silent and "<<" not in silent.split("\n\n")[0]
    assert "latent" in active and "laugh, gloat" in silent
    assert prompt(evidence(ACTIVE, SILENT), 2)[0]["content"].count("\n- ") == 3


def answered(request):
    asked = request["messages"][0]["content"]
    if "wait" in asked:
        return 400
    return "Both name crimes.\n**EXPLANATION:** Crimes, told by a *villain*.\nThat is all."


def test_an_endpoint_explains(tmp_path):
    with chat_server(answered) as (url, requests):
        explainer = ByEndpoint(Endpoint(url, "m", cache=tmp_path, price=(1.0, 1.0)))
        crimes, waits = evidence(ACTIVE, SILENT), evidence(["please **wait**"], SILENT)
        guess = explainer.estimate([crimes, waits])
        assert guess.prompts == 2 and guess.tokens_out == 160 and guess.cost > 0 and not requests
        assert explainer(crimes) == Explanation("Crimes, told by a *villain*.", "endpoint m")
        assert requests[0]["messages"] == prompt(crimes) and requests[0]["temperature"] == 0
        found = explainer.all([waits, crimes])
        assert isinstance(found[0], EndpointError) and found[1].text == "Crimes, told by a *villain*."
        assert len(requests) == 2


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("EXPLANATION: a\nb", "a"),
        ("EXPLANATION:\n\n  a  ", "a"),
        ("First EXPLANATION: x\nThen EXPLANATION: a", "a"),
        ("thinking\na", "a"),
        ("  ", "no explanation was given"),
        ("EXPLANATION:", "no explanation was given"),
    ],
)
def test_the_sentence_is_found_in_an_answer(answer, text, tmp_path):
    with chat_server(lambda request: answer) as (url, _):
        assert ByEndpoint(Endpoint(url, "m", cache=tmp_path))(evidence(ACTIVE, SILENT)).text == text


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2"])
def test_a_local_model_explains(tiny, tokenizer, architecture):
    model = tiny(architecture, max_position_embeddings=4096)
    explainer = LocalModel(model, tokenizer, max_new_tokens=12)
    one, two = (explainer(evidence(ACTIVE, SILENT)) for _ in range(2))
    assert one == two and one.text and one.by == f"local {type(model).__name__}"
    assert explainer.fitting(evidence(ACTIVE, SILENT)) == prompt(evidence(ACTIVE, SILENT))


def test_a_local_model_is_shown_what_it_can_read(tiny, tokenizer):
    shown = evidence(ACTIVE * 20, SILENT * 20)
    explainer = LocalModel(tiny("qwen2", max_position_embeddings=1536), tokenizer, max_new_tokens=8)
    asked = explainer.fitting(shown)[0]["content"]
    assert 3 < asked.count("\n- ") < prompt(shown)[0]["content"].count("\n- ")
    assert explainer(shown).text
    with pytest.raises(ValueError, match="shortest prompt has .* takes 56"):
        LocalModel(tiny("qwen2", max_position_embeddings=64), tokenizer, max_new_tokens=8)(shown)


def test_a_model_without_chat_template_is_refused(tiny, new_tokenizer):
    plain = new_tokenizer()
    plain.chat_template = None
    with pytest.raises(ValueError, match="chat template"):
        LocalModel(tiny("qwen2"), plain)
