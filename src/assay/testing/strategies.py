"""What every strategy must do."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest

from assay.contracts import History, Proposal, Strategy, Trial, TrialState
from assay.cost import derive
from assay.testing.plug import Plug, made
from assay.testing.tiny import tiny_history, tiny_space

__all__ = ["StrategyContract"]

_PASTS: dict[str, tuple[int, tuple[TrialState, ...]]] = {
    "nothing": (0, ("scored",)),
    "one trial": (1, ("scored",)),
    "a few trials": (7, ("scored", "infeasible", "scored", "failed")),
    "many trials": (173, ("scored", "infeasible", "scored", "failed")),
    "only infeasible ones": (120, ("infeasible",)),
    "only failed ones": (120, ("failed",)),
    "hardly a feasible one": (120, ("infeasible",) * 50 + ("scored",)),
    "a batch under way": (61, ("scored",) * 55 + ("running",) * 6),
}

_every_past = pytest.mark.parametrize("past", _PASTS)


def _history(past: str, objectives: int = 2) -> History:
    num, states = _PASTS[past]
    return tiny_history(tiny_space(), num, states=states, objectives=objectives)


class StrategyContract:
    """Set `strategy` to the class, or to a function without arguments that makes one."""

    strategy: ClassVar[Plug | None] = None

    def new(self) -> Strategy:
        """Make a fresh strategy."""
        strategy: Strategy = made(self, "strategy")
        return strategy

    @_every_past
    @pytest.mark.parametrize("n", [1, 25])
    def test_it_asks_for_as_many_points_of_the_space_as_it_is_told(self, past: str, n: int) -> None:
        """Ask for n and get n, whatever the past."""
        history = _history(past)
        proposals = self.new().ask(history, n, rng=derive(0, "ask"))
        assert len(proposals) == n, f"asked for {n}, got {len(proposals)}"
        for p in proposals:
            assert isinstance(p, Proposal), f"{p!r} is no Proposal"
            assert history.space.contains(p.architecture), f"{p.architecture} is not in the space"
            assert 0.0 < p.fidelity <= 1.0, f"a fidelity of {p.fidelity} is not in (0, 1]"
            known = p.parent is None or 0 <= p.parent < len(history)
            assert known, f"parent {p.parent} is no trial of {len(history)}"

    @pytest.mark.parametrize("objectives", [1, 3])
    def test_it_takes_any_number_of_objectives(self, objectives: int) -> None:
        """Ask where trials have one objective, or three."""
        history = _history("many trials", objectives)
        assert len(self.new().ask(history, 5, rng=derive(0, "ask"))) == 5

    @_every_past
    def test_a_fresh_one_asks_the_same(self, past: str) -> None:
        """Ask one that has followed the history, and one that has just seen it."""
        history = _history(past)
        growing, follower = History(history.space), self.new()
        for trial in history:
            if trial.number % 9 == 0:
                follower.ask(growing, 2, rng=derive(1, trial.number))
            growing.append(trial)
        followed = follower.ask(growing, 10, rng=derive(0, "ask"))
        assert followed == self.new().ask(growing, 10, rng=derive(0, "ask"))
        assert followed == self.new().ask(history, 10, rng=derive(0, "ask"))

    def test_a_batch_that_ends_is_taken_in_as_if_it_had_been_there(self) -> None:
        """Ask while trials run, let them end, and ask again."""
        whole = _history("many trials")
        history = History(whole.space)
        follower = self.new()
        for start in range(0, 150, 25):
            batch: Sequence[Trial] = whole[start : start + 25]
            for t in batch:
                history.append(Trial(t.number, t.architecture, measured=t.measured))
            follower.ask(history, 3, rng=derive(2, start))
            for t in batch:
                history.replace(t)
        told = follower.ask(history, 10, rng=derive(0, "ask"))
        assert told == self.new().ask(History(whole.space, whole[:150]), 10, rng=derive(0, "ask"))

    def test_it_takes_nothing_from_another_history(self) -> None:
        """Ask about one history, then about others that begin alike."""
        one = _history("many trials")
        two = tiny_history(one.space, 173, states=("scored", "infeasible"), seed=7)
        mixed = History(one.space, one[:60])
        for t in two:
            if mixed.seen(t.architecture) is None:
                mixed.append(
                    Trial(len(mixed), t.architecture, t.state, t.estimate, t.measured,
                          t.objectives, t.violation)
                )  # fmt: skip
        strategy = self.new()
        for history in (one, mixed, two, History(one.space, one[:60]), one):
            told = strategy.ask(history, 10, rng=derive(0, "ask"))
            assert told == self.new().ask(history, 10, rng=derive(0, "ask"))

    @_every_past
    def test_asking_changes_nothing(self, past: str) -> None:
        """Ask twice with the same generator; the history stays, global generators too."""
        history, strategy = _history(past), self.new()
        before = list(history)
        ambient = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
        first = strategy.ask(history, 10, rng=derive(0, "ask"))
        second = strategy.ask(history, 10, rng=derive(0, "ask"))
        assert first == second
        assert len(history) == len(before)
        assert all(a is b for a, b in zip(history, before))
        assert ambient == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]

    def test_its_draws_come_from_the_generator_it_is_given(self) -> None:
        """Ask with two generators and get two answers."""
        history = _history("many trials")
        one, two = (self.new().ask(history, 25, rng=derive(seed)) for seed in (1, 2))
        assert one != two
