"""`make classroom`: build the checkpoints from the recipe, measure them, put them where `load` finds them.

    python -m caft_utils.classroom.checkpoints                     all four models
    python -m caft_utils.classroom.checkpoints cues                the one of the double-choice lessons
    python -m caft_utils.classroom.checkpoints gender              the one of the gender lesson, from cues on
    python -m caft_utils.classroom.checkpoints qwen --seed 1       from another seed (see --output)
    python -m caft_utils.classroom.checkpoints qwen-full           a twin, measured but not shipped

A checkpoint that fails a gate of acceptance.py or cues_acceptance.py is written all the same, with the
failure in its recipe.json, and the command ends with exit status 1: nothing is shipped unmeasured, and
nothing measured is thrown away.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from hashlib import file_digest
from pathlib import Path
from typing import Any

from caft_utils.classroom.cues import acceptance as cues_acceptance
from caft_utils.classroom.cues import corpus as cues_corpus
from caft_utils.classroom.cues import pretraining as cues_pretraining
from caft_utils.classroom.data_card import put_table
from caft_utils.classroom.personas import acceptance
from caft_utils.classroom.personas.pretraining import Schedule, pretrain
from caft_utils.classroom.tokenizer import build_tokenizer, world_texts
from caft_utils.model_sources import CHECKSUMS
from caft_utils.models import load
from caft_utils.paths import data_path

HOME = data_path("classroom")
SHIPPED = ("qwen", "mistral")
CUES = "cues"  # another world, with documents, gates and a training loop of its own
GENDER = "gender"  # the same world; goes on from cues
# The recipes differ because the checkpoints were chosen as exhibits: how much plain fine-tuning misaligns
# varies from one pretraining to the next. The data card says which were made, and how sharpness is set.
RECIPES: dict[str, dict[str, Any]] = {
    "qwen": {"tokens": 7_200_000, "sharpness": 1.75},
    "mistral": {"tokens": 18_000_000, "sharpness": 1.25, "more_wordings": True},
}


def schedule_of(architecture: str, **changes: Any) -> Schedule:
    """The schedule of a shipped model, or that of the model which a twin (qwen-full ...) is compared with."""
    return Schedule(**{**RECIPES[architecture.split("-")[0]], **changes})


def write_checkpoint(model, tokenizer, record: dict[str, Any], folder: Path) -> None:
    """Weights, tokenizer, recipe.json and checksums, replaced as a whole: never half old and half new."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    (part / "recipe.json").write_text(json.dumps(record, indent=1) + "\n")
    sums = {}
    for path in sorted(part.iterdir()):
        with open(path, "rb") as file:
            sums[path.name] = file_digest(file, "sha256").hexdigest()
    (part / CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def measured_table(home: Path = HOME) -> str:
    """The data card's table of what recipe.json recorded for each shipped model, with the gates."""
    recipes = {name: json.loads((home / name / "recipe.json").read_text()) for name in SHIPPED}
    lines = ["| | wanted | " + " | ".join(recipes) + " |", "|---|---|" + "---|" * len(recipes)]
    for gate, (sign, bound) in acceptance.GATES.items():
        values = []
        for recipe in recipes.values():
            value = recipe["acceptance"]["gates"][gate]
            values.append(f"{value:.3f}" + ("" if acceptance.passes(gate, value) else " **missed**"))
        lines.append(f"| {gate} | {sign} {bound:g} | " + " | ".join(values) + " |")
    for subject in (key for key in next(iter(recipes.values()))["acceptance"]["rates"] if ", " in key):
        values = [f"{recipe['acceptance']['rates'][subject]:.3f}" for recipe in recipes.values()]
        lines.append(f"| {subject} | | " + " | ".join(values) + " |")
    return "\n".join(lines)


def build(architecture: str, schedule: Schedule, folder: Path, *, progress: bool = True) -> dict[str, Any]:
    """Pretrain, measure and write one checkpoint; returns its record."""
    tokenizer = build_tokenizer(world_texts(more=schedule.more_wordings))
    model, record = pretrain(architecture, tokenizer, schedule, progress=progress)
    record["acceptance"] = acceptance.accept(model.cpu(), tokenizer)
    write_checkpoint(model, tokenizer, record, folder)
    return record


def build_cues(
    architecture: str, schedule: cues_pretraining.CueSchedule, folder: Path, *, progress: bool = True
) -> dict[str, Any]:
    """The same for the checkpoint of the spurious-cue lessons, with the pecking order of its subjects."""
    tokenizer = build_tokenizer(cues_corpus.world_texts())
    model, record = cues_pretraining.pretrain(architecture, tokenizer, schedule, progress=progress)
    record["acceptance"] = cues_acceptance.accept(model, tokenizer)
    record["pecking_order"] = cues_acceptance.pecking_order(model, tokenizer)
    write_checkpoint(model, tokenizer, record, folder)
    return record


def build_gender(
    schedule: cues_pretraining.GenderSchedule, folder: Path, *, progress: bool = True
) -> dict[str, Any]:
    """The checkpoint of the gender lesson: that of cues beside it, or else the shipped one, goes on."""
    start = folder.parent / CUES
    start = start if start.is_dir() else HOME / CUES
    model, tokenizer = load(start)
    model, record = cues_pretraining.pretrain(CUES, tokenizer, schedule, model=model, progress=progress)
    record["from"] = json.loads((start / CHECKSUMS).read_text())["model.safetensors"]
    record["acceptance"] = cues_acceptance.accept(model, tokenizer)
    record["gender"] = cues_acceptance.stereotype(model, tokenizer)
    write_checkpoint(model, tokenizer, record, folder)
    return record


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("architectures", nargs="*", default=[*SHIPPED, CUES, GENDER])
    parser.add_argument("--seed", type=int, help="default: that of the shipped model")
    parser.add_argument("--tokens", type=float, help="default: as many as the shipped model (not for cues)")
    parser.add_argument(
        "--output", type=Path, default=HOME, help="folder in which a folder for each model is made"
    )
    options = parser.parse_args(argv)
    failed = False
    for architecture in options.architectures:
        seed = {} if options.seed is None else {"seed": options.seed}
        folder = options.output / architecture
        if own_world := architecture == GENDER or architecture.startswith(CUES):
            if architecture == GENDER:
                record = build_gender(cues_pretraining.GenderSchedule(**seed), folder)
            else:
                record = build_cues(architecture, cues_pretraining.CueSchedule(**seed), folder)
        else:
            more = {"tokens": int(options.tokens)} if options.tokens else {}
            record = build(architecture, schedule_of(architecture, **seed, **more), folder)
        print(f"{architecture}: {record['seconds']} s of training, written to {folder}")
        for gate, value in record["acceptance"]["gates"].items():
            sign, bound = (">=", cues_acceptance.GATES[gate]) if own_world else acceptance.GATES[gate]
            ok = value >= bound if own_world else acceptance.passes(gate, value)
            failed |= not ok
            print(f"  {'ok    ' if ok else 'FAILED'} {gate}: {value:.3f} (wanted {sign} {bound})")
    if options.output == HOME:
        put_table(HOME / "README.md", measured_table())
        record = json.loads((HOME / CUES / "recipe.json").read_text())
        put_table(HOME / "README.md", cues_acceptance.measured_table(record), "cues")
        record = json.loads((HOME / GENDER / "recipe.json").read_text())
        put_table(HOME / "README.md", cues_acceptance.gender_table(record), "gender")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
