"""Weight inheritance: grow each architecture out of a trained one and tune it briefly.

Known weakness: the bias is structural. A child that differs little from its ancestor keeps more of
what that has learned, so nearness to an ancestor scores too, and growth is kinder than shrinking:
it keeps the function, shrinking does not. No published rank correlation was found; measure it on
your task with `assay audit`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.contracts import Context, Estimate, Proposal
from assay.cost import Budget, Cost, derive
from assay.errors import AssayError, InvalidSetting, NotFinite
from assay.estimators.each import Told, all_of, trained_each
from assay.estimators.features import farthest_first
from assay.estimators.one_shot import OneShot
from assay.estimators.origin import same_origin
from assay.estimators.training import Trained, Training, in_chunks, run_each
from assay.hardware.count import count
from assay.space.space import Space
from assay.train.files import under
from assay.train.loop import Trainer
from assay.train.recipe import Recipe
from assay.weights.morph import Morph, inherit, plan
from assay.weights.morph.flow import trace
from assay.weights.morph.steps import price

__all__ = ["Inherit"]

_DRAWN_PER_ANCESTOR = 16
_AVERAGED = 0.99
_FEWEST_KEPT = 64  # networks, however large
_MOST_BYTES = 2**30  # of more networks than these
_SEEN = 32  # samples on which functions are compared and new batch norms set

_Birth: TypeAlias = tuple[Architecture, tuple[int, ...]]
"""An architecture and the trials that it descends from."""


@dataclass
class Inherit:
    """Scores architectures by networks that inherit their weights and are tuned for a few steps.

    `prepare` trains a few ancestors, of middling size and far apart. An architecture starts from
    the weights of its parent trial, if it has one that was scored, and otherwise from the ancestor
    to which the fewest morphs lead; those that lose the function count first. A parent's weights
    are worked out again where they are no longer in memory, so a resumed search finds the same.

    Source: Chen, Goodfellow, Shlens 2015, "Net2Net: Accelerating Learning via Knowledge Transfer",
    arXiv:1511.05641 (morphs and the lower rate); Cai et al. 2017, "Efficient Architecture Search by
    Network Transformation", arXiv:1707.04873 (inheritance within a search); differs: children also
    shrink and exchange operations, and any strategy proposes them.

    Args:
        ancestors: Networks that `prepare` trains; they share its steps equally.
        tune_steps: Steps of tuning that each architecture gets.
        rate: Learning rate of the tuning, as a share of the recipe's; constant, weights averaged.
        noise: Deviation of what is added to the weights of copied channels, as a multiple of the
            deviation of their layer's, so that tuning can tell them apart.
        samples: Most validation samples that a score is taken on.
        supernet: A `OneShot` in place of ancestors: `prepare` trains it, and each architecture
            without a parent starts from its own path.
    Raises:
        InvalidSetting: a count below 1, a rate out of (0, 1], or a negative noise.
    """

    ancestors: int = 3
    tune_steps: int = 50
    rate: float = 0.1
    noise: float = 0.01
    samples: int = 1024
    supernet: OneShot | None = None

    def __post_init__(self) -> None:
        for name in ("ancestors", "tune_steps", "samples"):
            if getattr(self, name) < 1:
                raise InvalidSetting(f"estimator.{name}={getattr(self, name)} must be at least 1")
        if not 0 < self.rate <= 1:
            raise InvalidSetting(f"estimator.rate={self.rate} must be more than 0 and at most 1")
        if not self.noise >= 0:
            raise InvalidSetting(f"estimator.noise={self.noise} is a deviation: give 0 or more")
        self._loaded: dict[str, Any] = {}
        self._points: list[Architecture] = []
        self._trainers: list[Trainer] = []
        self._origin = ""
        self._ready = False
        self._kept: OrderedDict[_Birth, Mapping[str, Any]] = OrderedDict()
        self._kept_bytes = 0

    # --- paid once ----------------------------------------------------------------------------

    def step_seconds(self, ctx: Context) -> float:
        """Time some training steps of each ancestor; their networks are drawn anew after."""
        if self.supernet is not None:
            return self.supernet.step_seconds(ctx)
        points = _spread(ctx.space, self.ancestors, ctx.seed)
        trainers = [_trainer(ctx, point, i, 10**9) for i, point in enumerate(points)]
        return float(np.mean([t.step_seconds(warmup=2, rounds=4, steps=2) for t in trainers]))

    def prepare(self, ctx: Context, budget: Budget) -> Iterator[Cost]:
        """Train the ancestors for `budget.steps` steps in all; yields about once a second.

        Raises:
            UnsupportedLayer: torch.fx cannot trace the networks of this space.
            InvalidStudy: the loaded state is of another space or task.
        """
        self._kept.clear()  # of another context, perhaps
        self._kept_bytes = 0
        if self.supernet is not None:
            yield from self.supernet.prepare(ctx, budget)
            self._ready = True
            return
        self._begin(ctx, budget.steps or 1)
        for trainer in self._trainers:
            each = count(trainer.module, ctx.task.example(1, ctx.device)).macs
            for cost in in_chunks(ctx, trainer):
                yield replace(cost, macs=3 * each * cost.samples)
        self._end()

    def _begin(self, ctx: Context, steps: int) -> None:
        """Make the ancestors' trainers, each with its share of the steps, and their states."""
        self._origin = same_origin(ctx, self._loaded.get("origin", ""), "inherit")
        self._points = _spread(ctx.space, min(self.ancestors, steps), ctx.seed)
        shares = [len(part) for part in np.array_split(np.arange(steps), len(self._points))]
        self._trainers = [
            _trainer(ctx, point, i, share)
            for i, (point, share) in enumerate(zip(self._points, shares))
        ]
        for i, trainer in enumerate(self._trainers):
            trace(trainer.module)  # what cannot be morphed is refused before it is trained
            state = under(f"ancestor.{i}.", self._loaded)
            if state:
                trainer.load_state_dict(state)

    def _end(self) -> None:
        for trainer in self._trainers:
            trainer.finish()
        self._ready = True

    def state_dict(self) -> Mapping[str, Any]:
        """Return the training states of all ancestors, or of the supernet."""
        if self.supernet is not None:
            return self.supernet.state_dict()
        if not self._trainers:
            return self._loaded
        states = {f"ancestor.{i}.": t.state_dict() for i, t in enumerate(self._trainers)}
        flat = {f"{prefix}{k}": v for prefix, state in states.items() for k, v in state.items()}
        steps = sum(t.steps for t in self._trainers)
        return {**flat, "steps": steps, "origin": self._origin}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up training states; `prepare` goes on from them."""
        self._loaded = dict(state)
        if self.supernet is not None:
            self.supernet.load_state_dict(state)

    # --- paid for each architecture -----------------------------------------------------------

    def estimate_seconds(self, ctx: Context) -> float:
        """Return the seconds of one tuning, from some timed steps; morphs take little beside it."""
        on = self._on(ctx)
        point = ctx.space.canonical(ctx.space.sample(derive(ctx.seed, "timed")))
        step_s = _trainer(on, point, 0, 10**9).step_seconds()
        return self.tune_steps * step_s / ctx.executor.at_once

    def estimate(self, ctx: Context, proposals: Sequence[Proposal]) -> list[Estimate]:
        """Let each architecture inherit, tune it, and judge it.

        One whose tuning diverges has no score, and costs what it took.

        Raises:
            AssayError: nothing was prepared.
        """
        return all_of(self.estimate_each(ctx, proposals))

    def estimate_each(
        self, ctx: Context, proposals: Sequence[Proposal]
    ) -> Iterator[tuple[int, Told]]:
        """Yield what `estimate` returns as the tunings end."""
        if not self._ready and self.supernet is None:
            if not self._loaded:
                raise AssayError("inherit has no ancestors yet: call prepare, or load a state")
            self._begin(ctx, int(self._loaded["steps"]))
            self._end()
        born: dict[int, _Child] = {}

        def make(i: int) -> Training:
            proposal = proposals[i]
            born[i] = self._child(ctx, proposal.architecture, _lineage(ctx, proposal.parent))
            return born[i].tuning

        def tell(i: int, tuned: Trained) -> Estimate:
            return self._estimate(ctx, born.pop(i), tuned)

        yield from trained_each(ctx, range(len(proposals)), make, tell)

    def _estimate(self, ctx: Context, child: _Child, tuned: Trained) -> Estimate:
        cost = child.cost + tuned.cost
        made_from = {
            "estimator": "inherit", "from": child.origin, "generation": len(child.lineage) + 1,
            "tune_steps": self.tune_steps, "morphs": [morph.to_dict() for morph in child.morphs],
        }  # fmt: skip
        if tuned.diverged:
            return Estimate.failed(tuned.diverged, cost, made_from)
        self._keep(child, tuned)
        metrics = {f"inherited_{name}": value for name, value in tuned.figures.items()}
        return Estimate(-tuned.figures["loss"], metrics, cost, made_from)

    def _child(self, ctx: Context, point: Architecture, lineage: tuple[int, ...]) -> _Child:
        """Return a child with inherited weights, ready to be tuned."""
        started, spent = time.perf_counter(), Cost()
        ctx = self._on(ctx)
        if self.supernet is not None and not lineage:
            origin, parent = {"supernet": 0}, point
            source = self.supernet.network(ctx, point)
        elif lineage:
            origin = {"trial": lineage[-1]}
            parent = ctx.history[lineage[-1]].architecture
            source, spent = self._parent(ctx, lineage)
        else:
            prices = [price(plan(ctx.space, ancestor, point)) for ancestor in self._points]
            nearest = prices.index(min(prices))
            origin = {"ancestor": nearest}
            parent, source = self._points[nearest], self._trainers[nearest].module
        names = ("inherit", point.to_json(), *lineage)
        heir = inherit(
            ctx.space, parent, source, point,
            rng=derive(ctx.seed, *names), example=ctx.task.example(_SEEN, ctx.device),
            noise=self.noise,
        )  # fmt: skip
        tuning = Training(
            heir.network, ctx.task, self._recipe(ctx.recipe), self.tune_steps, self.tune_steps,
            ctx.device, int(derive(ctx.seed, *names, "tune").integers(2**31)),
            samples=self.samples, keep=True,
        )  # fmt: skip
        wall_s = time.perf_counter() - started - spent.wall_s
        cost = spent + Cost(wall_s, device=ctx.device)
        return _Child(point, lineage, origin, heir.morphs, tuning, cost)

    def _on(self, ctx: Context) -> Context:
        """Return the context with the space and task of the networks that are tuned."""
        if self.supernet is None:
            return ctx
        space, task = self.supernet.on(ctx)
        return replace(ctx, space=space, task=task)

    def _recipe(self, recipe: Recipe) -> Recipe:
        """Return how children are tuned: at a low constant rate, judged by averaged weights."""
        return recipe.with_(
            lr=self.rate * recipe.lr, schedule="constant", warmup=0.0, ema=recipe.ema or _AVERAGED
        )

    def _parent(self, ctx: Context, lineage: tuple[int, ...]) -> tuple[nn.Module, Cost]:
        """Return the tuned network of a lineage's last trial, and what it cost to have it again."""
        generations = [
            (ctx.history[number].architecture, lineage[:i]) for i, number in enumerate(lineage)
        ]
        known = [i for i, generation in enumerate(generations) if generation in self._kept]
        cost = Cost()
        for point, before in generations[known[-1] + 1 if known else 0 :]:  # the oldest first
            child = self._child(ctx, point, before)
            ((_, job),) = run_each(ctx, [child], lambda child: child.tuning)
            tuned = job.result()
            if tuned.diverged:
                raise NotFinite(f"the parent's tuning: {tuned.diverged}")
            self._keep(child, tuned)
            cost = cost + child.cost + tuned.cost
        self._kept.move_to_end(generations[-1])
        network = ctx.space.fresh(generations[-1][0], 0).to(ctx.device)
        network.load_state_dict(self._kept[generations[-1]])
        return network, cost

    def _keep(self, child: _Child, tuned: Trained) -> None:
        """Keep the weights of a tuned network for its children."""
        job = child.tuning
        trainer = Trainer(
            job.network, job.task, job.recipe, steps=job.whole, device=job.device, seed=job.seed
        )
        trainer.load_state_dict(tuned.state)
        state = trainer.finish().state_dict()  # extra state in it may be no tensor
        weights = {name: v.cpu() if isinstance(v, Tensor) else v for name, v in state.items()}
        self._remember((child.point, child.lineage), weights)

    def _remember(self, birth: _Birth, weights: Mapping[str, Any]) -> None:
        """Keep weights, and forget those used longest ago where there is no room for them.

        A strategy comes back to its best trials after hundreds of others, so there is much room.
        """
        self._kept_bytes += _num_bytes(weights) - _num_bytes(self._kept.pop(birth, {}))
        self._kept[birth] = weights
        while len(self._kept) > _FEWEST_KEPT and self._kept_bytes > _MOST_BYTES:
            self._kept_bytes -= _num_bytes(self._kept.popitem(last=False)[1])


