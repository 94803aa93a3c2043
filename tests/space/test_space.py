from __future__ import annotations

import copy
import functools
import io
import json
import math
import operator
import random
import warnings
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.nn import functional as F

from assay.architecture import Architecture
from assay.errors import InvalidArchitecture, InvalidSetting, InvalidSpace, UnsupportedMix
from assay.space import extremes
from assay.space.choices import Depth, Inputs, OneOf
from assay.space.sizes import Kernel, Width
from assay.space.space import Space
from tests.space.spaces import Chain, Drawn, Tangle, macs_of, models, randomise_norms

relaxed = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


tangled = st.integers(0, 7).flatmap(lambda n: models() if n else st.builds(Tangle))
"""Drawn chains, and at times the model that has everything at once."""


def gap(space: Space, architecture: Architecture, x: torch.Tensor) -> float:
    space.select(architecture)
    with torch.no_grad():
        path, network = space.model(x), space.build(architecture)(x)
    space.select(None)
    return float((path - network).abs().max() / path.abs().max().clamp(min=1.0))


@relaxed
@given(tangled, st.integers(0, 2**32 - 1))
def test_a_path_equals_the_network_built_of_it(model: Drawn | Tangle, seed: int) -> None:
    space, rng = Space(model), np.random.default_rng(seed)
    randomise_norms(space.model, seed)
    space.model.eval()
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        space.model.to(dtype)
        x = torch.from_numpy(rng.normal(size=(2, *model.shape))).to(dtype)
        for _ in range(4):
            assert gap(space, space.sample(rng), x) <= tolerance


@relaxed
@given(tangled, st.integers(0, 2**32 - 1))
def test_laws_of_points(model: nn.Module, seed: int) -> None:
    space, rng = Space(model), np.random.default_rng(seed)
    a, b = space.sample(rng), space.sample(rng, over="decisions")
    assert space.contains(a)
    assert space.contains(b)
    mutant, child = space.mutate(a, rng), space.cross(a, b, rng)
    assert space.contains(mutant)
    assert mutant != a
    assert space.contains(child)
    assert all(child[la] in (a.get(la), b.get(la)) for la in child if la in a and la in b)
    settled = space.canonical(a)
    assert space.contains(settled)
    assert space.canonical(settled) == settled
    assert Architecture.from_json(a.to_json()) == a
    code = space.encode(a)
    assert code.shape == (sum(len(c.options) for c in space.choices.values()),)
    assert code.sum() == len(a)


@relaxed
@given(tangled)
def test_enumeration_has_the_size_and_no_repeats(model: nn.Module) -> None:
    space = Space(model)
    if space.size <= 3000:
        points = list(space.all())
        assert len(points) == len(set(points)) == space.size
        assert all(space.contains(p) for p in points[:50])
        codes = {space.encode(p).tobytes() for p in points}
        assert len(codes) == space.size


def test_size_is_exact() -> None:
    assert Space(Chain).size == 4**6 * 3
    # widths 3 and 2, kernels 3, inputs 3; depth d of three positions with (2 + 1) ways each
    assert Space(Tangle).size == 3 * 2 * 3 * 3 * (1 + 3 + 9 + 27)


def test_sizes_beyond_64_bits() -> None:
    net = nn.Sequential(*[OneOf(a=nn.Identity(), b=nn.ReLU()) for _ in range(100)])
    space = Space(net)
    assert space.size == 2**100
    assert space.contains(space.sample(np.random.default_rng(0)))


def test_sampling_is_uniform_over_architectures() -> None:
    net = Depth(*[OneOf(a=nn.Identity(), b=nn.ReLU()) for _ in range(3)])
    space, rng, n = Space(net), np.random.default_rng(0), 14_000
    assert space.size == 2 + 4 + 8
    counts = Counter(space.sample(rng) for _ in range(n))
    expected = n / space.size
    chi2 = sum((counts[a] - expected) ** 2 / expected for a in space.all())
    assert chi2 < 34.5  # 0.999 quantile of chi-square with 13 degrees of freedom
    depths = Counter(space.sample(rng, over="decisions")["Depth"] for _ in range(n))
    assert all(abs(depths[d] - n / 3) < 5 * math.sqrt(n * 2 / 9) for d in (1, 2, 3))


