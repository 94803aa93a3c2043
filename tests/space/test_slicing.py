from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from assay.errors import InvalidSpace, LostLink, UnsupportedLayer
from assay.space.check import check_paths
from assay.space.choices import Inputs, OneOf
from assay.space.sizes import Kernel, Size, Width
from assay.space.slicing import OpenLayer, remember, take
from assay.space.space import Space
from tests.space.spaces import Joined


def test_a_layer_without_a_rule_is_refused_by_path() -> None:
    w = Width(4, 8)
    net = nn.Sequential(nn.Linear(4, w), nn.Sequential(nn.Bilinear(w, w, 2)))
    with pytest.raises(UnsupportedLayer, match=r"1\.0: Bilinear"):
        Space(net)


def test_a_layer_with_tensors_of_its_own_is_refused() -> None:
    class Scaled(nn.Linear):
        def __init__(self, i: int, o: int) -> None:
            super().__init__(i, o)
            self.scale = nn.Parameter(torch.ones(o))

    with pytest.raises(UnsupportedLayer, match="adds the tensors scale"):
        Space(nn.Sequential(Scaled(4, Width(4, 8))))


def test_a_parametrized_layer_is_refused() -> None:
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 4, Kernel(3, 5)))
    with pytest.raises(UnsupportedLayer, match=r"^1: ParametrizedConv2d works its tensors out"):
        Space(nn.Sequential(nn.ReLU(), normed))
    with pytest.warns(FutureWarning, match="weight_norm"):
        older = nn.utils.weight_norm(nn.Linear(4, Width(2, 4)))
    with pytest.raises(UnsupportedLayer, match=r"^0: Linear adds the tensors weight_g, weight_v"):
        Space(nn.Sequential(older))


def test_groups_that_do_not_divide_are_refused() -> None:
    w = Width(6, 8)
    with pytest.raises(InvalidSpace, match="num_channels=6 does not divide into 4 groups"):
        Space(nn.Sequential(nn.Conv2d(4, w, 1), nn.GroupNorm(4, w)))


def test_a_lost_link_names_the_module() -> None:
    class Lost(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            w = Width(4, 8)
            self.first = nn.Linear(3, w)
            self.second = nn.Linear(int(w), 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))

    space = Space(Lost)
    with pytest.raises(LostLink, match=r"^second: .*Width or Kernel itself"):
        check_paths(space, torch.zeros(1, 3), [space.smallest()])


