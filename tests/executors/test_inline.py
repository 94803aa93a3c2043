from __future__ import annotations

import weakref

import pytest

from assay.executors.inline import Inline


def test_a_job_runs_when_it_is_gathered_in_order_and_once():
    ran = []
    inline = Inline()
    jobs = [inline.submit(lambda n=n: ran.append(n)) for n in range(3)]
    assert ran == []
    gathered = inline.gather(jobs)
    assert next(gathered) is jobs[0]
    assert ran == [0]
    assert list(gathered) == jobs[1:]
    assert list(inline.gather(jobs)) == jobs
    assert ran == [0, 1, 2]


def test_a_job_cancelled_in_time_never_runs():
    ran = []
    inline = Inline()
    first, second = (inline.submit(lambda n=n: ran.append(n)) for n in range(2))
    gathered = inline.gather([first, second])
    next(gathered)
    inline.cancel(second)
    assert list(gathered) == []
    assert ran == [0]
    with pytest.raises(RuntimeError, match="this job has not run; gather it first"):
        second.result()


@pytest.mark.parametrize("error", [None, ValueError("made to fail")])
def test_a_job_that_has_ended_holds_no_work(error):
    class Work:
        def __call__(self):
            if error is not None:
                raise error

    work = Work()
    held = weakref.ref(work)
    inline = Inline()
    job = inline.submit(work)
    del work
    assert held() is not None
    list(inline.gather([job]))
    if error is not None:
        error.with_traceback(None)  # whose frames hold what was running
    assert held() is None
    with pytest.raises(RuntimeError, match="this job has ended"):
        job.work()


def test_an_interruption_is_no_jobs_error():
    def interrupt():
        raise KeyboardInterrupt

    inline = Inline()
    job = inline.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(inline.gather([job]))
    assert not job.done
    assert job.error is None