def test_an_unknown_way_to_sample_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="did you mean 'decisions'"):
        Space(Chain).sample(np.random.default_rng(0), over="decision")  # type: ignore[arg-type]


def test_draws_come_from_a_numpy_generator() -> None:
    space, rng = Space(Chain), random.Random(0)
    point = space.largest()
    for ask in (
        lambda: space.sample(rng),  # type: ignore[arg-type]
        lambda: space.mutate(point, rng),  # type: ignore[arg-type]
        lambda: space.cross(point, point, rng),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidSetting, match=r"make one by np\.random\.default_rng\(seed\)"):
            ask()


def test_what_makes_no_model_is_refused() -> None:
    with pytest.raises(InvalidSpace, match=r"^3 is neither an nn\.Module nor a callable"):
        Space(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidSpace, match=r"Linear.*missing 2 required.*lambda: Net\(width=16\)"):
        Space(nn.Linear)  # type: ignore[arg-type]
    with pytest.raises(InvalidSpace, match=r"made no nn\.Module but list"):
        Space(list)  # type: ignore[arg-type]

    def broken() -> nn.Module:
        return nn.Linear(1, "2")  # type: ignore[arg-type]

    with pytest.raises(TypeError) as raised:  # its own error, with its own trace
        Space(broken)
    assert not isinstance(raised.value, InvalidSpace)


def test_labels_are_module_paths_in_order() -> None:
    assert list(Space(Chain).choices) == [*(f"body.{i}" for i in range(6)), "neck.0"]
    assert Space(Chain).sites["head"] == ("neck.0",)
    crowded = list(Space(Tangle).choices)
    assert {"a.out_channels", "a.kernel_size", "b"} <= set(crowded)


def test_equal_labels_are_one_decision() -> None:
    ops = [OneOf(a=nn.Linear(2, 2), b=nn.Identity(), label="op") for _ in range(3)]
    space = Space(nn.Sequential(*ops))
    assert space.size == 2
    space.select(Architecture({"op": "b"}))
    x = torch.ones(1, 2)
    assert torch.equal(space.model(x), x)


def test_equal_labels_with_other_options_are_refused() -> None:
    net = nn.Sequential(
        OneOf(a=nn.ReLU(), b=nn.Identity(), label="op"),
        OneOf(a=nn.ReLU(), c=nn.Identity(), label="op"),
    )
    with pytest.raises(InvalidSpace, match="'op'"):
        Space(net)


def test_a_choice_inside_itself_is_refused() -> None:
    inner = OneOf(a=nn.ReLU(), b=nn.Identity(), label="op")
    with pytest.raises(InvalidSpace, match="contains itself"):
        Space(OneOf(a=inner, b=nn.Identity(), label="op"))


def test_no_choice_and_one_option_are_refused() -> None:
    with pytest.raises(InvalidSpace, match="Linear has no choice"):
        Space(nn.Linear(2, 2))
    with pytest.raises(InvalidSpace, match="two or more options"):
        OneOf(only=nn.ReLU())
    with pytest.raises(InvalidSpace, match="two or more distinct"):
        Width(8)
    with pytest.raises(InvalidSpace, match="no common centre"):
        Kernel(3, 4)
    with pytest.raises(InvalidSpace, match="min must be"):
        Depth(nn.ReLU(), min=1)
    with pytest.raises(InvalidSpace, match="keep must be"):
        Inputs(2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"body.9": "skip"}, "did you mean 'body"),
        ({"body.0": "conv7"}, "its options are"),
        ({"neck.0": 50}, "cannot be 50"),
    ],
)
def test_a_wrong_point_says_what_is_wrong(change: dict[str, object], message: str) -> None:
    space = Space(Chain)
    good = dict(space.sample(np.random.default_rng(0)))
    with pytest.raises(InvalidArchitecture, match=message):
        space.build({**good, **change})  # type: ignore[dict-item]
    with pytest.raises(InvalidArchitecture, match=r"lacks 'body\.0'"):
        space.build({k: v for k, v in good.items() if k != "body.0"})