def _num_bytes(weights: Mapping[str, Any]) -> int:
    return sum(value.nbytes for value in weights.values() if isinstance(value, Tensor))


@dataclass(frozen=True)
class _Child:
    """A network with inherited weights.

    Attributes:
        point: Its architecture.
        lineage: Numbers of the trials it descends from, the oldest first.
        origin: Whose weights it has: {"trial": number}, {"ancestor": number} or {"supernet": 0}.
        morphs: How it came from there.
        tuning: The training that is still to come.
        cost: Of the inheriting.
    """

    point: Architecture
    lineage: tuple[int, ...]
    origin: Mapping[str, int]
    morphs: tuple[Morph, ...]
    tuning: Training
    cost: Cost


def _spread(space: Space, num: int, seed: int) -> list[Architecture]:
    """Choose architectures of middling size that lie far apart.

    Of some random ones, the middle half by parameters; of these the most central one first, and
    then always the one farthest, in Euclidean distance of the encodings, from all chosen.

    Args:
        space: The space.
        num: How many; fewer where the space has not as many.
        seed: Names the draws.
    """
    rng = derive(seed, "ancestors")
    drawn = {space.canonical(space.sample(rng)) for _ in range(num * _DRAWN_PER_ANCESTOR)}
    ranked = sorted(drawn, key=lambda a: (_num_params(space, a), a.to_json()))
    edge = min(len(ranked) // 4, max(0, (len(ranked) - num) // 2))
    pool = ranked[edge : len(ranked) - edge]
    codes = np.stack([space.encode(a) for a in pool])
    gaps = np.linalg.norm(codes[:, None] - codes[None], axis=2)
    central = int(gaps.sum(1).argmin())
    return [pool[i] for i in farthest_first(codes, num, start=central)]


def _num_params(space: Space, architecture: Architecture) -> int:
    return sum(p.numel() for p in space.build(architecture).parameters())


def _trainer(ctx: Context, point: Architecture, number: int, steps: int) -> Trainer:
    seed = int(derive(ctx.seed, "ancestor", number).integers(2**31))
    network = ctx.space.fresh(point, seed)
    return Trainer(network, ctx.task, ctx.recipe, steps=steps, device=ctx.device, seed=seed)


def _lineage(ctx: Context, parent: int | None) -> tuple[int, ...]:
    """Return the scored trials that a child descends from, the oldest first."""
    found: list[int] = []
    while parent is not None and ctx.history[parent].state == "scored":
        found.append(parent)
        parent = ctx.history[parent].parent
    return tuple(reversed(found))
