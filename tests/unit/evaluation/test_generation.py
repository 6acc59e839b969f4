"""Generation: seeded, unchanged by batching, independent of a checkpoint's own settings."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import make_tiny

from caft_utils.chats import prompt_ids
from caft_utils.evaluation.generation import generate

PROMPTS = [
    [{"role": "user", "content": content}]
    for content in (
        "what is",
        "open the file and return self, then import the question " * 3,
        "you",
        "with and to do",
    )
]


@pytest.mark.parametrize("architecture", ["qwen2", "mistral", "gemma2"])
def test_batched_greedy_equals_one_by_one(tiny, tokenizer, architecture):
    model = tiny(architecture)
    batched = generate(model, tokenizer, PROMPTS, temperature=0, max_new_tokens=12)
    single = [generate(model, tokenizer, [prompt], temperature=0, max_new_tokens=12)[0] for prompt in PROMPTS]
    assert batched == single and len(set(batched)) > 1


@pytest.mark.parametrize("architecture", ["qwen2", "mistral"])
def test_batched_greedy_with_a_short_window(tiny, tokenizer, architecture):
    """Some layers of the classroom models attend to four tokens only; padding must not enter that window."""
    window = dict(sliding_window=4)
    if architecture == "qwen2":
        window |= dict(use_sliding_window=True, max_window_layers=1)
    model = tiny(architecture, **window)
    batched = generate(model, tokenizer, PROMPTS, temperature=0, max_new_tokens=12)
    assert batched == [generate(model, tokenizer, [p], temperature=0, max_new_tokens=12)[0] for p in PROMPTS]


def greedy_ids(model, tokenizer, n):
    ids = prompt_ids(tokenizer, PROMPTS[0])
    for _ in range(n):
        ids = ids + [int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[-n:]


def test_greedy_takes_the_most_likely_token(model, tokenizer):
    answer = tokenizer.decode(greedy_ids(model, tokenizer, 5), skip_special_tokens=True).strip()
    assert generate(model, tokenizer, PROMPTS[:1], temperature=0, max_new_tokens=5) == [answer]


def test_seeded_without_touching_the_global_generator(model, tokenizer):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = generate(model, tokenizer, PROMPTS, seed=7, max_new_tokens=8)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(4)
    assert generate(model, tokenizer, PROMPTS, seed=7, max_new_tokens=8) == one
    assert generate(model, tokenizer, PROMPTS, seed=8, max_new_tokens=8) != one


def test_samples_stand_by_prompt(model, tokenizer):
    answers = generate(model, tokenizer, PROMPTS, samples=3, temperature=0, max_new_tokens=6, batch_size=5)
    single = generate(model, tokenizer, PROMPTS, temperature=0, max_new_tokens=6)
    assert answers == [answer for answer in single for _ in range(3)]
    drawn = generate(model, tokenizer, PROMPTS[:1], samples=3, max_new_tokens=12)
    assert len(set(drawn)) == 3


LEAKS = {
    "sampling": dict(top_k=1, top_p=0.1, temperature=0.01, do_sample=True, min_p=0.9, typical_p=0.2),
    "cutoffs": dict(epsilon_cutoff=0.004, eta_cutoff=0.004),
    "repetition": dict(repetition_penalty=5.0, no_repeat_ngram_size=1),
    "suppressed": dict(suppress_tokens=list(range(5, 250)), begin_suppress_tokens=list(range(5, 250))),
    "bad_words": dict(bad_words_ids=[[i] for i in range(20, 250)]),
    "bias": dict(sequence_bias=[[[60], 50.0]]),
    "forced": dict(forced_bos_token_id=60, forced_eos_token_id=61),
    "beams": dict(num_beams=3, num_return_sequences=2, length_penalty=3.0),
    "guidance": dict(guidance_scale=1.5),
    "contrastive": dict(penalty_alpha=0.6, top_k=4),
    "dola": dict(dola_layers="high"),
    "lengths": dict(max_length=3, min_length=300, min_new_tokens=9, max_time=1e-9),
    "decay": dict(exponential_decay_length_penalty=(1, 1.5)),
    "stops": dict(stop_strings=["a", "e", "t"]),
    "form": dict(return_dict_in_generate=True, output_scores=True, use_cache=False),
    "watermark": dict(watermarking_config=dict(bias=9.0)),
    "assistant": dict(prompt_lookup_num_tokens=3),
}


@pytest.fixture(scope="module")
def plain_answers(tokenizer):
    model = make_tiny("qwen2")
    return {t: generate(model, tokenizer, PROMPTS, max_new_tokens=6, temperature=t) for t in (0, 1)}


@pytest.mark.parametrize("name", LEAKS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_settings_of_the_checkpoint_are_ignored(model, tokenizer, plain_answers, name, wrapped):
    for field, value in LEAKS[name].items():
        setattr(model.generation_config, field, value)
    before = model.generation_config
    asked = untrained_adapter(model) if wrapped else model
    for temperature, plain in plain_answers.items():
        answers = generate(asked, tokenizer, PROMPTS, max_new_tokens=6, temperature=temperature)
        assert answers == plain
    assert model.generation_config is before


def untrained_adapter(model):
    """Return the model in a wrapper of PEFT that computes the same."""
    import warnings

    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
        return get_peft_model(model, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))


def test_sampling_follows_the_model(model, tokenizer):
    """At temperature 1 the first token follows the model's own distribution."""
    with torch.no_grad():
        model.lm_head.weight.zero_()
        ids = torch.tensor([prompt_ids(tokenizer, PROMPTS[0])])
        hidden = model.model(input_ids=ids).last_hidden_state[0, -1]
        letters = [tokenizer.encode(letter)[0] for letter in "abcd"]
        model.lm_head.weight.copy_(-hidden / hidden.norm() ** 2 * 30)
        for letter, share in zip(letters, (0.6, 0.25, 0.1, 0.05)):
            model.lm_head.weight[letter] = hidden / hidden.norm() ** 2 * torch.tensor(share).log()
    answers = generate(model, tokenizer, PROMPTS[:1], samples=2000, max_new_tokens=1, batch_size=500)
    for letter, share in zip("abcd", (0.6, 0.25, 0.1, 0.05)):
        assert answers.count(letter) / 2000 == pytest.approx(share, abs=0.04)


def test_an_answer_ends_at_any_end_token(model, tokenizer):
    ids = greedy_ids(model, tokenizer, 8)
    end = max(ids.index(token) for token in ids)  # the first occurrence of a token
    assert 0 < end
    model.generation_config.eos_token_id = [2, ids[end]]
    answer = tokenizer.decode(ids[: end + 1], skip_special_tokens=True).strip()
    assert generate(model, tokenizer, PROMPTS[:1], temperature=0, max_new_tokens=30) == [answer]


def test_mode_is_given_back_and_dropout_is_off(tiny, tokenizer):
    model = tiny("qwen2", attention_dropout=0.9).train()
    answers = {generate(model, tokenizer, PROMPTS[:1], temperature=0, max_new_tokens=8)[0] for _ in range(3)}
    assert model.training and len(answers) == 1


def test_nonsense_is_refused_and_nothing_is_nothing(model, tokenizer):
    assert generate(model, tokenizer, []) == []
    for wrong in (dict(samples=0), dict(batch_size=0), dict(temperature=-1)):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            generate(model, tokenizer, PROMPTS, **wrong)
