from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch

from assay.contracts import Job
from assay.errors import InvalidSetting, Unsendable, WorkerDied
from assay.executors.inline import Inline
from assay.executors.processes import Processes

PATIENCE_S = 300.0  # only a broken executor takes so long, however loaded the machine is


@pytest.fixture(scope="module")
def two():
    """Two workers for all tests: each takes seconds to start."""
    return Processes(workers=2)


def until(condition):
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def waits_for(path: Path, named: Path | None = None):
    """Make a job that says who it is in one file and waits for another."""

    def work():
        if named is not None:
            named.with_suffix(".new").write_text(str(os.getpid()))
            named.with_suffix(".new").rename(named)
        end = time.monotonic() + PATIENCE_S
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.02)
        return os.getpid()

    return work


def test_a_worker_that_comes_to_hold_much_is_kept():
    def holding(megabytes):
        def work():
            sys.held = bytearray(b"x") * (megabytes * 2**20)
            time.sleep(1.1)  # memory is looked at once a second
            return os.getpid()

        return work

    executor = Processes(workers=1)
    jobs = [executor.submit(holding(megabytes)) for megabytes in (1, 400, 400)]
    assert len({job.result() for job in executor.gather(jobs)}) == 1


class Returns:
    def __call__(self):
        return 7


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_jobs_come_as_they_end(two, tmp_path):
    slow = two.submit(waits_for(tmp_path / "go"))
    quick = two.submit(lambda: 7)
    gathered = two.gather([slow, quick])
    assert next(gathered) is quick
    (tmp_path / "go").touch()
    assert next(gathered) is slow
    assert list(gathered) == []


def test_jobs_run_at_once_in_processes_of_their_own(two, tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    jobs = [two.submit(waits_for(b, a)), two.submit(waits_for(a, b))]  # alone, none would end
    list(two.gather(jobs))
    assert len({os.getpid(), *(job.result() for job in jobs)}) == 3


def test_no_more_jobs_run_than_there_are_workers(two, tmp_path):
    names = [tmp_path / name for name in "abc"]
    jobs = [two.submit(waits_for(tmp_path / "go", name)) for name in names]
    until(lambda: names[0].exists() and names[1].exists())
    assert not names[2].exists()
    (tmp_path / "go").touch()
    assert len(list(two.gather(jobs))) == 3
    assert jobs[2].result() in {jobs[0].result(), jobs[1].result()}  # a worker is used again


def test_a_worker_has_its_own_number_of_threads(two):
    def threads():
        return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]

    three = Processes(workers=1, threads=3)
    jobs = [two.submit(threads), three.submit(threads)]
    list(two.gather(jobs[:1]))
    list(three.gather(jobs[1:]))
    assert [job.result() for job in jobs] == [(1, "1", "1"), (3, "3", "3")]


def test_what_work_changes_is_changed_in_the_worker_only(two):
    changed: list[int] = []

    def change():
        changed.append(7)
        return list(changed)

    job = two.submit(change)
    list(two.gather([job]))
    assert (job.result(), changed) == ([7], [])


def test_a_job_that_has_ended_holds_no_work(two):
    work = Returns()
    held = weakref.ref(work)
    job = two.submit(work)
    del work
    list(two.gather([job]))
    until(lambda: held() is None)  # loky lets go of its own a moment later
    assert job.result() == 7


def test_an_error_comes_with_the_place_where_it_was_raised(two):
    def failing():
        raise InvalidSetting("made to fail")

    job = two.submit(failing)
    list(two.gather([job]))
    with pytest.raises(InvalidSetting, match="made to fail") as raised:
        job.result()
    assert "in failing" in str(raised.value.__cause__)


class Unarriving(Exception):
    def __init__(self, what, at):
        super().__init__(f"{what} at {at}")


