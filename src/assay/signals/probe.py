"""What the signals of one network share: its forward on a batch, kept with its graph."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from assay.cost import derive
from assay.errors import InvalidSetting
from assay.signals.blocks import (
    FeatureMap,
    feature_maps,
    is_connection,
    listening,
    map_of,
    parts,
)
from assay.train.layout import channels_last, is_of_views, prefers
from assay.train.splits import leaves, map_tensors
from assay.train.standing import standing_in
from assay.train.task import Task, call_model

__all__ = ["Half", "Probe"]

T = TypeVar("T")
_FEWEST = 4


@dataclass(frozen=True)
class Half:
    """The forward of one half of the batch.

    Attributes:
        share: Its samples among those of the batch.
        inputs: Its tensors of floats, `[n, ...]`; gradients reach them.
        outputs: Tensors that the network returned.
        loss: The mean over its samples, a scalar.
        maps: What the parts of the network hand on.
        layers: Outputs of its layers with connections.
    """

    share: float
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    loss: Tensor
    maps: tuple[FeatureMap, ...]
    layers: tuple[FeatureMap, ...]


class Probe:
    """A network and a batch, for signals to look at.

    Batch norms normalise each call by its own statistics, as a first training step would; all else
    is in eval mode, so that no dropout drowns a signal. The batch is taken in two halves, because
    ZiCo compares the gradients of two batches; gradients of the whole are their mean. One forward
    serves all signals that need the batch, and each takes from its graph what it needs.

    Args:
        network: Left as it is.
        batch: `(inputs, targets)`, each `[N, ...]`, on the network's device.
        task: Gives the loss.
        seed: Names what is drawn.
    Raises:
        InvalidSetting: fewer than 4 samples.
    """

    def __init__(self, network: nn.Module, batch: Any, task: Task, seed: int) -> None:
        self.network = network
        self._inputs, self._targets = batch
        self._task = task
        self._seed = seed
        self._made: dict[Callable[[Probe], Any], Any] = {}
        if len(self._targets) < _FEWEST:
            raise InvalidSetting(
                f"signals need a batch of {_FEWEST} samples or more, not {len(self._targets)}"
            )

    @contextmanager
    def ready(self) -> Iterator[Probe]:
        """Within: modes are set, gradients flow, and torch's generators are used as copies."""
        used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        kept = torch.random.fork_rng(range(torch.cuda.device_count()) if used else ())
        with kept, torch.inference_mode(False), torch.enable_grad(), _by_batch(self.network):
            yield self

    def once(self, work: Callable[[Probe], T]) -> T:
        """Return what a function makes of this probe; it is called the first time only."""
        if work not in self._made:
            self._made[work] = work(self)
        made: T = self._made[work]
        return made

    def generator(self, *names: object) -> torch.Generator:
        """Return a generator on the CPU for draws of some name."""
        made = torch.Generator()
        made.manual_seed(int(derive(self._seed, "signal", *names).integers(2**62)))
        return made

    def call(self, inputs: Any, state: Mapping[str, Tensor] | None = None) -> Any:
        """Call the network; what it draws from torch's generator is the same in every call.

        Args:
            inputs: `[n, ...]`, or a tuple or dict of such.
            state: Name -> tensor that stands in for a parameter or buffer.
        """
        torch.manual_seed(self.generator("forward").initial_seed())
        run = self.network if state is None else standing_in(self.network, state)
        return call_model(run, inputs)

    def state(self, weigh: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Return parameters and buffers in float64: connections as weighed, biases at 0.

        Args:
            weigh: Makes of a connection what stands in for it.
        """
        tensors = dict(self.network.named_buffers()) | dict(self.network.named_parameters())
        state = {
            name: t.detach().double() if t.is_floating_point() else t for name, t in tensors.items()
        }
        for name, parameter in self.network.named_parameters():
            if "bias" in name.rpartition(".")[2]:
                state[name] = torch.zeros_like(state[name])
            elif is_connection(parameter):
                state[name] = weigh(state[name])
        return state

    def floats(self, n: int, make: Callable[[Sequence[int]], Tensor]) -> Any:
        """Return made-up inputs of n samples, in float64.

        Args:
            n: How many.
            make: Makes the tensor of a shape `[n, ...]`.
        Raises:
            InvalidSetting: the network reads integers, which cannot be made up.
        """
        if not all(t.is_floating_point() for t in leaves(self._inputs)):
            raise InvalidSetting(
                "the network reads integers, such as words, and this signal wants made-up floats; "
                "leave it out"
            )
        return map_tensors(
            self._inputs, lambda t: make((n, *t.shape[1:])).to(t.device, torch.float64)
        )

    @property
    def pair(self) -> Any:
        """The first two samples, `[2, ...]`, or a tuple or dict of such."""
        return map_tensors(self._inputs, lambda t: t[:2])

    # --- the batch ----------------------------------------------------------------------------

    @functools.cached_property
    def halves(self) -> tuple[Half, Half]:
        """The forward of the batch, in halves."""
        if prefers(self.network, self._targets.device.type):
            try:
                return self._both(map_tensors(self._inputs, channels_last))
            except RuntimeError as error:
                if not is_of_views(error):
                    raise
        return self._both(self._inputs)

    def _both(self, inputs: Any) -> tuple[Half, Half]:
        middle = (len(self._targets) + 1) // 2
        return self._half(inputs, slice(middle)), self._half(inputs, slice(middle, None))

    def _half(self, inputs: Any, which: slice) -> Half:
        inputs = map_tensors(inputs, lambda t: _leaf(t[which]))
        targets = self._targets[which]
        modules, layers = parts(self.network), list(filter(_connects, self.network.modules()))
        with listening(modules) as told, listening(layers) as heard:
            output = self.call(inputs)
        self._task.check_output(output, targets)
        return Half(
            share=len(targets) / len(self._targets),
            inputs=tuple(t for t in leaves(inputs) if t.requires_grad),
            outputs=tuple(t for t in leaves(output) if isinstance(t, Tensor)),
            loss=self._task.training_loss(output, targets, 0.0),
            maps=feature_maps(told),
            layers=tuple(map_of(layer, t) for layer, t in heard if t.requires_grad),
        )

    @functools.cached_property
    def connections(self) -> list[nn.Parameter]:
        """Trainable parameters that connect units.

        Raises:
            InvalidSetting: the network has none.
        """
        found = [p for p in self.network.parameters() if p.requires_grad and is_connection(p)]
        if not found:
            raise InvalidSetting("the network has no weights to train; leave such signals out")
        return found

    @functools.cached_property
    def gradients(self) -> list[tuple[Tensor, ...]]:
        """Gradients of the loss by connection, for each half; 0 where it does not depend on one."""
        return [
            torch.autograd.grad(
                half.loss, self.connections, retain_graph=True, materialize_grads=True
            )
            for half in self.halves
        ]


@contextmanager
def _by_batch(network: nn.Module) -> Iterator[None]:
    """Within: eval mode, but batch norms normalise each batch by itself, and keep nothing of it.

    A None in a norm's own dict hides the statistics behind it: torch then takes the batch's.
    """
    hidden = ("running_mean", "running_var")
    modes = [(module, module.training) for module in network.modules()]
    norms = [vars(module) for module, _ in modes if isinstance(module, _BatchNorm)]
    before = [{name: norm[name] for name in hidden if name in norm} for norm in norms]
    try:
        for module, _ in modes:
            module.training = False
        for norm in norms:
            norm.update(dict.fromkeys(hidden))
        yield
    finally:
        for norm, kept in zip(norms, before):
            for name in hidden:
                norm.pop(name, None)
            norm.update(kept)
        for module, training in modes:
            module.training = training


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_() if tensor.is_floating_point() else tensor


def _connects(module: nn.Module) -> bool:
    return any(is_connection(p) for p in module.parameters(recurse=False))
