from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from assay.errors import InvalidSpace
from assay.space.choices import Depth, OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from tests.space.spaces import Chain
from tests.space.test_canonical import merges_exactly


def position() -> OneOf:
    return OneOf(a=nn.Linear(4, 4), skip=nn.Identity())


def positions(num: int = 3) -> nn.Sequential:
    return nn.Sequential(*[position() for _ in range(num)])


class Taps(nn.Module):
    """Keeps what lies between the items of a Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.body = positions()

    def forward(self, x: Tensor) -> Tensor:
        taps = [x]
        for block in self.body:
            taps.append(block(taps[-1]))
        return torch.stack(taps).sum(0)


class Sliced(Taps):
    """Reads one place within the Sequential."""

    def forward(self, x: Tensor) -> Tensor:
        middle = self.body[:2](x)
        return middle + self.body[2:](middle)


class Twice(Taps):
    """Calls it as a whole, and an item once more."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.body[0](x)


class Called(Taps):
    """Calls the items in a way that no hook notices."""

    def forward(self, x: Tensor) -> Tensor:
        for block in self.body:
            x = block.forward(x)
        return x


EXAMPLE = torch.ones(1, 4)


def num_forms(space: Space) -> int:
    return len({space.canonical(point) for point in space.all()})


@pytest.mark.parametrize("model", [Taps, Sliced, Twice, Called])
def test_a_sequential_that_is_not_called_as_a_whole_is_left_alone(model: type[Taps]) -> None:
    assert num_forms(Space(model, example=EXAMPLE)) == 8
    assert num_forms(Space(model)) == 4  # without an example it is taken to be called as a whole


def test_an_example_that_comes_later_counts() -> None:
    space = Space(Taps)
    assert num_forms(space) == 4
    space.example = EXAMPLE
    assert num_forms(space) == 8
    space.example = None
    assert num_forms(space) == 4


def test_what_is_called_as_a_whole_is_merged_exactly() -> None:
    stack = positions(2)
    merges_exactly(Space(nn.Sequential(stack, nn.ReLU(), stack), example=EXAMPLE))
    merges_exactly(Space(Depth(*positions(), min=1), example=EXAMPLE))
    chain = Space(Chain, example=torch.zeros(1, 1, 8, 8))
    assert num_forms(chain) == 3 * sum(3**n for n in range(7))


def test_each_place_is_looked_at() -> None:
    def nested(last: nn.Module) -> Space:
        outer = OneOf(skip=nn.Identity(), whole=positions(2), deep=nn.Sequential(Depth(
            nn.Linear(4, 4), OneOf(x=last, y=nn.ReLU()), min=1)))  # fmt: skip
        return Space(nn.Sequential(outer, nn.Linear(4, 4)), example=EXAMPLE)

    # skip, three of the pair, depth 1, y, and what lies in x
    assert num_forms(nested(positions())) == 1 + 3 + 1 + 1 + 4
    assert num_forms(nested(Taps())) == 1 + 3 + 1 + 1 + 8


def test_a_stack_in_two_places_must_be_whole_in_both() -> None:
    class Whole(Taps):
        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    def both(one: Taps, other: Taps) -> Space:
        other.body = one.body
        return Space(nn.Sequential(OneOf(x=one, y=other)), example=EXAMPLE)

    assert num_forms(both(Whole(), Whole())) == 2 * 4
    assert num_forms(both(Whole(), Taps())) == num_forms(both(Taps(), Whole())) == 2 * 8


def test_looking_leaves_the_model_as_it_is() -> None:
    class Noisy(Taps):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.last = nn.BatchNorm1d(4), nn.Linear(4, Width(2, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.norm(nn.functional.dropout(self.body(x))))

    space, x = Space(Noisy, example=EXAMPLE), torch.randn(3, 4)
    space.model.norm.eval()
    point = space.check({"body.0": "skip", "body.1": "a", "body.2": "skip", "last": 2})
    space.select(point)
    state = torch.random.get_rng_state()
    before = {name: tensor.clone() for name, tensor in space.model.state_dict().items()}
    assert space.canonical(point)["body.0"] == "a"
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(t, before[n]) for n, t in space.model.state_dict().items())
    assert (space.model.training, space.model.norm.training) == (True, False)
    assert space.model(x).shape == (3, 2)  # the path is selected still
    assert space.selected is point
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in space.model.modules())


def test_a_model_that_does_not_run_is_named() -> None:
    space = Space(nn.Sequential(nn.Linear(4, 4), *positions()), example=torch.ones(1, 5))
    with pytest.raises(InvalidSpace, match=r"^0: the path .* does not run .* shape \[1, 5\]"):
        space.canonical(space.check(dict.fromkeys(space.choices, "a")))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in space.model.modules())
