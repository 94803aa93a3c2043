from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from assay.space.choices import OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from assay.weights.prefix import PrefixWalk
from tests.space.spaces import Chain, Tangle, conv, randomise_norms


class Counting(nn.Module):
    """Counts its forwards; shared by tests of what is computed how often."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale, self.calls = scale, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.scale


def outputs(space: Space, points: list, x: Tensor, *, shared: bool) -> list[Tensor]:
    walk = PrefixWalk(space, shared=shared)
    found: dict[int, Tensor] = {}
    with torch.no_grad(), walk.installed():
        walk.population(points, x, found.__setitem__)
    return [found[i] for i in range(len(points))]


@pytest.mark.parametrize(("model", "size"), [(Chain, 8), (Tangle, 4)])
def test_shared_outputs_are_those_of_each_path_alone(model: type[nn.Module], size: int) -> None:
    space, rng = Space(model), np.random.default_rng(0)
    randomise_norms(space.model)
    space.model.double().eval()
    points = [space.sample(rng) for _ in range(60)]
    x = torch.randn(3, 1, size, size, dtype=torch.float64)
    shared = outputs(space, points, x, shared=True)
    for point, one, alone in zip(points, shared, outputs(space, points, x, shared=False)):
        assert torch.equal(one, alone)
        assert float((one - space.build(point)(x)).detach().abs().max()) <= 1e-11
    assert all("forward" not in m.__dict__ for m in space.model.modules())


class Scaling(nn.Module):
    """Reads a size itself, before it calls anything."""

    def __init__(self) -> None:
        super().__init__()
        self.width = Width(2, 3, 4)
        self.body = nn.Sequential(OneOf(a=nn.Tanh(), b=nn.ReLU()), OneOf(a=nn.Tanh(), b=nn.ReLU()))
        self.last = nn.Linear(5, self.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x * int(self.width))).sum(1)


def test_what_the_model_reads_itself_is_part_of_every_prefix() -> None:
    space = Space(Scaling)
    points = list(space.all())
    x = torch.randn(3, 5)
    shared = outputs(space, points, x, shared=True)
    for point, one in zip(points, shared):
        torch.testing.assert_close(one, space.build(point)(x))


def test_each_prefix_is_computed_once() -> None:
    net = nn.Sequential(*[OneOf(a=Counting(2.0), b=Counting(3.0), c=Counting(5.0))
                          for _ in range(5)])  # fmt: skip
    space = Space(net)
    points = list(space.all())
    np.random.default_rng(0).shuffle(points)  # type: ignore[arg-type]
    results = outputs(space, points, torch.ones(1), shared=True)
    factor = {"a": 2.0, "b": 3.0, "c": 5.0}
    for point, result in zip(points, results):
        assert float(result) == np.prod([factor[str(v)] for v in point.values()])
    calls = sum(m.calls for m in space.model.modules() if isinstance(m, Counting))
    assert calls == 3 + 9 + 27 + 81 + 243


def test_later_batches_follow_the_first_ones_order() -> None:
    net = nn.Sequential(*[OneOf(a=Counting(2.0), b=Counting(3.0)) for _ in range(4)])
    space, rng = Space(net), np.random.default_rng(0)
    points = [space.sample(rng) for _ in range(9)]
    walk = PrefixWalk(space)
    calls, kept = [], []
    with torch.no_grad(), walk.installed():
        for batch in (torch.ones(1), torch.full((1,), 2.0), torch.full((1,), 3.0)):
            before = sum(m.calls for m in space.model.modules() if isinstance(m, Counting))
            found: dict[int, float] = {}

            def visit(i: int, out: Tensor, found: dict[int, float] = found) -> None:
                found[i] = float(out)
                kept.append(len(walk._calls))

            walk.population(points, batch, visit)
            calls.append(
                sum(m.calls for m in space.model.modules() if isinstance(m, Counting)) - before
            )
            for i, point in enumerate(points):
                factor = np.prod([{"a": 2.0, "b": 3.0}[str(v)] for v in point.values()])
                assert found[i] == float(batch) * factor
    assert calls[0] == calls[1] == calls[2]
    assert sum(kept[9:18]) <= sum(kept[:9])


def test_many_paths_are_run_where_nothing_is_shared() -> None:
    space = Space(nn.Sequential(*[OneOf(a=nn.Identity(), b=nn.Tanh()) for _ in range(11)]))
    points = list(space.all())[:1200]
    walk, visited = PrefixWalk(space, shared=False), []
    with torch.no_grad(), walk.installed():
        walk.population(points, torch.ones(1), lambda i, _: visited.append(i))
    assert visited == list(range(1200))


def test_memory_holds_one_path() -> None:
    space = Space(nn.Sequential(*[OneOf(a=conv(4, 3), b=nn.Identity()) for _ in range(6)]))
    space.model.eval()
    walk = PrefixWalk(space)
    most = 0

    def visit(_: int, __: Tensor) -> None:
        nonlocal most
        most = max(most, len(walk._calls))

    with torch.no_grad(), walk.installed():
        walk.population(list(space.all()), torch.ones(1, 4, 3, 3), visit)
    assert most <= 6


def test_writing_into_a_remembered_output_is_noticed() -> None:
    net = nn.Sequential(
        OneOf(a=nn.Conv2d(2, 2, 1), b=nn.Conv2d(2, 2, 3, padding=1)),
        nn.ReLU(inplace=True),
        OneOf(a=nn.Conv2d(2, 2, 1), b=nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(2, 2, 1))),
        OneOf(a=nn.ReLU(inplace=True), b=nn.Conv2d(2, 2, 1)),
    )
    space = Space(net)
    points, x = list(space.all()), torch.randn(2, 2, 5, 5)
    for one, other in zip(
        outputs(space, points, x, shared=True), outputs(space, points, x, shared=False)
    ):
        assert torch.equal(one, other)


class Writing(nn.Module):
    """Writes into its inputs, and into what it still needs after."""

    def __init__(self) -> None:
        super().__init__()
        self.first = OneOf(a=nn.ReLU(inplace=True), b=nn.Identity())
        self.stem = nn.Linear(4, 4)
        self.act = nn.ReLU(inplace=True)
        self.last = OneOf(a=nn.Linear(4, 2), b=nn.Linear(4, 2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        y.mul_(2.0)
        x = self.first(x) + x
        stem = self.stem(x + y)
        return self.last(self.act(stem) + stem)


@pytest.mark.parametrize("shared", [True, False])
def test_inputs_that_a_forward_writes_into_are_put_back(shared: bool) -> None:
    space = Space(Writing)
    points = list(space.all())
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    given = (x.clone(), y.clone())
    expected = [space.build(point)(x.clone(), y.clone()) for point in points]
    walk = PrefixWalk(space, shared=shared)
    found: dict[int, Tensor] = {}
    with torch.no_grad(), walk.installed():
        for _ in range(2):  # the second pass follows the first one's order
            walk.population(points, given, found.__setitem__)
            assert all(torch.equal(found[i], alone) for i, alone in enumerate(expected))
            assert torch.equal(given[0], x)
            assert torch.equal(given[1], y)


def test_a_forward_of_an_instances_own_is_used_and_kept() -> None:
    space = Space(nn.Sequential(nn.Linear(4, 4), OneOf(a=nn.Tanh(), b=nn.ReLU())))
    linear = space.model[0]

    def forward(x: Tensor) -> Tensor:
        return 100 * nn.Linear.forward(linear, x)

    linear.forward = forward
    points, x = list(space.all()), torch.randn(3, 4)
    for shared in (True, False):
        for option, found in zip(
            (torch.tanh, torch.relu), outputs(space, points, x, shared=shared)
        ):
            assert torch.equal(found, option(forward(x)))
    assert linear.__dict__["forward"] is forward


def test_a_module_called_twice_keeps_its_calls_apart() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = OneOf(a=Counting(2.0), b=Counting(3.0))
            self.first = nn.Linear(1, 1)
            self.last = OneOf(a=Counting(5.0), b=Counting(7.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(self.op(self.first(self.op(x)))))

    space = Space(Twice)
    points, x = list(space.all()), torch.ones(1, 1)
    shared = outputs(space, points, x, shared=True)
    for point, one in zip(points, shared):
        assert torch.equal(one, space.build(point)(x))


class ReadAside(nn.Module):
    """Reads the weights of a layer that it never calls."""

    def __init__(self, width: Width) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, width), nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.linear(x, self.inner.weight, self.inner.bias)
        return x + nn.functional.linear(hidden.tanh(), self.outer.weight, self.outer.bias)


def encoder(width: Width) -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, dim_feedforward=width, batch_first=True)  # type: ignore[arg-type]


class Blocks(nn.Module):
    """Blocks with widths of their own between choices."""

    def __init__(self, block: Callable[[Width], nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            OneOf(conv=nn.Linear(8, 8), skip=nn.Identity()), block(Width(4, 16)),
            OneOf(conv=nn.Linear(8, 8), skip=nn.Identity()), block(Width(4, 8, 16)),
            OneOf(conv=nn.Linear(8, 8), skip=nn.Identity()),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@pytest.mark.parametrize("block", [ReadAside, encoder])
def test_sizes_of_layers_that_are_read_and_not_called_are_part_of_every_prefix(
    block: Callable[[Width], nn.Module],
) -> None:
    torch.manual_seed(0)
    space = Space(partial(Blocks, block))
    space.model.eval()
    rng = np.random.default_rng(0)
    points = [space.sample(rng) for _ in range(40)]
    x = torch.randn(2, 3, 8)
    walk, found = PrefixWalk(space), {}
    with torch.no_grad(), walk.installed():
        for _ in range(2):  # a later batch follows the first one's order
            walk.population(points, x, found.__setitem__)
            for i, alone in enumerate(outputs(space, points, x, shared=False)):
                assert torch.equal(found[i], alone), points[i]
