"""Tensors that stand in for a model's own, wherever these are, and are gone after the call."""

from __future__ import annotations

import torch
from torch import nn

from assay.train.standing import standing_in


class Twice(nn.Module):
    """One module at two places, one weight of two layers, and a norm with statistics."""

    def __init__(self):
        super().__init__()
        self.block = nn.Linear(3, 3)
        self.again = nn.Sequential(self.block, nn.BatchNorm1d(3))
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.block.weight

    def forward(self, x):
        return self.tied(self.again(self.block(x)))


def test_each_place_of_a_tensor_is_stood_in_for_and_has_its_own_back():
    torch.manual_seed(0)
    model, like = Twice().double().eval(), Twice().double().eval()
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    values = {name: torch.rand_like(t) if t.is_floating_point() else t for name, t in own.items()}
    like.load_state_dict({**values, "again.0.weight": values["block.weight"],
                          "again.0.bias": values["block.bias"],
                          "tied.weight": values["block.weight"]})  # fmt: skip
    x = torch.rand(4, 3, dtype=torch.float64)
    torch.testing.assert_close(standing_in(model, values)(x), like(x))
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert all(after[name] is tensor for name, tensor in own.items())


def test_gradients_reach_what_stands_in_from_every_place():
    torch.manual_seed(0)
    model, x = Twice().double().eval(), torch.rand(4, 3, dtype=torch.float64)
    weight = model.block.weight.detach().clone().requires_grad_()
    standing_in(model, {"block.weight": weight})(x).sum().backward()
    assert model.block.weight.grad is None
    model(x).sum().backward()
    torch.testing.assert_close(weight.grad, model.block.weight.grad)
