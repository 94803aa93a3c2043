from __future__ import annotations

from assay.cost import Cost
from assay.report import tables


def test_comparison_puts_known_metrics_first_and_marks_what_is_missing() -> None:
    table = tables.comparison(
        [
            {"name": "winner", "metrics": {"zeal": 1, "macs": 2_000_000, "test_accuracy": 0.5}},
            {"name": "random", "metrics": {"latency_ms": 0.25, "valid_accuracy": 0.9}},
        ],
        {},
    )
    assert table.head == ["network", "test accuracy", "latency", "MACs", "zeal"]
    assert table.rows == [
        ["winner", "50.00 %", "–", "2.00 M", "1"],
        ["random", "–", "0.250 ms", "–", "–"],
    ]
    assert table.numbers == {1, 2, 3, 4}


def test_comparison_shows_validation_where_nothing_was_tested() -> None:
    rows = [{"name": "winner", "metrics": {"valid_accuracy": 0.9, "macs": 5}}]
    table = tables.comparison(rows, {})
    assert table.head == ["network", "validation accuracy", "MACs"]
    assert table.rows == [["winner", "90.00 %", "5"]]


def test_comparison_marks_what_is_over_a_limit_and_what_is_the_winner_again() -> None:
    rows = [
        {"name": "winner", "architecture": {"a": 1}, "metrics": {"macs": 5}},
        {"name": "largest", "architecture": {"a": 2}, "metrics": {"macs": 6}},
        {"name": "smallest", "architecture": {"a": 0}, "metrics": {"macs": 1}},
        {"name": "random", "architecture": {"a": 1}, "metrics": {"macs": 5}},
    ]
    first = [row[0] for row in tables.comparison(rows, {"macs": 5, "of_the_user": 1}).rows]
    assert first == [
        "winner", "largest (over the limit)", "smallest", "random (the winner's architecture)",
    ]  # fmt: skip
    assert tables.comparison([], {"macs": 5}).rows == []


def test_finalists_name_the_winner() -> None:
    rows = [
        {"trial": 7, "seed": 0, "state": "done", "metrics": {"loss": 0.5, "training_s": 9.0}},
        {"trial": 9, "seed": 0, "state": "dropped", "metrics": None},
    ]
    table = tables.finalists(rows, 7)
    assert table.head == ["finalist", "seed", "state", "validation loss", "training"]
    assert table.rows == [
        ["trial 7 (winner)", "0", "done", "0.500", "9.0 s"],
        ["trial 9", "0", "dropped", "–", "–"],
    ]


def test_the_ledger_adds_up() -> None:
    table = tables.ledger(
        {"search": Cost(30.0), "train finalists": Cost(60.0, 1000, 5_000_000, "cpu")}, 10.0
    )
    assert table.rows == [
        ["search", "30 s", "30 %", "–", "–", "–"],
        ["train finalists", "1 min", "60 %", "1.00 k", "5.00 M", "cpu"],
        ["lost to kills", "10 s", "10 %", "–", "–", "–"],
        ["all", "1 min 40 s", "100 %", "1.00 k", "5.00 M", "cpu"],
    ]
    assert len(tables.ledger({"search": Cost(30.0)}, 0.0).rows) == 2


def test_settings_are_flattened_and_keep_what_is_empty() -> None:
    settings = {"a": {"b": {"c": 1}, "d": [1, "x"]}, "e": None, "f": {}, "g": True, "h": [{"i": 2}]}
    assert tables.flatten(settings) == [
        ("a.b.c", "1"),
        ("a.d", "1, x"),
        ("e", "none"),
        ("f", "none"),
        ("g", "yes"),
        ("h", "i=2"),
    ]


def test_of_a_long_list_among_the_settings_the_first_are_shown() -> None:
    ((_, text),) = tables.flatten({"mean": list(range(1000, 3000))})
    assert text.startswith("1000, 1001, ")
    assert text.endswith(", 1063, and 1,936 more")


def test_sessions_say_when_how_long_how_they_ended_and_what_was_new() -> None:
    runs = [
        {"id": 1, "started": 0.0, "heartbeat": 61.0, "ended": None, "versions": {"torch": "1"}},
        {"id": 2, "started": 86400.0, "heartbeat": 86401.0, "ended": 86402.0,
         "versions": {"torch": "2"}},
        {"id": 3, "started": 90000.0, "heartbeat": 1.0, "ended": 90001.0,
         "versions": {"torch": "2"}},
    ]  # fmt: skip
    assert tables.sessions(runs).rows == [
        ["run 1", "1970-01-01 00:00:00 UTC", "1 min 1 s", "cut short, or still running",
         "1 recorded"],
        ["run 2", "1970-01-02 00:00:00 UTC", "2.0 s", "cleanly", "torch 2"],
        ["run 3", "1970-01-02 01:00:00 UTC", "1.0 s", "cleanly", "as before"],
    ]  # fmt: skip


def test_decisions_show_what_the_winner_took_and_cut_long_lists() -> None:
    table = tables.decisions({"a": ["x", "y"], "b": [1, 2], "c": ["0123456789"] * 40}, {"a": "y"})
    assert table.rows[:2] == [["a", "y", "x, y"], ["b", "not taken", "1, 2"]]
    assert table.rows[2][2].endswith("… (40 in all)")
    assert len(table.rows[2][2]) == 173


def test_decisions_before_there_is_a_winner_have_no_column_for_it() -> None:
    table = tables.decisions({"a": ["x", "y"]}, None)
    assert (table.head, table.rows) == (["decision", "options"], [["a", "x, y"]])


def test_handover_says_how_exactly_the_files_repeat_and_what_was_refused() -> None:
    made = {
        "files": ["model.pt2"], "onnx_max_difference": None, "pt2_max_difference": 0.0,
        "refused": {"model.onnx": "no rule"},
        "onnx_timed": {"batch": 2, "file_ms": 0.25, "measured_ms": 0.125, "open_ms": None},
    }  # fmt: skip
    assert tables.handover(made).rows == [
        ["files", "model.pt2"],
        ["onnx against torch", "not compared"],
        ["pt2 against torch", "differs by at most 0"],
        ["model.onnx, timed", "0.250 ms at batch 2; the graph that was measured: 0.125 ms"],
        ["model.onnx, refused", "no rule"],
    ]
