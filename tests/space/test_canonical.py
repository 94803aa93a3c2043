from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.space.choices import Depth, Inputs, OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from tests.space.spaces import Chain, Tangle, conv, randomise_norms


def position(channels: int = 4) -> OneOf:
    return OneOf(
        a=nn.Conv2d(channels, channels, 3, padding=1),
        b=nn.Conv2d(channels, channels, 1),
        skip=nn.Identity(),
    )


def network(space: Space, architecture: Architecture) -> tuple[object, ...]:
    """What is computed: the layers in order, which of their tensors are one, and what is fixed."""
    numbers: dict[int, int] = {}
    layers = []
    for _, layer in space.build(architecture).named_modules(remove_duplicate=False):
        if list(layer.children()) or type(layer) in (nn.Identity, nn.Sequential):
            continue
        tensors = [*layer.parameters(), *layer.buffers()]
        ties = [numbers.setdefault(id(t), len(numbers)) for t in tensors]
        layers.append((repr(layer), *ties, *(str(t) for t in tensors if not t.requires_grad)))
    return tuple(layers)


def groups(space: Space) -> tuple[dict[Architecture, set[object]], dict[object, set[Architecture]]]:
    """Return the networks of each canonical form, and the forms of each network."""
    by_form: dict[Architecture, set[object]] = {}
    by_network: dict[object, set[Architecture]] = {}
    for point in space.all():
        form, computed = space.canonical(point), network(space, point)
        assert space.contains(form)
        assert space.canonical(form) == form
        by_form.setdefault(form, set()).add(computed)
        by_network.setdefault(computed, set()).add(form)
    return by_form, by_network


def merges_nothing_false(space: Space) -> None:
    """Architectures of one canonical form compute one network."""
    assert all(len(networks) == 1 for networks in groups(space)[0].values()), "a false merge"


def merges_exactly(space: Space) -> None:
    """Two architectures have one canonical form if and only if they compute one network."""
    by_form, by_network = groups(space)
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


def test_an_activation_between_positions_may_be_one_object() -> None:
    act = nn.ReLU()
    merges_exactly(Space(nn.Sequential(position(), act, position(), act, position())))
    merges_exactly(Space(Depth(position(), act, position(), act, position(), min=1)))


def test_a_choice_in_several_places_stays_there() -> None:
    x, y = position(), position()
    merges_exactly(Space(nn.Sequential(x, y, x)))
    first, last = nn.Sequential(position(), x), nn.Sequential(x, position())
    merges_exactly(Space(nn.Sequential(first, nn.ReLU(), last)))
    for least in (0, 1):
        merges_exactly(Space(Depth(x, x, x, min=least)))
        # one position and x are one operation where x runs once: no merge, since x may run twice
        merges_nothing_false(Space(Depth(position(), x, position(), x, min=least)))


def test_a_choice_that_also_runs_elsewhere_does_not_move() -> None:
    def inner() -> OneOf:
        return OneOf(p=nn.Linear(4, 4), q=nn.Linear(4, 4, bias=False))

    shared = inner()
    outer = [OneOf(op=nn.Sequential(m), skip=nn.Identity()) for m in (shared, inner(), inner())]
    space = Space(nn.Sequential(*outer, shared))
    merges_nothing_false(space)
    # the second and the third are interchangeable, the first is like no other
    assert len({space.canonical(a) for a in space.all()}) == 2 * 2 * (1 + 2 + 4)


def test_a_stack_that_runs_twice_is_one_stack() -> None:
    stack = nn.Sequential(position(), position())
    merges_exactly(Space(nn.Sequential(stack, nn.ReLU(), stack)))


def test_positions_meet_over_an_identity_of_another_kind() -> None:
    def other() -> OneOf:
        return OneOf(c=nn.Conv2d(4, 4, 5, padding=2), skip=nn.Identity())

    merges_exactly(Space(nn.Sequential(position(), other(), nn.Identity(), position(), other())))


def test_two_names_of_the_identity_are_one() -> None:
    def twice() -> OneOf:
        return OneOf(a=nn.Conv2d(4, 4, 1), skip=nn.Identity(), none=nn.Identity())

    merges_exactly(Space(nn.Sequential(twice(), twice(), nn.ReLU(), twice())))
    nothing = nn.Identity()
    one_object = OneOf(a=nn.Conv2d(4, 4, 1), skip=nothing, none=nothing)
    merges_exactly(Space(nn.Sequential(one_object, twice())))


