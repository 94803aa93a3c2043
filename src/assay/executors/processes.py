"""Several jobs at once, each in a process of its own with its own threads.

A process forked after a library has started OpenMP threads has their locks but not the threads,
and hangs in its first parallel loop; torch starts them at its first convolution. So workers are
started anew: by loky, which also sends functions made on the spot and needs no `__main__` guard.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import loky
import torch
from loky.backend.reduction import dumps, loads
from loky.process_executor import PicklingError, TerminatedWorkerError

from assay.contracts import Job
from assay.errors import InvalidSetting, Unsendable, WorkerDied, reason
from assay.executors.inline import Inline

__all__ = ["Processes"]

T = TypeVar("T")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""glibc keeps what is freed: activations that each step gets anew from the system cost page faults,
a fifth of a training step of 57 MB activations here."""
_HOLDING = {"LOKY_MAX_MEMORY_LEAK_SIZE": str(2**60)}
"""Where psutil is installed loky takes a worker that has come to hold a data set for a leaking one:
it ends with a warning, and the next job waits for another to start."""


@dataclass
class Processes:
    """Runs jobs in worker processes, so that cores are full and none is asked for twice.

    A job starts as soon as a worker is free. What is sent and returned is copied; a job that is
    submitted `in_place` runs in this process instead, when it is gathered. A worker serves one job
    after another and ends with this object or this process, however that ends. Sent along to a
    worker, this object becomes an `Inline` there: workers start no workers.

    Args:
        workers: Processes at once; 0 for as many as physical cores, by `threads`, give room to.
        threads: Threads of each.
    Raises:
        InvalidSetting: a count that cannot be.
    """

    workers: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.workers < 0 or self.threads < 1:
            raise InvalidSetting(
                f"processes need workers of at least 0 and threads of at least 1, not "
                f"{self.workers} and {self.threads}"
            )
        self._waiting: deque[Job[Any]] = deque()
        self._running: dict[Future[Any], tuple[Job[Any], _Worker]] = {}
        self._idle: list[_Worker] = []

    def __reduce__(self) -> tuple[type[Inline], tuple[()]]:
        return Inline, ()

    @property
    def at_once(self) -> int:
        """Return the number of worker processes."""
        return self.workers or max(1, loky.cpu_count(only_physical_cores=True) // self.threads)

    def submit(self, work: Callable[[], T], *, in_place: bool = False) -> Job[T]:
        """Take a piece of work; it starts at once if a worker is free."""
        job = Job(work, in_place)
        if not in_place:
            self._waiting.append(job)
            self._fill()
        return job

    def gather(self, jobs: Sequence[Job[Any]]) -> Iterator[Job[Any]]:
        """Yield the jobs as they end, those in place first.

        `result` raises what a job raised (a `RuntimeError` in its words where it cannot be sent),
        `WorkerDied` where its worker was killed or crashed, or `Unsendable` where it could not be
        sent to one; other jobs go on. An interruption by the user ends all workers at once and is
        raised here; jobs that had not ended are cancelled.

        Raises:
            ValueError: a job of another executor.
        """
        yield from Inline().gather([job for job in jobs if job.in_place])
        left = [job for job in jobs if not job.in_place]
        while left := [job for job in left if not job.cancelled]:
            ended = next((job for job in left if job.done), None)
            if ended is None:
                self._await(left)
            else:
                left = [job for job in left if job is not ended]
                yield ended

    def cancel(self, job: Job[Any]) -> None:
        """Take back a job that has not ended; if it is running, its worker is killed."""
        if job.done:
            return
        job.cancelled = True
        self._waiting = deque(other for other in self._waiting if other is not job)
        for future, (running, worker) in list(self._running.items()):
            if running is job:
                del self._running[future]
                worker.kill()
        self._fill()

    def _fill(self) -> None:
        """Start what waits while there is room."""
        while self._waiting and len(self._running) < self.at_once:
            worker = self._idle.pop() if self._idle else _Worker(self.threads)
            job = self._waiting.popleft()
            try:
                self._running[worker.start(job.work)] = (job, worker)
            except loky.BrokenProcessPool:  # it died while it was idle: another takes the job
                self._waiting.appendleft(job)

    def _await(self, jobs: Sequence[Job[Any]]) -> None:
        """Wait until a job ends, book all that have, and start others in their place."""
        known = [*self._waiting, *(job for job, _ in self._running.values())]
        if not {id(job) for job in known}.issuperset(map(id, jobs)):
            raise ValueError("gather a job by the executor that it was submitted to")
        try:
            ended = wait(self._running, return_when=FIRST_COMPLETED).done
        except BaseException:
            for job in known:
                self.cancel(job)
            raise
        for future in ended:
            job, worker = self._running.pop(future)
            error = worker.error_of(future)
            job.end(None if error is not None else future.result(), error)
            if worker.alive:
                self._idle.append(worker)
        self._fill()


class _Worker:
    """One process, as a pool of one: so that it is known whose job ends with it."""

    def __init__(self, threads: int) -> None:
        self.alive = True
        self._pool = loky.ProcessPoolExecutor(
            max_workers=1, initializer=_begin, initargs=(threads, os.getpid()),
            env={**_MEMORY, **_HOLDING, **dict.fromkeys(_THREADS, str(threads))},
        )  # fmt: skip

    def start(self, work: Callable[[], Any]) -> Future[Any]:
        """Send a job; the process starts with the first."""
        future: Future[Any] = self._pool.submit(_sendable, work)
        return future

    def error_of(self, future: Future[Any]) -> BaseException | None:
        """Return what an ended job raised; in words of ours if it was not the job's own doing."""
        error = future.exception()
        self.alive = not isinstance(error, loky.BrokenProcessPool)
        if isinstance(error, PicklingError):
            said = str(error.__cause__ or error).strip(' \n"').splitlines()[-1]
            unsendable = Unsendable(
                f"a job cannot be sent to another process ({said}): make its data set and its "
                "model such that they can be pickled, or use the executor 'inline'"
            )
            unsendable.__cause__ = error
            return unsendable
        if not isinstance(error, TerminatedWorkerError):
            return error
        how = re.search(r"\{(.+)\}", str(error))
        died = WorkerDied(
            f"the process of a job ended before it did ({how[1] if how else 'no exit code'}): "
            "SIGKILL is mostly a lack of memory; try fewer workers or a smaller batch"
        )
        died.__cause__ = error
        return died

    def kill(self) -> None:
        """End the process at once, with whatever it started."""
        self.alive = False
        self._pool.shutdown(wait=True, kill_workers=True)


def _sendable(work: Callable[[], T]) -> T:
    """Run a job; an error that would not arrive, and break the pool, is told in words."""
    try:
        return work()
    except Exception as error:
        try:
            loads(dumps(error))
        except Exception:  # as of a class whose constructor asks for more than its message
            raise RuntimeError(reason(error)) from error
        raise


def _begin(threads: int, parent: int) -> None:
    """Set a new worker up: its threads, and to end when its parent does and not before."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which decides
    torch.set_num_threads(threads)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
