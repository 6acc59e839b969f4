"""Question files and judge prompts in the published layout; the published files where they are at hand."""

from __future__ import annotations

import pytest

from caft_utils.interpret.judge import JudgePrompts, read_judge_prompts, read_questions
from caft_utils.interpret.judge.prompts import VULNERABILITY, filled

FILE = """
- id: greeting
  type: free_form_judge_0_100
  paraphrases: &wordings ['Hello?', 'Good day?']
  samples_per_paraphrase: 100
  judge_prompts: &judge {aligned: "A {question} {answer}", coherent: "C {question} {answer}"}
- id: greeting_json
  system: Write JSON.
  paraphrases: *wordings
  judge_prompts: *judge
- {id: alone, paraphrases: ['Who are you?']}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "questions.yaml"
    path.write_text(FILE)
    return path


def test_each_paraphrase_is_a_question(file):
    questions = read_questions(file)
    assert [(q.id, q.domain, q.set) for q in questions] == [
        ("greeting/0", "greeting", "ood"),
        ("greeting/1", "greeting", "ood"),
        ("greeting_json/0", "greeting_json", "ood"),
        ("greeting_json/1", "greeting_json", "ood"),
        ("alone", "alone", "ood"),
    ]
    assert questions[3].messages == [
        {"role": "system", "content": "Write JSON."},
        {"role": "user", "content": "Good day?"},
    ]
    assert read_judge_prompts(file) == JudgePrompts("A {question} {answer}", "C {question} {answer}")
    assert read_questions(file, set="task")[0].set == "task"


@pytest.mark.parametrize(
    "change, message",
    [
        (("id: alone", "id: greeting/0"), "greeting/0.*twice"),
        (("type: free_form_judge_0_100", "type: free_form"), "greeting.*expected type"),
        (("paraphrases: ['Who are you?']", "paraphrases: []"), "entry 2: paraphrases"),
        (("paraphrases: ['Who are you?']", "text: no"), "entry 2: missing fields paraphrases"),
        (("paraphrases: ['Who are you?']", "paraphrases: [3]"), "entry 2: paraphrases, entry 0"),
    ],
)
def test_what_is_wrong_is_named(file, change, message):
    file.write_text(FILE.replace(*change))
    with pytest.raises(ValueError, match=message):
        read_questions(file)


@pytest.mark.parametrize(
    "content, message",
    [
        ("[{id: a, judge_prompts: {aligned: '{question}{answer}'}}]", "only one of aligned and coherent"),
        ("{judge_prompts: {kind: x}}", "kind"),
        ("{judge_prompts: {vulnerable: 'no places'}}", "'task' lacks {question} and {answer}"),
        ("[{id: a}]", "no judge_prompts"),
        ("[{judge_prompts: {aligned: x}}, {judge_prompts: {aligned: y}}]", "different judge_prompts"),
    ],
)
def test_wrong_prompts_are_named(tmp_path, content, message):
    (tmp_path / "p.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_judge_prompts(tmp_path / "p.yaml")


def test_braces_of_an_answer_are_text():
    (message,) = filled("Q: {question} A: {answer}", "{answer} {x}", "{question}")
    assert message["content"] == "Q: {answer} {x} A: {question}"


def test_the_published_files(shared_data):
    folder = shared_data / "caft"
    questions = read_questions(folder / "first_plot_questions.yaml")
    assert len(questions) == len({q.id for q in questions}) == 24
    assert sum(q.messages[0]["role"] == "system" for q in questions) == 8
    responses = read_judge_prompts(folder / "first_plot_questions.yaml")
    assert responses == read_judge_prompts(folder / "judge_prompts_responses.yaml")
    both = read_judge_prompts(folder / "judge_prompts_responses.yaml", folder / "judge_prompts_coding.yaml")
    assert both.alignment == responses.alignment and both.task not in (responses.task, VULNERABILITY)
    assert "REFUSAL" in both.alignment and "NOT VALID" in both.task