@pytest.mark.parametrize("frozen", [False, True])
def test_what_is_never_trained_is_told_apart_by_its_values(frozen: bool) -> None:
    class Filter(nn.Module):
        def __init__(self, *taps: float) -> None:
            super().__init__()
            kernel = torch.tensor([[taps]])
            if frozen:
                self.kernel = nn.Parameter(kernel, requires_grad=False)
            else:
                self.register_buffer("kernel", kernel)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv1d(x, self.kernel, padding=1)

    filters = [Filter(1.0, 0.0, -1.0), Filter(1.0, 2.0, 1.0), Filter(1.0, 0.0, -1.0)]
    options = [OneOf(op=f, skip=nn.Identity()) for f in filters]
    merges_exactly(Space(nn.Sequential(*options[:2])))
    merges_exactly(Space(nn.Sequential(options[0], options[2], options[1])))


def test_what_training_gathers_does_not_tell_positions_apart() -> None:
    model = nn.Sequential(*[OneOf(a=conv(4, 3), skip=nn.Identity()) for _ in range(3)])
    forms = {Space(model).canonical(a) for a in Space(model).all()}
    model.train()
    for _ in range(2):
        model(torch.randn(2, 4, 5, 5))
        randomise_norms(model)
        assert {Space(model).canonical(a) for a in Space(model).all()} == forms
    model.requires_grad_(False)  # now they are settings
    assert len({Space(model).canonical(a) for a in Space(model).all()}) == 8 > len(forms)


def test_what_a_frozen_norm_has_gathered_tells_positions_apart() -> None:
    def option(mean: float) -> OneOf:
        op = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, affine=False))
        nn.init.ones_(op[0].weight)
        nn.init.zeros_(op[0].bias)
        op[1].running_mean.fill_(mean)
        return OneOf(op=op.requires_grad_(False), skip=nn.Identity())

    for means, size in (((0.0, 0.0), 3), ((0.0, 1.0), 4)):
        space = Space(nn.Sequential(*map(option, means)))
        assert len({space.canonical(a) for a in space.all()}) == size


def test_a_tied_tensor_tells_its_position_apart() -> None:
    def op() -> nn.Linear:
        return nn.Linear(4, 4)

    ops, head = [op() for _ in range(3)], op()
    ops[1].weight = head.weight
    space = Space(nn.Sequential(*[OneOf(a=o, skip=nn.Identity()) for o in ops], head))
    merges_nothing_false(space)
    assert space.canonical(space.check({"0": "skip", "1": "a", "2": "skip"}))["1"] == "a"
    # the first and the third meet over the second only if it is an identity
    assert len({space.canonical(a) for a in space.all()}) == 7


def test_a_module_of_two_positions_is_tied() -> None:
    one = nn.Linear(4, 4)
    ops = [OneOf(a=m, skip=nn.Identity()) for m in (one, nn.Linear(4, 4), one)]
    merges_nothing_false(Space(nn.Sequential(*ops)))


def test_what_is_tied_within_a_position_moves_with_it() -> None:
    def twice(tied: bool) -> OneOf:
        first, second = nn.Linear(4, 4), nn.Linear(4, 4)
        if tied:
            second.weight = first.weight
        return OneOf(op=nn.Sequential(first, second), skip=nn.Identity())

    merges_exactly(Space(nn.Sequential(twice(True), twice(True))))
    merges_exactly(Space(nn.Sequential(twice(True), twice(False))))


def test_an_identity_with_a_hook_computes() -> None:
    loud = nn.Identity()
    loud.register_forward_hook(lambda _m, _args, out: 2 * out)
    space = Space(Depth(position(), OneOf(a=nn.ReLU(), loud=loud), loud, min=1))
    assert len({space.canonical(a) for a in space.all()}) == space.size
    choice = position()
    choice.register_forward_hook(lambda _m, _args, out: 2 * out)
    space = Space(nn.Sequential(position(), choice, position()))
    assert len({space.canonical(a) for a in space.all()}) == space.size


@st.composite
def stacks(draw: st.DrawFn) -> tuple[nn.Module, bool]:
    """A flat stack of positions and fixed layers, and whether no choice occurs twice in it."""
    choices = [OneOf(a=nn.Linear(2, 2), skip=nn.Identity()) for _ in range(3)]
    choices += [OneOf(b=nn.PReLU(), skip=nn.Identity()) for _ in range(2)]
    pool = [*choices, nn.ReLU(), nn.Identity()]
    drawn = draw(st.lists(st.sampled_from(range(len(pool))), min_size=1, max_size=7))
    layers = [pool[i] for i in drawn]
    if not any(isinstance(m, OneOf) for m in layers):
        layers.append(choices[0])
    used = [id(m) for m in layers if isinstance(m, OneOf)]
    least = draw(st.one_of(st.none(), st.integers(0, len(layers) - 1)))
    stack = nn.Sequential(*layers) if least is None else Depth(*layers, min=least)
    return stack, len(set(used)) == len(used)


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(stacks())
def test_any_stack_of_objects_that_repeat(drawn: tuple[nn.Module, bool]) -> None:
    stack, distinct = drawn
    (merges_exactly if distinct else merges_nothing_false)(Space(stack))


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
