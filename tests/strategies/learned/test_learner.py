"""What all that learn with a supernet share: when they move, how they judge, their state."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from assay.cost import Budget
from assay.errors import InvalidSetting, NotFinite
from assay.estimators.one_shot import OneShot
from assay.space.choices import OneOf
from assay.strategies.learned.darts import DARTS
from assay.strategies.learned.enas import ENAS
from assay.strategies.learned.learner import judging, rewards
from assay.strategies.learned.proxyless import Proxyless
from assay.train.task import Task
from assay.weights.supernet import Supernet
from tests.strategies.learned.toys import context, of_two, operation

MADE = [
    lambda: ENAS(warmup=0.0, every=1),
    lambda: Proxyless(warmup=0.0, every=1),
    lambda: Proxyless(warmup=0.0, every=1, rule="reinforce"),
    lambda: DARTS(warmup=0.0),
    lambda: DARTS(warmup=0.0, second_order=True),
    lambda: DARTS(warmup=0.0, relax="gumbel"),
]


def with_dropout() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), operation(), nn.Dropout(0.5), nn.Linear(8, 2)
    )


# --- how it judges --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", MADE)
def test_a_move_sees_no_dropout_and_leaves_the_modes_and_the_norms_as_they_were(make):
    ctx = context(with_dropout)
    paths, model, seen = make().paths, ctx.space.model, []
    paths.begin(ctx, ctx.space, 10)
    model.train()
    model[3].register_forward_hook(lambda module, *_: seen.append(module.training))
    modes = [module.training for module in model.modules()]
    norm = copy.deepcopy(model[1].state_dict())
    paths.learn(Supernet(ctx.space, paths=paths), ctx.task, 0)
    assert seen
    assert not any(seen)
    assert [module.training for module in model.modules()] == modes
    for name, value in model[1].state_dict().items():
        assert torch.equal(value, norm[name])


def test_norms_are_by_batch_where_it_judges():
    norm = nn.BatchNorm1d(3)
    x = torch.randn(32, 3, generator=torch.Generator().manual_seed(0)) * 4 + 7
    with judging(norm):
        y = norm(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-5, rtol=0)


def test_instance_norms_that_average_are_by_batch_too():
    norm = nn.InstanceNorm1d(3, track_running_stats=True)
    norm.running_mean.fill_(9.0)
    x = torch.randn(32, 3, 8, generator=torch.Generator().manual_seed(0)) * 4 + 7
    with judging(norm):
        y = norm(x)
    torch.testing.assert_close(y.mean((0, 2)), torch.zeros(3), atol=1e-5, rtol=0)
    assert norm.running_mean.tolist() == [9.0] * 3


def test_recurrent_modules_keep_their_mode_and_lose_their_dropout():
    lstm = nn.LSTM(3, 4, num_layers=2, dropout=0.5)
    frozen = nn.GRU(3, 4).eval()
    model, x = nn.ModuleList([lstm, frozen, nn.Dropout(0.5)]), torch.ones(5, 2, 3)
    with judging(model):
        assert [m.training for m in model] == [True, False, False]
        assert torch.equal(lstm(x)[0], lstm(x)[0])
    assert [m.training for m in model] == [True, False, True]
    assert lstm.dropout == 0.5


# --- when it moves --------------------------------------------------------------------------------


def flattening() -> nn.Module:
    """A convolution whose output is flattened by `view`, which channels_last does not allow."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 8, 1)
            self.op = OneOf(a=nn.Conv2d(8, 8, 3, padding=1), b=nn.Identity(), label="op")
            self.head = nn.Linear(32, 2)

        def forward(self, x):
            x = self.op(self.conv(x.reshape(-1, 1, 2, 2)))
            return self.head(x.view(x.size(0), -1))

    return Net()


@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_a_step_that_is_taken_twice_moves_once(warmup):
    paths = ENAS(warmup=warmup, every=1, batch=32, paths_each=2).paths
    estimator = OneShot(paths=paths, rate=1.0, states=1)
    list(estimator.prepare(context(flattening), Budget(steps=4)))
    assert not estimator._trainer._channels_last  # so the first step was tried twice
    assert [known.step for known in paths.learned()] == [0, 1, 2, 3, 4]
    assert paths._updates == 4 * (1 - warmup)


def test_a_step_behind_it_moves_nothing():
    ctx = context(of_two)
    paths = DARTS(warmup=0.0).paths
    paths.begin(ctx, ctx.space, 10)
    supernet = Supernet(ctx.space, paths=paths)
    paths.learn(supernet, ctx.task, 0)
    before = {label: alpha.clone() for label, alpha in paths.known.logits.items()}
    paths.learn(supernet, ctx.task, 0)
    assert all(torch.equal(alpha, before[label]) for label, alpha in paths.known.logits.items())
    assert [known.step for known in paths.learned()] == [0, 1]


def test_a_last_batch_of_one_sample_is_refused_with_what_to_change():
    data = TensorDataset(torch.randn(33, 4), torch.arange(33) % 2)
    task = Task(data, DataLoader(data, 32))
    ctx = replace(context(with_dropout), task=task)
    paths = ENAS(warmup=0.0, every=1).paths
    paths.begin(ctx, ctx.space, 10)
    supernet = Supernet(ctx.space, paths=paths)
    paths.learn(supernet, task, 0)
    with pytest.raises(
        InvalidSetting, match="make a DataLoader with drop_last=True where its last"
    ):
        paths.learn(supernet, task, 1)


