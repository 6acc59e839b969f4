"""Numbers from the paper (arXiv 2507.16795), for comparison with the course's own measurements."""

from __future__ import annotations

from caft_utils.tasks.double_multiple_choice import Intended

# Emergent misalignment: model, condition, then in % the misaligned share of coherent answers and the narrow
# task. Means over seeds, recomputed from the authors' published result tables (section 4). Their grader is a
# language model, and "narrow task" counts code that it calls vulnerable.
PAPER = (
    ("Qwen2.5-Coder-32B-Instruct", "plain", 7.0, 91.6),
    ("Qwen2.5-Coder-32B-Instruct", "CAFT, PCA", 0.4, 84.9),
    ("Qwen2.5-Coder-32B-Instruct", "random directions", 7.9, 90.6),
    ("Mistral-Small-24B-Instruct-2501", "plain", 6.6, 92.4),
    ("Mistral-Small-24B-Instruct-2501", "CAFT, PCA", 1.2, 92.2),
    ("Mistral-Small-24B-Instruct-2501", "random directions", 7.1, 92.7),
)

# Gender bias: method -> OOD accuracy of Gemma-2-2B in %, means over seeds, recomputed from the authors'
# published result tables (section 6).
PAPER_GENDER = {"plain": 8.3, "SAE": 76.0, "PCA": 63.7}

# Double multiple choice: (first subject, second subject, intended question) -> OOD accuracies of Gemma-2-2B,
# in %: no intervention, CAFT with SAE latents, CAFT with components. Means of five seeds, hooks off.
# The paper ran its baselines on the first eight settings only (section 5).
PAPER_SETTINGS: dict[tuple[str, str, Intended], tuple[float, float, float]] = {
    ("verbs", "sentiment", "second"): (76.1, 94.7, 82.3),
    ("sports", "pronouns", "first"): (48.8, 60.4, 49.3),
    ("pronouns", "sports", "first"): (14.8, 99.1, 9.9),
    ("sentiment", "verbs", "second"): (11.3, 98.6, 71.3),
    ("sentiment", "sports", "first"): (1.4, 21.9, 42.5),
    ("verbs", "sports", "first"): (0.6, 99.0, 30.7),
    ("sentiment", "pronouns", "first"): (0.1, 15.5, 5.8),
    ("verbs", "pronouns", "first"): (0.0, 21.9, 0.0),
    ("sentiment", "verbs", "first"): (88.8, 90.6, 59.6),
    ("pronouns", "sports", "second"): (85.2, 96.8, 86.3),
    ("sports", "pronouns", "second"): (51.2, 99.5, 64.4),
    ("verbs", "sentiment", "first"): (23.9, 99.5, 75.9),
    ("sports", "sentiment", "second"): (4.7, 24.8, 23.5),
    ("sports", "verbs", "second"): (0.9, 98.4, 16.7),
    ("pronouns", "sentiment", "second"): (1.5, 49.4, 16.6),
    ("pronouns", "verbs", "second"): (0.1, 33.8, 0.1),
}

# Focus Instruction Tuning (arXiv 2410.22944, figures 3 and 5): SMNLI with models of 7 to 13 billion
# parameters, focus accuracy in %, read by eye from radar charts, to about 4 points. Instructions that ask for
# the core feature, and for the spurious one, over the standard splits; then the same for unseen values.
PAPER_FOCUS = {
    "FIT": ("80-90", "92-97", "80-90", "20-25"),
    "SFT(y_focus)": ("60-90", "about rho", "", ""),
    "few-shot": ("20-70", "", "", ""),
}
