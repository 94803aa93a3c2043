"""What the search loop asks of a strategy that learns from so many trials at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from torch import nn

from assay.contracts import Context, Estimate, History, Learning, Proposal
from assay.cost import Cost
from assay.errors import InvalidSetting, SpaceExhausted
from assay.executors.inline import Inline
from assay.run import loop
from assay.run.limits import Aims
from assay.run.loop import Searcher, measure_all, survey
from assay.run.steps import Steps
from assay.run.watch import Watch
from assay.run.workflow import Workflow
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.strategies.learned.alphas import Alphas
from assay.strategies.random import Random
from assay.study.store import Study


def space() -> Space:
    def op() -> OneOf:
        return OneOf(a=nn.Linear(2, 2), b=nn.Tanh(), c=nn.ReLU())

    return Space(nn.Sequential(*[op() for _ in range(6)]))


def num_a(architecture) -> int:
    return sum(option == "a" for option in architecture.values())


class Instant:
    """Scores by the number of "a"; may stop as a killed search would."""

    def __init__(self, killed_at: int | None = None):
        self.killed_at, self.batches = killed_at, []

    def estimate(self, ctx, proposals):
        self.batches.append(len(proposals))
        if len(self.batches) == self.killed_at:
            raise KeyboardInterrupt
        return [Estimate(float(num_a(p.architecture))) for p in proposals]


class OneByOne(Instant):
    """Tells them one at a time, the last first."""

    def estimate_each(self, ctx, proposals):
        for i in reversed(range(len(proposals))):
            (estimate,) = self.estimate(ctx, [proposals[i]])
            yield i, estimate


class Diverging(Instant):
    """Has no score where the first is "c", and says why."""

    def estimate(self, ctx, proposals):
        cost = Cost(0.0, 16, 160, "cpu")
        return [
            Estimate.failed("not finite, at step 3", cost, {})
            if p.architecture["0"] == "c"
            else replace(e, cost=cost)
            for p, e in zip(proposals, super().estimate(ctx, proposals))
        ]


@dataclass
class Learns:
    """Asks at random, and notes how much was known at each draw."""

    batch: int = 4
    drawn: list[tuple[int, int]] = field(default_factory=list)

    def at_once(self, history: History) -> int:
        return self.batch - len(history) % self.batch

    def ask(self, history: History, n: int, *, rng) -> list[Proposal]:
        self.drawn.append((len(history), n))
        return Random(over="decisions").ask(history, n, rng=rng)


def searcher(
    out: Path, of: Space, strategy, estimator=None, *, ctx=None, limit=None, measure=None,
    trials: Sequence = (), batch: int = 25,
) -> Searcher:  # fmt: skip
    """Return a search whose only limit is on "macs", which `measure` tells."""
    study = Study.open(out, identity={"of": "test"})
    study.begin_session({})
    history = History(of, trials)
    made = ctx or Context(of, None, None, Inline(), "cpu", 5, history)
    aims = Aims({} if limit is None else {"macs": limit}, ("score",), list)

    def told(quantity, architecture) -> float:
        return 1.0 if measure is None else measure(architecture)

    return Searcher(made, study, strategy, estimator or Instant(), aims, told, batch)


def ran(search: Searcher, num: int) -> list:
    try:
        search.run(num, lambda *known: num)
    finally:
        search.study.end_session()
        search.study.close()
    return [(t.number, t.architecture, t.state, t.objectives) for t in search.history]


def few(architecture) -> float:
    """Three quarters of what is drawn are over 1."""
    return 1.0 + num_a(architecture)


def test_no_more_is_drawn_at_once_than_is_learned_from(tmp_path: Path) -> None:
    strategy, estimator = Learns(), Instant()
    found = ran(searcher(tmp_path / "out", space(), strategy, estimator, limit=2, measure=few), 20)
    assert sum(state == "scored" for _, _, state, _ in found) == 20
    assert sum(state == "infeasible" for _, _, state, _ in found) > 10
    assert {known % 4 for known, _ in strategy.drawn} == {0}  # what was met is recorded in fours
    assert max(n for _, n in strategy.drawn) == 4
    assert max(estimator.batches) <= 4


def test_one_that_says_nothing_is_asked_for_a_batch(tmp_path: Path) -> None:
    estimator = Instant()
    ran(searcher(tmp_path / "out", space(), Random(), estimator, batch=7), 20)
    assert estimator.batches == [7, 7, 6]


def test_a_batch_larger_than_the_searchs_is_asked_for_in_parts(tmp_path: Path) -> None:
    strategy, estimator = Learns(batch=10), Instant()
    ran(searcher(tmp_path / "out", space(), strategy, estimator, batch=7), 24)
    assert estimator.batches == [7, 3, 7, 3, 4]


class Turns(Learns):
    """Asks what is over the limit until it has seen enough of that."""

    def ask(self, history: History, n: int, *, rng) -> list[Proposal]:
        asked = []
        while len(asked) < n:
            point = history.space.sample(rng)
            asked += [Proposal(point)] * ((num_a(point) > 1) == (len(history) < 12))
        return asked


def test_what_is_over_a_limit_throughout_is_learned_from(tmp_path: Path) -> None:
    search = searcher(tmp_path / "out", space(), Turns(), limit=2, measure=few)
    states = [state for _, _, state, _ in ran(search, 4)]
    assert states == ["infeasible"] * 12 + ["scored"] * 4


def test_it_ends_where_nothing_is_within_the_limits(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "_TRIES_PER_TRIAL", 5)
    search = searcher(tmp_path / "out", space(), Learns(), limit=0.5, measure=few)
    with pytest.raises(SpaceExhausted, match=r"macs <= 0\.5"):
        ran(search, 4)
    assert len(search.history) == 5 * 4


def test_it_ends_where_the_space_does(tmp_path: Path) -> None:
    small = Space(nn.Sequential(OneOf(a=nn.Linear(2, 2), b=nn.Tanh(), c=nn.ReLU())))
    found = ran(searcher(tmp_path / "out", small, Learns(batch=2), limit=1, measure=few), 9)
    assert sorted(state for _, _, state, _ in found) == ["infeasible", "scored", "scored"]


class Surest:
    """Asks for the likeliest, which is all "a", unless it was seen, and draws."""

    def ask(self, history: History, n: int, *, rng) -> list[Proposal]:
        return Alphas(history.space).propose(history, n, rng)


def test_where_the_likeliest_is_over_a_limit_the_one_trial_is_another(tmp_path: Path) -> None:
    found = ran(searcher(tmp_path / "out", space(), Surest(), limit=2, measure=few), 1)
    assert [num_a(found[0][1]), found[0][2]] == [6, "infeasible"]
    assert [state for _, _, state, _ in found].count("scored") == 1


class Sure:
    """Asks for one architecture only; has learned that."""

    advice: ClassVar = {"collapsed": "lower strategy.lr", "drifting": "raise strategy.weight"}

    def ask(self, history: History, n: int, *, rng) -> list[Proposal]:
        return [Proposal(history.space.complete({}, lambda choice: "a"))] * n


class Fixed(Sure):
    """Says nothing of what to change."""

    advice: ClassVar = {}


@pytest.mark.parametrize(
    ("strategy", "advice"),
    [(Sure(), "raise strategy.weight"), (Fixed(), "use another strategy or raise the limit")],
)
def test_where_only_the_strategy_finds_nothing_that_is_said(
    tmp_path: Path, strategy: Sure, advice: str
) -> None:
    search = searcher(tmp_path / "out", space(), strategy, limit=2, measure=few)
    with pytest.raises(SpaceExhausted) as raised:
        ran(search, 4)
    within = sum(few(a) <= 2 for a in loop._random(search.ctx, 200))
    assert 0 < within < 200
    assert str(raised.value).endswith(
        "(over 1000 random architectures); random draws are within the limits "
        f"({within} of 200), and {type(strategy).__name__} proposes none; {advice}"
    )


def test_where_nothing_is_within_the_limits_the_space_is_to_blame(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(loop, "_TRIES_PER_TRIAL", 5)
    with pytest.raises(SpaceExhausted, match=r"; raise the limit or widen the space$"):
        ran(searcher(tmp_path / "out", space(), Sure(), limit=0.5, measure=few), 4)


@pytest.mark.parametrize("killed_at", [1, 3])
def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path: Path, killed_at: int) -> None:
    of = space()
    settings = {"limit": 2, "measure": few}
    whole = ran(searcher(tmp_path / "whole", of, Learns(), **settings), 18)
    killed = searcher(tmp_path / "killed", of, Learns(), Instant(killed_at), **settings)
    with pytest.raises(KeyboardInterrupt):
        ran(killed, 18)
    with Study.read(tmp_path / "killed") as study:
        before = list(study.trials())
    assert any(t.state == "running" for t in before)
    strategy = Learns()
    again = searcher(tmp_path / "killed", of, strategy, trials=before, **settings)
    assert ran(again, 18) == whole
    assert {known % 4 for known, _ in strategy.drawn} == {0}


def test_what_comes_one_by_one_is_kept_one_by_one(tmp_path: Path) -> None:
    whole = ran(searcher(tmp_path / "whole", space(), Random(), batch=6), 12)
    killed = searcher(tmp_path / "killed", space(), Random(), OneByOne(9), batch=6)
    with pytest.raises(KeyboardInterrupt):
        ran(killed, 12)
    with Study.read(tmp_path / "killed") as study:
        before = list(study.trials())
    assert [t.state for t in before] == ["scored"] * 6 + ["running"] * 4 + ["scored"] * 2
    rest = OneByOne()
    again = searcher(tmp_path / "killed", space(), Random(), rest, trials=before, batch=6)
    assert ran(again, 12) == whole
    assert rest.batches == [1] * 4


class Crowded(Instant):
    """Finds no memory, as where another job has it, for as long as it is told."""

    crowded = True

    def estimate(self, ctx, proposals):
        if self.crowded:
            raise MemoryError("others have it")
        return super().estimate(ctx, proposals)


def test_a_batch_for_which_there_is_no_memory_is_asked_again(tmp_path: Path) -> None:
    whole = ran(searcher(tmp_path / "whole", space(), Random(), Instant(), batch=4), 8)
    crowded = Crowded()
    search = searcher(tmp_path / "crowded", space(), Random(), crowded, batch=4)
    with pytest.raises(MemoryError, match="others have it"):
        ran(search, 8)
    with Study.read(tmp_path / "crowded") as study:
        before = study.trials()
    assert {t.state for t in before} == {"running"}
    crowded.crowded = False
    again = searcher(tmp_path / "crowded", space(), Random(), crowded, trials=before, batch=4)
    assert ran(again, 8) == whole


def test_one_alone_for_which_there_is_no_memory_has_failed(tmp_path: Path) -> None:
    found = ran(searcher(tmp_path / "out", space(), Random(), Crowded(), batch=1), 2)
    assert [state for _, _, state, _ in found] == ["failed"] * 2


def test_progress_is_told_as_scores_come(tmp_path: Path) -> None:
    search = searcher(tmp_path / "out", space(), Random(), OneByOne(), batch=2)
    known = []
    search.run(4, lambda judged, waiting, *costs: known.append((judged, waiting)) or 4)
    search.study.close()
    assert known == [(1, 1), (2, 0), (3, 1), (4, 0)]


def often_broken(architecture) -> float:
    """A user's function that raises on a third of what is drawn."""
    if architecture["0"] == "c":
        raise RuntimeError("of the user's")
    return 1.0


