from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.errors import AssayError, InvalidArchitecture
from assay.space.choices import Depth, Inputs, OneOf
from assay.space.sizes import Kernel, Width
from assay.space.space import Space
from assay.weights.morph import assert_same_function, heir, inherit
from assay.zoo.cell import cell
from assay.zoo.mobile import Stage, mobile
from tests.space.spaces import Tangle, randomise_norms
from tests.weights.morph import nets


class Block(nn.Module):
    """A residual block; its activation comes last."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm(self.conv(x)))


class Net(nn.Module):
    """Every size, a depth of residual blocks, one of plain ones, and a skip."""

    def __init__(self) -> None:
        super().__init__()
        w, v, k = Width(4, 6, 8), Width(3, 5), Kernel(1, 3, 5)
        self.stem = nn.Sequential(nn.Conv2d(2, w, k, padding=k // 2), nn.BatchNorm2d(w), nn.ReLU())
        self.body = Depth(*[Block(w, 3) for _ in range(3)], min=1)
        self.extra = OneOf(skip=nn.Identity(), block=Block(w, k), pool=nn.MaxPool2d(3, 1, 1))
        self.side = nn.Conv2d(w, v, 1)
        self.plain = Depth(*[nn.Conv2d(w + v, w + v, 1) for _ in range(2)], min=1)
        self.head = nn.Linear((w + v) * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.extra(self.body(self.stem(x)))
        return self.head(self.plain(torch.cat([x, self.side(x)], 1)).flatten(1))


W, K = "stem.0.out_channels", "stem.0.kernel_size"
LOW = Architecture({"body": 1, "extra": "skip", "plain": 1, "side": 3, W: 4, K: 1})
HIGH = Architecture({"body": 3, "extra": "block", "plain": 2, "side": 5, W: 8, K: 5})


def network(made: Space, point: Architecture) -> nn.Module:
    model = made.fresh(point, 0).double()
    randomise_norms(model)
    return model.train()


def changed(point: Architecture, **options) -> Architecture:
    return Architecture({**point, **options})


def grown(made: Space, before: Architecture, after: Architecture):
    return inherit(
        made, before, network(made, before), after,
        rng=np.random.default_rng(0), example=nets.images(),
    )  # fmt: skip


def test_growing_everything_that_can_keep_the_function_keeps_it():
    made = Space(Net)
    after = HIGH
    parent = network(made, LOW)
    modes = [m.training for m in parent.modules()]
    child = inherit(made, LOW, parent, after, rng=np.random.default_rng(0), example=nets.images())
    assert [m.kind for m in child.morphs] == [
        "widen", "widen", "grow_kernel", "deepen", "deepen", "deepen",
    ]  # fmt: skip
    assert all(m.preserving for m in child.morphs)
    assert_same_function(parent, child.network, nets.images(), tolerance=1e-9)
    wanted = made.build(after).state_dict()
    assert {k: t.shape for k, t in child.network.state_dict().items()} == {
        k: t.shape for k, t in wanted.items()
    }
    assert [m.training for m in parent.modules()] == modes


@pytest.mark.parametrize("label", LOW)
def test_each_step_alone_is_what_it_says(label):
    made = Space(Net)
    (there,) = grown(made, LOW, changed(LOW, **{label: HIGH[label]})).morphs
    (back,) = grown(made, HIGH, changed(HIGH, **{label: LOW[label]})).morphs
    assert (there.label, there.before, there.after) == (label, LOW[label], HIGH[label])
    assert there.preserving
    assert not back.preserving
    assert (there.kind, back.kind) in {
        ("widen", "narrow"), ("grow_kernel", "shrink_kernel"), ("deepen", "cut"),
    }  # fmt: skip


def test_what_is_the_same_keeps_its_weights_to_the_bit():
    made = Space(Net)
    parent = network(made, LOW)
    after = changed(LOW, extra="pool")
    child = inherit(made, LOW, parent, after, rng=np.random.default_rng(0), example=nets.images())
    assert [(m.kind, m.preserving) for m in child.morphs] == [("exchange", False)]
    for name, tensor in child.network.state_dict().items():
        assert torch.equal(tensor, parent.state_dict()[name]), name
    same = inherit(made, LOW, parent, LOW, rng=np.random.default_rng(0), example=nets.images())
    assert same.morphs == ()


def test_a_kernel_that_shrinks_keeps_its_centre_and_a_width_the_largest():
    made = Space(Net)
    high = changed(LOW, **{K: 5, W: 6})
    parent = network(made, high)
    low = changed(high, **{K: 3, W: 4})
    child = inherit(made, high, parent, low, rng=np.random.default_rng(0), example=nets.images())
    wide, thin = parent.stem[0].weight, child.network.stem[0].weight
    rows = [[j for j in range(6) if torch.equal(t, wide[j, :, 1:4, 1:4])] for t in thin]
    kept = [j for (j,) in rows]
    assert kept == sorted(set(kept))
    norms = parent.body[0].conv.weight.abs().sum((0, 2, 3)) + parent.side.weight.abs().sum(
        (0, 2, 3)
    )
    norms = norms + parent.plain[0].weight[:, :6].abs().sum((0, 2, 3))
    assert kept == sorted(norms.argsort(descending=True)[:4].tolist())


@pytest.mark.parametrize(
    "make",
    [
        lambda: mobile(
            stages=(Stage((4, 6), (1, 3)), Stage((6, 8), (1, 2), stride=2)), stem=4, head=8
        ),
        lambda: cell(input_shape=(1, 8, 8), channels=4, cells=1),
        lambda: Space(Tangle),
    ],
    ids=["mobile", "cell", "tangle"],
)
def test_any_architecture_follows_any_other(make):
    made = make()
    rng = np.random.default_rng(1)
    side = 4 if isinstance(made.model, Tangle) else 8
    x = nets.images(side=side, channels=1)
    parent_point = made.sample(rng)
    parent = network(made, parent_point)
    for _ in range(4):
        point = made.mutate(parent_point, rng) if rng.random() < 0.5 else made.sample(rng)
        child = inherit(made, parent_point, parent, point, rng=rng, example=x)
        assert {k: t.shape for k, t in child.network.state_dict().items()} == {
            k: t.shape for k, t in made.build(point).state_dict().items()
        }
        assert child.network(x).isfinite().all()
        parent_point, parent = point, child.network


def test_a_norm_over_channels_is_not_said_to_keep_the_function():
    def model() -> nn.Module:
        w = Width(2, 4)
        return nn.Sequential(nn.Linear(3, w), nn.LayerNorm(w), nn.Linear(w, 2))

    made = Space(model)
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    low, high = Architecture({"0": 2}), Architecture({"0": 4})
    child = inherit(
        made, low, made.fresh(low, 0).double(), high, rng=np.random.default_rng(0), example=x
    )
    assert [(m.kind, m.preserving) for m in child.morphs] == [("widen", False)]


class Cast(nn.Module):
    """Pixels of whole numbers, cast to float32 and met by constants of float32."""

    def __init__(self) -> None:
        super().__init__()
        w = Width(4, 6)
        self.first, self.last = nn.Linear(6, w), nn.Linear(w, 3)
        self.mean = torch.full((6,), 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = (x.float() / 255 - self.mean) @ torch.full((6, 6), 0.2)
        return self.last(torch.relu(self.first(x)).to(torch.float32))


@pytest.mark.parametrize("fault", [0.0, 1e-7])
def test_a_forward_that_casts_to_float32_is_compared_in_float64(monkeypatch, fault):
    made = Space(Cast)
    low, high = (Architecture({"first": w}) for w in (4, 6))
    pixels = torch.arange(30, dtype=torch.uint8).reshape(5, 6)
    monkeypatch.setattr(heir, "picked", lambda layer, rows, columns: {
        k: v * (1 + fault) for k, v in heir_picked(layer, rows, columns).items()
    })  # fmt: skip

    def grow():
        parent = made.fresh(low, 0)
        return inherit(made, low, parent, high, rng=np.random.default_rng(0), example=pixels)

    if fault:
        with pytest.raises(AssayError, match="more than 1e-09 of that"):
            grow()
    else:
        assert [(m.kind, m.preserving) for m in grow().morphs] == [("widen", True)]


class Heads(nn.Module):
    """A head of train mode alone, and one that reads all frames of a sample or each by itself."""

    def __init__(self, together: bool) -> None:
        super().__init__()
        w = Width(4, 6)
        self.together = together
        self.first, self.aux = nn.Conv2d(2, w, 3), nn.Linear(w, 2)
        self.last = nn.Linear(w * 3 if together else w, 2)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c, h, w = x.shape
        y = torch.relu(self.first(x.reshape(n * t, c, h, w))).mean((2, 3))
        out = self.last(y.view(n, -1) if self.together else y)
        return out + self.aux(y).mean() if self.training else out


@pytest.mark.parametrize("together", [False, True])
def test_frames_are_not_channels_and_a_head_of_train_mode_is_taken_over(together):
    made = Space(lambda: Heads(together))
    low, high = (Architecture({"first": w}) for w in (4, 6))
    parent = made.fresh(low, 0).eval()
    frames = torch.ones(2, 3, 2, 4, 4)
    child = inherit(made, low, parent, high, rng=np.random.default_rng(0), example=frames)
    told = [(m.kind, m.label, m.preserving) for m in child.morphs]
    fresh = [("fresh", "last", False)] if together else []
    assert told == [("widen", "first", not together), *fresh]
    y = torch.ones(1, 4)
    wide = torch.cat([y, y[:, :2]], 1)
    assert torch.allclose(child.network.aux(wide), parent.aux(y), atol=1e-6)


@pytest.mark.parametrize(
    ("block", "preserving"),
    [
        (lambda: nn.TransformerEncoderLayer(4, 2, 4, batch_first=True), False),
        (lambda: nn.BatchNorm1d(5), True),
    ],
)
def test_a_new_block_may_be_one_of_torchs_own(block, preserving):
    made = Space(lambda: nn.Sequential(OneOf(skip=nn.Identity(), new=block()), nn.Linear(4, 2)))
    low, high = (Architecture({"0": option}) for option in ("skip", "new"))
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    child = inherit(made, low, made.fresh(low, 0), high, rng=np.random.default_rng(0), example=x)
    assert [(m.kind, m.preserving) for m in child.morphs] == [("deepen", preserving)]
    assert child.network(x).shape == (3, 5, 2)


def test_padding_that_stays_does_not_keep_the_function():
    def model() -> nn.Module:
        k = Kernel(1, 3)
        return nn.Sequential(nn.Conv2d(2, 4, k, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    made = Space(model)
    low, high = (Architecture({"0": k}) for k in (1, 3))
    child = inherit(
        made, low, made.fresh(low, 0).double(), high,
        rng=np.random.default_rng(0), example=nets.images(),
    )  # fmt: skip
    assert [(m.kind, m.preserving) for m in child.morphs] == [("grow_kernel", False)]


def test_a_layer_whose_groups_change_is_fresh_and_said_so():
    def model() -> nn.Module:
        w = Width(4, 8)
        return nn.Sequential(
            nn.Conv2d(2, w, 1), nn.Conv2d(w, w, 3, padding=1, groups=w // 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(w, 3),
        )  # fmt: skip

    made = Space(model)
    low, high = (Architecture({"0": w}) for w in (4, 8))
    child = inherit(
        made, low, made.fresh(low, 0).double(), high,
        rng=np.random.default_rng(0), example=nets.images(),
    )  # fmt: skip
    assert [(m.kind, m.label, m.preserving) for m in child.morphs] == [
        ("widen", "0", False), ("fresh", "1", False),
    ]  # fmt: skip


def test_other_predecessors_keep_the_weights():
    class Picks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pick = Inputs(3, 1)
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            return sum(self.pick([layer(x) for layer in self.layers]))

    made = Space(Picks)
    one, other = Architecture({"pick": (0,)}), Architecture({"pick": (2,)})
    parent = made.fresh(one, 0)
    child = inherit(
        made, one, parent, other, rng=np.random.default_rng(0), example=torch.zeros(2, 4)
    )
    assert [m.to_dict() for m in child.morphs] == [
        {"kind": "rewire", "label": "pick", "from": [0], "to": [2], "preserving": False}
    ]
    assert torch.equal(child.network.layers[2].weight, parent.layers[2].weight)


class Tied(nn.Module):
    """Three blocks, the same one again, or of which each has some layer of the first."""

    def __init__(self, shared: str) -> None:
        super().__init__()
        blocks = [Block(2, 3) for _ in range(3)]
        for block in blocks[1:]:
            if shared == "conv":
                block.conv = blocks[0].conv
            elif shared == "norm":
                block.norm = blocks[0].norm
            elif shared == "weight of norm":
                block.norm.weight = blocks[0].norm.weight
        self.body = Depth(*(blocks[:1] * 3 if shared == "block" else blocks))
        self.head = nn.Linear(72, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


@pytest.mark.parametrize("shared", ["block", "norm", "weight of norm", "conv"])
def test_a_block_that_shares_what_the_parent_trained_keeps_it(shared):
    made = Space(lambda: Tied(shared))
    before, after = (Architecture({"body": depth}) for depth in (1, 3))
    parent = network(made, before)
    child = inherit(
        made, before, parent, after, rng=np.random.default_rng(0), example=nets.images()
    )
    assert [(m.kind, m.preserving) for m in child.morphs] == [("deepen", shared == "conv")]
    for name, tensor in parent.state_dict().items():
        assert torch.equal(child.network.state_dict()[name], tensor), name
    assert child.network.body[2].norm.weight.any() == (shared != "conv")


def test_a_plain_block_that_shares_a_trained_norm_keeps_it():
    def model() -> nn.Module:
        norm = nn.BatchNorm2d(2)
        convs = [nn.Conv2d(2, 2, 3, padding=1) for _ in range(3)]
        blocks = [nn.Sequential(conv, norm) for conv in convs]
        return nn.Sequential(Depth(*blocks), nn.Flatten(), nn.Linear(72, 3))

    made = Space(model)
    before, after = (Architecture({"0": depth}) for depth in (1, 3))
    parent = network(made, before)
    child = inherit(
        made, before, parent, after, rng=np.random.default_rng(0), example=nets.images()
    )
    assert [(m.kind, m.preserving) for m in child.morphs] == [("deepen", False)]
    for name, tensor in parent.state_dict().items():
        assert torch.equal(child.network.state_dict()[name], tensor), name


def test_a_parent_of_another_space_or_architecture_is_refused():
    made = Space(Net)
    with pytest.raises(InvalidArchitecture, match="none of Architecture"):
        inherit(
            made, changed(LOW, side=5), network(made, LOW), LOW,
            rng=np.random.default_rng(0), example=nets.images(),
        )  # fmt: skip
    with pytest.raises(InvalidArchitecture):
        grown(made, Architecture({"other": 1}), LOW)


def test_a_morph_that_breaks_the_function_is_refused(monkeypatch):
    made = Space(Net)
    monkeypatch.setattr(heir, "picked", lambda layer, rows, columns: {
        k: v * 1.5 for k, v in heir_picked(layer, rows, columns).items()
    })  # fmt: skip
    with pytest.raises(AssayError, match="changed the function: outputs of up to"):
        grown(made, LOW, changed(LOW, side=5))


@pytest.mark.parametrize("after", [{"side": 5}, {"side": 5, "body": 1}], ids=["grows", "mixed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_fault_far_below_single_precision_is_found(monkeypatch, dtype, after):
    """In the part of a plan that grows, whatever comes after it, and whatever the parent's type."""
    made, before = Space(Net), changed(LOW, body=2)
    monkeypatch.setattr(heir, "picked", lambda layer, rows, columns: {
        k: v * (1 + 1e-7) for k, v in heir_picked(layer, rows, columns).items()
    })  # fmt: skip
    with pytest.raises(AssayError, match="more than 1e-09 of that"):
        inherit(
            made, before, network(made, before).to(dtype), changed(before, **after),
            rng=np.random.default_rng(0), example=nets.images().to(dtype),
        )  # fmt: skip