def test_a_point_may_come_straight_from_json() -> None:
    space = Space(Tangle)
    point = space.sample(np.random.default_rng(0))
    read = json.loads(point.to_json())
    assert isinstance(read["pick"], list)
    assert space.contains(read)
    assert space.check(read) == point
    assert np.array_equal(space.encode(read), space.encode(point))
    assert [t.shape for t in space.build(read).state_dict().values()] == [
        t.shape for t in space.build(point).state_dict().values()
    ]
    assert not space.contains({**read, "pick": [0]})
    assert not space.contains({**read, "pick": [0, 1.5]})
    assert not space.contains({**read, "stack": None})
    with pytest.raises(InvalidArchitecture, match=r"'pick' cannot be \(0,\)"):
        space.build({**read, "pick": [0]})


def test_a_variant_that_meets_its_choices_in_another_order_is_refused() -> None:
    def chain(turned: bool = False) -> Space:
        ops = [OneOf(a=nn.Linear(2, 2), b=nn.Identity(), label=label) for label in "xy"]
        return Space(nn.Sequential(*ops[:: -1 if turned else 1]), remake=chain)

    with pytest.raises(InvalidSetting, match="another order, y, x"):
        chain().variant(turned=True)


def test_a_variant_whose_choices_lie_elsewhere_is_refused() -> None:
    def remake(nested: bool) -> Space:
        inner = OneOf(a=nn.ReLU(), b=nn.Tanh(), label="inner")
        outer = OneOf(x=nn.Sequential(inner), y=nn.Identity(), label="outer")
        return Space(outer if nested else nn.Sequential(outer, inner), remake=remake)

    assert remake(True).variant(nested=True).size == 3
    said = r"OneOf\('a', 'b'\), not OneOf\('a', 'b'\) in options of outer; a variant keeps all"
    with pytest.raises(InvalidSetting, match=said):
        remake(True).variant(nested=False)


