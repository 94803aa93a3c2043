"""What every store of a study must do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from assay.architecture import Architecture
from assay.contracts import Estimate, Trial
from assay.cost import Cost
from assay.study.store import Phase, Study

__all__ = ["StudyContract"]

_POINT = Architecture({"body.0": "conv3", "depth": 2, "inputs": (0, 2), "größe": 16})


def _scored(number: int, score: float = 0.1) -> Trial:
    estimate = Estimate(
        score, {"loss": 1 / 3, "worst": float("inf")}, Cost(0.1, 2**40, 2**60, "cuda:0"),
        {"estimator": "fake", "list": [1, None]},
    )  # fmt: skip
    return Trial(
        number, _POINT, "scored", estimate, {"latency_ms": 0.1 + 0.2}, (score, -1 / 3), 0.0, 0, 0.5
    )


class StudyContract:
    """Set `opened` to a function from an empty folder to a new study.

    A study kept in memory may ignore the folder.
    """

    opened: ClassVar[Callable[[Path], Study] | None] = None

    @pytest.fixture
    def study(self, tmp_path: Path) -> Iterator[Study]:
        """Open a new study with a run under way, and close it in the end.

        Raises:
            NotImplementedError: the subclass has not set `opened`.
        """
        opened = type(self).opened
        if opened is None:
            raise NotImplementedError(f"{type(self).__name__} tests nothing; set opened = ...")
        with opened(tmp_path / "study") as study:
            study.begin_session({"assay": "1"})
            yield study

    def test_a_new_study_is_empty(self, study: Study) -> None:
        """Read everything of a study in which nothing has happened."""
        assert study.trials() == []
        assert study.measurements() == []
        assert study.failures() == []
        assert study.finalists() == []
        assert study.finalist("any") is None
        assert study.get("any") is None
        assert study.ledger() == {}
        assert study.lost_s == 0.0
        assert study.phase("search") == Phase("search", "pending", {}, 0, {})
        assert [s["versions"] for s in study.sessions()] == [{"assay": "1"}]

    def test_a_trial_comes_back_as_it_was(self, study: Study) -> None:
        """Write a trial of each state, out of order; every bit of it is read again."""
        trials = [
            _scored(0),
            Trial(1, _POINT, "infeasible", measured={"macs": 1e9}, violation=1e-17),
            Trial(2, _POINT, "failed", error="Traceback ...\nValueError: 'quoted' {x} ü"),
            Trial(3, Architecture({}), "running", parent=1, fidelity=1 / 3),
        ]
        study.record_all(trials[:1:-1])
        study.record_all(trials[:2])
        assert study.trials() == trials

    def test_a_trial_that_ends_replaces_what_it_was(self, study: Study) -> None:
        """Write a running trial, then its end, then the end again."""
        study.record(Trial(0, _POINT))
        study.record(_scored(0, 0.25), {"score": Cost(0.5)})
        study.record(_scored(0, 0.75), {"score": Cost(0.25)})
        assert study.trials() == [_scored(0, 0.75)]
        assert study.ledger() == {"score": Cost(0.75)}

    def test_a_failure_is_kept_with_its_trial_or_alone(self, study: Study) -> None:
        """Write failed trials with and without a step to blame, and a failure without trial."""
        study.record_all([Trial(0, _POINT, "failed", error="no step")])
        failed = Trial(2, _POINT, "failed", error="Traceback\n  x\nOops: y\n")
        study.record_all([_scored(1), failed], failed_in="score")
        study.add_failure("train", None, "NotFinite: z", "Traceback\nNotFinite: z")
        assert [(f.phase, f.trial, f.error, f.traceback) for f in study.failures()] == [
            ("score", 2, "Oops: y", "Traceback\n  x\nOops: y\n"),
            ("train", None, "NotFinite: z", "Traceback\nNotFinite: z"),
        ]

    def test_what_cannot_be_written_whole_is_not_written(self, study: Study) -> None:
        """Write trials with a cost that no row can hold: nothing of all that is there."""
        study.record(_scored(0), {"score": Cost(1.0)})
        before = study.trials(), study.ledger()
        unheard_of = Cost(1.0, device=None)  # type: ignore[arg-type]
        with pytest.raises(Exception, match="device"):
            study.record_all([_scored(0, 9.0), _scored(1)], {"score": unheard_of})
        assert (study.trials(), study.ledger()) == before
        with pytest.raises(TypeError, match="cannot be kept as JSON"):
            study.record(Trial(1, _POINT, "scored", Estimate(0.0, made_from={"f": len})))
        assert (study.trials(), study.ledger()) == before

    def test_counts_are_planned_once(self, study: Study) -> None:
        """Plan a step, and plan it again: the first counts are obeyed."""
        assert study.plan("train", {"steps": 300}) == {"steps": 300}
        assert study.plan("train", {"steps": 7}) == {"steps": 300}
        assert study.phase("train") == Phase("train", "running", {"steps": 300}, 0, {})
        assert study.phase("search").state == "pending"

    def test_a_checkpoint_books_progress_place_and_cost(self, study: Study) -> None:
        """Write checkpoints with and without a new place to go on from."""
        study.checkpoint("train", done=10, cost=Cost(1.0, 320), pointer={"file": "a"})
        study.checkpoint("train", done=20, cost=Cost(0.5, 320, 7, "cpu"))
        assert study.phase("train") == Phase("train", "running", {}, 20, {"file": "a"})
        assert study.ledger() == {"train": Cost(1.5, 640, 7, "cpu")}
        study.finish("train")
        study.checkpoint("train", done=20, cost=Cost())
        assert study.phase("train").state == "done"

    def test_the_ledger_adds_up_by_step(self, study: Study) -> None:
        """Book costs of several steps in turn; sums of integers are exact."""
        for i in range(10):
            study.book("search", Cost(0.25))
            study.record(_scored(i), {"search": Cost(0.5), "score": Cost(1.0, 3, 2**58, "cpu")})
        assert list(study.ledger()) == ["search", "score"]
        assert study.ledger()["search"] == Cost(7.5)
        assert study.ledger()["score"] == Cost(10.0, 30, 10 * 2**58, "cpu")

    def test_the_ledger_adds_up_beyond_what_a_column_holds(self, study: Study) -> None:
        """Book counts whose sum has more than 64 bits, and one that has more by itself."""
        for _ in range(3):
            study.book("train", Cost(0.0, 2**62 + 1, 2**63 - 1))
        study.book("score", Cost(0.0, 5, 2**63 + 7))
        assert study.ledger()["train"] == Cost(0.0, 3 * 2**62 + 3, 3 * 2**63 - 3)
        assert study.ledger()["score"] == Cost(0.0, 5, 2**63 - 1)

    def test_measurements_are_found_by_quantity_and_source(self, study: Study) -> None:
        """Write figures of two quantities and sources."""
        point = _POINT.to_json()
        study.add_measurement(point, "latency_ms", 0.1, source="table")
        study.add_measurement(point, "latency_ms", 0.2, source="measured", trial=3,
                              detail={"p90_ms": 0.3})  # fmt: skip
        study.add_measurement(None, "macs", 5.0, source="counted")
        found = study.measurements("latency_ms", "measured")
        assert [(r.architecture, r.trial, r.value, r.detail) for r in found] == [
            (point, 3, 0.2, '{"p90_ms": 0.3}')
        ]
        assert [r.value for r in study.measurements("latency_ms")] == [0.1, 0.2]
        assert [r.value for r in study.measurements(source="counted")] == [5.0]
        assert len(study.measurements()) == 3

    def test_a_finalist_is_replaced_by_its_progress(self, study: Study) -> None:
        """Write a finalist twice, and another."""
        about: dict[str, Any] = {"seed": 2**40, "architecture": _POINT.to_json()}
        study.save_finalist("b", **about, state="running", metrics={}, weights="w1", steps=1,
                            trial=4, cost=Cost(1.0))  # fmt: skip
        study.save_finalist("b", **about, state="done", metrics={"valid": 0.5}, weights="w2",
                            steps=2, trial=4, cost=Cost(2.0))  # fmt: skip
        study.save_finalist("a", **about, state="failed", metrics={}, weights="", steps=0)
        done = {"key": "b", "trial": 4, **about, "state": "done", "metrics": {"valid": 0.5},
                "weights": "w2", "steps": 2}  # fmt: skip
        assert study.finalist("b") == done
        assert [row["key"] for row in study.finalists()] == ["a", "b"]
        assert study.ledger() == {"finalists": Cost(3.0)}

    def test_a_document_is_replaced_by_the_next(self, study: Study) -> None:
        """Keep JSON values under keys."""
        study.put("limits", {"latency_ms": 0.1 + 0.2})
        study.put("winner", None)
        study.put("limits", {"latency_ms": [1, "ü"]})
        assert study.get("limits") == {"latency_ms": [1, "ü"]}
        assert study.get("winner") is None

    def test_a_run_that_ends_is_told_from_one_that_does_not(self, study: Study) -> None:
        """End a run and begin another one."""
        study.end_session()
        study.begin_session({"assay": "2"})
        first, second = study.sessions()
        assert first["started"] <= first["heartbeat"] == first["ended"] <= second["started"]
        assert second["ended"] is None
        assert second["versions"] == {"assay": "2"}
        assert study.lost_s == 0.0

    def test_what_a_run_did_not_book_is_lost_once(self, study: Study) -> None:
        """Break runs off: the next one books what they did not, and never less than nothing."""
        study.book("train", Cost(1e-9))
        study.begin_session({})
        first = study.sessions()[0]
        lost_s = first["heartbeat"] - first["started"] - 1e-9
        assert study.lost_s == pytest.approx(lost_s, abs=1e-9)
        study.book("train", Cost(1000.0))
        study.begin_session({})
        study.end_session()
        study.begin_session({})
        assert study.lost_s == pytest.approx(lost_s, abs=1e-9)
        assert study.ledger()["train"].wall_s == pytest.approx(1000.0)
