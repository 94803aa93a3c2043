from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from assay.errors import InvalidSetting, UnsupportedLayer
from assay.weights.morph import assert_same_function, shrink, thin, widen
from assay.weights.morph.flow import trace
from assay.zoo.cell import cell
from assay.zoo.mobile import Stage, mobile
from tests.space.spaces import randomise_norms
from tests.weights.morph import nets

EVERY_LAYER = [
    pytest.param(family, path, id=f"{family.__name__}-{path}")
    for family in nets.FAMILIES
    for path in trace(family()).widenable()
]


def step(model: nn.Module, path: str) -> int:
    run = trace(model).run(path)
    return run.times * run.group.root.parts


def outputs(model: nn.Module, path: str) -> int:
    run = trace(model).run(path)
    return run.times * run.group.size


@pytest.mark.parametrize(("family", "path"), EVERY_LAYER)
def test_a_wider_layer_computes_the_same(family, path):
    model = nets.network(family)
    width = outputs(model, path) + 2 * step(model, path)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    wide = widen(model, path, width, rng=np.random.default_rng(0))
    assert outputs(wide, path) == width
    assert_same_function(model, wide, nets.images(), tolerance=1e-9)
    assert sum(p.numel() for p in wide.parameters()) > sum(p.numel() for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_only_the_last_layers_cannot_be_widened():
    for family in nets.FAMILIES:
        flow = trace(family())
        refused = set(flow.layers) - set(flow.widenable())
        single = {p for p in refused if len(flow.layers[p].makes.runs) == 1}
        assert len(single) == 1, f"{family.__name__} refuses {single}"


@pytest.mark.parametrize("family", nets.FAMILIES)
def test_all_layers_wider_one_after_the_other_compute_the_same(family):
    model = nets.network(family)
    rng = np.random.default_rng(3)
    grown = model
    for path in trace(model).widenable():
        grown = widen(grown, path, outputs(grown, path) + step(grown, path), rng=rng)
    assert_same_function(model, grown, nets.images(), tolerance=1e-9)


@settings(max_examples=20)
@given(st.integers(3, 9), st.integers(0, 99))
def test_copies_share_what_their_original_gave(width, seed):
    """For each reader the new columns of one old channel add up to its old column, exactly."""
    with torch.no_grad():
        model = nets.network(nets.Inception)
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.copy_((layer.weight * 16).round() * 2520)  # 1 to 9 divide them
    wide = widen(model, "one.0", width, rng=np.random.default_rng(seed))
    old, new = model.mixed[0].weight, wide.mixed[0].weight
    same = (wide.one[0].weight[:, None] == model.one[0].weight[None]).flatten(2).all(2)
    g = same.double().argmax(1)
    assert torch.equal(g[:3], torch.arange(3))
    counts = torch.bincount(g, minlength=3)
    assert torch.equal(new[:, :width] * counts[g][None, :, None, None], old[:, g])
    assert torch.equal(torch.zeros_like(old[:, :3]).index_add(1, g, new[:, :width]), old[:, :3])
    assert torch.equal(new[:, width:], old[:, 3:])  # the other branches
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(wide.one[1], name), getattr(model.one[1], name)[g])


def test_all_addends_share_the_map():
    model = nets.network(nets.ResNet)
    wide = widen(model, "stem.0", 9, rng=np.random.default_rng(0))
    maps = []
    for path in ("stem.0", "body.2.0"):
        old, new = (m.get_submodule(path).weight for m in (model, wide))
        same = (new[:, None] == old[None]).flatten(2).all(2)
        assert same.any(1).all()
        maps.append(same.double().argmax(1))
    assert torch.equal(*maps)


def test_flattened_channels_are_blocks():
    model = nets.network(nets.VGG)
    wide = widen(model, "4", 6, rng=np.random.default_rng(0))
    assert (wide[5].num_parameters, wide[7].in_features) == (6, 54)
    (j,) = [j for j in range(5) if torch.equal(wide[4].weight[5], model[4].weight[j])]
    block = model[7].weight[:, 9 * j : 9 * j + 9] / 2
    assert torch.equal(wide[7].weight[:, 45:], block)
    assert torch.equal(wide[7].weight[:, 9 * j : 9 * j + 9], block)


