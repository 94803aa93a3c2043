"""What paths that learn have in common: a distribution, when it moves and on what; its state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.contracts import Context, History, Learning, Mix
from assay.cost import Cost, derive
from assay.errors import InvalidSetting, NotFinite
from assay.space.space import Space
from assay.strategies.learned.spent import Macs, Spent
from assay.strategies.learned.trace import Trace
from assay.train.files import under
from assay.train.precision import autocast, in_full, working_dtype
from assay.train.splits import Stream, map_tensors
from assay.train.task import Task, call_model
from assay.weights.norms import Norms
from assay.weights.supernet import Supernet

__all__ = ["Distribution", "Learner", "Settings", "judging", "rewards"]

_HEARD = 20.0  # a loss: of a larger one exp(-loss), below 2e-9, is lost beside all else


class Distribution(Protocol):
    """What is learned: chances over the architectures of a space."""

    def sample(self, rng: np.random.Generator, /) -> Architecture:
        """Draw an architecture."""
        ...

    def table(self) -> dict[str, list[float]]:
        """Return the probabilities of each decision's options by label."""
        ...

    def entropy_share(self) -> float:
        """Return where the entropy is between its least, 0, and its largest, 1."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """Return all it knows: name -> tensor."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> Any:
        """Take up what `state_dict` returned."""
        ...


Known = TypeVar("Known", bound=Distribution)


class Settings(Protocol):
    """What a strategy that learns as a supernet trains lets its user choose.

    Attributes:
        warmup: Share of the steps before the distribution is moved for the first time.
        every: Weight steps from one turn of the distribution to the next.
        batch: Validation samples of a move.
    """

    warmup: float
    every: int
    batch: int