def test_what_cannot_be_measured_fails_alone_and_counts_for_no_estimate(tmp_path: Path) -> None:
    settings = {"limit": 2, "measure": often_broken, "batch": 5}
    whole = ran(searcher(tmp_path / "whole", space(), Learns(), **settings), 18)
    states = [state for _, _, state, _ in whole]
    assert states.count("scored") == 18
    assert states.count("failed") > 2
    killed = searcher(tmp_path / "killed", space(), Learns(), Instant(3), **settings)
    with pytest.raises(KeyboardInterrupt):
        ran(killed, 18)
    with Study.read(tmp_path / "killed") as study:
        before = list(study.trials())
        assert any("of the user's" in f.traceback for f in study.failures())
    again = searcher(tmp_path / "killed", space(), Learns(), trials=before, **settings)
    assert ran(again, 18) == whole


def test_what_diverged_says_why_is_booked_and_is_not_asked_again(tmp_path: Path) -> None:
    estimator = Diverging()
    ran(search := searcher(tmp_path / "out", space(), Random(), estimator, batch=12), 24)
    assert estimator.batches == [12, 12]
    lost = [t for t in search.history if t.state == "failed"]
    assert len(lost) == sum(t.architecture["0"] == "c" for t in search.history) > 0
    assert {t.error for t in lost} == {"NotFinite: not finite, at step 3"}
    with Study.read(tmp_path / "out") as study:
        spent = study.ledger()["score"]
    assert (spent.samples, spent.macs) == (24 * 16, 24 * 160)


