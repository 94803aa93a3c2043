from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from assay.architecture import Architecture
from assay.space.choices import OneOf
from assay.space.sizes import Kernel, Width
from assay.space.space import Space
from assay.train.recipe import Recipe
from assay.weights.optimizer import PathOptimizer
from tests.space.spaces import Chain, Tangle

RECIPES = [
    Recipe(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.01),
    Recipe(optimizer="adamw", lr=0.01, weight_decay=0.1),
]


def step(space: Space, optimizer: PathOptimizer, path: Architecture, x: torch.Tensor) -> None:
    optimizer.zero_grad()
    space.select(path)
    optimizer.activate(space.shadowed, space.values)
    space.model(x).square().mean().backward()
    optimizer.step(0.1)


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_a_step_does_not_run_keeps_its_bits(recipe: Recipe) -> None:
    torch.manual_seed(0)
    space = Space(Chain)
    optimizer = PathOptimizer(space.model, recipe)
    narrow = space.check({**{f"body.{i}": "conv3" for i in range(6)}, "neck.0": 32})
    wide = space.check({**{f"body.{i}": "sep3" for i in range(6)}, "neck.0": 64})
    x = torch.randn(8, 1, 6, 6)
    step(space, optimizer, wide, x)  # so that there is momentum everywhere
    before = {n: p.detach().clone() for n, p in space.model.named_parameters()}
    step(space, optimizer, narrow, x)
    after = dict(space.model.named_parameters())
    for name, parameter in before.items():
        if ".conv5." in name or ".sep3." in name:
            assert torch.equal(after[name], parameter), name
        elif ".conv3." in name and name.endswith("0.weight"):
            assert not torch.equal(after[name], parameter), name
    assert torch.equal(after["neck.0.weight"][32:], before["neck.0.weight"][32:])
    assert torch.equal(after["head.weight"][:, 32:], before["head.weight"][:, 32:])
    assert not torch.equal(after["head.weight"][:, :32], before["head.weight"][:, :32])
    assert not torch.equal(after["neck.0.weight"][:32], before["neck.0.weight"][:32])


