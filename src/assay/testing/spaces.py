"""What every ready space must do."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn

from assay.architecture import Architecture
from assay.cost import derive
from assay.space.space import Space

__all__ = ["SpaceContract"]

_DRAWS = 12


class SpaceContract:
    """Set `space` to a function that takes `input_shape=, num_classes=`, or to its "module:name".

    Attributes:
        space: What is tested.
        shapes: Channels, height and width of the images it must take.
    """

    space: Callable[..., Space] | str | None = None
    shapes: tuple[tuple[int, int, int], ...] = ((1, 8, 8), (3, 32, 32))

    def make(self, **options: Any) -> Any:
        """Return a fresh space.

        Args:
            options: Arguments in place of the defaults.
        Raises:
            NotImplementedError: the subclass has not set `space`.
        """
        function: Any = type(self).space  # of the class: a plain function stays unbound
        if function is None:
            raise NotImplementedError(
                f"{type(self).__name__} tests nothing; set space = a function that makes one, or "
                '"module:name"'
            )
        if isinstance(function, str):
            module, _, name = function.partition(":")
            function = getattr(import_module(module), name)
        return function(**options)

    def spaces(self) -> list[tuple[Space, tuple[int, int, int]]]:
        """Return the space for each of the shapes, and seven classes."""
        return [(self.make(input_shape=shape, num_classes=7), shape) for shape in self.shapes]

    def test_it_is_a_space_of_its_own_defaults(self) -> None:
        """Without arguments too, and the same one each time."""
        one, other = self.make(), self.make()
        assert isinstance(one, Space)
        assert one.size >= 2
        assert one.fingerprint == other.fingerprint
        assert one.factory is not None, "give Space a function, so that networks can begin anew"

    def test_its_points_keep_the_laws_of_a_space(self) -> None:
        """Members, JSON, codes, canonical forms, mutation and crossing."""
        for space, _ in self.spaces():
            rng = derive(0, "points")
            points = [space.sample(rng) for _ in range(_DRAWS)]
            for a, b in itertools.pairwise(points):
                assert space.contains(a)
                assert Architecture.from_json(a.to_json()) == a
                assert space.encode(a).shape == space.encode(b).shape
                canonical = space.canonical(a)
                assert space.contains(canonical)
                assert space.canonical(canonical) == canonical
                mutant = space.mutate(a, rng)
                assert space.contains(mutant)
                assert mutant != a
                assert space.contains(space.cross(a, b, rng))

    def test_a_path_equals_its_network(self) -> None:
        """In eval mode, to 1e-5; norms are made random first, so that a wrong cut shows."""
        for space, shape in self.spaces():
            _randomise_norms(space.model)
            x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
            for a in _some(space):
                space.model.eval()
                space.select(a)
                with torch.no_grad():
                    path = space.model(x)
                    network = space.build(a).eval()(x)
                space.select(None)
                assert path.shape == (2, 7)
                assert (path - network).abs().max() <= 1e-5 * max(1.0, path.abs().max())

    def test_a_canonical_form_is_the_same_network(self) -> None:
        """As many parameters of the same shapes, in the same order."""
        for space, _ in self.spaces():
            for a in _some(space):
                assert _tensors(space.build(a)) == _tensors(space.build(space.canonical(a)))

    def test_what_it_builds_has_no_trace_of_assay(self) -> None:
        """Every module's class comes from torch."""
        for space, _ in self.spaces():
            for a in _some(space):
                for name, module in space.build(a).named_modules():
                    assert type(module).__module__.startswith("torch."), name

    def test_its_networks_learn(self) -> None:
        """A backward pass reaches every parameter."""
        for space, shape in self.spaces():
            for a in _some(space):
                network = space.build(a).train()
                network(torch.randn(4, *shape)).square().mean().backward()
                without = [n for n, p in network.named_parameters() if p.grad is None]
                assert without == []

    def test_an_unknown_argument_is_refused(self) -> None:
        """By Python itself: no catch-all swallows a misspelt option."""
        with pytest.raises(TypeError):
            self.make(no_such_option=1)


def _some(space: Space) -> list[Architecture]:
    rng = derive(0, "some")
    return [space.sample(rng) for _ in range(5)]


def _randomise_norms(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                if tensor is not None:
                    drawn = torch.rand(tensor.shape, generator=generator)
                    tensor.data.copy_(drawn + 0.5)


def _tensors(network: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in network.parameters()]
