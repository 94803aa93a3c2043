"""Choices among modules: an open decision is a module that is called like any other.

Unselected, a choice behaves like its first option (`OneOf`, `Inputs`) or its whole stack
(`Depth`), so a model with choices runs as it stands. `Space.select` sets what is active.
"""

from __future__ import annotations

import copy
import functools
import itertools
import operator
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from assay.architecture import Option
from assay.errors import InvalidSpace, UnsupportedMix
from assay.train.writes import times_written

__all__ = ["CHOSEN", "ChoiceModule", "Depth", "Held", "Inputs", "OneOf", "twin"]

CHOSEN = "assay.chosen"
"""Key of deepcopy's memo under which `build` passes the option of each choice module."""


@dataclass(frozen=True)
class Held:
    """A weight of a mix whose option computes without a graph of its own.

    Gradients reach the weight and nothing behind it; of the option only its output is kept.

    Attributes:
        weight: Scalar tensor.
    """

    weight: Tensor


class ChoiceModule(nn.Module):
    """What `OneOf`, `Depth` and `Inputs` share: a label, options, and the active mix.

    `reads` may say what each option reads: option -> names, of a decision's output its label, of
    what no decision made any other. Strategies that learn which connections are good heed it.
    """

    kind = ""
    label_in_space = ""  # for messages
    reads: Mapping[Any, tuple[str, ...]] | None = None
    label: str | None
    options: tuple[Option, ...]
    mix: Mapping[Any, Any] | None = None

    def plain(self, option: Any, memo: MutableMapping[Any, Any]) -> nn.Module:
        """Return a torch-only copy of what is left when `option` is taken."""
        raise TypeError(f"{type(self).__name__} has no plain form")  # pragma: no cover - abstract

    @property
    def _named(self) -> str:
        return self.label_in_space or self.label or self.kind

    def _weighed(self, weight: Any, value: Any, before: Sequence[Tensor] = ()) -> Tensor:
        """Return a term of a mix: a value times its weight.

        Args:
            weight: Scalar tensor or number.
            value: What is mixed.
            before: The terms that it is added to.
        Raises:
            UnsupportedMix: it is no tensor, or not of their shape; one without dimensions, such as
                a zero, is added to any.
        """
        found = ""
        if not isinstance(value, Tensor):
            found = f"of type {type(value).__name__}"
        elif odd := [t for t in before if t.dim() and value.dim() and t.shape != value.shape]:
            found = f"{list(value.shape)} beside {list(odd[0].shape)}"
        if found:
            raise UnsupportedMix(
                f"{self._named}: what is mixed must be tensors of one shape, and one is {found}; "
                "use a strategy that runs one option at a time, such as 'enas' or 'evolution'"
            )
        term: Tensor = weight * value
        return term

    def _refuse_writing(self, part: str, readers: str) -> None:
        raise UnsupportedMix(
            f"{self._named}: {part} writes into its input, which {readers} too; use inplace=False "
            "in it, or a strategy that runs one option at a time, such as 'enas' or 'evolution'"
        )

    def __deepcopy__(self, memo: dict[Any, Any]) -> nn.Module:
        chosen = memo.get(CHOSEN)
        if chosen is None:
            return twin(self, memo)
        if id(self) not in chosen:
            raise InvalidSpace(
                f"{self.kind}{self.options} is kept where no path can follow it, such as in a "
                "plain list; keep it in an nn.ModuleList, and only in the module that runs it"
            )
        return self.plain(chosen[id(self)], memo)


def twin(module: nn.Module, memo: dict[Any, Any]) -> nn.Module:
    """Return a deep copy as Python makes it, for a `__deepcopy__` that would otherwise hide it."""
    made = module.__class__.__new__(module.__class__)
    memo[id(module)] = made
    made.__dict__.update(copy.deepcopy(module.__dict__, memo))
    return made


