from __future__ import annotations

import itertools
import math
import random
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from assay.errors import InvalidSetting, InvalidStudy, InvalidTask, NotFinite
from assay.space.sizes import Width
from assay.train import loop
from assay.train.augment import ShiftAndFlip
from assay.train.files import load_tensors, save_tensors
from assay.train.loop import Trainer
from assay.train.recipe import Recipe
from assay.train.task import Task, evaluate
from tests.train.small import Pairs, Quarters, blob_task, blobs, picture_task, pictures, seeded

PLAIN = Recipe(
    lr=0.1, momentum=0.0, weight_decay=0.0, batch_size=16, schedule="constant", warmup=0.0, clip=0.0
)


def line() -> nn.Module:
    return seeded(lambda: nn.Linear(4, 3))


def same_state(one, other):
    assert one.keys() == other.keys()
    differing = [
        name
        for name, value in one.items()
        if not (torch.equal(value, other[name]) if torch.is_tensor(value) else value == other[name])
    ]
    assert differing == []


# --- exact resuming -------------------------------------------------------------------------------


def noisy_pairs():
    images, labels = pictures()
    images = images.astype(np.float32) / 255.0
    return Pairs(images, labels, draw=lambda: 0.1 * torch.rand(()).numpy())


def shaken(images, generator):
    """Augment as transforms do that know of no generator."""
    drawn = [torch.rand(()), np.random.rand(), random.random()]
    return images + 0.1 * torch.rand_like(images) + sum(drawn)


class Dropping(Quarters):
    """Leaves its body out at random, by Python's generator."""

    def forward(self, x):
        return super().forward(x if random.random() < 0.5 else x * np.random.rand())


TASKS = {
    "arrays": lambda: picture_task(augment=ShiftAndFlip(1, flip=True)),
    "augmented": lambda: picture_task(augment=shaken),
    "streamed": lambda: Task(noisy_pairs(), noisy_pairs()),
    "loader": lambda: Task(DataLoader(noisy_pairs(), 16, shuffle=True), noisy_pairs()),
}


@pytest.mark.parametrize("cut", [1, 4])
@pytest.mark.parametrize(
    ("data", "recipe"),
    [
        ("arrays", Recipe(batch_size=8, ema=0.9, label_smoothing=0.1)),
        ("arrays", Recipe(batch_size=8, optimizer="adamw", ema=0.5, clip=0.1)),
        ("arrays", Recipe(batch_size=8, channels_last=False, precision="bf16")),
        ("augmented", Recipe(batch_size=8)),
        ("streamed", Recipe(batch_size=8)),
        ("loader", Recipe(batch_size=16)),
    ],
    ids=["sgd", "adamw", "bf16", "augmented", "streamed", "loader"],
)
def test_a_resumed_training_has_the_bits_of_the_uninterrupted_one(data, recipe, cut, tmp_path):
    def trainer(seed):
        network = seeded(Dropping, seed)
        return Trainer(network, TASKS[data](), recipe, steps=7, seed=3)

    whole, first, second = trainer(0), trainer(0), trainer(1)
    whole.run(7)
    first.run(cut)
    torch.rand(5), np.random.rand(), random.random()  # what is drawn meanwhile is of no account
    save_tensors(tmp_path / "state.safetensors", first.state_dict())
    second.load_state_dict(load_tensors(tmp_path / "state.safetensors"))
    assert second.step == cut
    while not second.done:
        second.run(2)
    same_state(whole.state_dict(), second.state_dict())
    same_state(whole.finish().state_dict(), second.finish().state_dict())


