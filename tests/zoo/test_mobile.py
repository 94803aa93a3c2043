from __future__ import annotations

import copy
import io
import math
import pickle
from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch import fx, nn

from assay.architecture import Architecture, Option
from assay.errors import InvalidSetting
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.space.structure import Choice
from assay.zoo.mobile import SIZES, Stage, mobile, sizes_for
from tests.space.spaces import randomise_norms

TINY = (Stage((4, 6), (1, 3)), Stage((6, 8), (2, 3), stride=2))


def tiny(stages: tuple[Stage, ...] = TINY) -> Space:
    return mobile(stages=stages, stem=4, head=8, kernels=(3,), expansions=(1, 2))


def draw(space: Space, n: int, seed: int = 0) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(n)]


def network(module: nn.Module) -> str:
    """What is computed, told by the built network alone: identities drop out, sums are marked."""
    if type(module) is nn.Identity:
        return ""
    children = "".join(network(child) for child in module.children())
    if type(module) is nn.Sequential:
        return children
    return f"x + ({children})" if children else f"{module} "


def merges_exactly(space: Space, points: Iterable[Architecture]) -> int:
    """Check that equal canonical forms mean equal networks and back; return the merges seen."""
    by_form, by_network = defaultdict(set), defaultdict(set)
    points = set(points)
    for point in points:
        form, computed = space.canonical(point), network(space.build(point))
        assert space.contains(form)
        assert network(space.build(form)) == computed
        by_form[form].add(computed)
        by_network[computed].add(form)
    assert {len(networks) for networks in by_form.values()} == {1}, "a false merge"
    assert {len(forms) for forms in by_network.values()} == {1}, "a merge was missed"
    return len(points) - len(by_form)


# --- what it spans --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "fashion-mnist", "cifar"])
def test_its_size_is_that_of_the_formula(name: str) -> None:
    shape = {"digits": (1, 8, 8), "fashion-mnist": (1, 28, 28), "cifar": (3, 32, 32)}[name]
    ways = [
        len(stage.widths) * sum(6 * 7 ** (d - 1) for d in range(stage.depth[0], stage.depth[1] + 1))
        for stage in SIZES[name].stages
    ]
    assert sizes_for(shape) is SIZES[name]
    assert mobile(input_shape=shape).size == math.prod(ways)


def test_its_choices_are_named_by_stage_and_block() -> None:
    space = mobile()
    first = ["stage1", "stage1.0", "stage1.1", "stage1.2", "stage1.width"]
    assert sorted(label for label in space.choices if label.startswith("stage1")) == first
    assert space.choices["stage1"].options == (1, 2, 3)
    assert space.choices["stage1.width"].options == (16, 24)
    grid = ("k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6")
    assert space.choices["stage1.0"].options == grid
    assert space.choices["stage1.1"].options == (*grid, "skip")


def test_skips_can_be_left_out() -> None:
    assert "skip" not in mobile(skip=False).choices["stage1.1"].options