class OneOf(ChoiceModule):
    """Which of several modules computes the output.

    Args:
        options: Mapping name -> module, for names that are no identifiers.
        label: Name of the decision; by default the module path. Equal labels are one decision.
        named: The options by keyword: `OneOf(conv3=..., skip=nn.Identity())`.
    Raises:
        InvalidSpace: fewer than two options, an option that is no module, or a name in use.
    """

    kind = "OneOf"

    def __init__(
        self,
        *options: Mapping[str, nn.Module] | nn.ModuleDict,
        label: str | None = None,
        **named: nn.Module,
    ) -> None:
        super().__init__()
        named_ones = all(isinstance(given, Mapping | nn.ModuleDict) for given in options)
        if len(options) > 1 or not named_ones:
            raise InvalidSpace(
                "OneOf was given options without names; name them as in "
                "OneOf(conv=nn.Conv2d(8, 8, 3), skip=nn.Identity()), or give one mapping of names"
            )
        modules = {**(options[0] if options else {}), **named}
        if len(modules) < 2:
            raise InvalidSpace(
                f"OneOf({', '.join(map(str, modules))}) is no choice: give two or more options, "
                "or use the module itself"
            )
        self.label = label
        self.options = tuple(modules)
        for name, module in modules.items():
            if not isinstance(module, nn.Module):
                raise InvalidSpace(
                    f"option {name!r} of OneOf is no nn.Module but {module!r}; give the module "
                    "itself, made"
                )
            if not isinstance(name, str) or hasattr(self, name) or "." in name or not name:
                raise InvalidSpace(f"OneOf cannot have an option named {name!r}; rename it")
            self.add_module(name, module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the active option, or the weighted sum of those in the mix.

        Raises:
            UnsupportedMix: in a mix, an option that returns no tensor, or one of another shape; one
                that writes into its input, which the others read too.
        """
        mix = self.mix
        if mix is None:
            return self._modules[self.options[0]](*args, **kwargs)  # type: ignore[index,misc]
        if _is_selected(mix):
            return self._modules[next(iter(mix))](*args, **kwargs)  # type: ignore[misc]
        terms: list[Tensor] = []
        given = times_written((args, kwargs))
        for name, weight in mix.items():
            module: Any = self._modules[name]
            with torch.set_grad_enabled(torch.is_grad_enabled() and not isinstance(weight, Held)):
                out = module(*args, **kwargs)
            if len(mix) > 1 and times_written((args, kwargs)) != given:
                self._refuse_writing(f"the option {name!r}", "the options mixed with it read")
            plain = weight.weight if isinstance(weight, Held) else weight
            terms.append(self._weighed(plain, out, terms))
        return functools.reduce(torch.add, terms)

    def plain(self, option: str, memo: MutableMapping[Any, Any]) -> nn.Module:
        """Return a copy of the chosen module."""
        return copy.deepcopy(self._modules[option], memo)  # type: ignore[arg-type,return-value]


class Depth(ChoiceModule):
    """How many modules of a stack run: the first d of them.

    Args:
        blocks: The whole stack.
        min: Fewest blocks that may run; with 0 the stack may be left out.
        label: Name of the decision; by default the module path.
    Raises:
        InvalidSpace: `min` leaves no choice, or a block is no module.
    """

    kind = "Depth"

    def __init__(self, *blocks: nn.Module, min: int = 1, label: str | None = None) -> None:  # noqa: A002
        super().__init__()
        if len(blocks) == 1 and isinstance(blocks[0], list | tuple | nn.ModuleList):
            kind = type(blocks[0]).__name__
            raise InvalidSpace(
                f"Depth was given a {kind}; give the blocks themselves: Depth(*blocks)"
            )
        if not 0 <= min < len(blocks):
            raise InvalidSpace(
                f"Depth of {len(blocks)} blocks with min={min} is no choice; "
                f"min must be 0 to {len(blocks) - 1}"
            )
        self.label = label
        self.options = tuple(range(min, len(blocks) + 1))
        for i, block in enumerate(blocks):
            if not isinstance(block, nn.Module):
                raise InvalidSpace(
                    f"block {i} of Depth is no nn.Module but {block!r}; give a module that is made"
                )
            self.add_module(str(i), block)

    def forward(self, x: Any) -> Any:
        """Run the first d blocks, or the weighted sum over the depths in the mix.

        Raises:
            UnsupportedMix: in a mix, a block that returns no tensor, or one of another shape; one
                that writes into what a shallower depth of the mix returns.
        """
        mix = self.mix or {len(self._modules): 1.0}
        deepest, alone = max(mix), _is_selected(mix)
        terms: list[Tensor] = []
        mixed: list[Any] = []
        for depth, block in enumerate([*self._modules.values(), None]):
            if depth in mix and not alone:
                terms.append(self._weighed(mix[depth], x, terms))
                mixed.append(x)
            if depth == deepest or block is None:
                break
            given = times_written(mixed)
            x = block(x)
            if times_written(mixed) != given:
                self._refuse_writing(f"block {depth}", "a shallower depth of the mix returns")
        return x if alone else functools.reduce(torch.add, terms)

    def plain(self, option: int, memo: MutableMapping[Any, Any]) -> nn.Module:
        """Return an `nn.Sequential` of copies of the first blocks."""
        blocks = list(self._modules.values())[:option]
        stack = nn.Sequential(*[copy.deepcopy(b, memo) for b in blocks])  # type: ignore[arg-type]
        stack.training = self.training
        return stack


class Inputs(ChoiceModule):
    """Which predecessors a node reads: called with a list, returns the list of those kept.

    What becomes of them (sum, concatenation) is the caller's ordinary code. An option is an
    ascending tuple of positions, so an order of the same predecessors is no second option.

    Args:
        num: How many predecessors there are.
        keep: How many are kept.
        label: Name of the decision; by default the module path.
    Raises:
        InvalidSpace: there is nothing to choose.
    """

    kind = "Inputs"

    def __init__(self, num: int, keep: int = 1, *, label: str | None = None) -> None:
        super().__init__()
        if not 0 < keep < num:
            raise InvalidSpace(
                f"Inputs(num={num}, keep={keep}) is no choice: keep must be 1 to num - 1"
            )
        self.label = label
        self.num = num
        self.options = tuple(itertools.combinations(range(num), keep))

    def forward(self, xs: Sequence[Any]) -> list[Any]:
        """Return the inputs kept; in a mix each carries the weight of the options it is in.

        Args:
            xs: `num` values, tensors of one shape `[N, ...]` where they are summed later.
        Raises:
            InvalidSpace: it was called with another number of inputs.
            UnsupportedMix: in a mix, an input that is no tensor.
        """
        mix = self.mix or {self.options[0]: 1.0}
        if len(xs) != self.num:
            raise InvalidSpace(
                f"Inputs(num={self.num}) was called with {len(xs)} inputs; give num as many as "
                "forward passes it"
            )
        kept = sorted({i for option in mix for i in option})
        if _is_selected(mix):
            return [xs[i] for i in kept]
        return [self._weighed(sum(w for o, w in mix.items() if i in o), xs[i]) for i in kept]

    def plain(self, option: tuple[int, ...], memo: MutableMapping[Any, Any]) -> nn.Module:
        """Return a graph, written node by node, that picks the kept items of a list."""
        graph = fx.Graph()
        xs = graph.placeholder("xs")
        graph.output([graph.call_function(operator.getitem, (xs, i)) for i in option])
        picked = fx.GraphModule(nn.Module(), graph)
        picked.training = self.training
        return picked


def _is_selected(mix: Mapping[Any, Any]) -> bool:
    """Whether a mix is one option, not weighed."""
    weights = list(mix.values())
    return len(weights) == 1 and not isinstance(weights[0], Tensor | Held) and weights[0] == 1.0