def test_a_choice_where_no_path_can_follow_it_is_refused() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = OneOf(a=nn.Linear(4, 4), b=nn.Tanh())
            self.others = [OneOf(relu=nn.ReLU(), tanh=nn.Tanh())]

    said = r"^OneOf\('relu', 'tanh'\) is kept where no path can follow it, .* an nn\.ModuleList"
    with pytest.raises(InvalidSpace, match=said):
        Space(Listed).build({"first": "a"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: OneOf(nn.ReLU(), nn.Tanh()), r"without names; name them as in OneOf\(conv="),
        (lambda: OneOf([nn.ReLU(), nn.Tanh()]), "without names"),
        (lambda: OneOf({3: nn.ReLU(), 5: nn.Tanh()}), "cannot have an option named 3; rename it"),
        (lambda: OneOf({3: nn.ReLU()}), r"OneOf\(3\) is no choice"),
        (
            lambda: Depth([nn.ReLU(), nn.Tanh()]),
            r"given a list; give the blocks .*Depth\(\*blocks\)",
        ),
        (lambda: Depth(nn.ModuleList([nn.ReLU()])), "was given a ModuleList"),
    ],
)
def test_options_need_names_and_blocks_are_given_one_by_one(
    given: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(InvalidSpace, match=message):
        given()


def test_a_module_dict_names_options() -> None:
    options = nn.ModuleDict({"relu": nn.ReLU(), "tanh": nn.Tanh()})
    assert OneOf(options).options == ("relu", "tanh")


def test_a_layer_without_shape_is_refused_by_path() -> None:
    with pytest.raises(InvalidSpace, match=r"^1: LazyLinear has no shape yet; run the model once"):
        Space(nn.Sequential(OneOf(a=nn.Tanh(), b=nn.ReLU()), nn.LazyLinear(2)))
    lazy = nn.Sequential(OneOf(a=nn.Tanh(), b=nn.ReLU()), nn.LazyBatchNorm1d())
    with pytest.raises(InvalidSpace, match=r"^1: LazyBatchNorm1d has"):
        Space(lazy)
    lazy(torch.zeros(3, 4))
    assert Space(lazy).size == 2


def test_a_plain_dict_selects_a_path() -> None:
    space = Space(nn.Sequential(OneOf(a=nn.ReLU(), b=nn.Tanh()), Inputs(2)))
    space.select({"0": "b", "1": [1]})
    assert space.selected == Architecture({"0": "b", "1": (1,)})
    assert torch.equal(space.model[0](-torch.ones(2)), torch.tanh(-torch.ones(2)))
    for wrong in ({"0": "b"}, {"0": "c", "1": (0,)}, {"0": {"b": 1.0}, "1": (0,)}):
        with pytest.raises(InvalidArchitecture):
            space.select(wrong)
    assert space.selected == Architecture({"0": "b", "1": (1,)})


def test_a_built_network_is_plain_torch() -> None:
    space = Space(Tangle)
    for seed in range(20):
        built = space.build(space.sample(np.random.default_rng(seed)))
        for module in built.modules():
            assert not type(module).__module__.startswith("assay")
            for value in vars(module).values():
                items = value if isinstance(value, tuple | list) else (value,)
                assert all(not isinstance(v, int) or type(v) in (int, bool) for v in items)
    saved = io.BytesIO()
    torch.save(built, saved)  # the built Tangle is the user's class, and pickles
    copy.deepcopy(built)


def test_a_built_network_shares_no_memory() -> None:
    space = Space(Chain)
    point = space.sample(np.random.default_rng(0))
    built = space.build(point)
    theirs = {t.data_ptr() for t in space.model.state_dict().values()}
    assert all(t.data_ptr() not in theirs for t in built.state_dict().values())
    assert all(p.is_leaf and p.requires_grad for p in built.parameters())


def test_a_built_network_is_laid_out_as_torch_does() -> None:
    space = Space(Chain)
    space.model.to(memory_format=torch.channels_last)
    assert all(t.is_contiguous() for t in space.build(space.largest()).state_dict().values())


def test_building_leaves_the_selected_path() -> None:
    space = Space(Tangle)
    space.model.eval()
    first, second = (space.sample(np.random.default_rng(s)) for s in (0, 1))
    x = torch.randn(2, 1, 4, 4)
    space.select(first)
    before = space.model(x)
    space.build(second)
    assert torch.equal(space.model(x), before)
    space.select(None)
    assert all("weight" not in m.__dict__ for m in space.model.modules())


def test_only_the_active_path_receives_gradients() -> None:
    space = Space(Chain)
    point = space.check({**{f"body.{i}": "conv3" for i in range(6)}, "neck.0": 32})
    space.select(point)
    space.model(torch.randn(4, 1, 8, 8)).sum().backward()
    for name, parameter in space.model.named_parameters():
        if name.startswith("body"):
            assert (parameter.grad is not None) == (".conv3." in name)
    weight = dict(space.model.named_parameters())["head.weight"].grad
    assert weight is not None
    assert weight[:, 32:].abs().max() == 0
    assert weight[:, :32].abs().max() > 0


def test_a_mix_is_the_weighted_sum_and_its_weights_learn() -> None:
    space = Space(nn.Sequential(OneOf(a=nn.Linear(3, 3), b=nn.Linear(3, 3)), nn.Linear(3, 1)))
    weight = torch.tensor([0.25, 0.75], requires_grad=True)
    x = torch.randn(5, 3)
    space.select({"0": {"a": weight[0], "b": weight[1]}})
    out = space.model(x)
    one = space.model[0]
    expected = space.model[1](0.25 * one.a(x) + 0.75 * one.b(x))
    assert torch.allclose(out, expected, atol=1e-6)
    out.sum().backward()
    with torch.no_grad():
        grads = [float((space.model[1].weight * m(x)).sum()) for m in (one.a, one.b)]
    assert torch.allclose(weight.grad, torch.tensor(grads), atol=1e-5)


def test_mixes_of_depth_and_inputs() -> None:
    depth = Depth(nn.Linear(2, 2), nn.Linear(2, 2), min=0)
    x = torch.randn(3, 2)
    depth.mix = {0: 0.5, 2: 0.5}
    first, second = depth.children()
    assert torch.allclose(depth(x), 0.5 * x + 0.5 * second(first(x)))
    pick = Inputs(3, 2)
    pick.mix = {(0, 1): 0.25, (1, 2): 0.75}
    a, b, c = pick([torch.ones(1), torch.ones(1), torch.ones(1)])
    assert (float(a), float(b), float(c)) == (0.25, 1.0, 0.75)


def test_a_mix_of_sizes_is_refused() -> None:
    space = Space(Chain)
    with pytest.raises(UnsupportedMix, match=r"neck\.0"):
        space.select({"neck.0": {32: 0.5, 64: 0.5}})


def test_extremes_are_those_of_enumeration() -> None:
    x = torch.zeros(1, 1, 4, 4)
    space = Space(Tangle, example=x)

    def macs(a: Architecture) -> int:
        return macs_of(space.build(a), x)

    rng = np.random.default_rng(0)
    points = [space.sample(rng) for _ in range(150)]
    assert macs(space.largest()) >= max(map(macs, points))
    assert macs(space.smallest()) <= min(map(macs, points))
    assert space.largest()["a.out_channels"] == 8
    assert space.smallest()["stack"] == 0
    assert Space(Tangle).largest()["a.kernel_size"] == 7


class Ranked(nn.Module):
    """`wide` has most weights, `conv` most MACs as soon as the image is larger than 2x2."""

    def __init__(self) -> None:
        super().__init__()
        wide = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(1, 20, 1), nn.Conv2d(20, 1, 1))
        self.op = OneOf(wide=wide, conv=nn.Conv2d(1, 1, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.op(x)


def test_extremes_follow_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    space, image = Space(Ranked), torch.zeros(1, 1, 8, 8)
    assert space.largest()["op"] == "wide"
    assert space.largest(image)["op"] == "conv"
    assert space.largest()["op"] == "wide"
    space.example = image
    assert space.largest()["op"] == "conv"
    monkeypatch.setattr(extremes, "extreme", lambda *_: pytest.fail("worked out again"))
    assert space.largest()["op"] == "conv"


def test_extremes_are_found_where_the_model_is() -> None:
    space = Space(Ranked, example=torch.zeros(1, 1, 8, 8))
    space.model.to("meta")  # refuses inputs from elsewhere, as an accelerator does
    assert (space.largest()["op"], space.smallest()["op"]) == ("conv", "wide")
    named = Space(Ranked, example={"x": torch.zeros(1, 1, 8, 8)})
    named.model.to("meta")
    assert named.largest()["op"] == "conv"


def test_fresh_networks_are_new_and_seeded() -> None:
    space = Space(Chain)
    point = space.smallest()
    before = {k: v.clone() for k, v in space.model.state_dict().items()}
    state = torch.random.get_rng_state()
    one, same, other = (space.fresh(point, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one.head.weight, same.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)
    assert all(torch.equal(v, before[k]) for k, v in space.model.state_dict().items())
    # head has 32 inputs here: drawn within 1 / sqrt(32), not within 1 / sqrt(64)
    assert float(one.head.weight.detach().abs().max()) > 1 / math.sqrt(64)
    instance = Space(Chain())
    a, b = instance.fresh(point, 0), instance.fresh(point, 1)
    assert not torch.equal(a.head.weight, b.head.weight)


def test_the_fingerprint_tells_spaces_apart() -> None:
    assert Space(Chain).fingerprint == Space(Chain).fingerprint
    assert Space(Chain).fingerprint != Space(lambda: Chain(5)).fingerprint
    assert Space(Chain).fingerprint != Space(Tangle).fingerprint


def made_by(source: str) -> nn.Module:
    """Return a module of the class `Net` in a source."""
    known: dict[str, Any] = {"nn": nn, "OneOf": OneOf, "torch": torch, "__name__": "of_a_user"}
    exec(source, known)
    return known["Net"]()  # type: ignore[no-any-return]


NET = '''
class Net(nn.Module):
    """One."""

    def __init__(self):
        super().__init__()
        self.first = OneOf(a=nn.Linear(2, 2), b=nn.Identity())
        self.act, self.times = nn.ReLU(), 2
        self.of = torch.relu
        self.seen = []

    def forward(self, x, after=lambda y: y):
        self.seen.append(x)
        return self.times * self.of(self.act(self.first(x)))
'''


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("nn.ReLU()", "nn.GELU()"),
        ("nn.ReLU()", "nn.ELU(0.5)"),
        ("self.times = nn.ReLU(), 2", "self.times = nn.ReLU(), 3"),
        ("self.of = torch.relu", "self.of = torch.tanh"),
        ("self.times * self", "self.times + self"),
        ("(self.first(x))", "(self.first(x) + x)"),
    ],
)
def test_a_model_that_was_changed_is_another_space(before: str, after: str) -> None:
    assert before in NET
    one, other = Space(made_by(NET)), Space(made_by(NET.replace(before, after)))
    assert one.fingerprint != other.fingerprint


def scaling(factor: Any) -> Callable[..., Any]:
    def scale(x: torch.Tensor) -> Any:
        return factor * x

    return scale


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1.0,), (2.0,)),
        ([{"a": (1, 2)}], [{"a": (1, 3)}]),
        ({"a": 1}, {"b": 1}),
        ({"f": [torch.relu]}, {"f": [torch.tanh]}),
        (functools.partial(F.softmax, dim=0), functools.partial(F.softmax, dim=1)),
        (functools.partial(torch.add, torch.ones(2)), functools.partial(torch.add, torch.zeros(2))),
        ([scaling(1)], [scaling(2)]),
        (scaling(torch.ones(2)), scaling(torch.zeros(2))),
        (operator.itemgetter(0), operator.itemgetter(1)),
    ],
)
def test_what_a_module_keeps_in_containers_tells_spaces_apart(one: Any, other: Any) -> None:
    class Keeping(nn.Module):
        def __init__(self, kept: Any) -> None:
            super().__init__()
            self.op = OneOf(a=nn.ReLU(), b=nn.Tanh())
            self.kept = kept

    def fingerprint(kept: Any) -> str:
        return Space(Keeping(kept)).fingerprint

    assert fingerprint(one) == fingerprint(copy.deepcopy(one)) != fingerprint(other)
    assert fingerprint([one, torch.rand(2)]) == fingerprint([one, object()])