class Learner(ABC, Generic[Known]):
    """Paths that come from a distribution over architectures, which moves while they train.

    A supernet's estimator calls `begin` before it trains, and the supernet `learn` before each of
    its steps. A subclass says which paths a step takes (`passes`), and how a batch of validation
    samples moves the distribution (`_move`), whose passes run within `_judging`.

    Args:
        settings: What the user chose.
        fresh: Makes the distribution over a space that knows nothing yet.
        moves: At each turn, each on a batch of its own.
    """

    def __init__(
        self, settings: Settings, fresh: Callable[[Space], Known], *, moves: int = 1
    ) -> None:
        self.settings = settings
        self._fresh = fresh
        self._moves = moves
        self._known: Known | None = None
        self._loaded: Mapping[str, Any] = {}
        self._loaded_by: History | None = None  # of the search that took it up
        self._valid = Stream()
        self._seed = 0
        self._first = 0
        self._hastened = False
        self._autocast: AbstractContextManager[Any] = nullcontext()
        self._trace = Trace()
        self._spent = Spent()
        self._done = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings!r})"

    # --- what a supernet asks -----------------------------------------------------------------

    @property
    def every(self) -> int:
        """Weight steps from one turn of the distribution to the next."""
        return self.settings.every

    def begin(self, ctx: Context, space: Space, steps: int) -> None:
        """Begin to learn over a space; the search that was loaded for takes that up.

        Args:
            ctx: Names the seed; its recipe is the one that the supernet's weights train by, and its
                history tells one search from the next.
            space: Of the supernet.
            steps: Weight steps in all.
        """
        self._seed = ctx.seed
        self._first = math.ceil(self.settings.warmup * steps)
        self._hastened = False
        dtype = working_dtype(ctx.recipe, space.model, ctx.device)
        # Nothing here scales a loss up to where float16 holds its gradients.
        self._autocast = autocast(dtype if dtype is torch.bfloat16 else None, ctx.device)
        self._valid = Stream()
        self._known = self._fresh(space)
        self._trace, self._spent, self._done = Trace(steps), Spent(), 0
        self._settle(ctx, space)
        if self._loaded_by is not None and self._loaded_by is not ctx.history:
            self._loaded = {}
        self._loaded_by = ctx.history
        if self._loaded:
            self._resume(self._loaded)

    def divide(self, task: Task) -> Task:
        """Return the task whose training split the weights see, and its validation split `learn`.

        By default it is the task as it is.
        """
        return task

    def hasten(self) -> None:
        """Leave the warm-up out, and judge weights however bad: for whoever times the steps."""
        self._first, self._hastened = 0, True

    def spent(self, macs: Macs) -> Cost:
        """Return what its own passes cost since this was last asked, without their time.

        The passes of architecture steps are meant, a backward as two forwards; those of weight
        steps are their trainer's.

        Args:
            macs: Counts one sample's forward on a path or mix.
        """
        return self._spent.take(macs)

    def warming(self, step: int) -> bool:
        """Whether a step comes before the distribution counts."""
        return self._known is None or step < self._first

    def learn(self, supernet: Supernet, task: Task, step: int) -> None:
        """Move the distribution, if that is due before this weight step.

        A step that its trainer takes once more moves nothing again.

        Raises:
            NotFinite: it was moved to where there is none.
        """
        if step < self._done:
            return
        now = self._known_at(step) if self._trace.due(step) else None
        self._turn(supernet, task, step)
        if now is not None:
            self._trace.keep(now)
        self._done = step + 1

    def _turn(self, supernet: Supernet, task: Task, step: int) -> None:
        turn, early = divmod(step - self._first, self.settings.every)
        if step < self._first or early:
            return
        batches, device, size = self._valid, supernet.device, self.settings.batch
        for number in range(turn * self._moves, (turn + 1) * self._moves):
            inputs, targets = batches.at(number, task.valid, size, self._seed, device)
            self._move(supernet, task, inputs, targets, step)
            self._check_finite(step)

    @property
    def _heard(self) -> float:
        """The largest loss whose exp(-loss) counts as a reward; see `rewards`."""
        return math.inf if self._hastened else _HEARD

    @contextmanager
    def _judging(self, supernet: Supernet) -> Iterator[None]:
        """Within: the supernet is judged, see `judging`, and its passes are booked.

        A network that is built meanwhile, to be measured, would have the hooks of both.
        """
        with judging(supernet.module), self._spent.booking(supernet.space):
            yield

    def _call(self, model: Any, inputs: Any) -> Any:
        """Return what a model gives in float32, computed in the number format of the weight steps.

        Where that is float16 it is computed in float32, too.
        """
        with self._autocast:
            output = call_model(model, inputs)
        return in_full(output)

    def _check_finite(self, step: int) -> None:
        for name, value in self.known.state_dict().items():
            if not bool(torch.isfinite(value).all()):
                raise NotFinite(
                    f"what is learned of {name} is not finite after the architecture step before "
                    f"weight step {step}: the validation loss or its gradient was not; lower "
                    "recipe.lr or strategy.lr"
                )

    def _draws(self, step: int) -> np.random.Generator:
        return derive(self._seed, "learned", step)

    # --- what a subclass says -----------------------------------------------------------------

    @abstractmethod
    def passes(
        self, space: Space, step: int, *, rng: np.random.Generator
    ) -> Sequence[Architecture | Mix]:
        """Return the paths or mixes of a weight step."""

    @abstractmethod
    def _settle(self, ctx: Context, space: Space) -> None:
        """Make what is kept beside the distribution."""

    @abstractmethod
    def _move(
        self, supernet: Supernet, task: Task, inputs: Any, targets: Tensor, step: int
    ) -> None:
        """Move the distribution."""

    @abstractmethod
    def _more_state(self) -> dict[str, Any]:
        """Return what is kept beside the distribution: name -> tensor or JSON value."""

    @abstractmethod
    def _take_up(self, state: Mapping[str, Any]) -> None:
        """Take up what `_more_state` returned."""

    # --- what is known ------------------------------------------------------------------------

    @property
    def known(self) -> Known:
        """The distribution as it is.

        Raises:
            InvalidSetting: no supernet has begun to train.
        """
        if self._known is None:
            raise InvalidSetting(
                "nothing was learned yet: this strategy needs an estimator that trains a supernet, "
                "such as 'one-shot'"
            )
        return self._known

    def learned(self) -> Sequence[Learning]:
        """Return what was known at some steps, and what is known now; see `Strategy`."""
        return [] if self._known is None else self._trace.up_to(self._known_at(self._done))

    def _known_at(self, step: int) -> Learning:
        return Learning(step, self.known.table(), self._entropy_share(), **self._figures())

    def _figures(self) -> dict[str, Any]:
        """Return what more a `Learning` tells."""
        return {}

    def over(self, space: Space) -> Known:
        """Return the distribution over a space with the decisions that it was learned on."""
        found = self._fresh(space)
        if self._known is not None:
            found.load_state_dict(self._known.state_dict())
        elif self._loaded:
            found.load_state_dict(under("known.", self._loaded))
        return found

    def _entropy_share(self) -> float:
        """Return that of what architectures are proposed from."""
        return self.known.entropy_share()

    def state_dict(self) -> dict[str, Any]:
        """Return what is known, what is kept beside it, and what was known on the way."""
        if self._known is None:
            return dict(self._loaded)
        known = {f"known.{name}": v for name, v in self._known.state_dict().items()}
        more = {f"more.{name}": v for name, v in self._more_state().items()}
        told = {"trace": self._trace.to_json(), "spent": self._spent.to_json(), "done": self._done}
        return {**known, **more, **told}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned; so does the search that begins next, and no other."""
        self._loaded, self._loaded_by = dict(state), None
        if self._known is not None and state:
            self._resume(state)

    def _resume(self, state: Mapping[str, Any]) -> None:
        self.known.load_state_dict(under("known.", state))
        self._take_up(under("more.", state))
        self._trace.load(state["trace"])
        self._spent.load(state["spent"])
        self._done = int(state["done"])


@contextmanager
def judging(model: nn.Module) -> Iterator[None]:
    """Within: the model is as where it is judged, eval mode, but norms use each batch's statistics.

    So dropout does not blur what a path is worth, and one loss is one function however often it is
    taken. The modes are restored.

    Args:
        model: Of a supernet.
    """
    modes = [(module, module.training) for module in model.modules()]
    recurrent = [(m, m.dropout) for m, _ in modes if isinstance(m, nn.RNNBase)]
    try:
        for module, training in modes:
            # cuDNN has no gradient of a recurrent module in eval mode: it keeps its mode, and has
            # its dropout taken away.
            module.training = training and isinstance(module, nn.RNNBase)
        for module, _ in recurrent:
            module.dropout = 0.0
        with Norms(model, lambda: None).by_batch():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for module, dropout in recurrent:
            module.dropout = dropout


def rewards(
    space: Space,
    task: Task,
    inputs: Any,
    targets: Tensor,
    points: Sequence[Architecture],
    *,
    call: Callable[..., Any] = call_model,
    heard: float = _HEARD,
) -> list[float]:
    """Return what paths are worth on a batch: accuracy; exp(-loss) where there are no classes.

    Args:
        space: Of the supernet; the last path stays selected.
        task: Names the loss.
        inputs: `[N, ...]`, or a tuple or dict of such.
        targets: `[N, ...]`.
        points: The paths.
        call: Passes inputs through a model.
        heard: Above this loss exp(-loss) is next to nothing.
    Raises:
        NotFinite: exp(-loss) is more than a number can be, or next to nothing for all of them.
    """
    judged = []
    for point in points:
        space.select(point)
        with torch.no_grad():
            whole = map_tensors(inputs, Tensor.clone)  # of what a forward wrote before
            judged.append(_judged(task, call(space.model, whole), targets))
    return judged if task.classes else _worth(judged, heard)


def _judged(task: Task, output: Any, targets: Tensor) -> float:
    """Return the accuracy of what was given for a batch; its loss where there are no classes."""
    if task.classes:
        return float((output.argmax(1) == targets).double().mean())
    return float(task.training_loss(output, targets, 0.0))


def _worth(losses: Sequence[float], heard: float) -> list[float]:
    least = min(losses)
    if least > heard:
        raise NotFinite(
            f"a path is worth exp(-loss), and the least loss of {len(losses)} is {least:.4g}: "
            f"above {heard:.3g} that is next to nothing; scale the targets or the loss, or raise "
            "strategy.warmup"
        )
    try:
        return [math.exp(-loss) for loss in losses]
    except OverflowError:
        raise NotFinite(
            f"a path is worth exp(-loss), and its loss is {least:.4g}; give the task a loss that "
            "is not far below 0, such as a mean in place of a sum"
        ) from None