def of_the_user(module: nn.Module) -> float:
    raise NotImplementedError


def at_times(quantity, architecture) -> float:
    if architecture["0"] == "c":
        raise InvalidSetting("of the user's")
    return 1.0 + num_a(architecture)


def test_a_function_that_fails_at_times_ends_no_survey() -> None:
    of = space()
    every = list(of.all())
    values, failed = measure_all(of_the_user, every, at_times)
    assert len(values) == 2 * len(failed) == 2 * len(every) / 3
    with pytest.raises(InvalidSetting, match="of the user's"):
        measure_all("macs", every, at_times)
    ctx = Context(of, None, None, Inline(), "cpu", 5, History(of))
    said = survey(ctx, Aims({of_the_user: 0.5}, ("score",), list), at_times)
    assert "of_the_user <= 0.5, but the space has min 1, median " in said
    assert " on which that fails (over 1000 " in said


def test_nor_does_it_end_a_median() -> None:
    notes: list[str] = []
    run: Any = SimpleNamespace(
        plan=SimpleNamespace(seed=0, space=space()), measures=at_times,
        steps=SimpleNamespace(note=notes.append),
    )  # fmt: skip
    assert Workflow._median(run, of_the_user) == 3.0  # 2 of 5, and 1, where "0" is not "c"
    assert " of 501 random architectures are left out of the median of of_the_user: of " in notes[0]
    run.measures = lambda quantity, architecture: at_times(quantity, {"0": "c"})
    with pytest.raises(InvalidSetting, match="of the user's"):
        Workflow._median(run, of_the_user)