def test_what_grows_in_a_mixed_plan_is_told_apart_from_what_is_lost():
    made, before = Space(Net), changed(LOW, body=2)
    child = grown(made, before, changed(before, **{W: 6, "body": 1, "extra": "pool"}))
    assert [(m.kind, m.label, m.preserving) for m in child.morphs] == [
        ("widen", W, True), ("cut", "body", False), ("exchange", "extra", False),
    ]  # fmt: skip


heir_picked = heir.picked


def test_noise_comes_after_the_comparison_and_tells_the_copies_apart():
    made = Space(Net)
    parent, after = network(made, LOW), changed(LOW, side=5)
    exact, noisy = (
        inherit(
            made, LOW, parent, after,
            rng=np.random.default_rng(0), example=nets.images(), noise=noise,
        ).network.state_dict()
        for noise in (0.0, 0.1)
    )  # fmt: skip
    disturbed = {k for k in exact if not torch.equal(exact[k], noisy[k])}
    assert disturbed == {"side.weight", "plain.0.weight"}  # whose outputs are as many as v + w
    assert torch.equal(exact["side.weight"][:3], noisy["side.weight"][:3])
    assert (exact["side.weight"][3:] != noisy["side.weight"][3:]).any(1).all()


def test_the_same_generator_gives_the_same_child():
    made = Space(Net)
    state = torch.get_rng_state()
    one, two = (grown(made, LOW, changed(LOW, side=5, body=2)).network for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name])


