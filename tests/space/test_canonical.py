from __future__ import annotations

import itertools

import numpy as np
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.space.choices import Depth, Inputs, OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from tests.space.spaces import Chain, Tangle, conv


def position(channels: int = 4) -> OneOf:
    return OneOf(
        a=nn.Conv2d(channels, channels, 3, padding=1),
        b=nn.Conv2d(channels, channels, 1),
        skip=nn.Identity(),
    )


def network(space: Space, architecture: Architecture) -> tuple[str, ...]:
    """What is computed: the layers in order, identities left out."""
    built = space.build(architecture)
    return tuple(repr(m) for m in built.modules() if not list(m.children()) and m.__class__
                 is not nn.Identity and m.__class__ is not nn.Sequential)  # fmt: skip


def merges_exactly(space: Space) -> None:
    """Two architectures have one canonical form if and only if they compute one network."""
    by_form: dict[Architecture, set[tuple[str, ...]]] = {}
    by_network: dict[tuple[str, ...], set[Architecture]] = {}
    for point in space.all():
        form = space.canonical(point)
        assert space.contains(form)
        by_form.setdefault(form, set()).add(network(space, point))
        by_network.setdefault(network(space, point), set()).add(form)
    assert all(len(networks) == 1 for networks in by_form.values()), "a false merge"
    assert all(len(forms) == 1 for forms in by_network.values()), "a merge was missed"


def test_runs_in_a_sequential() -> None:
    merges_exactly(Space(nn.Sequential(nn.Conv2d(1, 4, 1), *[position() for _ in range(4)])))


def test_runs_in_a_depth() -> None:
    merges_exactly(Space(Depth(*[position() for _ in range(4)], min=1)))
    merges_exactly(Space(Depth(*[position() for _ in range(3)], min=0)))


def test_a_depth_with_a_fixed_head() -> None:
    merges_exactly(Space(Depth(nn.Conv2d(4, 4, 5), *[position() for _ in range(3)], min=1)))


def test_runs_broken_by_a_fixed_layer() -> None:
    net = nn.Sequential(position(), position(), nn.ReLU(), position(), position())
    merges_exactly(Space(net))


def test_positions_that_differ_are_never_merged() -> None:
    net = nn.Sequential(
        OneOf(a=conv(4, 3), skip=nn.Identity()),
        OneOf(a=conv(4, 5), skip=nn.Identity()),
    )
    space = Space(net)
    assert len({space.canonical(a) for a in space.all()}) == space.size == 4


def test_functions_that_cannot_be_compared_count_as_different() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.how = lambda x: x * 2

        def forward(self, x):
            return self.how(x)

    net = nn.Sequential(*[OneOf(a=Scale(), skip=nn.Identity()) for _ in range(3)])
    assert len({Space(net).canonical(a) for a in Space(net).all()}) == 8


def test_nested_decisions_move_with_their_position() -> None:
    def nested() -> OneOf:
        return OneOf(op=OneOf(p=nn.ReLU(), q=nn.Tanh()), skip=nn.Identity())

    merges_exactly(Space(nn.Sequential(*[nested() for _ in range(3)])))


class Picks(nn.Module):
    """Reads one of what it makes of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.pick = Inputs(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        (kept,) = self.pick([x, 2 * x, x * x])
        return kept


def test_inputs_move_with_their_position() -> None:
    space = Space(nn.Sequential(*[OneOf(op=Picks(), skip=nn.Identity()) for _ in range(2)]))
    assert space.size == (3 + 1) ** 2
    assert len({space.canonical(a) for a in space.all()}) == 1 + 3 + 3**2


def test_inputs_are_never_merged_by_what_a_forward_might_do() -> None:
    class Weighs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Inputs(3, 2), Inputs(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.first([x, x + 1, x + 2])
            c, d = self.second([a, b, a * b])
            return a - 2 * b + c * d

    space = Space(Weighs())
    assert len({space.canonical(a) for a in space.all()}) == space.size == 9


def test_own_widths_move_with_their_position() -> None:
    def block() -> OneOf:
        w = Width(2, 3)
        return OneOf(op=nn.Sequential(nn.Linear(4, w), nn.Linear(w, 4)), skip=nn.Identity())

    merges_exactly(Space(nn.Sequential(*[block() for _ in range(3)])))


def test_shared_labels_stay_where_they_are() -> None:
    ops = [OneOf(a=nn.ReLU(), skip=nn.Identity(), label=f"op{i % 2}") for i in range(4)]
    space = Space(nn.Sequential(*ops))
    assert all(space.canonical(a) == a for a in space.all())


def test_the_chain_of_the_readme() -> None:
    space = Space(Chain)
    forms = {space.canonical(a) for a in space.all()}
    ways = sum(3**n for n in range(7))  # n operations in order, the rest skipped
    assert len(forms) == ways * 3


def test_a_space_can_bring_its_own_form() -> None:
    def no_b(a: Architecture) -> Architecture:
        return Architecture({k: "a" if v == "b" else v for k, v in a.items()})

    net = nn.Sequential(position(), position())
    space = Space(net, canonical=no_b)
    assert {v for a in space.all() for v in space.canonical(a).values()} == {"a", "skip"}


def test_canonical_is_idempotent_where_everything_nests() -> None:
    space, rng = Space(Tangle), np.random.default_rng(0)
    for point in itertools.islice((space.sample(rng) for _ in range(500)), 500):
        form = space.canonical(point)
        assert space.contains(form)
        assert space.canonical(form) == form