# --- the step of a search -------------------------------------------------------------------------


class Counting(Random):
    """Knows after every second trial how many there were."""

    def learned(self, history: History) -> Sequence[Learning]:
        return [Learning(known, {}, 0.5) for known in range(2, len(history) + 1, 2)]


def step_of(search: Searcher, trials: int, notes: list[str], **more: float) -> dict[str, Any]:
    """Take the step of a search that stands where this one does; return what was learned."""
    steps = Steps(search.study, lambda e: notes.append(e.message) if e.kind == "note" else None)
    watch = Watch(search.strategy, search.history, search.study, steps)
    plan = SimpleNamespace(
        strategy=search.strategy, estimator=search.estimator, train_on="cpu",
        space=search.ctx.space, limits={"macs": 10**9}, objectives=("score",),
    )  # fmt: skip
    run: Any = Workflow.__new__(Workflow)
    vars(run).update(
        plan=plan, ctx=search.ctx, study=search.study, aims=search.aims, measures=search.measure,
        steps=steps, history=search.history, _search_counts=lambda: {"trials": trials, **more},
        _watch=watch if hasattr(search.strategy, "learned") else None,
    )  # fmt: skip
    run._search()
    search.study.end_session()
    assert search.study.phase("search").done == search.judged()
    found = dict(search.study.get("learning") or {})
    search.study.close()
    return found


def test_a_kill_between_the_last_score_and_what_is_learned_of_it_changes_nothing(
    tmp_path: Path,
) -> None:
    whole = step_of(searcher(tmp_path / "whole", space(), Counting()), 8, [])
    assert [record["step"] for record in whole["records"]] == [2, 4, 6, 8]
    killed = searcher(tmp_path / "killed", space(), Counting())
    killed.run(8, lambda *known: 8)
    assert step_of(killed, 8, []) == whole


class Spending(Random):
    """Takes so long to propose a batch, by a clock of its own."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.known, self.now = seconds, -1, 0.0

    def perf_counter(self) -> float:
        return self.now

    def ask(self, history: History, n: int, *, rng) -> list[Proposal]:
        if len(history) > self.known:
            self.now, self.known = self.now + self.seconds, len(history)
        return super().ask(history, n, rng=rng)


@pytest.mark.parametrize(
    ("each_s", "judged"), [(45.0, 75), (63.0, 50), (200.0, 25), (22.0, 113), (1.0, 130)]
)
def test_a_search_of_100_has_more_or_fewer_trials_where_its_time_is_not_what_they_take(
    each_s: float, judged: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = Spending(each_s)
    monkeypatch.setattr(loop, "time", strategy)
    search = searcher(tmp_path / "out", space(), strategy)
    notes: list[str] = []
    step_of(search, 100, notes, seconds=100.0, most=130)
    assert search.judged() == judged
    with Study.read(tmp_path / "out") as study:
        assert study.get("search replanned") == {"trials": judged}
    assert [f"{judged} of 100 trials took" in note for note in notes] == [True] * (judged < 100)
    again = searcher(tmp_path / "out", space(), Random(), trials=list(search.history))
    step_of(again, 100, notes, seconds=100.0, most=130)  # one that goes on obeys
    assert again.judged() == judged


def test_a_search_that_brings_nothing_new_says_so_and_what_to_change(tmp_path: Path) -> None:
    notes: list[str] = []
    step_of(search := searcher(tmp_path / "sure", space(), Sure()), 5, notes)
    new = sum(num_a(point) < 6 for point in loop._random(search.ctx, 200))
    assert notes == [
        "nothing new after 1 of 5 trials, though random draws are new and within the limits "
        f"({new} of 200); lower strategy.lr"
    ]
    notes.clear()
    small = Space(nn.Sequential(OneOf(a=nn.Linear(2, 2), b=nn.Tanh(), c=nn.ReLU())))
    step_of(searcher(tmp_path / "small", small, Random(), limit=1, measure=few), 3, notes)
    assert notes == ["nothing new after 2 of 3 trials"]
    notes.clear()
    step_of(searcher(tmp_path / "all", small, Random()), 3, notes)
    assert notes == []
    # More than were planned are welcome, not owed.
    search = searcher(tmp_path / "time", small, Random(), limit=1, measure=few)
    step_of(search, 1, notes, seconds=100.0, most=3)
    assert search.judged() == 2
    assert notes == []
