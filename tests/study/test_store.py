"""Memory and SQLite are one; what a record takes does not grow."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from assay.architecture import Architecture
from assay.contracts import Estimate, Trial
from assay.cost import Cost
from assay.errors import Unwritable
from assay.study.rows import to_json
from assay.study.store import Study

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
FLOATS = st.floats(allow_nan=False)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
COSTS = st.builds(Cost, st.floats(0, 1e6), st.integers(0, 2**40), st.integers(0, 2**50), TEXT)
POINTS = st.dictionaries(TEXT, TEXT | st.integers(0, 99), max_size=3).map(Architecture)
METRICS = st.dictionaries(TEXT, FLOATS, max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
STEPS = st.sampled_from(["train", "search", "score"])


@st.composite
def trials(draw):
    state = draw(st.sampled_from(["running", "scored", "infeasible", "failed"]))
    scored = st.builds(Estimate, FLOATS, METRICS, COSTS, st.dictionaries(TEXT, JSON, max_size=2))
    return Trial(
        draw(st.integers(0, 5)), draw(POINTS), state,
        estimate=draw(scored) if state == "scored" else None, measured=draw(METRICS),
        objectives=tuple(draw(st.lists(FLOATS, max_size=3))) if state == "scored" else (),
        violation=draw(st.floats(0, 1e9)), parent=draw(st.none() | st.integers(0, 9)),
        fidelity=draw(st.floats(0.01, 1.0)), error=draw(TEXT) if state == "failed" else None,
    )  # fmt: skip


OPERATIONS = st.one_of(
    st.tuples(st.just("record"), trials(), st.dictionaries(STEPS, COSTS, max_size=2)),
    st.tuples(st.just("plan"), STEPS, st.dictionaries(TEXT, st.integers(1, 9), max_size=2)),
    st.builds(
        lambda name, done, cost, pointer: ("checkpoint", name, done, cost, pointer),
        STEPS, st.integers(0, 9), COSTS, st.none() | st.dictionaries(TEXT, JSON, max_size=2),
    ),
    st.tuples(st.just("finish"), STEPS),
    st.tuples(st.just("put"), TEXT, JSON),
    st.tuples(st.just("add_failure"), STEPS, st.none() | st.integers(0, 9), TEXT, TEXT),
    st.tuples(st.just("add_measurement"), st.none() | TEXT, TEXT, FLOATS),
    st.tuples(st.just("save_finalist"), TEXT, METRICS, st.none() | COSTS),
    st.tuples(st.just("book"), STEPS, COSTS),
)  # fmt: skip


def do(study: Study, name: str, *args):
    """Do an operation; return what it returns."""
    if name == "checkpoint":
        step, done, cost, pointer = args
        return study.checkpoint(step, done=done, cost=cost, pointer=pointer)
    if name == "add_measurement":
        return study.add_measurement(*args, source="table", detail={"é": [1]})
    if name == "save_finalist":
        key, metrics, cost = args
        return study.save_finalist(
            key, seed=1, architecture="{}", state="done", metrics=metrics, weights="w", steps=2,
            cost=cost,
        )  # fmt: skip
    return getattr(study, name)(*args)


def everything(study: Study, keys: set[str]) -> dict:
    """Read all there is."""
    return {
        "trials": study.trials(),
        "phases": [study.phase(name) for name in ("train", "search", "score")],
        "documents": {key: study.get(key) for key in keys},
        "failures": [tuple(r) for r in study.failures()],
        "measurements": [tuple(r) for r in study.measurements()],
        "finalists": study.finalists(),
        "ledger": study.ledger(),
        "lost": study.lost_s,
        "identity": study.identity,
    }


@settings(max_examples=30)
@given(operations=st.lists(OPERATIONS, max_size=12))
def test_memory_and_sqlite_are_one_and_reopening_changes_nothing(tmp_path_factory, operations):
    out = tmp_path_factory.mktemp("same") / "s"
    keys = {args[0] for name, *args in operations if name == "put"}
    with Study.open(None, identity={"a": 1}) as memory, Study.open(out, identity={"a": 1}) as file:
        for operation in operations:
            assert do(memory, *operation) == do(file, *operation)
        told = everything(memory, keys)
        assert everything(file, keys) == told
    with Study.read(out) as file:
        assert everything(file, keys) == told


@settings(max_examples=30)
@given(trials(), st.dictionaries(STEPS, COSTS, max_size=2))
def test_what_was_written_last_is_what_is_there(trial, costs):
    with Study.open(None, identity={}) as study:
        study.record(Trial(trial.number, trial.architecture))
        study.record(trial, costs)
        assert study.trials() == [trial]
        assert study.ledger() == costs


def test_numbers_of_numpy_are_kept_as_plain_ones():
    import numpy as np

    trial = Trial(
        0, Architecture({"a": 1}), "scored", Estimate(np.float32(0.5), {"x": np.float32(0.25)}),
        {"macs": np.int64(7)}, (np.float64(0.5),), np.float64(0.0),
    )  # fmt: skip
    with Study.open(None, identity={"seed": np.int64(3)}) as study:
        study.record(trial)
        assert study.trials() == [trial]
        assert study.identity == {"seed": 3}
    assert to_json(np.nan) == "NaN"
    with pytest.raises(TypeError, match="of type set cannot be kept as JSON"):
        to_json({"a": {1}})


def test_what_is_not_a_number_is_no_score_but_may_be_a_metric():
    trial = Trial(0, Architecture({}), "scored", Estimate(0.0, {"x": math.nan}), {"y": math.inf})
    with Study.open(None, identity={}) as study:
        study.record(trial)
        (found,) = study.trials()
        assert math.isnan(found.estimate.metrics["x"])
        assert found.measured == {"y": math.inf}


def test_a_record_takes_the_same_few_statements_however_long_the_study(tmp_path):
    point = Architecture({"a": "x"})
    counts: list[Counter[str]] = []
    with Study.open(tmp_path, identity={}) as study:

        def count(connection, cursor, statement, parameters, context, many):
            counts[-1][statement.split("(")[0].strip()] += 1

        event.listen(study._engine, "before_cursor_execute", count)
        for start in (0, 500):
            for number in range(start, start + 500):
                counts.append(Counter())
                study.record(
                    Trial(number, point, "scored", Estimate(0.5)),
                    {"search": Cost(), "score": Cost()},
                )
        assert counts[0] == counts[-1]
        assert sum(counts[0].values()) == 3
        plan = study._engine.connect().exec_driver_sql(
            "EXPLAIN QUERY PLAN SELECT sum(wall_s) FROM costs WHERE session = 1"
        )
        assert "USING INDEX costs_by_session" in str(plan.all())


def test_a_full_database_is_told_and_takes_nothing_of_what_was_written():
    with Study.open(None, identity={}) as study:
        with study._engine.connect() as connection:
            (pages,) = connection.exec_driver_sql("PRAGMA page_count").one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        with pytest.raises(Unwritable, match=r"cannot be written \(.* is full\); make room for it"):
            study.put("large", "x" * 2**20)
        assert study.get("large") is None
