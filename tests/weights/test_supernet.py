from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from assay.architecture import Architecture
from assay.cost import derive
from assay.space.choices import OneOf
from assay.space.space import Space
from assay.train.recipe import Recipe
from assay.train.task import Task
from assay.weights.paths import Fair, Sandwich, Uniform
from assay.weights.supernet import Supernet
from tests.space.spaces import Chain


def task() -> Task:
    images = derive(0, "data").integers(0, 256, (100, 8, 8), dtype=np.uint8)
    return Task.from_arrays(images, np.arange(100) % 10, layout="NHW")


def weights(net: Supernet) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in net.module.state_dict().items()}


@pytest.mark.parametrize("paths", [Uniform(), Uniform(num=2), Fair(), Sandwich(num=1)])
@pytest.mark.parametrize("recipe", [Recipe(batch_size=16), Recipe(optimizer="adamw", lr=1e-3)])
def test_a_training_that_stopped_goes_on_to_the_same_bits(paths, recipe) -> None:
    nets = [Supernet(Space(Chain), paths=paths, seed=5) for _ in range(2)]
    whole, halves = nets
    whole.reset()
    whole.trainer(task(), recipe, steps=7).run(7)
    halves.reset()
    first = halves.trainer(task(), recipe, steps=7)
    first.run(3)
    state = {k: v.clone() if hasattr(v, "clone") else v for k, v in first.state_dict().items()}
    halves.reset()
    second = halves.trainer(task(), recipe, steps=7)
    second.load_state_dict(state)
    second.run(7)
    kept = weights(halves)
    assert all(torch.equal(v, kept[k]) for k, v in weights(whole).items())


def test_the_seed_names_the_weights_and_the_paths() -> None:
    found = []
    for seed in (1, 1, 2):
        net = Supernet(Space(Chain), seed=seed)
        net.reset()
        net.trainer(task(), Recipe(batch_size=16), steps=2).run(2)
        found.append(weights(net)["head.weight"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_an_instance_begins_each_training_as_it_was_given() -> None:
    net, found = Supernet(Space(Chain()), seed=1), []
    for _ in range(2):
        net.reset()
        net.trainer(task(), Recipe(batch_size=16), steps=2).run(2)
        found.append(weights(net))
    assert all(torch.equal(v, found[1][k]) for k, v in found[0].items())


class OnFrozen(nn.Module):
    """A backbone that is frozen, and an option that is."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Flatten()
        self.backbone = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8)).requires_grad_(False)
        self.op = OneOf(a=nn.Linear(8, 10).requires_grad_(False), b=nn.Linear(8, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.op(self.backbone(self.flat(x)))


@pytest.mark.parametrize("paths", [Uniform(), Sandwich(num=1)])
def test_what_is_frozen_keeps_weights_and_statistics(paths) -> None:
    net = Supernet(Space(OnFrozen), paths=paths, seed=0)
    net.reset()
    before = weights(net)
    net.trainer(task(), Recipe(batch_size=16), steps=10).run(10)
    kept = {name for name, value in weights(net).items() if torch.equal(value, before[name])}
    assert kept == {name for name in before if not name.startswith("op.b.")}


def test_gradients_of_a_steps_paths_are_averaged() -> None:
    class Both:
        def passes(self, space, step, *, rng):
            return [space.smallest(), space.largest()]

    net = Supernet(Space(Chain), paths=Both(), seed=0)
    net.reset()
    trainer = net.trainer(task(), Recipe(batch_size=80, clip=0.0, warmup=0.0), steps=10)
    seen: dict[str, torch.Tensor] = {}
    update = trainer._optimizer.step

    def spy(lr: float) -> None:
        seen.update({n: p.grad.clone() for n, p in net.module.named_parameters()
                     if p.grad is not None})  # fmt: skip
        update(lr)

    trainer._optimizer.step = spy  # type: ignore[method-assign]
    before = weights(net)
    (x, y) = next(task().train.train_batches(80, seed=0))
    trainer.run(1)
    net.module.load_state_dict(before)
    net.module.train()
    total = 0.0
    for path in Both().passes(net.space, 0, rng=None):
        net.select(path)
        total = total + 0.5 * torch.nn.functional.cross_entropy(net.module(x), y)
    net.module.zero_grad()
    total.backward()
    gradient = dict(net.module.named_parameters())["stem.weight"].grad
    # the same samples in another order of channels-last sums
    assert torch.allclose(seen["stem.weight"], gradient, atol=1e-5)


def test_select_is_the_one_hot_mix() -> None:
    net = Supernet(Space(Chain))
    net.module.eval()
    point = net.space.sample(np.random.default_rng(0))
    x = torch.randn(2, 1, 8, 8)
    net.select(point)
    one = net.module(x)
    net.select({label: {option: 1.0} for label, option in point.items()})
    assert torch.equal(one, net.module(x))
    assert isinstance(point, Architecture)
    assert torch.allclose(net.build(point)(x), one, atol=1e-5)
