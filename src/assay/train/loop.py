"""The one loop that trains weights: of a network, or of a supernet path by path."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from assay.cost import Cost
from assay.errors import InvalidSetting, NotFinite
from assay.train.recipe import Recipe
from assay.train.splits import Batch, map_tensors
from assay.train.task import Task, call_model

__all__ = ["Optimizer", "Trainer", "channels_last"]

_CHECK_EVERY_ON_CUDA = 20
Passes = Callable[[int], Iterable[float]]


class Optimizer(Protocol):
    """What the loop asks of an optimiser that is not torch's."""

    def zero_grad(self) -> None:
        """Drop all gradients."""
        ...

    def step(self, lr: float) -> None:
        """Update the parameters at a learning rate."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """Return tensors by name."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        ...


class Trainer:
    """Trains a module for a number of steps; can stop and go on at any of them.

    Every draw (order of samples, augmentation, dropout) is a function of the seed and the step, so
    saving the state, loading it elsewhere and going on gives the same bits on the CPU.

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
    Raises:
        InvalidSetting: fewer than one step, or a precision that the device has not.
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
        self._autocast = _autocast(recipe, device)
        self._scaler = torch.amp.GradScaler(device, enabled=_dtype(recipe, device) == torch.float16)
        self._channels_last = _wants_channels_last(recipe, module)
        if self._channels_last:
            self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._average = _Average(module, recipe.ema) if recipe.ema else None
        self._generator = torch.Generator()
        self._parameters = list(self.module.parameters())  # walking a supernet takes milliseconds

    @property
    def done(self) -> bool:
        """Whether all steps have been taken."""
        return self.step >= self.steps

    def run(self, count: int) -> Cost:
        """Take up to `count` more steps.

        Returns:
            What they took; `samples` counts each pass.
        Raises:
            NotFinite: the loss is NaN or infinite; the message names the step.
        """
        started, samples = time.perf_counter(), 0
        end = min(self.steps, self.step + count)
        size = min(self.recipe.batch_size, len(self.task.train))
        batches = self.task.train.train_batches(
            size, seed=self._seed, start=self.step, device=self._device
        )
        self.module.train()
        devices = [torch.device(self._device)] if self._device.startswith("cuda") else []
        with torch.random.fork_rng(devices=devices):
            while self.step < end:
                samples += self._take_step(next(batches))
        if devices:
            torch.cuda.synchronize(devices[0])
        return Cost(time.perf_counter() - started, samples, 0, self._device)

    def step_seconds(self, *, warmup: int = 3, rounds: int = 6, steps: int = 3) -> float:
        """Return the wall seconds of one step, the lower quartile of a few rounds.

        Takes steps, so the trainer is of no other use after. A slow moment of the machine falls on
        one round and is passed over.
        """
        self.run(warmup)
        times = sorted(self.run(steps).wall_s / steps for _ in range(rounds))
        return times[rounds // 4]

    def _take_step(self, batch: Batch) -> int:
        torch.manual_seed(_draw(self._seed, self.step))
        inputs, targets = self._augmented(batch)
        self._optimizer.zero_grad()
        losses: list[Tensor] = []
        for weight in self._passes(self.step):
            with self._autocast:
                output = call_model(self.module, inputs)
                loss = self.task.training_loss(output, targets, self.recipe.label_smoothing)
            scaled = loss if weight == 1.0 else loss * weight
            self._scaler.scale(scaled).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        self._check(losses)
        self._update(self.recipe.lr_at(self.step, self.steps))
        self.step += 1
        return len(targets) * len(losses)

    def _augmented(self, batch: Batch) -> Batch:
        inputs, targets = batch
        if self.task.augment is not None:
            self._generator.manual_seed(_draw(self._seed + 1, self.step))
            inputs = self.task.augment(inputs, self._generator)
        if self._channels_last:
            inputs = map_tensors(inputs, channels_last)
        return inputs, targets

    def _check(self, losses: list[Tensor]) -> None:
        """Refuse a loss that is not finite; on CUDA only now and then, since it waits."""
        if self._device.startswith("cuda") and self.step % _CHECK_EVERY_ON_CUDA:
            return
        values = [float(loss) for loss in losses]
        if not all(abs(v) < float("inf") for v in values):
            raise NotFinite(
                f"the training loss is {values} at step {self.step}; lower recipe.lr "
                f"({self.recipe.lr:g}) or set recipe.clip"
            )

    def _update(self, lr: float) -> None:
        if self.recipe.clip:
            if self._scaler.is_enabled():
                self._unscale()
            nn.utils.clip_grad_norm_(self._parameters, self.recipe.clip, foreach=True)
        self._optimizer.step(lr)
        if self._average is not None:
            self._average.update()

    def _unscale(self) -> None:
        scale = float(self._scaler.get_scale())
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.div_(scale)

    def finish(self) -> nn.Module:
        """Return the module in eval mode, with averaged weights if the recipe averages."""
        if self._average is not None:
            self._average.apply()
        return self.module.eval()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that goes on: weights, optimiser, average, step; flat."""
        state: dict[str, Any] = {f"module.{k}": v for k, v in self.module.state_dict().items()}
        state |= {f"optimizer.{k}": v for k, v in self._optimizer.state_dict().items()}
        if self._average is not None:
            state |= {f"average.{k}": v for k, v in self._average.weights.items()}
        return {**state, "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.module.load_state_dict(_under("module.", state))
        self._optimizer.load_state_dict(_under("optimizer.", state))
        if self._average is not None:
            for name, value in _under("average.", state).items():
                self._average.weights[name].copy_(value)
        self.step = int(state["step"])


class TorchOptimizer:
    """torch's SGD or AdamW as the recipe says; norms and biases are not decayed.

    Args:
        module: Whose parameters move.
        recipe: Names the optimiser and its settings.
    """

    def __init__(self, module: nn.Module, recipe: Recipe) -> None:
        self._names = {id(p): n for n, p in module.named_parameters()}
        parameters = [p for p in module.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [g for g in groups if g["params"]]
        self._optimizer: torch.optim.Optimizer
        if recipe.optimizer == "sgd":
            self._optimizer = torch.optim.SGD(
                groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0,
                foreach=True,
            )  # fmt: skip
        else:
            self._optimizer = torch.optim.AdamW(groups, lr=recipe.lr, foreach=True)

    def zero_grad(self) -> None:
        """Drop all gradients, so that what a step does not use is not decayed either."""
        self._optimizer.zero_grad(set_to_none=True)

    def step(self, lr: float) -> None:
        """Update at a learning rate."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the buffers as "parameter/buffer" -> tensor."""
        return {
            f"{self._names[id(p)]}/{key}": value
            for p, buffers in self._optimizer.state.items()
            for key, value in buffers.items()
            if isinstance(value, Tensor)
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        by_name = {self._names[id(p)]: p for g in self._optimizer.param_groups for p in g["params"]}
        self._optimizer.state.clear()
        for key, value in state.items():
            name, _, kind = key.rpartition("/")
            parameter = by_name[name]
            device = value.device if kind == "step" else parameter.device
            self._optimizer.state[parameter][kind] = value.to(device).clone()


class _Average:
    """An exponential moving average of a module's weights; integer buffers are copied."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self._decay = decay
        self._updates = 0
        self.weights = {k: copy.deepcopy(v.detach()) for k, v in module.state_dict().items()}
        self.weights["updates"] = torch.zeros((), dtype=torch.long)

    def update(self) -> None:
        """Move the average towards the weights, faster in the first steps."""
        self.weights["updates"] += 1
        n = int(self.weights["updates"])
        decay = min(self._decay, (1 + n) / (10 + n))
        for name, value in self._module.state_dict().items():
            kept = self.weights[name]
            if value.is_floating_point():
                kept.lerp_(value, 1.0 - decay)
            else:
                kept.copy_(value)

    def apply(self) -> None:
        """Put the average in the place of the weights."""
        kept = {k: v for k, v in self.weights.items() if k != "updates"}
        self._module.load_state_dict(kept)


def channels_last(tensor: Tensor) -> Tensor:
    """Return images `[N, C, H, W]` with their channels innermost in memory, others as they are."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _one_pass(step: int) -> Iterator[float]:
    yield 1.0


def _draw(seed: int, step: int) -> int:
    """Mix a seed and a step into 63 bits (splitmix64), cheaply enough for every step."""
    z = (seed * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03 + 0x8CB92BA72F3D8DD7) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return (z ^ (z >> 31)) >> 1


def _under(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _dtype(recipe: Recipe, device: str) -> torch.dtype | None:
    if recipe.precision == "auto":
        if device.startswith("cuda"):
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else None
    if recipe.precision == "fp16" and device == "cpu":
        raise InvalidSetting("recipe.precision='fp16' needs CUDA; use 'bf16' or 'fp32' on the CPU")
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[recipe.precision]


def _autocast(recipe: Recipe, device: str) -> AbstractContextManager[Any]:
    dtype = _dtype(recipe, device)
    if dtype is None:
        return nullcontext()
    return torch.autocast(device.split(":")[0], dtype=dtype)


def _wants_channels_last(recipe: Recipe, module: nn.Module) -> bool:
    """On a CPU too: backwards of depthwise convolutions took half the time, of dense ones 0.96."""
    if recipe.channels_last != "auto":
        return recipe.channels_last
    return any(isinstance(m, nn.Conv2d) for m in module.modules())
