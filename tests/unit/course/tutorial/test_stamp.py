"""Recording: outputs of a run in the committed notebook, and the stamp of its code."""

from __future__ import annotations

import json

import nbformat

from caft_utils.course.records import save_record
from caft_utils.course.tutorial import stamp
from caft_utils.course.tutorial.stamp import code_sha256, record_hashes, stale_reasons


def test_recording_keeps_outputs_and_nothing_of_the_machine(tmp_path, run, write, figure):
    path = write(
        "00_toy",
        "from pathlib import Path\nprint('10%\\r90%\\rdone', Path.home() / 'x')",
        figure(),
    )
    assert stale_reasons(path)  # not recorded yet
    assert run("--record") == 0
    text = path.read_text()
    notebook = nbformat.reads(text, as_version=4)
    assert notebook.cells[2].outputs[0].text == "done ~/x\n"
    assert set(notebook.cells[3].outputs[0].data) == {"application/vnd.plotly.v1+json", "image/png"}
    assert notebook.metadata.caft == {"minutes": 0.1, "sources": code_sha256(notebook), "records": {}}
    assert "papermill" not in text and str(tmp_path) not in text
    assert run("--check") == 0


def test_a_changed_cell_or_a_missing_picture_is_out_of_step(tmp_path, run, write, figure):
    path = write("00_toy", "print('hello')", figure())
    assert run("--record") == 0
    recorded = json.loads(path.read_text())
    for change, word in (
        (lambda cells: cells[2].update(source="print('hallo')"), "changed"),
        (lambda cells: cells[2].update(execution_count=None), "top to bottom"),
        (lambda cells: cells[3]["outputs"][0]["data"].pop("image/png"), "static image"),
        (
            lambda cells: cells[2].update(
                outputs=[{"output_type": "error", "ename": "E", "evalue": "", "traceback": []}]
            ),
            "error",
        ),
        (
            lambda cells: cells[2].update(
                outputs=[{"output_type": "stream", "name": "stderr", "text": ["Traceback (most recent\n"]}]
            ),
            "traceback",
        ),
    ):
        changed = json.loads(json.dumps(recorded))
        change(changed["cells"])
        path.write_text(json.dumps(changed))
        assert word in "; ".join(stale_reasons(path))
        assert run("--check") == 1


def test_a_changed_record_is_out_of_step(tmp_path, run, write, monkeypatch):
    def save(rate: float) -> None:
        save_record(
            "toy", [{"model": "m", "condition": "c", "rate": [rate, 0, 1]}], seconds=1, folder=tmp_path
        )

    monkeypatch.setattr(stamp, "FOLDER", tmp_path)
    code = "def load_record(name):\n    return name\n\nprint(load_record('toy'), load_record('unknown'))"
    path = write("00_toy", code, "print('other')")
    save(0.5)
    other = save_record("other", [{"model": "m", "condition": "c"}], seconds=1, folder=tmp_path)
    assert run("--record") == 0
    notebook = nbformat.read(path, as_version=4)
    assert list(notebook.metadata.caft.records) == ["toy"]  # "other" stands in a cell that reads no record
    save(0.5)  # measured again with the same result, at another time
    other.unlink()
    assert stale_reasons(path) == []
    save(0.6)
    assert "toy.json changed" in "; ".join(stale_reasons(path))
    assert record_hashes(notebook) != notebook.metadata.caft.records
    del notebook.metadata.caft["records"]
    nbformat.write(notebook, path)
    assert "toy.json changed" in "; ".join(stale_reasons(path))