class Reader(nn.Module):
    """Its own code reads the sizes that it keeps."""

    def __init__(self) -> None:
        super().__init__()
        w = Width(4, 8)
        self.width, self.sizes = w, {"half": w // 2, "all": (w, 3)}
        self.first = nn.Linear(3, w)
        self.norm = nn.LayerNorm(w, elementwise_affine=False)
        self.last = nn.Linear(w // 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.first(x)) * self.width + self.sizes["all"][0]
        return self.last(y.view(-1, 2, self.sizes["half"])).flatten(1)


class Pools(nn.Module):
    """Pooling and reshaping by open sizes, one of them a convolution's too."""

    def __init__(self) -> None:
        super().__init__()
        k, w = Kernel(3, 5), Width(4, 8)
        self.conv = nn.Conv2d(1, w, k, padding=k // 2)
        self.max = nn.MaxPool2d(k, stride=1, padding=k // 2)
        self.mean = nn.AvgPool2d(Kernel(2, 4))
        self.grow = nn.AdaptiveAvgPool2d(Width(2, 3, label="side"))
        self.flat, self.shape = nn.Flatten(), nn.Unflatten(1, (w, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.mean(self.max(self.conv(x)))
        return self.shape(self.flat(y.mean(3)[:, :, :2])).sum(1) + self.grow(y).sum()


@pytest.mark.parametrize(
    ("model", "shape", "labels"),
    [
        (Reader, (3,), ["first"]),
        (Pools, (1, 8, 8), ["conv.out_channels", "conv.kernel_size", "mean", "side"]),
    ],
)
def test_sizes_kept_without_tensors_follow_the_path(
    model: type[nn.Module], shape: tuple[int, ...], labels: list[str]
) -> None:
    space, x = Space(model), torch.randn(2, *shape)
    assert sorted(space.choices) == sorted(labels)
    whole = space.model(x)
    outputs = []
    for point in space.all():
        space.select(point)
        outputs.append(space.model(x))
        assert torch.equal(outputs[-1], space.build(point)(x))
        for module in space.build(point).modules():
            assert not [v for v in vars(module).values() if isinstance(v, Size)]
    check_paths(space, x, list(space.all()))
    assert torch.equal(space.model(x), whole)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(outputs, 2))


def test_a_module_that_keeps_a_size_does_not_name_it() -> None:
    space = Space(Reader)
    assert space.sites[""] == ("first",)
    assert space.choices["first"].kind == "Width"


def test_a_layer_may_be_the_whole_model() -> None:
    space = Space(nn.Linear(3, Width(2, 4)))
    assert [dict(a) for a in space.all()] == [{"out_features": 2}, {"out_features": 4}]
    assert space.build({"out_features": 2})(torch.zeros(1, 3)).shape == (1, 2)
    assert dict(next(Space(nn.MaxPool2d(Kernel(3, 5))).all())) == {"kernel_size": 3}


def test_a_size_where_no_path_can_follow_it_is_refused() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(width=Width(2, 3))
            self.op = OneOf(a=nn.ReLU(), b=nn.Tanh())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.op(x)

    space = Space(Hidden)
    with pytest.raises(InvalidSpace, match=r"Width\(2, 3\) is kept where no path can follow it"):
        check_paths(space, torch.ones(1, 3), [space.check({"op": "a"})])


def test_a_forward_that_writes_into_its_input_is_no_other_network() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = OneOf(a=nn.Linear(3, 3), b=nn.Identity())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x -= 0.5
            out: torch.Tensor = self.op(x)
            return out

    space, x = Space(Writes), torch.ones(2, 3)
    check_paths(space, x, list(space.all()))
    assert torch.equal(x, torch.ones(2, 3))


class Breaks(nn.Module):
    """Raises an error of a kind when its second option runs."""

    def __init__(self, error: Exception) -> None:
        super().__init__()

        class Raises(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                raise error

        self.body = nn.Sequential(nn.Linear(3, 3), OneOf(a=nn.ReLU(), b=Raises()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


@pytest.mark.parametrize(
    "error", [KeyError("scale"), IndexError("no such layer"), AttributeError("x"), ValueError()]
)
def test_any_error_of_a_forward_is_named(error: Exception) -> None:
    space, x = Space(Breaks(error)), torch.zeros(1, 3)
    said = rf"^body\.1\.b: .*{type(error).__name__}: .* on inputs of shape \[1, 3\]"
    for look in (
        lambda: check_paths(space, x, [space.check({"body.1": "b"})]),
        lambda: space.largest(x),
    ):
        with pytest.raises(InvalidSpace, match=said) as raised:
            look()
        assert raised.value.__cause__ is error
        assert not isinstance(raised.value, LostLink)
        assert torch.equal(space.model(x), space.model.body(x))  # nothing stays selected


def test_extremes_name_what_does_not_run() -> None:
    wrong = Space(nn.Sequential(nn.Conv2d(1, Width(4, 8), 3), nn.ReLU()))
    with pytest.raises(InvalidSpace, match=r"^0: .*RuntimeError.*\[1, 3, 8, 8\]; correct"):
        wrong.largest(torch.zeros(1, 3, 8, 8))
    w = Width(4, 8)
    lost = Space(nn.Sequential(nn.Linear(3, w), nn.Linear(int(w), 2)), example=torch.zeros(5, 3))
    with pytest.raises(LostLink, match=r"^1: .*Width or Kernel itself"):
        lost.smallest()


def test_errors_that_are_clear_already_pass_as_they_are() -> None:
    class Short(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pick = Inputs(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pick([x])[0]

    with pytest.raises(InvalidSpace, match=r"^Inputs\(num=3\) was called with 1 inputs"):
        Space(Short).largest(torch.zeros(1, 3))


def test_outputs_of_other_shapes_are_refused() -> None:
    class Wider(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = OneOf(a=nn.ReLU(), b=nn.Tanh())

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": self.op(x if isinstance(self.op, OneOf) else torch.cat([x, x], 1))}

    space = Space(Wider)
    with pytest.raises(InvalidSpace, match=r"differ in shape, \[\[1, 3\]\] and \[\[1, 6\]\]"):
        check_paths(space, torch.ones(1, 3), [space.check({"op": "a"})])


def test_a_forward_with_a_hidden_dependence_is_refused() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = OneOf(a=nn.Linear(3, 3), b=nn.Linear(3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.op(x) * (2.0 if isinstance(self.op, OneOf) else 1.0)

    space = Space(Hidden)
    with pytest.raises(InvalidSpace, match="differ by"):
        check_paths(space, torch.ones(1, 3), [space.largest()])


def test_take_gives_views_where_it_can() -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    part = take(whole, ((slice(0, 2),), (slice(1, 4),)))
    assert part.data_ptr() == whole[0, 1:].data_ptr()
    assert torch.equal(part, whole[:2, 1:4])
    gaps = take(whole, ((slice(0, 4),), (slice(0, 1), slice(4, 6))))
    assert torch.equal(gaps, whole[:, [0, 4, 5]])


STATISTICS = ["running_mean", "running_var", "num_batches_tracked"]


@pytest.mark.parametrize("sizes", [(2, 1), (3, 4), (5, 1), (5, 4)])
def test_a_norm_over_parts_gathers_the_statistics_of_the_channels_that_ran(
    sizes: tuple[int, int],
) -> None:
    space, x = Space(Joined(1, 2)), torch.randn(4, 1, 3, 3) + 3
    point = space.check(dict(zip(["a", "b"], sizes)))
    alone = space.build(point)
    before = {k: t.clone() for k, t in space.model.state_dict().items()}
    space.select(point)
    for _ in range(2):
        assert torch.equal(space.model.eval()(x), alone.eval()(x))
        assert torch.equal(space.model.train()(x), alone.train()(x))
    after = {k: t.clone() for k, t in space.model.state_dict().items()}  # with the path selected
    built = space.build(point)
    for name in STATISTICS:
        assert torch.equal(getattr(built.norm, name), getattr(alone.norm, name)), name
    idle = [*range(sizes[0], 5), *range(5 + sizes[1], 9)]
    for name in STATISTICS[:2]:
        kept, was = after[f"norm.{name}"], before[f"norm.{name}"]
        assert torch.equal(kept[idle], was[idle])
        assert int((kept != was).sum()) == sum(sizes)
    space.select(None)
    assert all(torch.equal(t, after[k]) for k, t in space.model.state_dict().items())
    assert not space.model.norm._forward_hooks


def test_statistics_loaded_with_a_path_selected_stay() -> None:
    space, x = Space(Joined(1, 2)), torch.randn(4, 1, 3, 3) + 3
    saved = {k: t.clone() for k, t in space.model.state_dict().items()}
    space.select(space.check({"a": 2, "b": 1}))
    space.model.train()(x)
    space.model.load_state_dict(saved)
    space.select(None)
    assert all(torch.equal(t, saved[k]) for k, t in space.model.state_dict().items())


def test_losses_of_two_paths_may_be_differentiated_together() -> None:
    space, x = Space(Joined(1, 2)), torch.randn(4, 1, 3, 3)
    losses = []
    for sizes in ((5, 4), (2, 1)):
        space.select(space.check(dict(zip(["a", "b"], sizes))))
        losses.append(space.model(x).square().mean())
    sum(losses).backward()
    assert all(p.grad is not None for p in space.model.parameters())


def test_what_is_remembered_of_a_layer_does_not_grow() -> None:
    widths = [Width(1, 2, 3, 4) for _ in range(5)]
    layer = OpenLayer("", nn.Linear(sum(widths), 2))
    whole = layer.layer.weight
    every = list(itertools.product(range(1, 5), repeat=5))[::3]
    for _ in range(2):
        for each in every:
            values = dict(zip(widths, each))
            layer.shadow(values)
            assert torch.equal(layer.layer.weight, take(whole, layer.regions(values)["weight"]))
            assert layer.layer.in_features == sum(each)
            layer.unshadow()
    assert len(layer._plans) == 256 < len(every)


def test_the_oldest_is_forgotten_first() -> None:
    known: dict[int, str] = {}
    assert [remember(known, i, str(i)) for i in range(300)] == [str(i) for i in range(300)]
    assert known == {i: str(i) for i in range(44, 300)}