def test_groups_grow_alike_and_keep_their_number():
    model = nets.network(nets.Grouped)
    wide = widen(model, "stem.0", 24, rng=np.random.default_rng(0))
    assert (wide.thirds.groups, wide.thirds.in_channels, wide.thirds.weight.shape[1]) == (3, 24, 8)
    assert (wide.halves.groups, wide.halves.in_channels, wide.halves.weight.shape[1]) == (2, 24, 12)
    with pytest.raises(InvalidSetting, match="multiple of 6, not 20"):
        widen(model, "stem.0", 20, rng=np.random.default_rng(0))
    depthwise = widen(nets.network(nets.Mobile), "doubled", 12, rng=np.random.default_rng(0))
    assert (depthwise.doubled.groups, depthwise.doubled.in_channels) == (6, 6)
    with pytest.raises(InvalidSetting, match="multiple of 2, not 9"):
        widen(nets.network(nets.Mobile), "doubled", 9, rng=np.random.default_rng(0))


def test_noise_falls_on_the_copies_alone():
    model = nets.network(nets.ResNet)
    exact, noisy = (
        widen(model, "stem.0", 7, rng=np.random.default_rng(5), noise=noise) for noise in (0.0, 0.1)
    )
    for path in ("stem.0", "body.2.0"):
        one, other = (m.get_submodule(path).weight for m in (exact, noisy))
        assert torch.equal(one[:4], other[:4])
        assert (one[4:] != other[4:]).flatten(1).any(1).all()
    assert torch.equal(exact.shortcut[0].weight, noisy.shortcut[0].weight)
    assert torch.equal(exact.stem[1].weight, noisy.stem[1].weight)


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    widen(nets.network(nets.VGG), "0", 9, rng=np.random.default_rng(0), noise=0.5)
    assert torch.equal(torch.get_rng_state(), state)


def test_frozen_weights_stay_frozen_and_float32_stays():
    model = nets.network(nets.VGG).float()
    model[0].weight.requires_grad = False
    wide = widen(model, "0", 6, rng=np.random.default_rng(0))
    assert not wide[0].weight.requires_grad
    assert wide[4].weight.requires_grad
    assert {p.dtype for p in wide.parameters()} == {torch.float32}
    assert_same_function(model, wide, nets.images().float())


def test_a_narrower_layer_keeps_what_is_weighed_most():
    model = nets.network(nets.Inception)
    readers = model.one[0].weight, model.three[0][0].weight, model.mixed[0].weight
    norms = sum(w.abs().sum((0, 2, 3)) for w in readers[:2]) + readers[2][:, 8:].abs().sum(
        (0, 2, 3)
    )
    kept = norms.argsort(descending=True)[:2].sort().values
    thin = shrink(model, "stem.0", 2)
    assert torch.equal(thin.stem[0].weight, model.stem[0].weight[kept])
    assert torch.equal(thin.mixed[0].weight[:, 8:], readers[2][:, 8:][:, kept])
    assert thin(nets.images()).shape == (3, 3)


@pytest.mark.parametrize(("family", "path"), EVERY_LAYER)
def test_what_was_widened_can_be_narrowed_again(family, path):
    model = nets.network(family)
    wide = widen(model, path, 2 * outputs(model, path), rng=np.random.default_rng(0))
    back = shrink(wide, path, outputs(model, path))
    assert [t.shape for t in back.state_dict().values()] == [
        t.shape for t in model.state_dict().values()
    ]
    assert back(nets.images()).isfinite().all()


@pytest.mark.parametrize("share", [0.5, 0.3, 0.01, 1.0])
@pytest.mark.parametrize("family", nets.FAMILIES)
def test_a_thin_network_has_that_share_of_the_channels_that_can_be_fewer(family, share):
    model = nets.network(family)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flow, after = trace(model), trace(thin(model, share))
    for path, layer in ((p, la) for p, la in flow.layers.items() if la.mixes):
        for run, thinner in zip(layer.makes.runs, after.layers[path].makes.runs, strict=True):
            group, parts = run.group.root, run.group.root.parts
            kept = max(1, round(share * group.size / parts)) * parts
            assert thinner.group.size == (group.size if group.fixed else kept), path
    assert after.model(nets.images()).shape == model(nets.images()).shape
    num_before, num_after = (sum(p.numel() for p in m.parameters()) for m in (model, after.model))
    assert num_after < num_before or share == 1
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    if share == 1:
        assert_same_function(model, after.model, nets.images(), tolerance=0)


def test_sums_of_fewer_terms_have_larger_ones():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8 * 4, 5),
    )  # fmt: skip
    thinner = thin(model, 0.5)
    firsts, half = torch.tensor([0, 1, 2, 3]), 2**0.5
    grouped = torch.tensor([0, 1, 4, 5])  # the first two of each part
    assert torch.equal(thinner[0].weight, model[0].weight[grouped])
    assert torch.allclose(thinner[2].weight, half * model[2].weight[grouped][:, firsts[:2]])
    assert torch.equal(thinner[3].weight, model[3].weight[grouped])
    columns = (grouped[:, None] * 4 + torch.arange(4)).flatten()
    assert torch.allclose(thinner[5].weight, half * model[5].weight[:, columns])
    assert torch.equal(thinner[5].bias, model[5].bias)


