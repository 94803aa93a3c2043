"""What every executor must do."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from assay.contracts import Executor, Job
from assay.testing.plug import Plug, made

__all__ = ["ExecutorContract"]


def _seven() -> int:
    return 7


def _failing() -> int:
    raise ValueError("made to fail")


class ExecutorContract:
    """Set `executor` to the class, or to a function without arguments that makes one."""

    executor: ClassVar[Plug | None] = None

    def new(self) -> Executor:
        """Make a fresh executor."""
        executor: Executor = made(self, "executor")
        return executor

    def test_it_tells_how_many_jobs_run_at_once(self) -> None:
        """Ask; it is a positive number."""
        assert self.new().at_once >= 1

    def test_every_job_is_yielded_once_with_its_value(self) -> None:
        """Gather three jobs."""
        executor = self.new()
        jobs = [executor.submit(_seven) for _ in range(3)]
        ended = list(executor.gather(jobs))
        assert {id(j) for j in ended} == {id(j) for j in jobs}
        assert len(ended) == 3
        assert [j.result() for j in jobs] == [7, 7, 7]
        assert all(j.done and j.error is None for j in jobs)

    def test_nothing_is_gathered_from_nothing(self) -> None:
        """Gather no job."""
        assert list(self.new().gather([])) == []

    def test_work_may_close_over_whatever_it_needs(self) -> None:
        """Gather a function made on the spot, over a network."""
        network, x = torch.nn.Linear(3, 2), torch.ones(4, 3)
        executor = self.new()
        job = executor.submit(lambda: network(x).detach())
        list(executor.gather([job]))
        assert torch.allclose(job.result(), network(x))

    def test_work_in_place_changes_what_it_closes_over(self) -> None:
        """Gather a job in place among others; no other job is promised to change anything here."""
        executor = self.new()
        changed: list[int] = []
        change = executor.submit(lambda: changed.append(7), in_place=True)
        jobs: list[Job[Any]] = [executor.submit(_seven), change]
        assert {id(job) for job in executor.gather(jobs)} == {id(job) for job in jobs}
        assert changed == [7]

    def test_an_error_is_its_own_jobs_and_no_others(self) -> None:
        """Gather a job that raises among others; its result raises the same."""
        executor = self.new()
        good, bad, last = (executor.submit(w) for w in (_seven, _failing, _seven))
        assert len(list(executor.gather([good, bad, last]))) == 3
        assert (good.result(), last.result()) == (7, 7)
        with pytest.raises(ValueError, match="made to fail"):
            bad.result()

    def test_a_cancelled_job_is_left_out(self) -> None:
        """Cancel a job before it is gathered; it may have run, but is not yielded."""
        executor = self.new()
        kept, taken_back = executor.submit(_seven), executor.submit(_seven)
        executor.cancel(taken_back)
        ended = list(executor.gather([kept, taken_back]))
        assert [j for j in ended if j is not taken_back] == [kept]
        assert (taken_back in ended) == (not taken_back.cancelled)

    def test_a_job_that_has_ended_stays_as_it_is(self) -> None:
        """Cancel too late, and gather again: the result is still there and nothing runs twice."""
        executor = self.new()
        job = executor.submit(_seven)
        list(executor.gather([job]))
        executor.cancel(job)
        assert not job.cancelled
        assert [j.result() for j in executor.gather([job])] == [7]