class Counting(nn.Module):
    """Trains on what it has counted, in a buffer that its state leaves out, shared and growing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("seen", torch.zeros(1), persistent=False)
        self.inner = nn.Identity()
        self.inner.register_buffer("same", self.seen, persistent=False)
        self.register_buffer("late", None, persistent=False)

    def forward(self, x):
        if self.training:
            self.seen += 1
            grown = [self.late] if self.late is not None else []
            self.late = torch.cat([*grown, x.detach().mean().reshape(1)])
        return self.layer(x) * (1 + self.inner.same / 10) + self.late.sum()


def test_buffers_that_are_not_persistent_go_on_too(tmp_path):
    def trained(turns):
        state = {}
        for turn in turns:
            network = seeded(Counting)
            trainer = Trainer(network, blob_task(), Recipe(batch_size=16), steps=12)
            if state:
                trainer.load_state_dict(state)
            trainer.run(turn)
            save_tensors(tmp_path / "state.safetensors", trainer.state_dict())
            state = load_tensors(tmp_path / "state.safetensors")
            assert network.inner.same is network.seen
            assert "seen" not in network.state_dict()
        return network

    whole, cut = trained([12]), trained([5, 4, 3])
    assert torch.equal(whole.layer.weight, cut.layer.weight)
    assert cut.seen.tolist() == [12.0]
    assert torch.equal(whole.late, cut.late)


def test_the_seed_decides_all_and_another_decides_otherwise():
    states = []
    for seed in (0, 0, 1):
        trainer = Trainer(
            seeded(Quarters), picture_task(), Recipe(batch_size=8), steps=3, seed=seed
        )
        trainer.run(3)
        states.append(trainer.state_dict())
    same_state(states[0], states[1])
    assert not torch.equal(states[0]["module.head.weight"], states[2]["module.head.weight"])


def test_the_users_generators_are_left_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    Trainer(seeded(Dropping), picture_task(augment=shaken), Recipe(batch_size=8), steps=2).run(2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_dropout_differs_from_step_to_step():
    masks = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(4, 3)

        def forward(self, x):
            masks.append(F.dropout(torch.ones(64), 0.5))
            return self.line(x)

    for _ in range(2):
        Trainer(seeded(Watched), blob_task(), PLAIN, steps=3).run(3)
    assert torch.equal(torch.stack(masks[:3]), torch.stack(masks[3:]))
    assert len(torch.stack(masks).unique(dim=0)) == 3


def test_many_short_runs_read_one_stream():
    task, begun = blob_task(), []
    whole = task.train.train_batches
    task.train.train_batches = lambda *a, **k: begun.append(k["start"]) or whole(*a, **k)
    trainer = Trainer(line(), task, PLAIN, steps=9)
    for _ in range(4):
        trainer.run(2)
    assert begun == [0]
    trainer.load_state_dict({**trainer.state_dict(), "step": 3})
    trainer.run(1)
    assert begun == [0, 3]


def test_an_average_is_not_taken_up_from_a_state_without_one():
    saved = Trainer(line(), blob_task(), PLAIN, steps=2).state_dict()
    with pytest.raises(InvalidStudy, match="use the recipe and the network that it was saved with"):
        Trainer(line(), blob_task(), PLAIN.with_(ema=0.9), steps=2).load_state_dict(saved)


# --- what a step does -----------------------------------------------------------------------------


class Recorder:
    """An optimiser that writes down what it is asked, and moves nothing."""

    def __init__(self, module):
        self.module, self.rates, self.gradients = module, [], []

    def zero_grad(self):
        for parameter in self.module.parameters():
            parameter.grad = None

    def step(self, lr):
        self.rates.append(lr)
        self.gradients.append([p.grad for p in self.module.parameters()])

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        assert not state


def batch_of(task, step, size=16, seed=0):
    return next(itertools.islice(task.train.train_batches(size, seed=seed), step, None))


def gradient(module, task, step, weight=1.0):
    inputs, targets = batch_of(task, step)
    loss = weight * F.cross_entropy(module(inputs), targets)
    return torch.autograd.grad(loss, list(module.parameters()))


def test_the_rate_is_the_schedules_at_each_step():
    recipe = Recipe(batch_size=16, warmup=0.3)
    module = line()
    recorder = Recorder(module)
    Trainer(module, blob_task(), recipe, steps=6, optimizer=recorder).run(6)
    assert recorder.rates == [recipe.lr_at(step, 6) for step in range(6)]


def test_gradients_of_weighted_passes_add_up_to_one_update():
    module, task, activated = line(), blob_task(), []
    recorder = Recorder(module)

    def passes(step):
        for weight in (0.5, 0.25):
            activated.append((step, weight))
            yield weight

    trainer = Trainer(module, task, PLAIN, steps=2, passes=passes, optimizer=recorder)
    cost = trainer.run(2)
    assert activated == [(0, 0.5), (0, 0.25), (1, 0.5), (1, 0.25)]
    assert cost.samples == 2 * 2 * 16
    for step, found in enumerate(recorder.gradients):
        expected = gradient(module, task, step, weight=0.75)
        assert max(float((f - e).abs().max()) for f, e in zip(found, expected)) < 1e-6


class Doubling(nn.Module):
    """Writes into what it is given."""

    def __init__(self):
        super().__init__()
        self.line = line()

    def forward(self, x):
        return self.line(x.mul_(2))


def test_a_forward_that_writes_into_its_inputs_spoils_no_other_pass():
    module, task = Doubling(), blob_task()
    recorder = Recorder(module)
    trainer = Trainer(
        module, task, PLAIN, steps=2, passes=lambda step: [0.5, 0.25, 0.25], optimizer=recorder
    )
    trainer.run(2)
    for step, found in enumerate(recorder.gradients):
        expected = gradient(module, task, step)
        assert max(float((f - e).abs().max()) for f, e in zip(found, expected)) < 1e-6


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_a_gradient_above_the_limit_is_scaled_to_it(share):
    module, task = line(), blob_task()
    expected = gradient(module, task, 0)
    norm = math.sqrt(sum(float(g.square().sum()) for g in expected))
    recorder = Recorder(module)
    recipe = PLAIN.with_(clip=share * norm)
    Trainer(module, task, recipe, steps=1, optimizer=recorder).run(1)
    for found, plain in zip(recorder.gradients[0], expected):
        assert float((found - min(1.0, share) * plain).abs().max()) < 1e-5


def test_what_a_step_does_not_use_does_not_move():
    class Either(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)
            self.both = False

        def forward(self, x):
            return self.used(x) + self.unused(x) if self.both else self.used(x)

    module = seeded(Either)
    trainer = Trainer(module, blob_task(), Recipe(batch_size=16, weight_decay=0.1), steps=4)
    module.both = True
    trainer.run(2)  # now both have momentum
    before = module.unused.weight.clone()
    module.both = False
    trainer.run(2)
    assert torch.equal(module.unused.weight, before)


def test_a_norm_that_is_frozen_keeps_its_statistics():
    backbone = seeded(lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    module = nn.Sequential(backbone.requires_grad_(False), nn.BatchNorm1d(4), nn.Linear(4, 3))
    before = {name: t.clone() for name, t in module.state_dict().items()}
    Trainer(module, blob_task(), PLAIN, steps=3).run(3)
    same = {name for name, t in module.state_dict().items() if torch.equal(t, before[name])}
    assert same == {name for name in before if name.startswith("0.")}


def test_a_path_on_which_nothing_is_trained_moves_nothing():
    module = nn.ModuleList([line().requires_grad_(False), line()])

    class Turning(nn.Module):
        """Takes the frozen layer at each other step."""

        def __init__(self):
            super().__init__()
            self.layers, self.calls = module, 0

        def forward(self, x):
            self.calls += 1
            return self.layers[self.calls % 2](x)

    before = module[0].weight.clone(), module[1].weight.clone()
    Trainer(Turning(), blob_task(), PLAIN, steps=10).run(10)
    assert torch.equal(module[0].weight, before[0])
    assert not torch.equal(module[1].weight, before[1])


def test_the_average_follows_the_weights_and_is_handed_out():
    module = line()
    trainer = Trainer(module, blob_task(), PLAIN.with_(ema=0.3), steps=5)
    expected = module.weight.detach().double().clone()
    for n in range(1, 6):
        trainer.run(1)
        kept = min(0.3, (1 + n) / (10 + n))
        expected = kept * expected + (1 - kept) * module.weight.detach().double()

    def gap():
        return float((module.weight.detach() - expected).abs().max())

    assert gap() > 1e-3
    finished = trainer.finish()
    assert finished is module
    assert not module.training
    assert gap() < 1e-6


def test_training_stops_at_its_last_step():
    trainer = Trainer(line(), blob_task(), PLAIN, steps=5)
    assert trainer.run(3).samples == 3 * 16
    assert (trainer.step, trainer.done) == (3, False)
    assert trainer.run(100).samples == 2 * 16
    assert (trainer.step, trainer.done) == (5, True)
    assert trainer.run(1).samples == 0


def test_a_batch_is_at_most_the_training_split():
    task = blob_task()
    cost = Trainer(line(), task, PLAIN.with_(batch_size=10_000), steps=2).run(2)
    assert cost.samples == 2 * len(task.train)
    assert cost.device == "cpu"


def test_a_step_is_timed():
    trainer = Trainer(line(), blob_task(), PLAIN, steps=10**6)
    assert 0 < trainer.step_seconds(warmup=1, rounds=4, steps=2) < 1
    assert trainer.step == 1 + 4 * 2


def test_no_steps_are_refused():
    with pytest.raises(InvalidSetting, match="training for 0 steps: give at least 1"):
        Trainer(line(), blob_task(), PLAIN, steps=0)


def test_a_network_with_too_few_outputs_is_refused_at_its_first_step():
    trainer = Trainer(seeded(lambda: nn.Linear(4, 2)), blob_task(), PLAIN, steps=2)
    with pytest.raises(InvalidTask, match="has 2 outputs, but labels go up to 2; give it 3"):
        trainer.run(1)


# --- what is not finite ---------------------------------------------------------------------------


class Poisoned(nn.Module):
    """Gives infinity at its n-th forward."""

    def __init__(self, at):
        super().__init__()
        self.line, self.at, self.calls = nn.Linear(4, 3), at, 0

    def forward(self, x):
        self.calls += 1
        return self.line(x) * (math.inf if self.calls == self.at + 1 else 1.0)


def test_a_loss_that_is_not_finite_is_refused_before_it_moves_anything():
    module = seeded(lambda: Poisoned(at=3))
    trainer = Trainer(module, blob_task(), PLAIN, steps=9)
    trainer.run(3)
    before = module.line.weight.clone()
    # An estimator may train at another rate than the user's recipe says.
    said = r"loss .* is not finite: \[nan\], at step 3; lower the learning rate \(0\.1 here, by "
    with pytest.raises(NotFinite, match=said):
        trainer.run(6)
    assert torch.equal(module.line.weight, before)


def test_what_is_read_late_names_the_step_where_it_was(monkeypatch):
    monkeypatch.setattr(loop, "_READ_EVERY_ON_CUDA", 4)
    monkeypatch.setattr(Trainer, "_on_cuda", True)
    trainer = Trainer(line(), blob_task(), PLAIN, steps=9)
    for trainer.step in range(3):
        trainer._note([torch.tensor(math.nan if trainer.step == 1 else 0.5)], [])
    trainer.step = 3
    with pytest.raises(NotFinite, match="at step 1;"):
        trainer._note([torch.tensor(0.5)], [])
    assert trainer._unread == []


def test_targets_that_are_not_finite_are_told_of_in_place_of_the_learning_rate():
    inputs = torch.arange(12.0)[:, None] / 12
    targets = inputs.clone()
    targets[7] = math.nan
    data = Pairs(inputs, targets)
    task = Task(data, data, loss=F.mse_loss)
    batches = itertools.islice(task.train.train_batches(3, seed=0), 4)
    at = next(i for i, (_, some) in enumerate(batches) if not some.isfinite().all())
    trainer = Trainer(nn.Linear(1, 1), task, PLAIN.with_(batch_size=3), steps=4)
    said = f"at step {at}, and targets of its batch are NaN or infinite; clean or drop such samples"
    with pytest.raises(NotFinite, match=said):
        trainer.run(4)
    trainer._unread = [(at, [torch.tensor(math.nan)], [])]  # as on CUDA, where it is read later
    with pytest.raises(NotFinite, match=said):
        trainer._read_figures()
    trainer._unread = [((at + 1) % 4, [torch.tensor(math.nan)], [])]
    with pytest.raises(NotFinite, match="lower the learning rate"):
        trainer._read_figures()


class Root(nn.Module):
    """Has a finite loss and an infinite gradient: the root of 0."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return self.weight.abs().sqrt().expand(len(x), 3)


