"""Acceptance gates."""

from __future__ import annotations

from caft_utils.classroom.gates import Gate, gate_report


def test_bounds_belong_to_what_passes():
    assert Gate(">=", 0.95).passes(0.95) and not Gate(">=", 0.95).passes(0.949)
    assert Gate("<=", 0.5).passes(0.5) and not Gate("<=", 0.5).passes(0.501)


def test_a_report_names_what_failed_and_leaves_other_values_out():
    gates = {"a": Gate(">=", 0.9), "b": Gate("<=", 0.1)}
    report = gate_report({"a": 0.95, "b": 0.2, "c": 0.0}, gates)
    assert report == {"gates": {"a": 0.95, "b": 0.2}, "failed": ["b"]}
