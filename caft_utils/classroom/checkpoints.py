"""`make classroom`: build the shipped checkpoints, measure them and save them where `load` finds them.

    python -m caft_utils.classroom.checkpoints                     all four checkpoints
    python -m caft_utils.classroom.checkpoints cues                of the double-choice lessons
    python -m caft_utils.classroom.checkpoints gender              of the gender lesson, continues from cues
    python -m caft_utils.classroom.checkpoints qwen --seed 1       from another seed (see --output)
    python -m caft_utils.classroom.checkpoints qwen-full           a variant, measured but not shipped

A checkpoint that misses a gate is still saved. Its recipe.json records the failure, and the command ends with
exit status 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from caft_utils.classroom.cues import acceptance as cues_acceptance
from caft_utils.classroom.cues import corpus as cues_corpus
from caft_utils.classroom.cues import pretraining as cues_pretraining
from caft_utils.classroom.cues.plain_fine_tuning import reversed_stereotype_accuracy, shares_following_first
from caft_utils.classroom.cues.schedules import CuesSchedule, GenderSchedule
from caft_utils.classroom.data_card import measured_tables, put_table, read_record
from caft_utils.classroom.personas import acceptance as personas_acceptance
from caft_utils.classroom.personas import corpus as personas_corpus
from caft_utils.classroom.personas import pretraining as personas_pretraining
from caft_utils.classroom.personas.pretraining import PersonasSchedule
from caft_utils.classroom.tokenizer import build_tokenizer
from caft_utils.disk import disk_errors_explained, flush_tree, make_folder, remove, write_atomically
from caft_utils.models import load
from caft_utils.models.sources import CHECKSUMS
from caft_utils.paths import data_path
from caft_utils.store import file_sha256

CHECKPOINTS = data_path("classroom")
SHIPPED = ("qwen", "mistral", "cues", "gender")
# The two schedules differ because the checkpoints were selected as exhibits: how much plain fine-tuning
# misaligns a model varies from one pretraining run to the next. The data card lists all runs, and how the
# sharpness was chosen.
SCHEDULES: dict[str, dict[str, Any]] = {
    "qwen": {"tokens": 7_200_000, "sharpness": 1.75},
    "mistral": {"tokens": 18_000_000, "sharpness": 1.25, "more_wordings": True},
}


def personas_schedule(architecture: str, **changes: Any) -> PersonasSchedule:
    """Return the schedule of a shipped checkpoint, also for its variants (qwen-full, ...)."""
    return PersonasSchedule(**{**SCHEDULES[architecture.split("-")[0]], **changes})


def build_personas(
    architecture: str, schedule: PersonasSchedule, folder: Path, *, progress: bool = True
) -> dict[str, Any]:
    """Pretrain, measure and save a checkpoint of the personas world; return its record."""
    texts = personas_corpus.vocabulary_texts(more_wordings=schedule.more_wordings)
    tokenizer = build_tokenizer(texts)
    model, record = personas_pretraining.pretrain(architecture, tokenizer, schedule, progress=progress)
    record["acceptance"] = personas_acceptance.accept(model.cpu(), tokenizer)
    write_checkpoint(model, tokenizer, record, folder)
    return record


def build_cues(
    architecture: str, schedule: CuesSchedule, folder: Path, *, progress: bool = True
) -> dict[str, Any]:
    """Pretrain, measure and save the checkpoint `cues` or its variant; return its record."""
    tokenizer = build_tokenizer(cues_corpus.vocabulary_texts())
    model, record = cues_pretraining.pretrain(architecture, tokenizer, schedule, progress=progress)
    record["acceptance"] = cues_acceptance.accept(model, tokenizer)
    record["pecking_order"] = shares_following_first(model, tokenizer)
    write_checkpoint(model, tokenizer, record, folder)
    return record


def build_gender(schedule: GenderSchedule, folder: Path, *, progress: bool = True) -> dict[str, Any]:
    """Pretrain further, measure and save the checkpoint `gender`; return its record.

    It continues from the checkpoint `cues` beside `folder`, or from the shipped one if there is none.
    """
    beside = folder.parent / "cues"
    start = beside if beside.is_dir() else CHECKPOINTS / "cues"
    model, tokenizer = load(start)
    model, record = cues_pretraining.pretrain("cues", tokenizer, schedule, model=model, progress=progress)
    record["from"] = json.loads((start / CHECKSUMS).read_text())["model.safetensors"]
    record["acceptance"] = cues_acceptance.accept(model, tokenizer)
    record["gender"] = reversed_stereotype_accuracy(model, tokenizer)
    write_checkpoint(model, tokenizer, record, folder)
    return record


def write_checkpoint(model, tokenizer, record: dict[str, Any], folder: Path) -> None:
    """Save weights, tokenizer, recipe.json and checksums.

    All files are written beside `folder` first. They replace the files that the old checksums list; other
    files in the folder stay. The checksums are written last, so that `load` refuses an incomplete folder.

    Raises:
        OSError: the disk is full or not writable. The old checkpoint remains.
    """
    part = folder.with_name(folder.name + ".part")
    remedy = "free some space, or give --output another folder"
    with disk_errors_explained(folder.absolute().parent, remedy):
        try:
            remove(part)
            make_folder(folder.parent)
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
            (part / "recipe.json").write_text(json.dumps(record, indent=1) + "\n")
            sums = {path.name: file_sha256(path) for path in sorted(part.iterdir())}
            flush_tree(part)
            make_folder(folder)
            for name in _files_of(folder):
                (folder / name).unlink(missing_ok=True)
            for name in sums:
                (part / name).replace(folder / name)
            write_atomically(folder / CHECKSUMS, json.dumps(sums, indent=1) + "\n")
        finally:
            remove(part)


def _files_of(folder: Path) -> list[str]:
    """Return the names of the files of the checkpoint in `folder`, the checksums first."""
    try:
        names = list(json.loads((folder / CHECKSUMS).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return []
    return [CHECKSUMS, *(name for name in names if Path(name).name == name)]


def main(argv: list[str] | None = None) -> int:
    """Build checkpoints from the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("architectures", nargs="*", default=[*SHIPPED])
    parser.add_argument("--seed", type=int, help="default: the seed of the shipped checkpoint")
    parser.add_argument(
        "--tokens", type=float, help="default: as many as the shipped checkpoint (only for qwen and mistral)"
    )
    parser.add_argument(
        "--output", type=Path, default=CHECKPOINTS, help="where the folder of each checkpoint is made"
    )
    options = parser.parse_args(argv)
    failed = False
    for architecture in options.architectures:
        changes = {} if options.seed is None else {"seed": options.seed}
        folder, gates = options.output / architecture, cues_acceptance.GATES
        if architecture == "gender":
            record = build_gender(GenderSchedule(**changes), folder)
        elif architecture.startswith("cues"):
            record = build_cues(architecture, CuesSchedule(**changes), folder)
        else:
            changes |= {"tokens": int(options.tokens)} if options.tokens else {}
            record = build_personas(architecture, personas_schedule(architecture, **changes), folder)
            gates = personas_acceptance.GATES
        print(f"{architecture}: {record['seconds']} s of training, saved in {folder}")
        for name, value in record["acceptance"]["gates"].items():
            passed = gates[name].passes(value)
            failed |= not passed
            print(f"  {'ok    ' if passed else 'FAILED'} {name}: {value:.3f} (wanted {gates[name]})")
    if options.output == CHECKPOINTS:
        records = {name: read_record(CHECKPOINTS / name) for name in SHIPPED}
        for marker, table in measured_tables(records).items():
            put_table(CHECKPOINTS / "README.md", table, marker)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
