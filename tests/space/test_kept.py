from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from assay.space.choices import OneOf
from assay.space.kept import copied
from assay.space.space import Space
from tests.space.spaces import Keeps


def test_a_copy_carries_what_a_forward_kept_without_its_history() -> None:
    model, x = Keeps(), torch.randn(2, 3)
    model(x)
    twin: Any = copied(model, {})
    first, (second, third) = twin.seen
    assert first is twin.features
    for mine, theirs, factor in ((first, model.features, 1), (second, model.features, 2),
                                 (third["x"], model.features, 3)):  # fmt: skip
        assert torch.equal(mine, factor * theirs.detach())
        assert not mine.requires_grad
        assert mine.data_ptr() != theirs.data_ptr()
    assert all(p.requires_grad and p.is_leaf for p in twin.parameters())
    assert model.features.requires_grad
    assert torch.equal(twin(x), model(x))


def test_a_memo_says_what_takes_the_place_of_a_part() -> None:
    for history in (False, True):
        model, other = Keeps(), nn.Linear(3, 3)
        if history:
            model(torch.randn(2, 3))
        first = next(iter(model.children()))
        memo = {id(first): other}
        twin = copied(model, memo)
        assert next(iter(twin.children())) is other
        assert memo[id(model)] is twin


def test_any_other_refusal_to_be_copied_is_raised() -> None:
    class Stays(nn.Module):
        def __deepcopy__(self, memo: Any) -> nn.Module:
            raise RuntimeError("of the user's")

    with pytest.raises(RuntimeError, match="of the user's"):
        copied(nn.Sequential(Stays()), {})


def test_a_network_is_built_after_a_training_step() -> None:
    x = torch.randn(2, 3)
    for space in (Space(Keeps), Space(Keeps())):
        space.model(x).sum().backward()
        for point in space.all():
            space.select(point)
            assert torch.equal(space.model(x), space.build(point)(x))
            space.fresh(point, 0)(x).sum().backward()


def test_weights_that_a_hook_works_out_are_copied() -> None:
    def normed() -> nn.Module:
        with pytest.warns(FutureWarning, match="weight_norm"):
            return nn.utils.weight_norm(nn.Linear(3, 3))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = OneOf(a=normed(), b=nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            return self.op(x)

    space, x = Space(Net()), torch.randn(2, 3)
    space.model(x).sum().backward()
    built = space.build({"op": "a"})
    assert torch.equal(built(x), space.model(x))
    with torch.no_grad():
        built.op.weight_g.mul_(2)
        built.op.bias.zero_()
        space.model.op.a.bias.zero_()
    assert torch.allclose(built(x), 2 * space.model(x))
