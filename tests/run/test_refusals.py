"""Limits are held against what the space has before anything is trained."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from assay.architecture import Architecture
from assay.cost import Budget
from assay.errors import (
    InvalidSetting,
    InvalidSpace,
    InvalidTask,
    LostLink,
    SpaceExhausted,
    UnsupportedMix,
)
from assay.hardware.device import Device
from assay.hardware.measures import Measures
from assay.run.plan import Finalists, Plan
from assay.run.refusals import (
    refuse_broken_model,
    refuse_broken_paths,
    refuse_hopeless_latency,
    refuse_hopeless_limits,
    uncounted,
)
from assay.space.choices import Depth, OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from assay.strategies.learned.darts import DARTS
from assay.strategies.learned.proxyless import Proxyless
from assay.train.task import Task
from tests.strategies.learned import toys

SPACE = Space(nn.Sequential(*[OneOf(a=nn.Linear(2, 2), b=nn.Tanh()) for _ in range(5)]))


def size(module: nn.Module) -> float:
    return 0.0


class Told:
    """Answers for `size` with a function of the number of "a"; keeps what was asked."""

    def __init__(self, value: Any = float) -> None:
        self.value, self.asked = value, []

    def __call__(self, quantity: Any, architecture: Architecture) -> float:
        assert quantity is size
        self.asked.append(sum(option == "a" for option in architecture.values()))
        return float(self.value(self.asked[-1]))


def plan(limits: dict[Any, Any], objectives: tuple[Any, ...] = ("score",)) -> Any:
    return SimpleNamespace(space=SPACE, limits=limits, objectives=objectives, seed=0)


@pytest.mark.parametrize(
    ("limits", "objectives"),
    [
        ({size: 5}, ("score",)),
        ({size: "median"}, ("score",)),
        ({}, ("score", size)),
        ({size: 0}, (size,)),
    ],
)
def test_a_users_function_is_asked_about_both_ends(limits: Any, objectives: Any) -> None:
    told = Told()
    refuse_hopeless_limits(plan(limits, objectives), told)
    assert told.asked == [0, 5]


def test_a_model_in_which_nothing_can_be_trained_is_refused() -> None:
    frozen = nn.Linear(2, 2).requires_grad_(False)
    space = Space(nn.Sequential(frozen, OneOf(a=nn.Tanh(), b=nn.ReLU())))
    given: Any = SimpleNamespace(space=space, task=None, seed=0)
    with pytest.raises(InvalidSpace, match=r"^Sequential has no parameter .*requires_grad_\(True"):
        refuse_broken_model(given)


def test_and_about_others_until_one_is_within_the_limit() -> None:
    told = Told(lambda a: abs(a - 2))
    refuse_hopeless_limits(plan({size: 0.5}), told)
    assert told.asked[-1] == 2
    assert 2 not in told.asked[:-1]


def test_what_none_meets_is_refused_with_what_there_is() -> None:
    told = Told(lambda a: 7 + a)
    with pytest.raises(SpaceExhausted) as refused:
        refuse_hopeless_limits(plan({size: 6}), told)
    assert len(told.asked) == 50
    assert str(refused.value).startswith(
        "none of 50 architectures meets size <= 6: the space has min 7, median "
    )
    assert str(refused.value).endswith(
        "max 12 among 50 architectures; raise the limit or widen the space"
    )


NESTED = Space(
    nn.Sequential(
        nn.Linear(2, 2),
        OneOf(a=nn.Tanh(), b=nn.Sequential(OneOf(x=nn.Linear(2, 2), y=nn.Linear(2, 2)))),
    )
)
COSTS = {("a",): 5.0, ("b", "x"): 9.0, ("b", "y"): 1.0}


def nested(limits: dict[Any, Any]) -> Any:
    return SimpleNamespace(space=NESTED, limits=limits, objectives=("score",), seed=1)


def cost(quantity: Any, architecture: Architecture) -> float:
    return COSTS[tuple(architecture.values())]


def test_the_least_may_lie_behind_what_costs_more_at_first(monkeypatch: Any) -> None:
    monkeypatch.setattr(Space, "sample", lambda *_: pytest.fail("left to chance"))
    refuse_hopeless_limits(nested({"params": 2}), cost)
    refuse_hopeless_latency(nested({"latency_ms": 2}), cost)


def test_fewest_macs_need_not_be_fastest() -> None:
    refuse_hopeless_limits(nested({"latency_ms": 2}), cost)
    with pytest.raises(SpaceExhausted, match=r"latency_ms <= 0\.8: the space has min 1, "):
        refuse_hopeless_limits(nested({"latency_ms": 0.8}), cost)


def test_what_a_single_measurement_leaves_open_a_table_decides() -> None:
    refuse_hopeless_limits(nested({"latency_ms": 0.9}), cost)
    with pytest.raises(SpaceExhausted, match=r"latency_ms <= 0\.9: the space has min 1, "):
        refuse_hopeless_latency(nested({"latency_ms": 0.9}), cost)
    for limits in ({"latency_ms": 1.0}, {"latency_ms": "median"}, {"macs": 0.1}):
        refuse_hopeless_latency(nested(limits), cost)


def test_samples_that_cannot_be_halved_are_refused_with_the_model() -> None:
    data = TensorDataset(torch.zeros(8, 2), torch.arange(8) % 2)
    given: Any = SimpleNamespace(
        space=SPACE, task=Task(DataLoader(data, 4), data), strategy=DARTS(), seed=0,
        target=Device("torch"), train_on="cpu",
    )  # fmt: skip
    with pytest.raises(InvalidSetting, match=r"is a Loaded; .* strategy\.halves=False"):
        refuse_broken_model(given)


def of_many(first: nn.Module) -> nn.Module:
    """Return a model with two optional choices among a module and five that leave their input."""

    def operation() -> OneOf:
        plain = {f"tanh{i}": nn.Tanh() for i in range(5)}
        return OneOf(plain, last=nn.Sequential(first, nn.Linear(8, 8), nn.BatchNorm1d(8)))

    deep = Depth(operation(), operation(), min=0, label="deep")
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), deep, nn.Linear(8, 2))


def learns(model: nn.Module, strategy: Any, seed: int) -> Plan:
    ctx = toys.context(model)
    estimator: Any = None
    return Plan(
        ctx.space, ctx.task, estimator, strategy, ctx.executor, {}, ["score"], Budget(),
        Device("torch"), "cpu", ctx.recipe, Finalists(), Path(), seed,
    )  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 11, 14])  # with the last two the depth drawn is 0
def test_an_option_that_writes_into_its_input_is_refused_whatever_is_drawn(seed: int) -> None:
    given = learns(of_many(nn.ReLU(inplace=True)), Proxyless(), seed)
    with pytest.raises(UnsupportedMix, match=r"^2\.\d: the option 'last' writes into its input"):
        refuse_broken_model(given)


@pytest.mark.parametrize("refused", [False, True])
def test_what_is_tried_changes_nothing(refused: bool) -> None:
    model = of_many(nn.ReLU(inplace=refused))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drawn = torch.get_rng_state()
    with pytest.raises(UnsupportedMix) if refused else nullcontext():
        refuse_broken_model(learns(model, Proxyless(), 0))
    assert torch.equal(torch.get_rng_state(), drawn)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert model.training
    assert all(module.__dict__.get("mix") is None for module in model.modules())


def test_options_that_run_one_at_a_time_may_write_into_their_input() -> None:
    for strategy in (Proxyless(rule="reinforce"), DARTS(relax="gumbel")):
        model = toys.of_operations()
        model[2].add_module("see", nn.ReLU(inplace=True))
        refuse_broken_model(learns(model, strategy, 0))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Bilinear(2, 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.both(x, x)  # type: ignore[no-any-return]


def test_what_macs_leave_out_is_told_whichever_option_it_is_in() -> None:
    example = torch.ones(1, 2)
    assert uncounted(SPACE, Measures(SPACE, Device(), example)) == ""
    space = Space(nn.Sequential(OneOf(a=nn.Tanh(), b=Twice(), c=nn.ReLU())), example=example)
    said = uncounted(space, Measures(space, Device(), example))
    assert said.startswith("no formula counts the MACs of 0.b.both: they are left out")


def sized(features: int = 4, outputs: int = 3) -> Space:
    width = Width(5, 8)
    return Space(nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, outputs)))


X, Y = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3
Z = X[:, :1]


def boom(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    raise ValueError("boom")


def of_many_samples(output: torch.Tensor, targets: torch.Tensor) -> float:
    assert len(targets) == 40  # as many as there are
    return 1.0


def test_data_that_do_not_fit_are_to_blame_and_no_size() -> None:
    with pytest.raises(InvalidSpace, match=r"on inputs of shape \[2, 4\]; correct") as refused:
        refuse_broken_paths(sized(features=5), Task((X, Y), (X, Y)), seed=0)
    assert not isinstance(refused.value, LostLink)


@pytest.mark.parametrize(
    ("outputs", "task", "said"),
    [
        (2, Task((X, Y), (X, Y)), r"^the network has 2 outputs, but labels go up to 2; "),
        (1, Task((X, Z), (X, Z), loss=boom), r"^the loss fails on .* for 40 .*ValueError: boom\)"),
        (1, Task((X, Z), (X, Z), loss=lambda o, t: (o - t) ** 2), r"^the loss gives \[40, 1\] "),
        (3, Task((X, Y), (X, Y), metrics={"m": boom}), r"^the metric 'm' fails on .*: boom\); "),
    ],
)
def test_what_the_task_cannot_judge_is_refused_with_the_model(
    outputs: int, task: Task, said: str
) -> None:
    space = sized(outputs=outputs)
    with pytest.raises(InvalidTask, match=said):
        refuse_broken_paths(space, task, seed=0)
    assert space.selected is None
    assert space.model.training


def test_what_it_can_judge_is_not() -> None:
    refuse_broken_paths(sized(), Task((X, Y), (X, Y), metrics={"m": of_many_samples}), seed=0)


def test_counts_are_written_out() -> None:
    with pytest.raises(SpaceExhausted, match=r"size <= 1,000: the space has min 1,234,567, "):
        refuse_hopeless_limits(plan({size: 1000}), Told(lambda a: 1_234_567 + a))
