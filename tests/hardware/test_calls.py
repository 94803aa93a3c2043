"""What an architecture calls, worked out in the model with choices, is what its network calls."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.errors import InvalidArchitecture, InvalidSpace
from assay.hardware.calls import PathCalls
from assay.hardware.count import Call, count, record
from assay.space.choices import Depth, OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from assay.train.task import call_model
from tests.hardware.models import Attentive, Attributes, Cells, Looped, Named, Padded, Reads, Slim
from tests.space.spaces import Chain, Keeps, Tangle, models

MODELS = {
    "chain": (Chain, torch.zeros(2, 1, 6, 6)),
    "tangle": (Tangle, torch.zeros(1, 1, 4, 4)),
    "reads": (Reads, torch.zeros(3, 6)),
    "looped": (Looped, torch.zeros(2, 3, 7, 7)),
    "looped-small": (Looped, torch.zeros(2, 3, 4, 4)),
    "slim": (Slim, torch.zeros(1, 3, 5, 5)),
    "cells": (Cells, (torch.zeros(1, 4, 8, 6), torch.zeros(6, 3))),
    "padded": (
        Padded,
        (torch.tensor([[8, 1, 2], [3, 0, 0]]), torch.tensor([3, 2]), torch.tensor([1, 0])),
    ),
    "named": (Named, torch.zeros(2, 4)),
    "attributes": (lambda: Named(Attributes), torch.zeros(2, 4)),
    "attentive": (Attentive, {"tokens": torch.zeros(2, 5, dtype=torch.int64)}),
}


def flat(calls: PathCalls, architecture: Architecture) -> list[Call]:
    return [call for unit in calls.of(architecture) for call in unit.calls]


def check(space: Space, calls: PathCalls, example: Any, architecture: Architecture) -> None:
    net = space.build(architecture)
    assert flat(calls, architecture) == list(record(net, example).calls)
    counted, built = calls.counts(architecture), count(net, example)
    for name in ("macs", "params", "weight_bytes", "bytes_moved", "peak_bytes",
                 "activation_bytes"):  # fmt: skip
        assert getattr(counted, name) == getattr(built, name), name
    assert len(counted.uncounted) == len(built.uncounted)
    state = {t.data_ptr(): t for t in net.state_dict().values()}
    saved = sum(t.numel() * t.element_size() for t in state.values())
    assert calls.sizes(architecture).saved_bytes == saved


@pytest.mark.parametrize("name", MODELS)
def test_calls_and_counts_are_those_of_the_built_network(name: str) -> None:
    model, example = MODELS[name]
    space = Space(model)
    calls, rng = PathCalls(space, example), np.random.default_rng(0)
    drawn = [space.sample(rng, over="decisions") for _ in range(25)]
    for architecture in [*drawn, space.sample(rng), *drawn]:  # new, then from memory
        check(space, calls, example, architecture)


@settings(max_examples=25)
@given(models(), st.integers(0, 1000))
def test_drawn_models(model: nn.Module, seed: int) -> None:
    space, example = Space(model), torch.zeros(2, 2, 6, 6)
    calls, rng = PathCalls(space, example), np.random.default_rng(seed)
    for _ in range(3):
        check(space, calls, example, space.sample(rng, over="decisions"))


def test_another_order_of_asking_gives_the_same_units() -> None:
    space, example = Space(Looped), MODELS["looped"][1]
    rng = np.random.default_rng(1)
    drawn = [space.sample(rng) for _ in range(30)]
    one, other = PathCalls(space, example), PathCalls(space, example)
    found = [one.of(a) for a in drawn]
    assert [other.of(a) for a in reversed(drawn)] == found[::-1]
    assert [one.of(a) for a in drawn] == found


def test_the_model_is_left_as_it_was() -> None:
    space, example = Space(Tangle), MODELS["tangle"][1]
    rng = np.random.default_rng(2)
    selected = space.sample(rng)
    space.select(selected)
    space.model.train()
    kinds = [type(m) for m in space.model.modules()]
    state = copy.deepcopy(space.model.state_dict())
    calls = PathCalls(space, example)
    for _ in range(5):
        calls.of(space.sample(rng))
    assert all("forward" not in m.__dict__ for m in space.model.modules())
    assert all(m.training for m in space.model.modules())
    assert [type(m) for m in space.model.modules()] == kinds
    assert all(torch.equal(t, state[n]) for n, t in space.model.state_dict().items())
    x = torch.randn(1, 1, 4, 4)
    space.model.eval()
    with torch.no_grad():
        expected = space.build(selected)(x)
        assert torch.allclose(space.model(x), expected, atol=1e-5)  # the path is still selected


def test_layers_that_feed_each_other_are_one_unit() -> None:
    space = Space(Looped)
    calls = PathCalls(space, MODELS["looped"][1])
    a = space.complete({f"blocks.{i}": "skip" for i in range(4)}, lambda c: c.options[-1])
    assert [[c.kind for c in u.calls] for u in calls.of(a)] == [["Conv2d"], ["Linear"]]
    b = space.complete({**a, "blocks.1": "block"}, lambda c: c.options[-1])
    kinds = [[c.kind for c in u.calls] for u in calls.of(b)]
    assert kinds == [["Conv2d"], ["Conv2d", "BatchNorm2d", "Hardswish"], ["Linear"]]
    unit = calls.of(b)[1]
    assert (unit.path, unit.shape) == ("blocks.1.block.conv", (2, 8, 5, 5))
    assert unit.counts.params == 8 * 4 * 25 + 8 + 16


def test_a_choice_ends_a_unit_and_equal_units_are_one() -> None:
    net = nn.Sequential(
        nn.Linear(4, 4), nn.ReLU(), OneOf(a=nn.Linear(4, 4), b=nn.Tanh()), nn.Linear(4, 4),
        OneOf(a=nn.Linear(4, 4), b=nn.Tanh()), nn.Dropout(), nn.ReLU(), nn.Identity(), nn.Tanh(),
    )  # fmt: skip
    calls = PathCalls(Space(net), torch.zeros(2, 4))
    units = calls.of(Architecture({"2": "a", "4": "a"}))
    assert [[c.kind for c in u.calls] for u in units] == [
        ["Linear", "ReLU"], ["Linear"], ["Linear"], ["Linear"], ["ReLU", "Tanh"],
    ]  # fmt: skip
    assert units[1].key == units[2].key == units[3].key
    assert set(calls.modules) == {u.key for u in units}


def test_blocks_of_a_depth_are_units_of_their_own() -> None:
    blocks = [nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3)]
    calls = PathCalls(Space(nn.Sequential(Depth(*blocks, label="d"))), torch.zeros(2, 4))
    for depth in (1, 2, 3):
        assert len(calls.of(Architecture({"d": depth}))) == depth
    assert len(calls.modules) == 1


@pytest.mark.parametrize("name", MODELS)
def test_every_unit_comes_with_a_module_that_repeats_it(name: str) -> None:
    model, example = MODELS[name]
    space = Space(model)
    calls, rng = PathCalls(space, example), np.random.default_rng(3)
    for _ in range(6):
        for unit in calls.of(space.sample(rng)):
            module, inputs = calls.modules[unit.key]
            assert list(record(module, inputs).calls) == list(unit.calls)
            assert all(not type(m).__module__.startswith("assay.space") for m in module.modules())
            with torch.no_grad():
                call_model(module, inputs)


def test_uncounted_are_named_by_their_path_in_the_model() -> None:
    space = Space(Attentive)
    calls = PathCalls(space, MODELS["attentive"][1])
    attention = Architecture({"mixer": "attention", "last": 3})
    memory = Architecture({"mixer": "memory", "last": 3})
    assert calls.counts(attention).uncounted == ("mv in the model",)
    assert calls.counts(memory).uncounted == ("mixer.memory.1", "mv in the model")
    assert calls.counts(attention).uncounted == ("mv in the model",)


def test_layers_of_one_class_with_other_settings_are_other_units() -> None:
    class Times(nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.n = n

        def forward(self, x: Tensor) -> Tensor:
            return x.repeat(1, self.n)[:, : x.shape[1]]

    calls = PathCalls(Space(nn.Sequential(OneOf(a=Times(1), b=Times(9)))), torch.zeros(1, 3))
    a, b = (calls.of(Architecture({"0": o}))[0].key for o in "ab")
    assert a != b


def test_attention_to_itself_and_to_another_are_other_units() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.turn = OneOf(tanh=nn.Tanh(), none=nn.Identity(), relu=nn.ReLU(inplace=True))
            self.add = Wrapped(nn.Identity())
            self.attend = nn.MultiheadAttention(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            turned = self.turn(x)  # for two of the options it is x itself
            added = self.add(x)
            return sum(self.attend(*qkv)[0] for qkv in ((turned, x, x), (added, turned, x)))

    space, example = Space(Attends), torch.zeros(5, 3, 4)
    calls, one = PathCalls(space, example), 4 * 60
    expected = {"tanh": [2 * one, 3 * one], "none": [one, 2 * one], "relu": [one, 2 * one]}
    for option in [*expected, *expected]:
        architecture = Architecture({"turn": option})
        check(space, calls, example, architecture)
        attentions = [unit for unit in calls.of(architecture) if "Attention" in unit.key]
        assert [unit.calls[0].in_bytes for unit in attentions] == expected[option]
        assert len({unit.key for unit in attentions}) == 2
    for unit in attentions:
        module, inputs = calls.modules[unit.key]
        assert record(module, inputs).calls == unit.calls


def test_integers_that_code_writes_into_are_given_anew_each_time() -> None:
    class Blanks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = OneOf(a=nn.Linear(4, 4), b=nn.Linear(4, 4, bias=False), c=nn.Tanh())

        def forward(self, lengths: Tensor) -> Tensor:
            lengths -= 1
            return self.op(torch.ones(int(lengths.max()), 4))

    space, example = Space(Blanks), torch.tensor([3, 2])
    calls = PathCalls(space, example)
    assert [calls.counts(a).macs for a in space.all()] == [2 * 16, 2 * 16, 0]
    assert example.tolist() == [3, 2]


def test_integers_that_lie_in_expanded_or_empty_tensors() -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(8, 2)
            self.op = OneOf(a=nn.Linear(2, 2), b=nn.Tanh())

        def forward(self, ids: Tensor, none: Tensor) -> Tensor:
            return self.op(self.table(torch.cat([ids.flatten() - 6, none])))

    space = Space(Sums)
    ids, none = torch.tensor([[6], [13]]).expand(2, 3), torch.zeros(0, dtype=torch.int64)
    calls = PathCalls(space, (ids[1:], none))
    assert calls.counts(Architecture({"op": "a"})).macs == 3 * 4


def test_a_module_in_two_places_is_remembered_with_the_decisions_of_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            w = Width(2, 3, 4)
            self.a = nn.Linear(2, w)
            self.b = nn.Sequential(Wrapped(self.a), nn.Linear(w, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(x)

    space, example = Space(Twice), torch.zeros(1, 2)
    calls = PathCalls(space, example)
    for architecture in [*space.all(), *space.all()]:
        check(space, calls, example, architecture)


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 1


def test_float64_counts_twice_the_bytes() -> None:
    space = Space(nn.Sequential(Depth(nn.Linear(4, 4), nn.Linear(4, 4), min=1, label="d")))
    one = PathCalls(space, torch.zeros(1, 4)).counts(Architecture({"d": 2}))
    space.model.double()
    two = PathCalls(space, torch.zeros(1, 4).double()).counts(Architecture({"d": 2}))
    assert (two.bytes_moved, two.weight_bytes) == (2 * one.bytes_moved, 2 * one.weight_bytes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"neck.0": 7}, "cannot be 7"), ({"body.0": "conv9"}, "cannot be 'conv9'"),
     ({"neck.0": None}, "lacks 'neck.0'"), ({"body.0": None}, "lacks 'body.0'")],
)  # fmt: skip
def test_a_wrong_architecture_is_refused(wrong: dict[str, Any], message: str) -> None:
    space, rng = Space(Chain), np.random.default_rng(0)
    calls = PathCalls(space, MODELS["chain"][1])
    for _ in range(30):
        calls.counts(space.sample(rng))
    options = {**space.largest(), **wrong}
    architecture = Architecture({la: o for la, o in options.items() if o is not None})
    for ask in (calls.of, calls.counts, calls.sizes):
        with pytest.raises(InvalidArchitecture, match=message):
            ask(architecture)


def test_a_model_that_keeps_activations_is_counted_after_a_training_step() -> None:
    space, example = Space(Keeps), torch.ones(2, 3)
    space.model(example).sum().backward()
    calls = PathCalls(space, example)
    for architecture in space.all():
        check(space, calls, example, architecture)


def test_chance_in_a_forward_is_refused() -> None:
    class Chance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.turn = 0
            self.ops = nn.ModuleList(OneOf(a=nn.Linear(2, 2), b=nn.ReLU()) for _ in range(10))
            self.wide = nn.Linear(2, Width(2, 3, 4))

        def forward(self, x: Tensor) -> Tensor:
            self.turn += 1
            for op in self.ops:
                x = op(x.repeat(self.turn, 1))
            return self.wide(x)

    space, rng = Space(Chance), np.random.default_rng(0)
    calls = PathCalls(space, torch.zeros(1, 2))
    drawn = [space.sample(rng) for _ in range(10)]
    with pytest.raises(InvalidSpace, match="take chance and state out of its forward"):
        [calls.of(architecture) for architecture in drawn]
