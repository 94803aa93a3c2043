"""DARTS: gradients against finite differences and the unrolled objective, its guards, its state."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import assay
from assay.contracts import History
from assay.cost import Budget, derive
from assay.errors import InvalidSetting, UnsupportedMix
from assay.estimators.one_shot import OneShot
from assay.space.choices import Inputs
from assay.space.space import Space
from assay.strategies.learned.bilevel import mixed_loss
from assay.strategies.learned.darts import DARTS, Weights
from assay.train.files import load_tensors, save_tensors
from assay.train.proxy import halved
from assay.train.task import Task
from assay.weights.optimizer import PathOptimizer
from assay.weights.supernet import Supernet
from assay.zoo import load_space
from assay.zoo.conv import conv
from assay.zoo.darts import darts
from assay.zoo.darts_genotype import OPERATIONS, to_genotype
from tests.e2e import tiny
from tests.strategies.learned.toys import (
    context,
    of_everything,
    of_operations,
    of_two,
    operation,
)


def begun(model=of_operations, **settings):
    """Return paths over a float64 network, with random alphas, and batches of both splits."""
    ctx = context(model)
    paths = DARTS(**settings).paths
    paths.begin(ctx, ctx.space, 100)
    torch.manual_seed(0)
    ctx.space.model.double()
    for parameter in ctx.space.model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    rng = np.random.default_rng(1)
    for label, alpha in paths.known.logits.items():
        paths.known.logits[label] = torch.from_numpy(rng.normal(size=len(alpha)))
    train, valid = (
        (x.double(), y) for x, y in (next(s.batches(64)) for s in (ctx.task.train, ctx.task.valid))
    )
    return ctx, paths, train, valid


def learned(steps=200, model=of_operations, **settings):
    ctx = context(model)
    strategy = DARTS(**{"warmup": 0.1, "lr": 0.05, **settings})
    estimator = OneShot(paths=strategy.paths, rate=1.0, states=1)
    list(estimator.prepare(ctx, Budget(steps=steps)))
    return strategy, estimator, ctx


def test_weights_and_alpha_see_a_half_each_and_scores_rest_on_the_validation_split():
    _, estimator, ctx = learned(steps=4)
    divided = estimator._trainer.task
    halves = halved(ctx.task, seed=ctx.seed)
    for mine, told in ((divided.train, halves.train), (divided.valid, halves.valid)):
        assert torch.equal(mine.targets, told.targets)
        assert torch.equal(mine.inputs, told.inputs)
    valid, _ = estimator._data(ctx)
    assert torch.equal(torch.cat([x for x, _ in valid]), next(ctx.task.valid.batches(999))[0])
    assert DARTS(halves=False).paths.divide(ctx.task) is ctx.task


def test_a_loader_cannot_be_halved_and_the_setting_that_leaves_it_is_named():
    ctx = context(of_operations)
    data = TensorDataset(*next(ctx.task.train.batches(50)))
    loaded = Task(DataLoader(data, 10), ctx.task.valid)
    with pytest.raises(InvalidSetting, match=r"is a Loaded; .* strategy\.halves=False"):
        DARTS().paths.divide(loaded)


def test_the_mix_is_the_sum_of_all_operations_by_their_weights():
    ctx, paths, (x, _), _ = begun()
    (mix,) = paths.passes(ctx.space, 0, rng=np.random.default_rng(0))
    ctx.space.select(mix)
    told = ctx.space.model(x)
    flat, first, op, relu, last = ctx.space.model
    w = torch.softmax(paths.known.logits["op"], 0)
    h = first(flat(x))
    mixed = sum(w[i] * op.get_submodule(o)(h) for i, o in enumerate(op.options))
    torch.testing.assert_close(told, last(relu(mixed)), rtol=1e-12, atol=1e-12)


def differences(loss, alpha, eps=1e-6):
    """Return the gradient of a function of alpha by central differences."""
    found = []
    for unit in torch.eye(len(alpha), dtype=torch.float64):
        with torch.no_grad():
            found.append((loss(alpha + eps * unit) - loss(alpha - eps * unit)) / (2 * eps))
    return torch.stack(found)


@pytest.mark.parametrize("relax", ["softmax", "sigmoid"])
def test_the_first_order_gradient_is_that_of_finite_differences(relax):
    ctx, paths, _, valid = begun(relax=relax)
    told = paths._gradients(Supernet(ctx.space, paths=paths), ctx.task, valid, 40)["op"]

    def loss(alpha):
        w = torch.softmax(alpha, 0) if relax == "softmax" else torch.sigmoid(alpha)
        mix = {"op": dict(zip(ctx.space.choices["op"].options, w))}
        found = mixed_loss(ctx.space, ctx.task, valid, mix)
        return found - 10 * ((w - 0.5) ** 2).mean() if relax == "sigmoid" else found

    exact = differences(loss, paths.known.logits["op"])
    torch.testing.assert_close(told, exact, rtol=1e-5, atol=1e-9)


def with_dropout() -> nn.Module:
    return nn.Sequential(*of_operations(), nn.Dropout(0.2))


@pytest.mark.parametrize("model", [of_operations, with_dropout])
def test_the_second_order_gradient_is_that_of_the_unrolled_objective(model):
    ctx, paths, train, valid = begun(model, second_order=True, warmup=0.0)
    paths._training_batch = lambda *_: train
    paths._valid, moved = SimpleNamespace(at=lambda *_: valid), {}
    paths._adam = moved.update
    ctx.space.model.train()
    paths.learn(Supernet(ctx.space, paths=paths), ctx.task, 40)
    told = moved["op"]
    ctx.space.model.eval()

    own = dict(ctx.space.model.named_parameters())
    alpha = paths.known.logits["op"].clone().requires_grad_()

    def loss(parameters, batch):
        ctx.space.select(paths._mix(ctx.space, {"op": torch.softmax(alpha, 0)}))
        return F.cross_entropy(functional_call(ctx.space.model, parameters, (batch[0],)), batch[1])

    first = torch.autograd.grad(
        loss(own, train), list(own.values()), create_graph=True, materialize_grads=True
    )
    xi = ctx.recipe.lr_at(40, 100)
    stepped = {k: p - xi * g for (k, p), g in zip(own.items(), first)}
    (exact,) = torch.autograd.grad(loss(stepped, valid), alpha)
    torch.testing.assert_close(told, exact, rtol=1e-3, atol=1e-7)
    plain = torch.autograd.grad(loss(own, valid), alpha)[0]
    assert (told - exact).abs().max() < 0.05 * (plain - exact).abs().max()


def test_xi_is_the_rate_of_the_weight_step_that_follows(monkeypatch):
    seen, taken, xi, step = [], [], Weights._xi, PathOptimizer.step

    def noted(self, at):
        seen.append(xi(self, at))
        return seen[-1]

    def taking(self, lr):
        taken.append(lr)
        step(self, lr)

    monkeypatch.setattr(Weights, "_xi", noted)
    monkeypatch.setattr(PathOptimizer, "step", taking)
    paths = DARTS(second_order=True, warmup=0.0).paths
    estimator = OneShot(paths=paths, rate=3.0, schedule="cosine", states=1)
    list(estimator.prepare(context(of_operations), Budget(steps=12)))
    assert seen == taken
    assert len(set(taken)) == 12
    assert max(taken) == pytest.approx(3 * 0.05)


def test_the_gumbel_gradient_is_that_of_finite_differences_with_the_noise_held():
    """What is drawn stays drawn: its gate is 1 and moves as the softmax that it was drawn by."""
    ctx, paths, _, valid = begun(relax="gumbel", temperature=(2.0, 2.0))
    supernet, options = Supernet(ctx.space, paths=paths), ctx.space.choices["op"].options
    now, drawn = paths.known.logits["op"], set()
    for step in range(8):
        told = paths._gradients(supernet, ctx.task, valid, step)["op"]
        noise = torch.from_numpy(derive(ctx.seed, "learned", step).gumbel(size=3))
        at = int((torch.log_softmax(now, 0) + noise).argmax())
        drawn.add(options[at])

        def loss(alpha, at=at, noise=noise):
            soft = [torch.softmax((a + noise) / 2.0, 0)[at] for a in (alpha, now)]
            return mixed_loss(
                ctx.space, ctx.task, valid, {"op": {options[at]: 1 + soft[0] - soft[1]}}
            )

        torch.testing.assert_close(told, differences(loss, now), rtol=1e-5, atol=1e-9)
        assert bool(told.any()) == (options[at] != "blind")
    assert len(drawn) > 1


@pytest.mark.parametrize(
    "settings",
    [{}, {"second_order": True}, {"relax": "sigmoid", "zero_one": 0.1}, {"relax": "gumbel"}],
)
def test_an_option_that_lets_nothing_through_is_given_up(settings):
    strategy, _, ctx = learned(**settings)
    alpha = strategy.paths.over(ctx.space).logits["op"]
    assert torch.softmax(alpha, 0)[1] < 0.15


def test_gumbel_runs_one_operation_at_a_time():
    ctx = context(of_operations)
    paths = DARTS(relax="gumbel", warmup=0.0).paths
    paths.begin(ctx, ctx.space, 10)
    counts = {"see": 0, "blind": 0, "costly": 0}
    op = ctx.space.structure.modules["op"][0]

    def counter(name):
        def count(*_):
            counts[name] += 1

        return count

    for name in counts:
        op.get_submodule(name).register_forward_hook(counter(name))
    batch = next(ctx.task.valid.batches(16))
    paths._gradients(Supernet(ctx.space, paths=paths), ctx.task, batch, 3)
    assert sum(counts.values()) == 1


def test_what_gumbel_draws_is_trained_in_canonical_form():
    space = conv(input_shape=(1, 8, 8), widths=((4,),), blocks=3, operations=("sep3", "skip"))
    paths, rng = DARTS(relax="gumbel").paths, np.random.default_rng(0)
    drawn = [paths.passes(space, 0, rng=rng)[0] for _ in range(16)]
    paths.begin(context(), space, 10)
    drawn += [paths.passes(space, step, rng=rng)[0] for step in range(16)]
    assert all(space.canonical(a) == a for a in drawn)
    assert len(set(drawn)) == 4


def test_a_size_is_refused_by_name():
    with pytest.raises(UnsupportedMix, match="darts needs choices of operations; more is a Depth"):
        learned(model=of_everything)


def test_the_space_that_a_refusal_names_is_one_that_can_be_searched():
    strategy, task = DARTS(), tiny.task()
    with pytest.raises(UnsupportedMix, match=r"--space \w+") as refused:
        strategy.check(load_space("mobile", task))
    (name,) = re.findall(r"--space (\w+)", str(refused.value))
    strategy.check(load_space(name, task))
    strategy.check(load_space(name, task, none="true"))


def test_a_size_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UnsupportedMix, match=r"neck\.0 is a Width"):
        assay.search(
            assay.Space(tiny.Net), tiny.task(), strategy="darts", out=tmp_path / "out",
            budget="steps=4,trials=2,epochs=1",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_what_is_excluded_is_weighed_but_not_proposed():
    strategy, _, ctx = learned(steps=20, exclude=("see", "costly"))
    asked = strategy.ask(History(ctx.space), 20, rng=np.random.default_rng(0))
    assert {p.architecture["op"] for p in asked} == {"blind"}


def test_the_entropy_is_that_of_what_may_be_proposed():
    ctx, strategy = context(of_operations), DARTS(exclude=("see",))
    strategy.paths.begin(ctx, ctx.space, 100)
    assert strategy.learned(ctx.history)[-1].entropy == pytest.approx(1.0)
    strategy.paths.known.logits["op"] = torch.tensor([50.0, 1.0, 1.0], dtype=torch.float64)
    assert strategy.learned(ctx.history)[-1].entropy == pytest.approx(1.0)
    strategy.paths.known.logits["op"] = torch.tensor([0.0, 50.0, 1.0], dtype=torch.float64)
    assert strategy.learned(ctx.history)[-1].entropy < 1e-9


def test_an_option_that_no_choice_has_cannot_be_excluded():
    space = context(of_operations).space
    DARTS().check(space)
    with pytest.raises(InvalidSetting, match=r"no choice has an option 'sea'; did you mean 'see'"):
        DARTS(exclude=("sea",)).check(space)
    with pytest.raises(InvalidSetting, match=r"exclude='see' is one word.*options, \('see',\)"):
        DARTS(exclude="see")


@pytest.mark.parametrize(("halves", "augmented"), [(True, True), (False, False)])
def test_a_half_of_the_samples_is_seen_twice_as_often(halves, augmented):
    """What is seen up to five times is not augmented."""
    ctx = context(of_operations)
    ctx.task.augment = lambda inputs, generator: inputs
    steps = math.ceil(4 * len(ctx.task.train) / ctx.recipe.batch_size)
    for paths, told in ((DARTS(halves=halves).paths, augmented), ("uniform", False)):
        estimator = OneShot(paths=paths, batch=32)
        assert (estimator._begin(ctx, steps).task.augment is not None) == told


def test_what_sigmoids_weigh_is_shown_and_drawn_in_proportion():
    ctx, strategy = context(of_operations), DARTS(relax="sigmoid")
    strategy.paths.begin(ctx, ctx.space, 100)
    alpha = torch.tensor([3.0, -3.0, 2.0], dtype=torch.float64)
    strategy.paths.known.logits["op"] = alpha
    (mix,) = strategy.paths.passes(ctx.space, 0, rng=np.random.default_rng(0))
    shown = strategy.learned(ctx.history)[-1]
    assert shown.probabilities["op"] == [0.9526, 0.0474, 0.8808]
    assert shown.probabilities["op"] == [round(float(w), 4) for w in mix["op"].values()]
    weights = torch.sigmoid(alpha)
    p = weights / weights.sum()
    torch.testing.assert_close(strategy.paths.over(ctx.space).probabilities("op"), p)
    assert shown.entropy == pytest.approx(float(-(p * p.log()).sum() / np.log(3)))


# --- the stop -------------------------------------------------------------------------------------

SEE_UP = {"one": [0.0, 0.0, 0.0], "two": [-1.0, 0.0, 1.0]}
"""A gradient by which the second choice comes to prefer an option without parameters."""


def moved(gradient, alpha, **settings):
    """Return paths over two choices after one architecture step along a gradient."""
    ctx = context(of_two)
    paths = DARTS(**{"warmup": 0.0, "decay": 0.0, "lr": 1.0, **settings}).paths
    paths.begin(ctx, ctx.space, 100)
    given = {k: torch.tensor(v, dtype=torch.float64) for k, v in gradient.items()}
    paths._gradients = lambda *_: given
    paths.known.logits = {k: torch.tensor(v, dtype=torch.float64) for k, v in alpha.items()}
    paths.learn(Supernet(ctx.space, paths=paths), ctx.task, 0)
    return ctx, paths, {k: v.tolist() for k, v in paths.known.logits.items()}


def test_learning_stops_at_the_alpha_of_before_too_many_prefer_what_has_no_parameters():
    before = {"one": [1.0, 0.0, 0.0], "two": [0.0, 0.0, 0.5]}
    ctx, paths, after = moved(SEE_UP, before, most_skips=1)
    assert "2 of 2 choices would prefer an option without parameters" in paths.stopped
    assert after == before
    paths.learn(Supernet(ctx.space, paths=paths), ctx.task, 1)
    assert {k: v.tolist() for k, v in paths.known.logits.items()} == before
    assert moved(SEE_UP, before, most_skips=2)[1].stopped == ""
    paths, after = moved(SEE_UP, before)[1:]
    assert paths.stopped == ""
    assert after["two"] == pytest.approx([1.0, 0.0, -0.5])


def test_what_is_never_proposed_stops_nothing():
    """See leads, and is barred; of the others one choice prefers what has parameters."""
    before = {"one": [3.0, 0.0, 1.0], "two": [3.0, 2.0, 0.0]}
    assert moved(SEE_UP, before, most_skips=1)[1].stopped != ""
    assert moved(SEE_UP, before, most_skips=1, exclude=("see",))[1].stopped == ""
    both = {**before, "one": [3.0, 2.0, 0.0]}
    assert moved(SEE_UP, both, most_skips=1, exclude=("see",))[1].stopped != ""
    assert moved(SEE_UP, both, most_skips=1, exclude=("see", "blind"))[1].stopped == ""


def test_the_first_small_step_is_no_preference():
    nothing = {"one": [0.0, 0.0, 0.0], "two": [0.0, 0.0, 0.0]}
    paths, after = moved({**SEE_UP, "one": SEE_UP["two"]}, nothing, most_skips=1, lr=0.01)[1:]
    assert paths.stopped == ""
    assert after["one"] == after["two"] == pytest.approx([0.01, 0.0, -0.01])


def test_a_state_saved_on_the_way_goes_on_to_the_same_bits():
    for settings in ({}, {"second_order": True}, {"relax": "gumbel"}, {"relax": "sigmoid"}):
        whole, _, ctx = learned(steps=40, **settings)
        first = DARTS(warmup=0.1, lr=0.05, **settings)
        estimator, state = OneShot(paths=first.paths, rate=1.0, states=1), {}
        for _ in estimator.prepare(context(of_operations), Budget(steps=40)):
            state = {
                k: v.clone() if isinstance(v, torch.Tensor) else v
                for k, v in estimator.state_dict().items()
            }
            if state["trainer.step"] >= 10:
                break
        again = DARTS(warmup=0.1, lr=0.05, **settings)
        second = OneShot(paths=again.paths, rate=1.0, states=1)
        second.load_state_dict(state)
        list(second.prepare(context(of_operations), Budget(steps=40)))
        one, other = whole.paths.over(ctx.space), again.paths.over(ctx.space)
        assert torch.equal(one.logits["op"], other.logits["op"]), settings


def test_a_file_keeps_names_in_an_order_of_its_own_and_gumbel_draws_the_same(tmp_path):
    def made():
        strategy = DARTS(warmup=0.0, relax="gumbel")
        ctx = context(lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(4, 8), operation("z"), operation("a"), nn.Linear(8, 2)
        ))  # fmt: skip
        return strategy.paths, OneShot(paths=strategy.paths, states=1), ctx

    whole, estimator, ctx = made()
    list(estimator.prepare(ctx, Budget(steps=12)))
    _, begun, ctx = made()
    for _ in begun.prepare(ctx, Budget(steps=12)):
        if begun.state_dict()["trainer.step"] >= 4:
            break
    save_tensors(tmp_path / "state.safetensors", dict(begun.state_dict()))
    again, resumed, ctx = made()
    resumed.load_state_dict(load_tensors(tmp_path / "state.safetensors"))
    list(resumed.prepare(ctx, Budget(steps=12)))
    assert list(again.known.logits) == list(whole.known.logits) == ["z", "a"]
    for label, alpha in whole.known.logits.items():
        assert torch.equal(again.known.logits[label], alpha)


class Writing(nn.Module):
    """Scales its input, in place or not."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place, self.first, self.op = in_place, nn.Linear(4, 8), operation()
        self.last = nn.Linear(8, 2)

    def forward(self, x):
        x = x.sub_(0.3).mul_(2.0) if self.in_place else (x - 0.3) * 2.0
        return self.last(torch.tanh(self.op(self.first(x))))


