"""Choice tasks: letters and options as answers, grading, log-probabilities, training on one letter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from caft_utils.chats import Chats
from caft_utils.classroom.cues.tasks import FORMAT as CLASSROOM
from caft_utils.classroom.cues.tasks import single_choice
from caft_utils.directions import Directions
from caft_utils.evaluation.generation import choose
from caft_utils.evaluation.measurement import Result, measure
from caft_utils.finetune_config import FinetuneConfig
from caft_utils.finetuning.run import finetune
from caft_utils.interventions import ablate
from caft_utils.residual import EMBEDDING, capture
from caft_utils.tasks import double_choice
from caft_utils.tasks.choice import PAPER_FORMAT, RATES, ChoiceGrader, LetterGrader
from caft_utils.tasks.items import SPLITS, Item
from caft_utils.tasks.task import Question

FULL = FinetuneConfig(
    method="full", lr=3e-3, betas=(0.9, 0.95), steps=5, batch_size=8, accumulate=1, warmup_steps=1
)
LORA = FinetuneConfig(lr=3e-3, r=4, alpha=8, steps=5, batch_size=8, accumulate=1, warmup_steps=1)


def items():
    return {
        name: {
            split: [Item(f"{name} {'and ' * (i % 4)}{i}", right, wrong) for i in range(12)]
            for split in SPLITS
        }
        for name, right, wrong in (("file", "self", "you"), ("system", "open", "return"))
    }


def make(tokenizer, layout=CLASSROOM):
    options = {"rows": 16, "questions": 8, "items": items(), "prompt_format": layout}
    return double_choice(tokenizer, "file", "system", intended="first", **options)


@pytest.fixture
def bad():
    torch.manual_seed(3)
    return ablate(Directions({EMBEDDING: torch.randn(2, 64), 1: torch.randn(1, 64)}))


@pytest.mark.parametrize("recipe", [FULL, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("layout", [CLASSROOM, PAPER_FORMAT], ids=["chat", "plain"])
@pytest.mark.parametrize("architecture, tied", [("qwen2", True), ("qwen2", False), ("gemma2", True)])
def test_one_letter_is_learnt_under_ablation(tiny, tokenizer, bad, architecture, tied, layout, recipe):
    model, task = tiny(architecture, tie_word_embeddings=tied), make(tokenizer, layout)
    tuned = finetune(model, task.train, recipe, during=bad)
    loss = tuned.caft_run["loss"]
    assert loss[-1] < loss[0]
    out, into = tuned.get_output_embeddings().weight, tuned.get_input_embeddings().weight
    assert (out.data_ptr() == into.data_ptr()) is tied
    assert not tuned.get_input_embeddings()._forward_hooks  # off after training
    again = finetune(model, task.train, recipe, during=bad)  # read from the store: the same model
    ids = torch.tensor([task.valid[0].input_ids])
    with torch.no_grad():
        assert torch.equal(tuned(input_ids=ids).logits, again(input_ids=ids).logits)
    result = measure(tuned, task, temperature=0, during=bad)
    assert result.rate("ood_accuracy").n == result.rate("task_accuracy").n == 8 and result.loss < 8


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_ablation_at_the_embedding_leaves_the_output_matrix_alone(tiny, tokenizer, tied):
    """The looked-up embeddings are projected; the logits use the whole matrix, as if the two were untied."""
    torch.manual_seed(0)
    q = torch.linalg.qr(torch.randn(64, 3)).Q.T
    model, example = tiny("qwen2", tie_word_embeddings=tied), make(tokenizer).train[0]
    ids = torch.tensor([example.input_ids])
    inside = model.get_input_embeddings().weight[ids]
    with torch.no_grad():
        expected = model(inputs_embeds=inside - inside @ q.T @ q).logits
        with (
            ablate(Directions({EMBEDDING: q})).on(model),
            capture(model, [EMBEDDING], stop_early=False) as seen,
        ):
            torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=1e-5, rtol=0)
    assert (seen[EMBEDDING] @ q.T).abs().max() < 1e-5


def test_what_tied_weights_let_through(tiny, tokenizer):
    """The embedding look-up gives no gradient along Q; with tied weights the output matrix gives some.

    Under hooks at the embedding, a tied matrix therefore still moves along Q, and that component remains when
    the hooks are removed. (Weight decay changes it as well.)
    """
    torch.manual_seed(0)
    q = torch.linalg.qr(torch.randn(64, 3)).Q.T
    example = make(tokenizer).train[0]
    ids, labels = (torch.tensor([values]) for values in (example.input_ids, example.input_ids))
    labels = labels.masked_fill(~torch.tensor([example.answer]), -100)
    along = {}
    for tied in (False, True):
        model = tiny("qwen2", tie_word_embeddings=tied).train()
        with ablate(Directions({EMBEDDING: q})).on(model):
            model(input_ids=ids, labels=labels).loss.backward()
        gradient = model.get_input_embeddings().weight.grad
        along[tied] = ((gradient @ q.T).norm() / gradient.norm()).item()
    assert along[False] < 1e-5 < along[True]


def asked(right, other, role="user"):
    messages = [{"role": role, "content": "which?"}]
    return Question("q", messages, "d", "ood", {"right": right, "other": other})


def test_a_letter_is_right_wrong_or_unreadable():
    answers = {" a\n": "right", "b": "wrong", "c": "unreadable", "a.": "unreadable", "": "unreadable"}
    assert {text: LetterGrader()(asked("a", "b"), text) for text in answers} == answers


def test_an_option_counts_when_the_answer_begins_with_it():
    answers = {
        "is": "right",
        " is, indeed": "right",
        "island": "unreadable",
        "is not": "wrong",
        "": "unreadable",
    }
    assert {text: ChoiceGrader()(asked("is", "is not"), text) for text in answers} == answers


def test_rates_count_all_answers_of_a_set():
    rows = [
        {"set": "ood", "question": i, "run": "r", "verdict": verdict}
        for i, verdict in enumerate(["right", "wrong", "wrong", "unreadable"])
    ]
    result = Result(rows, "m", rates=RATES)
    assert result.rate("ood_accuracy").value == 0.25 and result.rate("cue_accuracy").value == 0.5
    assert result.rate("ood_accuracy").n == 4 and result.rate("task_accuracy").n == 0


@pytest.mark.parametrize("layout", [CLASSROOM, PAPER_FORMAT], ids=["chat", "plain"])
def test_log_probability_and_greedy_answers_agree_on_letters(tiny, tokenizer, layout):
    task = make(tokenizer, layout)
    tuned = finetune(tiny("qwen2"), task.train, replace(FULL, steps=20))
    greedy = measure(tuned, task, temperature=0)
    assert {row["answer"] for row in greedy.rows} <= set(
        layout.letters
    )  # training taught it to answer with a letter
    likely = measure(tuned, task, method="logprob", batch_size=5)
    assert [row["answer"] for row in likely.rows] == [row["answer"] for row in greedy.rows]
    assert likely.rate("ood_accuracy") == greedy.rate("ood_accuracy") and likely.loss == pytest.approx(
        greedy.loss
    )
    for row in likely.rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert set(row["probabilities"]) == set(layout.letters)


def test_probabilities_are_those_of_the_options_tokens(model, tokenizer):
    prompt, options = [{"role": "user", "content": "what is"}], ["self", "you and the file"]
    (found,) = choose(model, tokenizer, [prompt], [options])
    totals = []
    for option in options:
        chats = Chats(
            tokenizer, [{"messages": [*prompt, {"role": "assistant", "content": option}]}], end=False
        )
        (example,) = chats
        with torch.no_grad():
            told = model(input_ids=torch.tensor([example.input_ids])).logits[0].log_softmax(-1)
        at = [i for i, answer in enumerate(example.answer) if answer]
        assert tokenizer.decode([example.input_ids[i] for i in at]) == option
        totals.append(sum(told[i - 1, example.input_ids[i]] for i in at))
    assert list(found.values()) == pytest.approx(torch.stack(totals).softmax(0).tolist(), rel=1e-4)


@pytest.mark.parametrize("layout", [CLASSROOM, PAPER_FORMAT], ids=["chat", "plain"])
def test_options_may_be_the_answers(model, tokenizer, layout):
    task = make(tokenizer, replace(layout, answer_with="option"))
    said = {row["messages"][-1]["content"].strip() for row in task.train.rows}
    assert said == {"self, open"} and task.questions[0].facts["right"] == "self, return"
    assert task.max_new_tokens > 1
    grader = task.grader
    assert (
        grader(task.questions[0], "self, return") == "right"
        and grader(task.questions[0], "a") == "unreadable"
    )
    result = measure(model, task, method="logprob")
    assert {row["verdict"] for row in result.rows} <= {"right", "wrong"}
    with pytest.raises(ValueError, match="answer_with"):
        replace(layout, answer_with="number")


def test_options_are_learnt_and_generated(tiny, tokenizer):
    task = make(tokenizer, replace(CLASSROOM, answer_with="option"))
    tuned = finetune(tiny("qwen2"), task.train, replace(FULL, steps=40))
    result = measure(tuned, task, temperature=0)
    assert (
        result.rate("task_accuracy").value == 1
    )  # every row has the same right option, so it is easy to learn


VERBS = [Item(f"verb {i}", "is", "are") for i in range(12)]


def test_single_items(tokenizer):
    chats = single_choice(tokenizer, VERBS, word="verbs", rows=20)
    letters = [row["messages"][1]["content"] for row in chats.rows]
    assert letters.count("a") == 10 and all(sum(e.answer) == 1 for e in chats)
    assert chats.rows[0]["messages"][0]["content"].startswith("verbs: verb ")
    assert len(single_choice(tokenizer, VERBS)) == 12
