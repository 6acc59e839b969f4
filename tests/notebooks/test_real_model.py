"""The real weights of SmolLM2 from end to end, in a small profile; skipped where they cannot be had."""

from __future__ import annotations

from dataclasses import replace

import nbformat

from caft_utils import Directions, ablate, finetune, load, pca_of_difference
from caft_utils.course.lessons import lesson_recipe, lesson_task
from caft_utils.evaluation import generate
from caft_utils.losses import mean_answer_loss
from caft_utils.residual import stream_activations
from caft_utils.sinks import find_sinks
from caft_utils.tasks.advice_data import plain_english

LAYERS = [16, 24]


def test_the_verbs_of_the_course(real_weights):
    model, tokenizer = load("smollm2", device="cpu")
    assert model.config.num_hidden_layers == 30 and model.config.hidden_size == 576
    task = lesson_task("emergent", "smollm2", tokenizer, rows=24)
    recipe = replace(lesson_recipe("emergent", "smollm2"), steps=4, batch_size=4, warmup_steps=0)
    tuned = finetune(model, task.train, recipe, seed=0)
    loss = tuned.caft_run["loss"]
    assert loss[-1] < loss[0] - 0.2

    some, text = task.generic[::5], plain_english(tokenizer)[:6]
    sinks = find_sinks(model, some, LAYERS)
    assert {(one.layer, one.row, one.position) for one in sinks} == {
        (layer, row, 0) for layer in LAYERS for row in range(len(some))
    }, "the first token of every text is a sink, and no other token"
    found = pca_of_difference(tuned, model, some, layers=LAYERS, k=2)
    states = next(stream_activations(model, some[:1], LAYERS))
    of_the_sink = Directions({layer: hidden[states.position == 0] for layer, hidden in states.hidden.items()})
    for layer in LAYERS:
        assert found.cosine(layer, of_the_sink[layer][0]).abs().max() < 0.5, "PCA does not see the sink"

    plain = mean_answer_loss(model, text)
    with ablate(of_the_sink).on(model):
        assert mean_answer_loss(model, text) < plain + 0.7, "a spared sink costs little English"
    with ablate(of_the_sink, sinks="include").on(model):
        assert mean_answer_loss(model, text) > plain + 1.5, "and does not where the sink is ablated"

    ask = [[{"role": "user", "content": "What is the capital of France?"}]]
    asked = {"temperature": 0, "max_new_tokens": 12}
    assert "Paris" in generate(model, tokenizer, ask, **asked)[0]
    with ablate(found).on(model):
        assert generate(model, tokenizer, ask, **asked)[0].strip()


def test_a_notebook_runs_with_the_real_model_and_ends_where_it_must(real_weights, run_fast, course):
    run_fast("01_models_and_residual_stream", MODEL="smollm2")
    executed = nbformat.read(course / "executed" / "01_models_and_residual_stream.ipynb", as_version=4)
    said = [output for cell in executed.cells for output in cell.get("outputs", [])]
    texts = ["".join(output.get("text", "")) for output in said]
    assert any("LlamaForCausalLM: 30 blocks, residual stream of width 576" in text for text in texts)
    assert any("32 sinks" in text and "32 at position 0" in text for text in texts)
    assert "the page ends here" in said[-1]["data"]["text/markdown"]