@pytest.mark.parametrize("recipe", RECIPES)
def test_at_the_largest_path_it_is_torchs_optimizer(recipe: Recipe) -> None:
    torch.manual_seed(0)
    space = Space(Tangle)
    space.model.double()
    largest = space.largest()
    twin = space.build(largest)
    decayed = [p for p in twin.parameters() if p.ndim > 1]
    plain = [p for p in twin.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    theirs: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        theirs = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    else:
        theirs = torch.optim.AdamW(groups, lr=0.1)
    ours = PathOptimizer(space.model, recipe)
    x = torch.randn(4, 1, 4, 4, dtype=torch.float64)
    for _ in range(4):
        step(space, ours, largest, x)
        theirs.zero_grad()
        twin(x).square().mean().backward()
        theirs.step()
    built = space.build(largest)
    for one, other in zip(built.parameters(), twin.parameters(), strict=True):
        assert float((one - other).detach().abs().max()) <= 1e-12


class Joined(nn.Module):
    """Its last layer keeps a gap: the first of each of two inputs beside each other."""

    def __init__(self) -> None:
        super().__init__()
        w1, w2 = Width(2, 4), Width(2, 4)
        self.a, self.b, self.c = nn.Linear(3, w1), nn.Linear(3, w2), nn.Linear(w1 + w2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.cat([self.a(x), self.b(x)], 1))


def crossed() -> nn.Module:
    a, b = Width(2, 3, 4), Width(2, 3, 4)
    return nn.Sequential(nn.Linear(3, a), nn.Linear(a, b), nn.Linear(b, 2))


def centred() -> nn.Module:
    w, k = Width(2, 4), Kernel(1, 3, 5)
    return nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv1d(1, w, k, padding=k // 2),
                         nn.Conv1d(w, 2, 3, padding=1), nn.Flatten())  # fmt: skip


def tied() -> nn.Module:
    part, whole = (nn.Linear(3, w, bias=False) for w in (Width(2, 4, label="w"), 4))
    whole.weight = part.weight
    return nn.Sequential(OneOf(part=part, whole=whole))


SCATTERED = {
    "a gap": (Joined, [(2, 2)]),
    "gaps that another path fills": (Joined, [(2, 2), (4, 2), (2, 4)]),
    "parts that touch": (Joined, [(4, 2)]),
    "crossed widths": (crossed, [(2, 4), (4, 2)]),
    "stairs": (crossed, [(2, 4), (3, 3), (4, 2)]),
    "stairs inside a box": (crossed, [(2, 3), (3, 2), (3, 3)]),
    "crossed kernels": (centred, [(2, 5), (4, 1), (4, 3)]),
    "a part that another option uses whole": (tied, [("part", 2), ("whole",)]),
}


def gradients(space: Space, paths: list[Architecture], x: torch.Tensor) -> list[list[torch.Tensor]]:
    """Return the gradients of each path alone; what a path does not run has zeros."""
    found = []
    for path in paths:
        space.select(path)
        loss = space.model(x).square().mean()
        grads = torch.autograd.grad(loss, list(space.model.parameters()), materialize_grads=True)
        found.append(list(grads))
    return found


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("case", SCATTERED)
def test_each_entry_that_the_paths_ran_moves_once_and_no_other(case: str, recipe: Recipe) -> None:
    """As if every entry were a parameter of its own, in torch's optimiser."""
    torch.manual_seed(0)
    model, sizes = SCATTERED[case]
    space = Space(model())
    space.model.double()
    paths = [space.check(dict(zip(space.choices, each))) for each in sizes]
    parameters = list(space.model.parameters())
    entries = [[nn.Parameter(e) for e in p.detach().clone().flatten()] for p in parameters]
    groups = [
        {"params": each, "weight_decay": recipe.weight_decay if p.ndim > 1 else 0.0}
        for each, p in zip(entries, parameters)
    ]
    theirs: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        theirs = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    else:
        theirs = torch.optim.AdamW(groups, lr=0.1)
    ours = PathOptimizer(space.model, recipe)
    x = torch.randn(5, 3, dtype=torch.float64)
    for of_step in ([space.largest()], paths, paths):  # first all, so that there is momentum
        ours.zero_grad()
        found = gradients(space, of_step, x)
        for path in of_step:
            space.select(path)
            ours.activate(space.shadowed, space.values)
        for p, each, grads in zip(parameters, entries, zip(*found)):
            p.grad = sum(grads)
            ran = torch.stack([grad != 0 for grad in grads]).any(0).flatten()
            for entry, grad, moves in zip(each, p.grad.flatten(), ran):
                entry.grad = grad.clone() if moves else None  # SGD may write into it
                if not moves and recipe.optimizer == "adamw":
                    theirs.state[entry]["step"] += 1  # one count for all of a parameter
        ours.step(0.1)
        theirs.step()
        for p, each in zip(parameters, entries):
            assert torch.equal(p.detach().flatten(), torch.stack(each).detach())


def test_paths_of_one_step_share_what_they_both_ran() -> None:
    space = Space(Chain)
    optimizer = PathOptimizer(space.model, Recipe(weight_decay=0.0))
    x = torch.randn(4, 1, 6, 6)
    before = dict(space.model.named_parameters())["head.weight"].detach().clone()
    optimizer.zero_grad()
    for width in (32, 48):
        space.select(space.check({**{f"body.{i}": "skip" for i in range(6)}, "neck.0": width}))
        optimizer.activate(space.shadowed, space.values)
        space.model(x).square().mean().backward()
    optimizer.step(0.1)
    after = dict(space.model.named_parameters())["head.weight"]
    assert torch.equal(after[:, 48:], before[:, 48:])
    assert not torch.equal(after[:, 32:48], before[:, 32:48])


def test_its_state_goes_on_elsewhere() -> None:
    torch.manual_seed(0)
    first, second = Space(Chain), Space(Chain)
    second.model.load_state_dict(first.model.state_dict())
    x = torch.randn(4, 1, 6, 6)
    a = PathOptimizer(first.model, RECIPES[0])
    step(first, a, first.smallest(), x)
    b = PathOptimizer(second.model, RECIPES[0])
    second.model.load_state_dict(first.model.state_dict())
    b.load_state_dict({k: v.clone() for k, v in a.state_dict().items()})
    for space, optimizer in ((first, a), (second, b)):
        step(space, optimizer, space.largest(), x)
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_mix_of_tensors_receives_gradients_beside_the_weights() -> None:
    space = Space(nn.Sequential(Chain().body[0], nn.Flatten()))
    weight = torch.tensor([0.5, 0.5], requires_grad=True)
    space.select({"0": {"conv3": weight[0], "skip": weight[1]}})
    space.model(torch.randn(2, 16, 4, 4)).square().mean().backward()
    assert weight.grad is not None
    assert float(weight.grad.abs().min()) > 0


def test_what_is_remembered_of_a_layer_does_not_grow() -> None:
    def model() -> nn.Module:
        widths = [Width(1, 2, 3, 4, label=str(i)) for i in range(5)]
        return nn.ModuleList([nn.Linear(2, 3), nn.Linear(sum(widths), 2)])

    space = Space(model())
    long, plain = PathOptimizer(space.model, RECIPES[0]), Recipe()
    every = list(itertools.product(range(1, 5), repeat=5))[::3]
    for each in [*every, *every[:5]]:
        space.select(space.check(dict(zip(space.choices, each))))
        long.zero_grad()
        long.activate(space.shadowed, space.values)
        fresh = PathOptimizer(space.model, plain)
        fresh.activate(space.shadowed, space.values)
        assert long._parts == fresh._parts
    assert [len(known) for known in long._known.values()] == [256]
    assert len(every) > 256