def block(inplace: bool) -> nn.Module:
    """A block as in cells: its activation comes first."""
    return nn.Sequential(nn.ReLU(inplace), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))


@pytest.mark.parametrize("inplace", [False, True])
def test_a_block_that_writes_into_its_input_is_not_taken_for_the_identity(inplace):
    def model():
        return nn.Sequential(
            nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), Depth(block(inplace), block(inplace), min=0)
        )

    made = Space(model)
    low, high = Architecture({"2": 0}), Architecture({"2": 1})
    told = grown(made, low, high).morphs
    assert [(m.kind, m.preserving) for m in told] == [("deepen", False)]


class Branch(nn.Module):
    """x + branch(x), whose last layer's weight a hook makes."""

    def __init__(self, hook) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 4, 1), hook(nn.Conv2d(4, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(torch.relu(self.first(x)))


@pytest.mark.parametrize(
    "hook",
    [nn.utils.weight_norm, nn.utils.spectral_norm, nn.utils.parametrizations.weight_norm],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_branch_whose_weight_a_hook_makes_is_not_set_to_zero(hook):
    made = Space(lambda: nn.Sequential(nn.Conv2d(2, 4, 1), Depth(Branch(hook), Branch(hook))))
    low, high = Architecture({"1": 1}), Architecture({"1": 2})
    x = torch.ones(3, 2, 4, 4)
    child = inherit(made, low, made.fresh(low, 0), high, rng=np.random.default_rng(0), example=x)
    assert [(m.kind, m.preserving) for m in child.morphs] == [("deepen", False)]
    assert child.network(x).isfinite().all()
    assert child.network[1][1].last.bias.abs().sum() > 0