def test_images_of_224_pixels() -> None:
    space = mobile(input_shape=(3, 224, 224), num_classes=1000)
    assert "stage1" not in {label.split(".")[0] for label in space.choices}  # fixed, as in both
    point = space.complete({}, lambda choice: choice.options[0])
    assert [point[f"stage{i}"] for i in range(2, 7)] == [2, 2, 2, 2, 2]
    net = space.build(point).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
    # 32 x 3 x 9 weights of the stem are the first of them
    assert sum(p.numel() for p in net.stem.parameters()) == 32 * 3 * 9 + 2 * 32  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kernels": (3, 4)}, r"odd kernels such as \(3, 5, 7\), not \[3, 4\]"),
        ({"kernels": ()}, "odd kernels"),
        ({"expansions": (0,)}, r"expansions such as \(3, 6\), not \[0\]"),
        ({"stages": ()}, "stages with a depth"),
        ({"stages": (Stage((4,), (2, 1)),)}, "stages with a depth"),
        ({"stages": (Stage((), (1, 2)),)}, "widths of at least 1, not 0"),
        ({"stages": (Stage((4, 6), (1, 2), kernels=(2,)),)}, "odd kernels"),
        ({"stem": 0}, "stem of at least 1, not 0"),
        ({"num_classes": 0}, "num_classes of at least 1, not 0"),
        ({"input_shape": (3, 0, 8)}, "input_shape of at least 1, not 0"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        mobile(**wrong)  # type: ignore[arg-type]


# --- canonical forms ------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", TINY)
def test_canonical_forms_are_exact_over_a_whole_space(stage: Stage) -> None:
    space = tiny(stages=(stage,))
    # the first block is never skipped; of the others only those that run count, in order
    low, high = stage.depth
    assert space.size == 2 * sum(2 * 3 ** (d - 1) for d in range(low, high + 1))
    networks = 2 * sum(2 * 2**n for n in range(high))
    assert merges_exactly(space, space.all()) == space.size - networks


def test_zero_false_merges_in_the_ready_space() -> None:
    space, rng = mobile(), np.random.default_rng(1)

    def either(choice: Choice) -> Option:
        # one operation or a skip, fewest or most blocks: few networks, so that many are the same
        lies_behind = choice.kind == "Depth" or not choice.label.endswith((".0", ".width"))
        return choice.options[-int(rng.integers(2)) if lies_behind else 0]

    points = [space.complete({}, either) for _ in range(60)]
    assert merges_exactly(space, [*points, *draw(space, 20)]) >= 10


def test_graphs_that_call_different_functions_are_never_merged() -> None:
    def calling(f: Callable[[torch.Tensor], torch.Tensor]) -> fx.GraphModule:
        graph = fx.Graph()
        graph.output(graph.call_function(f, (graph.placeholder("x"),)))
        return fx.GraphModule(nn.Module(), graph)

    def forms(*graphs: fx.GraphModule) -> int:
        space = Space(nn.Sequential(*[OneOf(a=g, skip=nn.Identity()) for g in graphs]))
        return len({space.canonical(point) for point in space.all()})

    double, triple = (lambda x: 2 * x), (lambda x: 3 * x)  # two functions of one name
    assert forms(calling(double), calling(triple)) == 4
    assert forms(calling(double), calling(double)) == 3


# --- what it builds -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 20, 28)])
def test_a_path_equals_the_network_built_of_it(shape: tuple[int, int, int]) -> None:
    space = mobile(input_shape=shape)
    randomise_norms(space.model)
    space.model.eval()
    x = torch.randn(2, *shape, dtype=torch.float64)
    space.model.double()
    ends = [space.complete({}, lambda c, i=i: c.options[i]) for i in (0, -1)]  # type: ignore[misc]
    for point in (*draw(space, 3), *ends):
        space.select(point)
        with torch.no_grad():
            path, built = space.model(x), space.build(point)(x)
        space.select(None)
        assert path.shape == (2, 10)
        assert (path - built).abs().max() <= 1e-12 * path.abs().max()


def test_nothing_of_assay_is_in_what_it_builds() -> None:
    net = tiny().build(draw(tiny(), 1)[0])
    assert {type(m).__module__.split(".")[0] for m in net.modules()} == {"torch"}
    assert "assay" not in pickle.dumps(net).decode("latin-1")


def test_what_it_builds_is_an_ordinary_module() -> None:
    space = tiny()
    net = space.build(space.largest()).eval()
    x = torch.randn(3, 1, 8, 8)
    expected = net(x)
    twins = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    twins.append(torch.compile(net, backend="eager", fullgraph=True))
    for twin in twins:
        assert torch.equal(twin(x), expected)
    saved = io.BytesIO()
    torch.save(net.state_dict(), saved)
    saved.seek(0)
    other = space.build(space.largest())
    other.load_state_dict(torch.load(saved, weights_only=True))
    assert torch.equal(other.eval()(x), expected)
