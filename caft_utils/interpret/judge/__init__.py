"""A language model as the judge of free answers: its prompts, its scores, and files of questions."""

from caft_utils.interpret.judge.answer_judge import AnswerJudge, OverBudgetError
from caft_utils.interpret.judge.prompts import JudgePrompts
from caft_utils.interpret.judge.question_files import read_judge_prompts, read_questions
from caft_utils.interpret.judge.scores import JudgeScore, score_of

__all__ = [
    "AnswerJudge",
    "JudgePrompts",
    "OverBudgetError",
    "JudgeScore",
    "read_judge_prompts",
    "read_questions",
    "score_of",
]