@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_a_gradient_that_is_not_finite_is_refused(clip):
    trainer = Trainer(Root(), blob_task(), PLAIN.with_(clip=clip), steps=1)
    what = "gradient norm is not finite: .*nan.*, at step 0" if clip else "a weight is not finite"
    with pytest.raises(NotFinite, match=what):
        trainer.run(1)


def test_a_gradient_that_no_scale_makes_finite_is_refused(monkeypatch):
    monkeypatch.setattr(loop, "working_dtype", lambda *_: torch.float16)
    trainer = Trainer(Root(), blob_task(), PLAIN, steps=2000)
    with pytest.raises(NotFinite, match="not finite at any scale of the loss, at step 30;"):
        trainer.run(2000)


# --- memory format and precision ------------------------------------------------------------------


class Flattening(nn.Module):
    """Flattens by `view`, which images with their channels last do not allow."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 4)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.norm(self.conv(x))
        return self.head(x.view(x.size(0), -1))


def trained(module, **changes):
    trainer = Trainer(module, picture_task(), Recipe(batch_size=8).with_(**changes), steps=4)
    trainer.run(4)
    return trainer


def test_the_loss_is_computed_in_full_on_what_is_computed_in_16_bits():
    seen = []

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 1)

        def forward(self, x):
            seen.append((out := self.head(x)).dtype)
            return {"a": out, "b": torch.sigmoid(out)}

    def loss(output, targets):
        product = output["a"].T @ output["a"]
        seen.append((output["a"].dtype, output["b"].dtype, product.dtype))
        return nn.functional.binary_cross_entropy(output["b"], targets)

    x, y = torch.arange(32.0).reshape(8, 4) / 32, torch.ones(8, 1)
    recipe = Recipe(batch_size=8, precision="bf16")
    Trainer(Twice(), Task((x, y), (x, y), loss=loss), recipe, steps=1).run(1)
    assert seen == [torch.bfloat16, (torch.float32,) * 3]


def test_images_have_their_channels_last_where_there_are_convolutions():
    seen = []

    def watch(module, inputs):
        seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))

    module = seeded(Quarters)
    module.body.register_forward_pre_hook(watch)
    trainer = trained(module)
    assert seen == [True] * 4
    assert module.body[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert trainer.state_dict()["channels_last"] is True
    assert trained(seeded(Quarters), channels_last=False).state_dict()["channels_last"] is False
    lines = Trainer(line(), blob_task(), PLAIN, steps=1)
    assert lines.state_dict()["channels_last"] is False


@pytest.mark.parametrize(
    ("channels", "groups", "kernel", "stride", "kept"),
    [
        (16, 1, 1, 2, True), (15, 1, 1, 2, False), (16, 2, 1, 2, False), (4, 1, 1, 1, True),
        (4, 1, 3, 2, True), (Width(16, 32), 1, 1, 2, True), (Width(8, 32), 1, 1, 2, False),
        (2 * Width(16, 32), 1, 1, 2, False),
    ],
)  # fmt: skip
def test_channels_are_not_last_where_a_backward_would_overrun(
    channels, groups, kernel, stride, kept
):
    net = nn.Sequential(nn.Conv2d(channels, 8, kernel, stride, groups=groups))
    trainer = Trainer(net, picture_task(), Recipe(batch_size=8), steps=1)
    assert trainer.state_dict()["channels_last"] is kept


def test_a_forward_that_cannot_take_channels_last_is_trained_without():
    trainer = trained(seeded(Flattening))
    same_state(trainer.state_dict(), trained(seeded(Flattening), channels_last=False).state_dict())
    assert trainer.state_dict()["channels_last"] is False
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        trained(seeded(Flattening), channels_last=True)


class Overwriting(Flattening):
    def forward(self, x):
        return super().forward(x.mul_(2))


def test_it_is_given_anew_what_it_wrote_into_by_then():
    one, other = trained(seeded(Overwriting)), trained(seeded(Overwriting), channels_last=False)
    assert one.losses[0] == pytest.approx(other.losses[0], abs=1e-6)


class Volumes(Quarters):
    def __init__(self):
        super().__init__()
        self.deep = nn.Conv3d(1, 1, 3)


class Anchored(Quarters):
    def __init__(self):
        super().__init__()
        self.register_buffer("anchors", torch.zeros(1, 3, 1, 1, 2))


@pytest.mark.parametrize("kind", [Volumes, Anchored])
def test_volumes_are_left_as_they_are(kind):
    assert trained(kind()).state_dict()["channels_last"] is False
    with pytest.raises(InvalidSetting, match=r"five dimensions.*; use channels_last='auto'"):
        trained(kind(), channels_last=True)


def test_other_errors_of_a_forward_are_handed_on():
    class Broken(Quarters):
        def forward(self, x):
            raise RuntimeError("out of something")

    with pytest.raises(RuntimeError, match="out of something"):
        trained(Broken())


def test_float16_leaves_out_what_overflows_and_else_trains_like_float32(monkeypatch):
    monkeypatch.setattr(loop, "working_dtype", lambda *_: torch.float16)
    halves = Trainer(line(), blob_task(), PLAIN.with_(clip=1.0), steps=8)
    halves._scale.value = 2.0**18  # too large for the first gradients
    halves.run(8)
    left_out = int(18 - math.log2(halves.state_dict()["scale.value"]))
    assert 1 <= left_out <= 6
    monkeypatch.setattr(loop, "working_dtype", lambda *_: None)
    floats = Trainer(line(), blob_task(), PLAIN.with_(clip=1.0), steps=8)
    floats.step = left_out
    floats.run(8)
    assert float((halves.module.weight - floats.module.weight).detach().abs().max()) < 2e-3
    assert float((halves.module.weight - line().weight).detach().abs().max()) > 0.05


def test_the_scale_goes_on_elsewhere(monkeypatch):
    monkeypatch.setattr(loop, "working_dtype", lambda *_: torch.float16)
    one, other = (Trainer(line(), blob_task(), PLAIN, steps=8) for _ in range(2))
    one._scale.value = 32.0
    one.run(2)
    other.load_state_dict(one.state_dict())
    assert (other._scale.value, other.state_dict()["scale.since"]) == (32.0, 2)


# --- tasks of every kind --------------------------------------------------------------------------


def validated(task, module, recipe, steps):
    trainer = Trainer(module, task, recipe, steps=steps)
    trainer.run(steps)
    return evaluate(trainer.finish(), task.valid.batches(64), task)


ADAM = Recipe(optimizer="adamw", lr=0.03, weight_decay=0.0, batch_size=16)


def test_classes_of_pictures_are_learned():
    recipe = Recipe(optimizer="adamw", lr=0.02, batch_size=8, ema=0.5, label_smoothing=0.1)
    figures = validated(picture_task(), seeded(Quarters), recipe, 30)
    assert figures["accuracy"] == 1.0
    assert figures["loss"] < 0.5  # from log 4 = 1.39


def test_a_regression_is_learned():
    x = np.linspace(-1, 1, 64)[:, None]  # float64, as NumPy gives it
    task = Task((x, 3 * x**2), (x[::3], 3 * x[::3] ** 2), loss=F.mse_loss)
    network = seeded(lambda: nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)))
    recipe = ADAM.with_(lr=0.05)
    assert validated(task, network, recipe, 300)["loss"] < 0.02  # the variance is 0.8


def test_a_segmentation_is_learned():
    images, _ = pictures()
    masks = (images[:, 0] > 100).astype(np.uint8)  # [N, H, W], with classes 0 and 1
    task = Task((images, masks), (images[:8], masks[:8]))
    network = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)))
    figures = validated(task, network, ADAM.with_(lr=0.1), 100)
    assert task.num_classes == 2
    assert figures["accuracy"] > 0.99
    assert figures["loss"] < 0.1  # from log 2 = 0.69


def test_dicts_and_tuples_and_sequences_are_learned():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(5, 8), nn.Linear(9, 2)

        def forward(self, tokens, scale):
            return self.head(torch.cat([self.embedding(tokens).mean(1), scale], 1))

    tokens = np.arange(64).reshape(-1, 1) % 5 * np.ones((1, 3), int)
    scale, targets = np.ones((64, 1)), (tokens[:, 0] > 2).astype(np.int32)
    for inputs in ({"scale": scale, "tokens": tokens}, (tokens, scale)):
        task = Task((inputs, targets), (inputs, targets))
        assert validated(task, seeded(Tokens), ADAM, 40)["accuracy"] == 1.0


def test_a_data_set_is_learned_sample_by_sample():
    points, labels = blobs()
    data = Pairs(points, labels.tolist())
    for train in (data, DataLoader(data, batch_size=16, shuffle=True)):
        task = Task(train, data)
        assert validated(task, line(), ADAM, 60)["accuracy"] == 1.0


class Normed(nn.Sequential):
    def __init__(self):
        super().__init__(line(), nn.BatchNorm1d(3))


@pytest.mark.parametrize(
    ("wrap", "size", "step"),
    [(lambda pairs: DataLoader(pairs, 4), 16, 2), (lambda pairs: pairs, 1, 0)],
)
def test_a_batch_of_one_sample_is_refused_where_a_norm_cannot_take_it(wrap, size, step):
    x, y = blobs(9)
    task = Task(wrap(Pairs(x, y)), Pairs(x, y))
    said = f"step {step} trains on a batch of one .*drop_last=True, or give recipe.batch_size of 2"
    with pytest.raises(InvalidTask, match=said):
        Trainer(Normed(), task, PLAIN.with_(batch_size=size), steps=3).run(3)
    Trainer(line(), task, PLAIN.with_(batch_size=size), steps=3).run(3)


# --- timing ---------------------------------------------------------------------------------------


class Slow(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.layer, self.seconds = line(), seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return self.layer(x)


def test_steps_are_timed_in_bounded_time():
    quick = Trainer(line(), blob_task(), PLAIN, steps=1000)
    assert 0 < quick.step_seconds(warmup=2, rounds=4, steps=3, most_s=60.0) < 5.0
    assert quick.step == 2 + 4 * 3
    slow = Trainer(Slow(0.1), blob_task(), PLAIN, steps=1000)
    assert slow.step_seconds(warmup=2, rounds=4, steps=3, most_s=0.05) >= 0.1
    assert slow.step == 1  # which has taken longer than all were allowed to
    slow = Trainer(Slow(0.1), blob_task(), PLAIN, steps=1000)
    assert slow.step_seconds(warmup=2, rounds=4, steps=3, most_s=0.35) >= 0.1
    assert 2 <= slow.step <= 4


def timed(monkeypatch, costs_s, **given) -> tuple[float, float]:
    """Return what timing says of steps of known seconds, and how many it takes."""
    now_s = [0.0]
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))

    def passes(step: int):
        now_s[0] += costs_s(step)
        yield 1.0

    trainer = Trainer(line(), blob_task(), PLAIN, steps=10**6, passes=passes)
    return trainer.step_seconds(rounds=8, steps=6, **given), now_s[0]


@pytest.mark.parametrize("period", [1, 2, 3, 8])
@pytest.mark.parametrize("plain_s", [0.001, 0.03, 0.08, 0.1, 0.3, 0.5, 3.0])
def test_a_costly_step_has_its_share_of_the_time_however_slow_all_are(monkeypatch, plain_s, period):
    turn_s = 0.6 * period * plain_s
    told_s, taken_s = timed(
        monkeypatch, lambda step: plain_s + turn_s * (step % period == 0), period=period
    )
    assert told_s == pytest.approx(1.6 * plain_s)
    assert taken_s <= 2.0 + 1.6 * plain_s * period


def test_one_step_on_a_small_path_at_the_end_of_the_time_is_not_the_answer(monkeypatch):
    told_s, _ = timed(monkeypatch, lambda step: 0.05 if step == 9 else 0.2)
    assert told_s == pytest.approx(0.2)


@pytest.mark.parametrize("at", [2, 20])
def test_a_slow_moment_is_passed_over_where_steps_have_a_period(monkeypatch, at):
    told_s, _ = timed(
        monkeypatch, lambda step: 0.01 + 0.05 * (step % 8 == 0) + (step == at), period=8
    )
    assert told_s == pytest.approx(0.01 + 0.05 / 8)


# --- labels that are read batch by batch ----------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda pairs: pairs, lambda pairs: DataLoader(pairs, 16)])
@pytest.mark.parametrize(
    ("label", "num_classes", "message"),
    [
        (7, 3, "label 7 of a batch's sample .* whole numbers 0 to 2"),
        (-1, None, "label -1 of a batch's sample"),
        (7, None, "the network has 3 outputs, but labels go up to 7"),
    ],
)
def test_a_label_out_of_range_in_a_stream_is_named(wrap, label, num_classes, message):
    x, y = blobs()
    x, wrong = x.astype(np.float32), y.copy()
    wrong[40] = label
    good, bad = Pairs(x, y), Pairs(x, wrong)
    training = Trainer(line(), Task(wrap(bad), good, num_classes=num_classes), PLAIN, steps=8)
    with pytest.raises(InvalidTask, match=message):
        training.run(8)
    task = Task(good, wrap(bad), num_classes=num_classes)
    with pytest.raises(InvalidTask, match=message):
        evaluate(line(), task.valid.batches(16), task)