def test_weights_that_a_function_captured_count_by_their_shape() -> None:
    class Net(nn.Module):
        def __init__(self, width: int = 3) -> None:
            super().__init__()
            self.op = OneOf(a=nn.ReLU(), b=nn.Tanh())
            free, norm = nn.Parameter(torch.randn(width)), nn.BatchNorm1d(2)
            self.f = lambda x: self.op(x) + free + norm(x)
            self.g = self.forward

        def forward(self, x: torch.Tensor) -> Any:
            return self.f(x)

    assert Space(Net).fingerprint == Space(Net).fingerprint != Space(Net(4)).fingerprint


@pytest.mark.parametrize("kept", [{"calls": 7}, None, object(), torch.ones(3)])
def test_a_model_with_extra_state_has_a_fingerprint(kept: Any) -> None:
    class Kept(nn.Module):
        def __init__(self, kept: Any) -> None:
            super().__init__()
            self.op = OneOf(a=nn.ReLU(), b=nn.Tanh())
            self.f = lambda x: self.op(x)
            self._kept = SimpleNamespace(state=kept)

        def get_extra_state(self) -> Any:
            return self._kept.state

        def set_extra_state(self, state: Any) -> None:
            self._kept.state = state

    again = Space(Kept(copy.deepcopy(kept)))
    assert Space(Kept(kept)).fingerprint == again.fingerprint != Space(Kept("else")).fingerprint