def test_what_cannot_be_thin():
    model = nets.network(nets.FAMILIES[0])
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(InvalidSetting, match="more than 0, at most 1"):
            thin(model, share)
    frozen = nets.network(nets.FAMILIES[0])
    frozen[4].requires_grad_(False)
    with pytest.raises(UnsupportedLayer, match="'4' cannot have fewer channels: it is frozen"):
        thin(frozen, 0.5)
    with pytest.raises(UnsupportedLayer, match=r"'0' cannot .* of a ConvTranspose1d cannot be"):
        thin(nn.Sequential(nn.ConvTranspose1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 2, 1)), 0.5)

    class Added(nn.Module):  # two kinds of halves are added, in another order
        def __init__(self):
            super().__init__()
            self.one, self.two, self.both = (nn.Linear(2, n) for n in (4, 4, 8))
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            return self.head(torch.cat((self.one(x), self.two(x)), 1) + self.both(x))

    with pytest.raises(UnsupportedLayer, match="'one' cannot have fewer channels: add"):
        thin(Added(), 0.5)


def test_a_network_of_nothing_but_its_outputs_stays():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    x = torch.ones(3, 4)
    assert torch.equal(thin(model, 0.5)(x), model(x))


def test_norms_that_average_keep_two_channels_of_a_group():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(4, 8), nn.Conv2d(8, 8, 1), nn.ReLU())
    thinner = thin(nn.Sequential(*model, nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8)), 0.5)
    assert [thinner[i].weight.shape[:2] for i in (0, 2, 4)] == [(8, 3), (4, 8), (8, 4)]


def test_groups_of_positions_of_a_channel_are_no_groups_of_channels():
    twice = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 3, groups=6), nn.GroupNorm(4, 12)
    model = nn.Sequential(*twice, nn.Conv2d(12, 2, 1))
    for change in (lambda: thin(model, 0.5), lambda: shrink(model, "0", 4)):
        with pytest.raises(UnsupportedLayer, match=r"GroupNorm\) groups positions of a channel"):
            change()


@pytest.mark.parametrize("norm", [nn.LayerNorm(4), nn.GroupNorm(2, 4)])
def test_a_norm_over_channels_hinders_copies_alone(norm):
    model = nn.Sequential(nn.Linear(3, 4), norm, nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(UnsupportedLayer, match="averages over them, and copies count twice"):
        widen(model, "0", 6, rng=np.random.default_rng(0))
    thin = shrink(model, "0", 2)
    assert len(thin[1].weight) == 2
    assert thin(torch.ones(5, 3)).shape == (5, 2)


def small_mobile():
    stages = (Stage((4, 6), (1, 2)), Stage((6, 8), (1, 2), stride=2))
    return mobile(stages=stages, stem=4, head=8)


@pytest.mark.parametrize(
    "space", [small_mobile, lambda: cell(input_shape=(1, 8, 8), channels=4, cells=1)]
)
def test_every_layer_of_the_ready_spaces(space):
    made = space()
    rng = np.random.default_rng(0)
    x = nets.images(side=8, channels=1)
    for _ in range(2):
        model = made.fresh(made.sample(rng), 0).double().eval()
        randomise_norms(model)
        paths = trace(model).widenable()
        assert len(paths) == len(trace(model).layers) - 1  # all but the classifier
        for path in paths:
            wide = widen(model, path, outputs(model, path) + 3, rng=rng)
            assert_same_function(model, wide, x, tolerance=1e-9)


def test_what_cannot_be():
    rng = np.random.default_rng(0)
    model = nets.network(nets.Dense)
    with pytest.raises(InvalidSetting, match="did you mean 'stem'"):
        widen(model, "stm", 9, rng=rng)
    with pytest.raises(InvalidSetting, match="come from several layers"):
        widen(model, "norm", 15, rng=rng)
    with pytest.raises(InvalidSetting, match="more than 3; use shrink"):
        widen(model, "stem", 3, rng=rng)
    with pytest.raises(InvalidSetting, match="fewer than 5; use widen"):
        shrink(model, "stem", 5)
    with pytest.raises(InvalidSetting, match="must be a multiple of 1, not 0"):
        shrink(model, "stem", 0)
    for noise in (-1.0, float("nan")):
        with pytest.raises(InvalidSetting, match=f"noise={noise}"):
            widen(model, "stem", 5, rng=rng, noise=noise)
    with pytest.raises(UnsupportedLayer, match="the model's output has them"):
        widen(model, "head", 4, rng=rng)
    with pytest.raises(UnsupportedLayer, match="the model's output has them"):
        shrink(model, "head", 2)