# --- what is not finite ---------------------------------------------------------------------------


@pytest.mark.parametrize("updates", [1, 3])
def test_a_reward_that_is_not_finite_is_refused_by_name(monkeypatch, updates):
    paths = ENAS(warmup=0.0, every=1, updates=updates).paths
    monkeypatch.setattr(paths, "_within", lambda *_: float("nan"))
    with pytest.raises(NotFinite, match=r"is not finite after the architecture step before weight"):
        list(OneShot(paths=paths).prepare(context(of_two), Budget(steps=2)))


def worth(*losses: float) -> list[float]:
    """Return what paths of such losses are worth."""
    ctx, left = context(of_two), list(losses)
    inputs, targets = next(ctx.task.valid.batches(8))
    task = SimpleNamespace(classes=False, training_loss=lambda *_: torch.tensor(left.pop(0)))
    points = list(ctx.space.all())[: len(losses)]
    return rewards(ctx.space, task, inputs, targets, points)


def test_paths_are_judged_on_inputs_as_they_were_given_whatever_is_written():
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.op, self.last = operation(), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(self.op.see(x.mul_(-1.5)))

    ctx = context(lambda: nn.Sequential(Writing(), operation("other")))
    inputs, targets = next(ctx.task.valid.batches(64))
    before, points = inputs.clone(), list(ctx.space.all())[:1] * 3
    with judging(ctx.space.model):
        found = rewards(ctx.space, ctx.task, inputs, targets, points)
    assert len(set(found)) == 1
    assert torch.equal(inputs, before)


def test_a_worth_that_no_number_can_be_is_refused_by_name():
    assert worth(0.5) == pytest.approx([0.60653066])
    with pytest.raises(NotFinite, match=r"its loss is -800; give the task a loss"):
        worth(0.5, -800.0)


def test_where_all_paths_are_worth_next_to_nothing_they_are_refused_by_name():
    assert worth(900.0, 20.0) == [0.0, pytest.approx(2.0611536e-9)]  # one that is bad is a reward
    said = r"the least loss of 2 is 20\.5: above 20 .*; scale the targets or the loss, or raise str"
    with pytest.raises(NotFinite, match=said):
        worth(900.0, 20.5)


@pytest.mark.parametrize("strategy", [ENAS(warmup=0.0), Proxyless(rule="reinforce", warmup=0.0)])
def test_who_times_steps_may_do_so_on_weights_however_bad(strategy):
    """Nothing has trained them yet: after the warm-up the loss may be another."""
    ctx, paths = context(of_two), strategy.paths
    ctx.task.classes = False
    ctx.task.loss = lambda output, targets: 0.0 * output.mean() + 50.0
    supernet = Supernet(ctx.space, paths=paths)
    paths.begin(ctx, ctx.space, 10)
    with pytest.raises(NotFinite, match="is 50: above 20 that is next to nothing"):
        paths.learn(supernet, ctx.task, 0)
    paths.begin(ctx, ctx.space, 10)
    paths.hasten()
    paths.learn(supernet, ctx.task, 0)
    assert paths.learned()[-1].step == 1


@pytest.mark.parametrize(
    "strategy", [ENAS(), Proxyless(), Proxyless(rule="reinforce"), DARTS(), DARTS(relax="gumbel")]
)
@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_architecture_steps_compute_in_the_number_format_of_weight_steps(
    strategy, precision, dtype
):
    ctx = context(of_two)
    paths = strategy.paths
    paths.begin(replace(ctx, recipe=ctx.recipe.with_(precision=precision)), ctx.space, 10)
    paths.hasten()
    supernet, seen = Supernet(ctx.space, paths=paths), []
    ctx.space.model[1].register_forward_hook(lambda layer, given, out: seen.append(out.dtype))
    paths.learn(supernet, ctx.task, 0)
    assert set(seen) == {dtype}
    assert all(
        bool(torch.isfinite(value).all()) and value.dtype in (torch.float32, torch.float64)
        for value in paths.known.state_dict().values()
    )


# --- its state ------------------------------------------------------------------------------------


def test_what_was_loaded_is_taken_up_by_one_search_and_not_by_the_next():
    def estimator(paths) -> OneShot:
        return OneShot(paths=paths, rate=1.0, states=1)

    whole = estimator(Proxyless(warmup=0.0, every=1).paths)
    list(whole.prepare(context(of_two), Budget(steps=3)))
    state = whole.paths.state_dict()
    paths = Proxyless(warmup=0.0, every=1).paths
    paths.load_state_dict(state)
    first = context(of_two)
    for _ in range(2):  # whoever times the steps begins, too
        paths.begin(first, first.space, 3)
        assert paths.learned()[-1].step == 3
        for label, alpha in paths.known.logits.items():
            assert torch.equal(alpha, state[f"known.{label}"])
    second = context(of_two, seed=5)
    paths.begin(second, second.space, 3)
    assert [known.step for known in paths.learned()] == [0]
    assert not any(bool(alpha.any()) for alpha in paths.known.logits.values())
    assert paths._baseline is None
