from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.errors import InvalidSpace
from assay.train.optimizers import TorchOptimizer
from assay.train.recipe import Recipe


def network():
    """A weight of two dimensions and a bias of one, all ones."""
    layer = nn.Linear(2, 1)
    for parameter in layer.parameters():
        nn.init.ones_(parameter)
    return layer


def give(layer, value):
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, value)


def test_nesterov_sgd_in_closed_form_and_no_decay_of_what_has_one_dimension():
    layer = network()
    optimizer = TorchOptimizer(layer, Recipe(momentum=0.9, weight_decay=0.1))
    weight, bias, momentum_w, momentum_b = 1.0, 1.0, 0.0, 0.0
    for lr, gradient in ((0.5, 2.0), (0.25, -1.0), (0.1, 3.0)):
        give(layer, gradient)
        optimizer.step(lr)
        decayed = gradient + 0.1 * weight
        momentum_w = 0.9 * momentum_w + decayed
        momentum_b = 0.9 * momentum_b + gradient
        weight -= lr * (decayed + 0.9 * momentum_w)
        bias -= lr * (gradient + 0.9 * momentum_b)
    assert layer.weight.flatten().tolist() == pytest.approx([weight] * 2, rel=1e-5)
    assert layer.bias.tolist() == pytest.approx([bias], rel=1e-5)


def test_adamw_in_closed_form():
    layer = network()
    optimizer = TorchOptimizer(layer, Recipe(optimizer="adamw", weight_decay=0.1))
    weight, bias, mean, square = 1.0, 1.0, 0.0, 0.0
    for n, (lr, gradient) in enumerate(((0.5, 2.0), (0.25, -1.0)), start=1):
        give(layer, gradient)
        optimizer.step(lr)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        move = lr * (mean / (1 - 0.9**n)) / ((square / (1 - 0.999**n)) ** 0.5 + 1e-8)
        weight = weight * (1 - lr * 0.1) - move
        bias -= move
    assert layer.weight.flatten().tolist() == pytest.approx([weight] * 2, rel=1e-5)
    assert layer.bias.tolist() == pytest.approx([bias], rel=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_what_has_no_gradient_stays_where_it_is(name):
    layer = network()
    optimizer = TorchOptimizer(layer, Recipe(optimizer=name, weight_decay=0.5))
    give(layer, 1.0)
    optimizer.step(0.1)
    before = layer.weight.clone()
    optimizer.zero_grad()
    layer.bias.grad = torch.ones(1)
    optimizer.step(0.1)
    assert layer.weight.grad is None
    assert torch.equal(layer.weight, before)  # neither decayed nor carried on by its momentum


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_state_goes_on_elsewhere(name):
    recipe = Recipe(optimizer=name)
    one, other = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    first, second = TorchOptimizer(one, recipe), TorchOptimizer(other, recipe)
    give(one, 0.5)
    first.step(0.1)
    other.load_state_dict(one.state_dict())
    second.load_state_dict(first.state_dict())
    saved = second.state_dict()
    assert saved.keys() == first.state_dict().keys()
    of_weight = [v for k, v in saved.items() if k.startswith("weight/") and v.ndim == 4]
    assert of_weight
    assert all(v.is_contiguous(memory_format=torch.channels_last) for v in of_weight)
    assert all(a is not b for a, b in zip(saved.values(), first.state_dict().values()))
    for layer, optimizer in ((one, first), (other, second)):
        give(layer, -0.3)
        optimizer.step(0.2)
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.bias, other.bias)


def test_without_momentum_sgd_is_plain():
    layer = network()
    optimizer = TorchOptimizer(layer, Recipe(momentum=0.0, weight_decay=0.0))
    give(layer, 2.0)
    optimizer.step(0.25)
    assert layer.weight.flatten().tolist() == [0.5, 0.5]
    assert optimizer.state_dict() == {}


def test_frozen_parameters_are_left_out():
    layer = network()
    layer.weight.requires_grad_(False)
    optimizer = TorchOptimizer(layer, Recipe())
    layer.bias.grad = torch.ones(1)
    optimizer.step(0.1)
    assert list(optimizer.state_dict()) == ["bias/momentum_buffer"]


def test_a_network_in_which_nothing_can_be_trained_is_refused():
    for layer in (network().requires_grad_(False), nn.Identity()):
        with pytest.raises(InvalidSpace, match="no parameter that requires a gradient; add a"):
            TorchOptimizer(layer, Recipe())
