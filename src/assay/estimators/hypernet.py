"""The hypernetwork: train one network that writes weights, score each architecture with its own.

Known weakness: its rank correlation with trained networks is modest (Kendall's tau of about 0.27
on CIFAR-10 in the published results of Knyazev et al. 2021, arXiv:2110.13100), and the authors of
SMASH saw it vanish where the hypernetwork was too small. Compare it with counting MACs before you
trust it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from assay.architecture import Architecture
from assay.contracts import Context, Estimate, Proposal
from assay.cost import Budget, Cost, derive
from assay.errors import AssayError, InvalidSetting, InvalidStudy, nearest
from assay.estimators.origin import same_origin
from assay.estimators.training import in_chunks
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.space.fresh import reset
from assay.space.space import Space
from assay.train.loop import Trainer
from assay.train.splits import Batch, evened
from assay.train.task import Tally, call_model
from assay.weights.hypernet import Generated, Generator, TileGenerator, drawn
from assay.weights.norms import Norms
from assay.weights.smash import BankGenerator
from assay.zoo.memory_bank_code import BankCode

__all__ = ["Hypernet"]

_GENERATORS = ("mlp", "smash")
_COUNTED_STEPS = 16


@dataclass
class Hypernet:
    """Scores an architecture with weights that a trained network writes for it.

    Source: Brock, Lim, Ritchie, Weston 2017, "SMASH: One-Shot Model Architecture Search through
    HyperNetworks", arXiv:1708.05344, sections 3 and 4; differs: serves any space with the generator
    "mlp" (tiles, after Ha et al. 2016, arXiv:1609.09106); Adam has torch's decay rates and epsilon,
    a higher rate and no weight decay; neither the budget nor the kernels grow in the first half.

    Args:
        generator: "mlp" for any space without open kernels; "smash" for the memory-bank space.
        hidden: Size of the hypernetwork: hidden units ("mlp"), or channels of a layer ("smash").
        lr: Peak learning rate of Adam, which trains everything; the recipe's schedule holds.
        score: "loss" ranks by the negative validation loss, "metric" by the task's own score.
        samples: Most validation samples that a score is taken on.
        batch: Most samples of one scoring batch; batch norms are normalised by it, so their sizes
            are evened out.
    Raises:
        InvalidSetting: an unknown generator or score, a size below 1, or a rate of no recipe.
    """

    generator: Literal["mlp", "smash"] = "mlp"
    hidden: int = 64
    lr: float = 5e-3
    score: Literal["loss", "metric"] = "loss"
    samples: int = 1024
    batch: int = 256

    def __post_init__(self) -> None:
        if self.generator not in _GENERATORS:
            raise InvalidSetting(
                f"unknown generator {self.generator!r}; {nearest(self.generator, _GENERATORS)}"
            )
        if self.score not in ("loss", "metric"):
            raise InvalidSetting(f"estimator.score={self.score!r} must be 'loss' or 'metric'")
        for name in ("hidden", "samples", "batch"):
            if getattr(self, name) < 1:
                raise InvalidSetting(f"estimator.{name}={getattr(self, name)} must be at least 1")
        if not 1e-8 <= self.lr <= 100:
            raise InvalidSetting(f"estimator.lr={self.lr} must be from 1e-08 to 100")
        self._generated: Generated | None = None
        self._trainer: Trainer | None = None
        self._loaded: dict[str, Any] | None = None
        self._batches: list[Batch] | None = None
        self._measures: Measures | None = None
        self._step_macs: tuple[float, ...] | None = None
        self._shared: dict[str, Tensor] = {}  # the model's own state, which others may train, too
        self._origin = ""

    def prepare(self, ctx: Context, budget: Budget) -> Iterator[Cost]:
        """Train the hypernetwork for `budget.steps` steps in all; yields about once a second.

        Raises:
            UnsupportedLayer: a weight to generate has an open kernel.
            InvalidSpace: there is no weight to generate, or "smash" on another space.
            InvalidStudy: the loaded state is of another space, task, size or generator.
        """
        trainer = self._begin(ctx, budget.steps or 1)
        begun = trainer.step
        for cost in in_chunks(ctx, trainer):
            macs = self._training_macs(ctx, cost.samples, trainer.step - begun)
            begun = trainer.step
            self._keep_shared(ctx)
            yield replace(cost, macs=macs)
            ctx.space.model.load_state_dict(self._shared)
        trainer.finish()
        self._keep_shared(ctx)

    def _keep_shared(self, ctx: Context) -> None:
        """Copy what is shared of the model: whoever trains or scores with it next changes it."""
        self._shared = copy.deepcopy(ctx.space.model.state_dict())  # what is tied stays so

    def _begin(self, ctx: Context, steps: int) -> Trainer:
        self._origin = same_origin(ctx, (self._loaded or {}).get("origin", ""), "hypernetwork")
        self._batches = self._measures = self._step_macs = None  # of another context
        reset(ctx.space, ctx.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(derive(ctx.seed, "hypernet").integers(2**63)))
            self._generated = Generated(ctx.space, self._new_generator(ctx.space))
        self._trainer = self._generated.trainer(
            ctx.task, ctx.recipe.with_(optimizer="adamw", lr=self.lr, weight_decay=0.0),
            steps=steps, device=ctx.device, seed=ctx.seed,
        )  # fmt: skip
        if self._loaded is not None:
            self._check_loaded(self._trainer.state_dict())
            self._trainer.load_state_dict(self._loaded)
        self._keep_shared(ctx)
        return self._trainer

    def _new_generator(self, space: Space) -> Generator:
        if self.generator == "smash":
            return BankGenerator(space, BankCode(space), self.hidden)
        return TileGenerator(space, self.hidden)

    def _check_loaded(self, fresh: Mapping[str, Any]) -> None:
        """Refuse weights that do not fit, before any of them is copied."""
        assert self._loaded is not None
        own, loaded = (
            {k: tuple(v.shape) for k, v in state.items() if k.startswith("module.")}
            for state in (fresh, self._loaded)
        )
        if own != loaded:
            raise InvalidStudy(
                f"the saved hypernetwork is not generator={self.generator!r} with "
                f"hidden={self.hidden} on this space; use what it was trained with, or train anew"
            )

    def _training_macs(self, ctx: Context, samples: int, steps: int) -> int:
        """Return the MACs of some steps, at the mean of the first architectures drawn."""
        assert self._generated is not None
        if self._step_macs is None:
            points = [drawn(ctx.space, ctx.seed, step) for step in range(_COUNTED_STEPS)]
            pairs = [self._macs(ctx, self._generated, point) for point in points]
            self._step_macs = tuple(sum(column) / len(pairs) for column in zip(*pairs))
        network, generator = self._step_macs
        return round(3 * (network * samples + generator * steps))

    def _macs(self, ctx: Context, network: Generated, point: Architecture) -> tuple[int, int]:
        """Return the MACs of an architecture on one sample, and of generating its weights."""
        if self._measures is None:
            self._measures = Measures(ctx.space, Device(), ctx.task.example(1))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.weights(point)
        return round(self._measures("macs", point)), counter.get_total_flops() // 2

    def step_seconds(self, ctx: Context) -> float:
        """Time some training steps; the weights are drawn anew after."""
        return self._begin(ctx, 10**9).step_seconds(rounds=8, steps=6)

    def estimate(self, ctx: Context, proposals: Sequence[Proposal]) -> list[Estimate]:
        """Score architectures one by one: no two of them share a weight.

        Raises:
            AssayError: nothing was prepared.
        """
        if self._trainer is None and self._loaded is not None:
            self._begin(ctx, max(1, int(self._loaded["step"])))
        if self._generated is None:
            raise AssayError("hypernet has no weights yet: call prepare, or load a state")
        ctx.space.model.load_state_dict(self._shared)
        return [self._estimate(ctx, self._generated, p.architecture) for p in proposals]

    def _estimate(self, ctx: Context, network: Generated, point: Architecture) -> Estimate:
        started = time.perf_counter()
        batches = self._data(ctx)
        figures = _judge(ctx, network, point, batches)
        score = -figures["loss"] if self.score == "loss" else ctx.task.score_of(figures)
        metrics = {f"hypernet_{name}": value for name, value in figures.items()}
        made_from = {"estimator": "hypernet", "generator": self.generator, "hidden": self.hidden}
        samples = sum(len(targets) for _, targets in batches)
        per_sample, generating = self._macs(ctx, network, point)
        wall_s = time.perf_counter() - started
        cost = Cost(wall_s, samples, per_sample * samples + generating, ctx.device)
        return Estimate(score, metrics, cost, made_from)

    def _data(self, ctx: Context) -> list[Batch]:
        if self._batches is None:
            valid = ctx.task.valid.batches(self.batch, device=ctx.device, limit=self.samples)
            self._batches = evened(valid, self.batch)
        return self._batches

    def state_dict(self) -> Mapping[str, Any]:
        """Return the training state: hypernetwork, shared weights, optimiser, step."""
        if self._trainer is None:
            return self._loaded or {}
        shared = {f"module.model.{name}": value for name, value in self._shared.items()}
        return {**self._trainer.state_dict(), **shared, "origin": self._origin}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a training state; `prepare` goes on from it."""
        self._loaded = dict(state)


def _judge(
    ctx: Context, network: Generated, point: Architecture, batches: Sequence[Batch]
) -> dict[str, float]:
    """Return "loss" and the task's metrics with generated weights, each batch normalised alone."""
    norms, tally = Norms(network.model, lambda: point), Tally(ctx.task)
    network.eval()
    network.select(point)
    try:
        with torch.no_grad(), network.written(), norms.by_batch() if norms else nullcontext():
            for inputs, targets in batches:
                tally.add(call_model(network.model, inputs), targets)
    finally:
        ctx.space.select(None)
    return tally.means()