def test_an_error_that_cannot_be_sent_is_told_in_words_and_costs_no_worker():
    executor = Processes(workers=1)

    def failing():
        raise Unarriving("metric wrong", 3)

    def holding():
        error = ValueError("holds a lock")
        error.lock = threading.Lock()
        raise error

    jobs = [executor.submit(work) for work in (os.getpid, failing, holding, os.getpid)]
    list(executor.gather(jobs))
    with pytest.raises(RuntimeError, match=r"^Unarriving: metric wrong at 3$") as raised:
        jobs[1].result()
    assert "in failing" in str(raised.value.__cause__)
    with pytest.raises(RuntimeError, match=r"^ValueError: holds a lock$"):
        jobs[2].result()
    assert jobs[0].result() == jobs[3].result()


def test_work_that_cannot_be_sent_is_the_jobs_error(two):
    lock = threading.Lock()
    job, other = two.submit(lambda: lock), two.submit(lambda: 7)
    assert len(list(two.gather([job, other]))) == 2
    assert other.result() == 7
    with pytest.raises(
        Unsendable, match=r"\(TypeError: cannot pickle '_thread.lock' object\): make"
    ):
        job.result()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its settings are those of glibc")
def test_a_worker_keeps_the_memory_that_it_frees(two):
    def kept():
        before = resident()
        held = [torch.ones(16 << 20) for _ in range(4)]
        del held
        return resident() - before

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    job = two.submit(kept)
    list(two.gather([job]))
    assert job.result() > 3 * (64 << 20)
    assert kept() < 64 << 20


def test_in_a_worker_it_is_inline(two):
    job = two.submit(lambda: type(two))
    list(two.gather([job]))
    assert job.result() is Inline


def test_a_job_of_another_executor_is_refused(two):
    with pytest.raises(ValueError, match="the executor that it was submitted to"):
        list(two.gather([Job(lambda: 7)]))


def test_a_worker_that_is_killed_fails_its_job_only(tmp_path):
    executor = Processes(workers=2)
    bad = executor.submit(lambda: os.kill(os.getpid(), signal.SIGKILL))
    good = executor.submit(waits_for(tmp_path / "go"))
    later = executor.submit(lambda: 7)
    gathered = executor.gather([bad, good, later])
    assert next(gathered) is bad
    (tmp_path / "go").touch()
    assert {id(job) for job in gathered} == {id(good), id(later)}
    assert later.result() == 7
    with pytest.raises(WorkerDied, match=r"SIGKILL\(-9\).*fewer workers or a smaller batch"):
        bad.result()


def test_cancelling_a_running_job_ends_it_and_makes_room(tmp_path):
    executor = Processes(workers=1)
    running = executor.submit(waits_for(tmp_path / "never", tmp_path / "running"))
    waiting, last = executor.submit(lambda: 6), executor.submit(lambda: 7)
    until((tmp_path / "running").exists)
    executor.cancel(waiting)
    executor.cancel(running)
    assert list(executor.gather([running, waiting, last])) == [last]
    assert last.result() == 7
    assert gone(int((tmp_path / "running").read_text()))


@pytest.fixture
def heeds_ctrl_c():
    """Python ignores SIGINT where its parent did, as in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interruption_ends_all_workers(heeds_ctrl_c, tmp_path):
    executor = Processes(workers=1)
    jobs = [executor.submit(waits_for(tmp_path / "never", tmp_path / "running")) for _ in range(2)]
    until((tmp_path / "running").exists)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        list(executor.gather(jobs))
    assert all(job.cancelled and not job.done and job.error is None for job in jobs)
    assert gone(int((tmp_path / "running").read_text()))


PARENT = """
import sys, time
from pathlib import Path
from assay.executors.processes import Processes
from tests.executors.test_processes import waits_for

folder = Path(sys.argv[1])
job = Processes(workers=1).submit(waits_for(folder / "never", folder / "running"))
time.sleep(600)
"""


@pytest.mark.slow
def test_a_worker_does_not_outlive_its_parent(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    try:
        until((tmp_path / "running").exists)
    finally:
        parent.kill()
        parent.wait()
    until(lambda: gone(int((tmp_path / "running").read_text())))


@pytest.mark.parametrize("wrong", [{"workers": -1}, {"threads": 0}])
def test_counts_that_cannot_be_are_refused(wrong):
    with pytest.raises(InvalidSetting, match="workers of at least 0 and threads of at least 1"):
        Processes(**wrong)
