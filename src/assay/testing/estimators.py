"""What every estimator must do."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from assay.contracts import Context, Estimate, Estimator, Proposal
from assay.cost import Budget, Cost, derive
from assay.testing.plug import Plug, made
from assay.testing.tiny import tiny_context
from assay.train.files import load_tensors, save_tensors

__all__ = ["EstimatorContract"]


class EstimatorContract:
    """Set `estimator` to the class, or to a function without arguments that makes one.

    Override `context` for one that needs more than the tiny space and task.
    """

    estimator: ClassVar[Plug | None] = None
    steps: ClassVar[int] = 6
    """What `prepare` is told to do in all."""
    tolerance: ClassVar[float] = 1e-5
    """By how much a score may depend on what it is scored with."""
    runs_networks: ClassVar[bool] = False
    """Whether it trains or runs networks: then it must book samples and their MACs."""

    def new(self) -> Estimator:
        """Make a fresh estimator."""
        estimator: Estimator = made(self, "estimator")
        return estimator

    def context(self) -> Context:
        """Return a context of its own for each estimator: they train the space's model."""
        return tiny_context()

    def prepared(self) -> tuple[Estimator, Context]:
        """Return an estimator that was prepared without interruption, and its context."""
        estimator, ctx = self.new(), self.context()
        for _ in estimator.prepare(ctx, Budget(steps=self.steps)):
            pass
        return estimator, ctx

    def test_preparing_books_what_it_costs(self) -> None:
        """Prepare and score; each cost adds up, and where networks run, it says how much."""
        estimator, ctx = self.new(), self.context()
        costs = list(estimator.prepare(ctx, Budget(steps=self.steps)))
        for cost in costs:
            assert isinstance(cost, Cost), f"prepare yielded {cost!r}, which is no Cost"
            assert math.isfinite(cost.wall_s), f"{cost} is not finite"
            assert min(cost.wall_s, cost.samples, cost.macs) >= 0, f"{cost} is negative"
        if self.runs_networks:
            costs += [e.cost for e in estimator.estimate(ctx, _proposals(ctx, 3))]
            assert sum(cost.samples for cost in costs) > 0, "no sample is booked"
            for cost in costs:
                assert (cost.macs > 0) == (cost.samples > 0), f"{cost}: MACs go with samples"

    def test_a_step_is_timed_and_timing_changes_nothing(self) -> None:
        """Time a step, then prepare: the state is as if it had not been timed."""
        timed, ctx = self.new(), self.context()
        seconds = timed.step_seconds(ctx)
        assert math.isfinite(seconds)
        assert seconds >= 0.0
        for _ in timed.prepare(ctx, Budget(steps=self.steps)):
            pass
        _assert_same(timed.state_dict(), self.prepared()[0].state_dict())

    @pytest.mark.parametrize("yields", [1, 2, 3])
    def test_interrupted_and_continued_is_uninterrupted(self, yields: int, tmp_path: Path) -> None:
        """Prepare up to a yield, save, load into a fresh one, go on: same state, same scores."""
        whole, whole_ctx = self.prepared()
        first, later, ctx = self.new(), self.new(), self.context()
        for _ in islice(first.prepare(self.context(), Budget(steps=self.steps)), yields):
            pass
        save_tensors(tmp_path / "state.safetensors", dict(first.state_dict()))
        later.load_state_dict(load_tensors(tmp_path / "state.safetensors"))
        for _ in later.prepare(ctx, Budget(steps=self.steps)):
            pass
        _assert_same(later.state_dict(), whole.state_dict())
        proposals = _proposals(ctx, 4)
        expected = [e.score for e in whole.estimate(whole_ctx, proposals)]
        assert [e.score for e in later.estimate(ctx, proposals)] == expected

    def test_what_is_prepared_is_not_prepared_again(self) -> None:
        """Load the state of one that is done: nothing is left to do, and the scores are there."""
        whole, whole_ctx = self.prepared()
        again, ctx = self.new(), self.context()
        again.load_state_dict(whole.state_dict())
        assert sum(c.samples for c in again.prepare(ctx, Budget(steps=self.steps))) == 0
        proposals = _proposals(ctx, 4)
        expected = [e.score for e in whole.estimate(whole_ctx, proposals)]
        assert [e.score for e in again.estimate(ctx, proposals)] == expected

    def test_a_batch_is_scored_in_its_order(self) -> None:
        """Score a batch, its reverse, and one by one: the same scores."""
        estimator, ctx = self.prepared()
        proposals = _proposals(ctx, 8)
        together = [e.score for e in estimator.estimate(ctx, proposals)]
        backwards = [e.score for e in estimator.estimate(ctx, proposals[::-1])][::-1]
        alone = [e.score for p in proposals for e in estimator.estimate(ctx, [p])]
        assert len(together) == len(proposals)
        assert backwards == pytest.approx(together, abs=self.tolerance)
        assert alone == pytest.approx(together, abs=self.tolerance)

    def test_scoring_changes_no_score(self) -> None:
        """Score, and score again: the very same; the estimator's state is as before."""
        estimator, ctx = self.prepared()
        before = {k: _copy(v) for k, v in estimator.state_dict().items()}
        proposals = _proposals(ctx, 5)
        first = estimator.estimate(ctx, proposals)
        second = estimator.estimate(ctx, proposals)
        assert [e.score for e in first] == [e.score for e in second]
        assert [dict(e.metrics) for e in first] == [dict(e.metrics) for e in second]
        _assert_same(estimator.state_dict(), before)

    def test_an_estimate_says_what_it_cost_and_rests_on(self) -> None:
        """Score; all is finite, costs time on a device, and can be kept as JSON."""
        estimator, ctx = self.prepared()
        for e in estimator.estimate(ctx, _proposals(ctx, 3)):
            assert isinstance(e, Estimate), f"{e!r} is no Estimate"
            assert math.isfinite(e.score), f"a score of {e.score} ranks nothing"
            assert all(math.isfinite(v) for v in e.metrics.values()), f"not finite: {e.metrics}"
            assert e.cost.wall_s > 0.0, "an estimate without cost is booked nowhere"
            assert e.made_from, "an estimate says what it was made from"
            for told in (dict(e.metrics), dict(e.made_from)):
                assert json.loads(json.dumps(told)) == told


def _proposals(ctx: Context, num: int) -> list[Proposal]:
    rng = derive(3, "contract")
    return [Proposal(ctx.space.sample(rng)) for _ in range(num)]


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


def _assert_same(one: Mapping[str, Any], two: Mapping[str, Any]) -> None:
    assert set(one) == set(two), f"the states differ in {set(one) ^ set(two)}"
    for key, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value.cpu(), two[key].cpu()), f"{key} differs"
        else:
            assert value == two[key], f"{key} is {value!r} and {two[key]!r}"