def test_a_graph_goes_by_its_code() -> None:
    def graph(function: Callable[..., Any]) -> nn.Module:
        class Both(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return function(x, x)

        return fx.symbolic_trace(Both())

    def fingerprint(function: Callable[..., Any]) -> str:
        choice = OneOf(a=nn.Tanh(), b=nn.ReLU())
        return Space(nn.Sequential(choice, graph(function))).fingerprint

    assert fingerprint(operator.add) == fingerprint(operator.add) != fingerprint(operator.mul)


def test_a_model_that_is_used_or_told_otherwise_is_the_same_space() -> None:
    first = Space(made_by(NET)).fingerprint
    told = NET.replace('"""One."""', '"""Two."""').replace(
        "return self", "# why\n        return self"
    )
    assert Space(made_by(told)).fingerprint == first
    model = made_by(NET)
    Space(model).select(Space(model).smallest())
    model.train()(torch.ones(3, 2))
    assert Space(model).fingerprint == first
    chain = Space(Chain)
    before = Space(Chain).fingerprint
    chain.select(chain.smallest())
    assert chain.fingerprint == before


def test_a_model_with_choices_runs_as_it_stands_and_deep_copies() -> None:
    model = Tangle().eval()
    x = torch.randn(2, 1, 4, 4)
    twin = copy.deepcopy(model)
    assert torch.equal(model(x), twin(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Space(twin).size == Space(model).size