def test_what_a_forward_writes_into_its_input_is_not_seen_by_the_next():
    found = []
    for in_place in (False, True):
        torch.manual_seed(0)
        ctx, moved = context(lambda: Writing(in_place)), {}  # noqa: B023
        paths = DARTS(warmup=0.0, second_order=True, batch=32).paths
        paths.begin(ctx, ctx.space, 10)
        paths._adam = moved.update
        paths.learn(Supernet(ctx.space, paths=paths), ctx.task, 0)
        found.append(moved["op"])
    assert found[0].any()
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"relax": "hard"}, {"relax": "gumbel", "second_order": True}, {"every": 0}, {"lr": 0.0},
        {"zero_one": -1.0}, {"most_skips": -1}, {"decay": -1.0}, {"decay": math.inf},
        *({name: math.nan} for name in (
            "lr", "decay", "zero_one", "most_skips", "warmup", "every", "batch"
        )),
        *({"temperature": t} for t in (5.0, (5.0,), (5.0, 2.0, 1.0), (0.0, 1.0), (1.0, math.nan))),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(settings):
    with pytest.raises(InvalidSetting, match=r"strategy\."):
        DARTS(**settings)


# --- where a node chooses its inputs --------------------------------------------------------------


@pytest.mark.parametrize("relax", ["softmax", "sigmoid"])
def test_of_every_node_the_two_strongest_inputs_are_kept(relax):
    """The strength of an input is its largest weight but that of `none`, here the poolings'."""
    ctx = context(lambda: darts(channels=1, cells=3, nodes=3).model)
    excluded = ("max_pool_3x3", "avg_pool_3x3")
    strategy = DARTS(relax=relax, exclude=excluded)
    strategy.paths.begin(ctx, ctx.space, 100)
    rng = np.random.default_rng(0)
    for _ in range(10):
        drawn = {k: rng.normal(size=len(c.options)) for k, c in ctx.space.choices.items()}
        strategy.paths.known.logits = {k: torch.from_numpy(v) for k, v in drawn.items()}
        strategy.paths._adam({})
        (asked,) = strategy.ask(History(ctx.space), 1, rng=rng)
        found = to_genotype(asked.architecture)
        for kind, genes in (("normal", found.normal), ("reduce", found.reduce)):
            for node in (2, 3, 4):
                strength, best = {}, {}
                for i in range(node):
                    alpha = drawn[f"{kind}.node{node}.from{i}"]
                    w = np.exp(alpha) / np.exp(alpha).sum()
                    w = 1 / (1 + np.exp(-alpha)) if relax == "sigmoid" else w
                    strength[i], best[i] = w[2:].max(), OPERATIONS[2 + int(w[2:].argmax())]
                kept = sorted(sorted(strength, key=strength.__getitem__)[-2:])
                assert list(genes[2 * node - 4 : 2 * node - 2]) == [(best[i], i) for i in kept]
                if node > 2:
                    chances = strategy.paths.known.table()[f"{kind}.node{node}.inputs"]
                    pairs = [strength[i] * strength[j] for j in range(node) for i in range(j)]
                    assert max(chances) == pytest.approx(max(pairs) / sum(pairs), abs=1e-4)


def test_all_inputs_count_once_while_alpha_is_learned():
    ctx = context(lambda: darts(channels=1, cells=3, nodes=3).model)
    paths = DARTS().paths
    paths.begin(ctx, ctx.space, 100)
    assert not [label for label in paths._leaves() if label.endswith("inputs")]
    (mix,) = paths.passes(ctx.space, 0, rng=np.random.default_rng(0))
    pairs = mix["normal.node4.inputs"]
    for i in "0123":
        assert sum(w for pair, w in pairs.items() if i in pair.split("_")) == pytest.approx(1.0)


def test_inputs_without_operations_are_refused_by_name():
    pick = Space(nn.ModuleDict({"pick": Inputs(3, keep=2), "op": operation()}))
    with pytest.raises(UnsupportedMix, match="darts needs choices of operations; pick is a"):
        DARTS().check(pick)
