"""The one loop that trains weights: of a network, or of a supernet path by path."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from assay.cost import Cost
from assay.errors import InvalidSetting, InvalidTask, NotFinite
from assay.train import buffers
from assay.train.average import Average
from assay.train.files import under
from assay.train.frozen import frozen_norms
from assay.train.layout import channels_last, is_of_views, settled
from assay.train.optimizers import Optimizer, TorchOptimizer
from assay.train.precision import LossScale, autocast, in_full, working_dtype
from assay.train.recipe import Recipe
from assay.train.splits import Batch, Stream, drawing, map_tensors
from assay.train.task import Task, call_model
from assay.train.writes import times_written

__all__ = ["Optimizer", "Trainer"]

_READ_EVERY_ON_CUDA = 20
_TIMED_S = 2.0
Passes = Callable[[int], Iterable[float]]


class Trainer:
    """Trains a module for a number of steps; can stop and go on at any of them.

    Every draw (order of samples, augmentation, dropout) is a function of the seed and the step, so
    saving the state, loading it elsewhere and going on gives the same bits on the CPU. The global
    generators are left as they were. Gradients are dropped before each step, so that a parameter
    which the step does not use is neither decayed nor moved by its momentum. Norms that are frozen
    stay in eval mode.

    Args:
        module: Trained in place, on `device` already or moved there.
        task: Training split, loss and augmentation.
        recipe: How.
        steps: Steps in all; the schedule is made for them.
        device: Torch device.
        seed: Names every draw.
        passes: passes(step) yields the weight of each pass's loss; asking for the next one
            activates the next path. Gradients of all passes are added up, one update follows.
        optimizer: In place of torch's SGD or AdamW.
    Attributes:
        step: Steps taken, those before a resumption included.
        losses: Mean loss of each step that this object has taken, for whoever sums them.
    Raises:
        InvalidSetting: fewer than one step, a precision that the device has not, or a memory format
            that the network cannot have.
    """

    def __init__(
        self,
        module: nn.Module,
        task: Task,
        recipe: Recipe,
        *,
        steps: int,
        device: str = "cpu",
        seed: int = 0,
        passes: Passes | None = None,
        optimizer: Optimizer | None = None,
    ) -> None:
        if steps < 1:
            raise InvalidSetting(f"training for {steps} steps: give at least 1")
        self.module = module.to(device)
        self.task = task
        self.recipe = recipe
        self.steps = steps
        self.step = 0
        self._device = device
        self._seed = seed
        self._passes: Passes = passes if passes is not None else _one_pass
        self._optimizer: Optimizer = (
            optimizer if optimizer is not None else TorchOptimizer(module, recipe)
        )
        dtype = working_dtype(recipe, module, device)
        self._autocast = autocast(dtype, device)
        self._scale = LossScale() if dtype is torch.float16 else None
        self._use_channels_last(settled(recipe.channels_last, module, device))
        self._average = Average(module, recipe.ema) if recipe.ema else None
        self._augmenting = torch.Generator()
        self._parameters = list(module.parameters())  # walking a supernet takes milliseconds
        self._frozen = frozen_norms(module)
        self._stream = Stream()
        self._unread: list[tuple[int, list[Tensor], list[Tensor]]] = []
        self.losses: list[float] = []
        self._checked = False
        self._overwritten = False  # a forward wrote into inputs that several passes share

    @property
    def done(self) -> bool:
        """Whether all steps have been taken."""
        return self.step >= self.steps

    def run(self, count: int) -> Cost:
        """Take up to `count` more steps.

        Returns:
            What they took; `samples` counts each pass.
        Raises:
            NotFinite: a loss, gradient or weight is NaN or infinite; the message names the step.
            InvalidTask: the network's output does not fit the targets, the loss is no scalar, or
                a batch has one sample where there are batch norms.
        """
        started, samples = time.perf_counter(), 0
        end = min(self.steps, self.step + count)
        self.module.train()
        for norm in self._frozen:
            norm.eval()
        cuda = [torch.device(self._device)] if self._on_cuda else []
        with drawing(), torch.random.fork_rng(devices=cuda):
            while self.step < end:
                samples += self._take_step()
        self._read_figures()
        self._check_weights()
        return Cost(time.perf_counter() - started, samples, 0, self._device)

    def step_seconds(
        self,
        *,
        warmup: int = 3,
        rounds: int = 6,
        steps: int = 3,
        period: int = 1,
        most_s: float = _TIMED_S,
    ) -> float:
        """Return the mean wall seconds of a step over a period, the lower quartile of a few rounds.

        Takes steps, so the trainer is of no other use after. A slow moment of the machine falls on
        one round and is passed over; of fewer than four rounds the mean is told. Rounds are equally
        long and of whole periods: one on a single small path, or one that misses the costly step of
        its period, would be the quickest.

        Args:
            warmup: Steps before the first round.
            rounds: How many.
            steps: Of a round, rounded up to whole periods.
            period: After so many steps their costs recur.
            most_s: No round but the first begins that would end later. Where the warm-up has taken
                as long, its last steps are the answer; it goes on until they are a period.
        """
        until, warm = time.perf_counter() + most_s, list[float]()
        while len(warm) < (period if (late := time.perf_counter() >= until) else warmup):
            warm.append(self.run(1).wall_s)
        once_s = statistics.fmean(warm[-period:])
        if late:
            return once_s
        fitting = int((until - time.perf_counter()) / (period * once_s))
        count = period * max(1, min(math.ceil(steps / period), fitting))
        times = [self.run(count).wall_s / count]
        while len(times) < rounds and time.perf_counter() + count * min(times) <= until:
            times.append(self.run(count).wall_s / count)
        return sorted(times)[len(times) // 4] if len(times) >= 4 else statistics.fmean(times)

    @property
    def _on_cuda(self) -> bool:
        return self._device.startswith("cuda")

    def _batch(self) -> Batch:
        """Read what a step trains on; reading it again gives the same."""
        size = self.recipe.batch_size
        batch = self._stream.at(self.step, self.task.train, size, self._seed, self._device)
        inputs, targets = batch
        if self.task.augment is not None:
            self._augmenting.manual_seed(_draw(self._seed + 1, self.step))
            self._seed_generators(_draw(self._seed + 2, self.step))  # many draw from no other
            inputs = self.task.augment(inputs, self._augmenting)
        if self._channels_last:
            inputs = map_tensors(inputs, channels_last)
        return inputs, targets

    # --- one step -----------------------------------------------------------------------------

    def _take_step(self) -> int:
        inputs, targets = self._batch()
        tried = self._channels_last and self.recipe.channels_last == "auto"
        # Copied once only: just a supernet can meet a `view` later, on another path.
        before = [b.clone() for b in self.module.buffers()] if tried and self.step == 0 else []
        try:
            losses = self._differentiate(inputs, targets)
        except RuntimeError as error:
            if not (tried and is_of_views(error)):
                raise
            self._use_channels_last(False)  # the forward flattens by `view`
            for buffer, value in zip(self.module.buffers(), before):
                buffer.copy_(value)
            losses = self._differentiate(*self._batch())
        self._update(losses)
        self.step += 1
        return len(targets) * len(losses)

    def _differentiate(self, inputs: Any, targets: Tensor) -> list[Tensor]:
        """Add up the gradients of all passes; return their losses."""
        self._seed_generators(_draw(self._seed, self.step))
        self._optimizer.zero_grad()
        spare = map_tensors(inputs, Tensor.clone) if self._overwritten else None
        versions = times_written(inputs)
        losses: list[Tensor] = []
        for weight in self._passes(self.step):
            if losses and times_written(inputs) != versions:  # the forward wrote into them
                if spare is None:
                    spare, self._overwritten = self._batch()[0], True
                inputs = map_tensors(spare, Tensor.clone)
                versions = times_written(inputs)
            with self._autocast:
                output = self._output(inputs, len(targets))
                if not self._checked:
                    self.task.check_output(output, targets)
                    self._checked = self.task.labels_known or not self.task.classes
            loss = self.task.training_loss(in_full(output), targets, self.recipe.label_smoothing)
            factor = weight if self._scale is None else weight * self._scale.value
            scaled = loss if factor == 1.0 else loss * factor
            if scaled.requires_grad:  # nothing on a path may be trained
                scaled.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return losses

    def _output(self, inputs: Any, num: int) -> Any:
        try:
            return call_model(self.module, inputs)
        except ValueError as error:
            if num > 1 or "more than 1 value per channel" not in str(error):
                raise
            raise InvalidTask(
                f"step {self.step} trains on a batch of one sample, which batch norm cannot; make "
                "the DataLoader with drop_last=True, or give recipe.batch_size of 2 or more"
            ) from error

    def _seed_generators(self, draw: int) -> None:
        """Seed the global generators, such as dropout draws from, and no other device's."""
        torch.default_generator.manual_seed(draw)
        random.seed(draw)
        np.random.seed(draw % 2**32)
        if self._on_cuda:
            index = torch.device(self._device).index
            which = torch.cuda.current_device() if index is None else index
            torch.cuda.default_generators[which].manual_seed(draw)

    def _update(self, losses: list[Tensor]) -> None:
        norms, usable = list[Tensor](), True
        if self._scale is not None or self.recipe.clip:
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            if self._scale is not None:
                usable = self._scale.unscale(gradients)
                if self._scale.exhausted:
                    self._refuse("a gradient is not finite at any scale of the loss", self.step)
            if self.recipe.clip and usable:
                norms = [self._clip(gradients)]
        self._note(losses, norms)
        if usable:
            self._optimizer.step(self.recipe.lr_at(self.step, self.steps))
            if self._average is not None:
                self._average.update()

    def _clip(self, gradients: list[Tensor]) -> Tensor:
        """Scale the gradient down to the largest norm allowed; return the norm it had."""
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        if self._on_cuda or float(norm) > self.recipe.clip:
            nn.utils.clip_grads_with_norm_(self._parameters, self.recipe.clip, norm, foreach=True)
        return norm

    # --- what is finite -----------------------------------------------------------------------

    def _note(self, losses: list[Tensor], norms: list[Tensor]) -> None:
        """Look at losses and norm, on CUDA only now and then, since looking waits for it."""
        self._unread.append((self.step, losses, norms))
        if not self._on_cuda or len(self._unread) >= _READ_EVERY_ON_CUDA:
            self._read_figures()

    def _read_figures(self) -> None:
        unread, self._unread = self._unread, []
        for step, losses, norms in unread:
            values = [float(figure) for figure in [*losses, *norms]]
            if not all(map(math.isfinite, values)):
                self._refuse_figures(values, step)
            self.losses.append(sum(values[: len(losses)]) / len(losses))

    def _refuse_figures(self, values: list[float], step: int) -> None:
        what = f"a training loss or gradient norm is not finite: {values}"
        size = self.recipe.batch_size
        _, targets = Stream().at(step, self.task.train, size, self._seed, self._device)
        if not bool(torch.isfinite(targets).all()):
            raise NotFinite(
                f"{what}, at step {step}, and targets of its batch are NaN or infinite; clean or "
                "drop such samples, or let the loss leave them out"
            )
        self._refuse(what, step)

    def _check_weights(self) -> None:
        """Find what losses did not show yet, such as a last update that overflowed."""
        weights = [p.detach() for p in self._parameters if p.requires_grad]
        if not math.isfinite(float(nn.utils.get_total_norm(weights, foreach=True))):
            self._refuse("a weight is not finite", self.step)

    def _refuse(self, what: str, step: int) -> None:
        raise NotFinite(
            f"{what}, at step {step}; lower the learning rate ({self.recipe.lr:g} here, by "
            f"recipe.lr and the estimator) or recipe.clip ({self.recipe.clip:g})"
        )

    # --- the end, and the state ---------------------------------------------------------------

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """Within: the module has the averaged weights, if there are any; then its own again."""
        with self._average.in_place() if self._average is not None else nullcontext():
            yield self.module

    def finish(self) -> nn.Module:
        """Return the module in eval mode, with averaged weights if the recipe averages.

        Take the state before: the weights themselves are given up for their average.
        """
        if self._average is not None:
            self._average.apply()
        return self.module.eval()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that goes on: weights, buffers, optimiser, average, step; flat.

        The tensors are the live ones: save or copy them before the next step. What a network keeps
        as a plain attribute is not among them.
        """
        state: dict[str, Any] = {f"module.{k}": v for k, v in self.module.state_dict().items()}
        state |= {f"loose.{k}": v for k, v in buffers.loose(self.module).items()}
        for prefix, part in self._parts().items():
            state |= {f"{prefix}{k}": v for k, v in part.state_dict().items()}
        return {**state, "step": self.step, "channels_last": self._channels_last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned; the tensors are copied.

        Raises:
            InvalidStudy: the recipe averages weights, and the state has no average of them.
        """
        self._use_channels_last(bool(state["channels_last"]))
        self.module.load_state_dict(under("module.", state))
        buffers.put_back(self.module, under("loose.", state), self._device)
        for prefix, part in self._parts().items():
            part.load_state_dict(under(prefix, state))
        self.step = int(state["step"])
        self._stream, self._unread = Stream(), []

    def _parts(self) -> dict[str, Any]:
        parts = {"optimizer.": self._optimizer, "average.": self._average, "scale.": self._scale}
        return {prefix: part for prefix, part in parts.items() if part is not None}

    def _use_channels_last(self, use: bool) -> None:
        self._channels_last = use
        layout = torch.channels_last if use else torch.contiguous_format
        self.module.to(memory_format=layout)  # type: ignore[call-overload]


def _one_pass(step: int) -> Iterator[float]:
    yield 1.0


def _draw(seed: int, step: int) -> int:
    """Mix a seed and a step into 63 bits (splitmix64), cheaply enough for every step."""
    z = (seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + 0x8CB92BA72F3D8DD7) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return (z ^ (z >> 31)) >> 1
