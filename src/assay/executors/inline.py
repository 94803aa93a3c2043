"""Everything in this process, one job after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from assay.contracts import Job

__all__ = ["Inline"]

T = TypeVar("T")


@dataclass(frozen=True)
class Inline:
    """Runs a job when it is gathered; one that was cancelled before never runs."""

    @property
    def at_once(self) -> int:
        """Return 1."""
        return 1

    def submit(self, work: Callable[[], T], *, in_place: bool = False) -> Job[T]:
        """Take a piece of work; nothing runs yet."""
        return Job(work, in_place)

    def gather(self, jobs: Sequence[Job[Any]]) -> Iterator[Job[Any]]:
        """Run the jobs in order and yield each as it ends; `result` raises what it raised.

        An interruption by the user is not a job's error: it is raised here.
        """
        for job in jobs:
            if job.cancelled:
                continue
            if not job.done:
                try:
                    job.end(job.work())
                except Exception as error:  # the job's own, kept for whoever asks for its result
                    job.end(error=error)
            yield job

    def cancel(self, job: Job[Any]) -> None:
        """Take back a job that has not run."""
        if not job.done:
            job.cancelled = True
