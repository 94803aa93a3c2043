from __future__ import annotations

from assay.cost import Cost
from assay.report import tables


def test_comparison_puts_known_metrics_first_and_marks_what_is_missing() -> None:
    table = tables.comparison(
        [
            {"name": "winner", "metrics": {"zeal": 1, "macs": 2_000_000, "test_accuracy": 0.5}},
            {"name": "random", "metrics": {"latency_ms": 0.25}},
        ]
    )
    assert table.head == ["network", "test accuracy", "latency", "MACs", "zeal"]
    assert table.rows == [
        ["winner", "50.00 %", "–", "2.00 M", "1"],
        ["random", "–", "0.250 ms", "–", "–"],
    ]
    assert table.numbers == {1, 2, 3, 4}


def test_finalists_name_the_winner() -> None:
    rows = [
        {"trial": 7, "seed": 0, "state": "done", "metrics": {"valid_loss": 0.5}},
        {"trial": 9, "seed": 0, "state": "dropped", "metrics": None},
    ]
    table = tables.finalists(rows, 7)
    assert table.head == ["finalist", "seed", "state", "validation loss"]
    assert table.rows == [
        ["trial 7 (winner)", "0", "done", "0.500"],
        ["trial 9", "0", "dropped", "–"],
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


def test_rows_of_unknown_columns_are_all_shown() -> None:
    table = tables.plain([{"pid": 12, "wall_s": 61.0}, {"pid": 13, "ended": {"by": "kill"}}])
    assert table.head == ["pid", "wall", "ended"]
    assert table.rows == [["12", "1 min 1 s", "–"], ["13", "–", "by=kill"]]
