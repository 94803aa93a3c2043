from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from assay.architecture import Architecture
from assay.cost import derive
from assay.errors import InvalidSetting
from assay.space.choices import OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from assay.train.task import Task, evaluate
from assay.weights.norms import recalibrate
from assay.weights.scoring import predictions, score_paths
from tests.space.spaces import Chain


def made(seed: int = 0) -> tuple[Space, Task, list, list]:
    torch.manual_seed(seed)
    rng = derive(seed, "data")
    images = rng.integers(0, 256, (120, 8, 8), dtype=np.uint8)
    task = Task.from_arrays(images, np.arange(120) % 10, layout="NHW")
    valid = list(task.valid.batches(8))
    calibration = [b for b, _ in zip(task.train.train_batches(16, seed=0), range(3))]
    return Space(Chain), task, valid, calibration


def test_scores_are_those_of_the_recalibrated_network_alone() -> None:
    space, task, valid, calibration = made()
    rng = np.random.default_rng(0)
    points = [space.sample(rng) for _ in range(25)]
    before = {k: v.clone() for k, v in space.model.state_dict().items()}
    found = score_paths(space, points, task, valid=valid, calibration=calibration)
    alone = score_paths(space, points, task, valid=valid, calibration=calibration, shared=False)
    for point, shared, single in zip(points, found, alone):
        network = space.build(point)
        recalibrate(network, lambda: iter(calibration))
        expected = evaluate(network, valid, task)
        assert set(shared) == {"loss", "accuracy"}
        for name in shared:
            assert shared[name] == pytest.approx(expected[name], abs=1e-5)
            assert single[name] == pytest.approx(expected[name], abs=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in space.model.state_dict().items())


def test_scores_by_each_batchs_own_statistics() -> None:
    space, task, valid, _ = made()
    point = space.sample(np.random.default_rng(1))
    (found,) = score_paths(space, [point], task, valid=valid, norms="batch")
    network = space.build(point)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = None
    assert found["loss"] == pytest.approx(evaluate(network, valid, task)["loss"], abs=1e-5)


@pytest.mark.parametrize("norms", ["recalibrate", "batch"])
def test_agreement_is_the_negative_cross_entropy_with_the_guides_prediction(norms: str) -> None:
    space, task, valid, calibration = made()
    rng = np.random.default_rng(2)
    guide, *points = [space.sample(rng) for _ in range(6)]
    given = {"valid": valid, "calibration": calibration, "norms": norms}
    said = predictions(space, guide, **given)
    found = score_paths(space, [*points, guide], task, guide=said, **given)
    assert [{k: v for k, v in one.items() if k != "agreement"} for one in found] == score_paths(
        space, [*points, guide], task, **given
    )

    def says(point: Architecture) -> Tensor:
        outputs: list[Tensor] = []

        def told(output: Tensor, targets: Tensor) -> Tensor:
            outputs.append(output.double())
            return output.sum()

        spying = Task(task.train, task.valid, loss=told, metrics={"told": told}, score="-loss")
        score_paths(space, [point], spying, **given)
        return torch.cat(outputs[::2]).log_softmax(1)

    taught = says(guide).exp()
    for point, one in zip([*points, guide], found):
        assert one["agreement"] == pytest.approx(
            float((taught * says(point)).sum(1).mean()), abs=1e-5
        )
    entropy = -float((taught * taught.log()).sum(1).mean())
    assert found[-1]["agreement"] == pytest.approx(-entropy, abs=1e-5)
    assert all(one["agreement"] <= -entropy + 1e-6 for one in found)  # Gibbs


def test_recalibration_is_the_cumulative_average() -> None:
    norm = nn.BatchNorm1d(3)
    batches = [torch.randn(8, 3) * (i + 1) + i for i in range(4)]
    recalibrate(norm, lambda: iter([(b, b) for b in batches]))
    mean = torch.stack([b.mean(0) for b in batches]).mean(0)
    var = torch.stack([b.var(0, correction=1) for b in batches]).mean(0)
    assert torch.allclose(norm.running_mean, mean, atol=1e-6)
    assert torch.allclose(norm.running_var, var, atol=1e-5)
    assert norm.momentum == 0.1
    assert not norm.training


@pytest.mark.parametrize("norms", ["batch", "recalibrate"])
def test_a_norm_that_is_frozen_is_judged_with_its_own_statistics(norms) -> None:
    norm = nn.BatchNorm1d(4).requires_grad_(False)
    norm.running_mean.fill_(5.0)
    space = Space(nn.Sequential(norm, OneOf(a=nn.Linear(4, 2), b=nn.Linear(4, 2))))
    x, y = torch.randn(6, 4), torch.tensor([0, 1] * 3)
    task = Task((x, y), (x, y))
    points = list(space.all())
    found = score_paths(space, points, task, valid=[(x, y)], calibration=[(x, y)], norms=norms)
    for point, figures in zip(points, found):
        network = space.build(point)
        recalibrate(network, lambda: iter([(x, y)]))
        assert figures["loss"] == pytest.approx(evaluate(network, [(x, y)], task)["loss"], abs=1e-6)
        assert network[0].running_mean.tolist() == [5.0] * 4


@pytest.mark.parametrize("norms", ["batch", "recalibrate"])
def test_one_value_for_each_channel_has_no_statistics(norms) -> None:
    space = Space(
        nn.Sequential(
            nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), OneOf(a=nn.Tanh(), b=nn.ReLU()),
            nn.Flatten(), nn.Linear(8, 2),
        )
    )  # fmt: skip
    y = torch.tensor([1])
    for length, served in ((4, True), (3, False)):  # of which the norm is given 2, or 1
        x = torch.randn(1, 1, length)
        space.model[4] = nn.Linear(4 * (length - 2), 2)
        task, batch = Task((torch.zeros(2, 1, length), [0, 1]), (x, y)), [(x, y)]
        points = list(space.all())
        if served:
            score_paths(space, points, task, valid=batch, calibration=batch, norms=norms)
            continue
        with pytest.raises(InvalidSetting, match=r"\[1, 4, 1\]: .* of two samples or more"):
            score_paths(space, points, task, valid=batch, calibration=batch, norms=norms)


def test_models_without_norms_are_scored_as_they_are() -> None:
    space = Space(nn.Sequential(nn.Flatten(), OneOf(a=nn.Linear(4, 2), b=nn.Linear(4, 2))))
    x, y = torch.randn(6, 1, 2, 2), torch.tensor([0, 1] * 3)
    task = Task((x, y), (x, y))
    points = list(space.all())
    found = score_paths(space, points, task, valid=[(x, y)])
    for point, figures in zip(points, found):
        expected = nn.functional.cross_entropy(space.build(point)(x), y)
        assert figures["loss"] == pytest.approx(float(expected.detach()), abs=1e-6)


class ReadAside(nn.Module):
    """Reads the weights of a layer that it never calls, so that no forward shows their width."""

    def __init__(self) -> None:
        super().__init__()
        width = Width(4, 16)
        self.inner, self.outer = nn.Linear(8, width), nn.Linear(width, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.linear(x, self.inner.weight, self.inner.bias)
        return x + nn.functional.linear(hidden.tanh(), self.outer.weight, self.outer.bias)


@pytest.mark.parametrize("batches", [1, 2])
def test_norms_are_measured_anew_once_a_hidden_decision_is_found(batches: int) -> None:
    torch.manual_seed(0)
    space = Space(
        nn.Sequential(
            OneOf(a=nn.Linear(8, 8), skip=nn.Identity()), nn.BatchNorm1d(8), ReadAside(),
            nn.BatchNorm1d(8), nn.Linear(8, 2),
        )
    )  # fmt: skip
    data = [(torch.randn(12, 8) * (i + 1) + i, torch.tensor([0, 1] * 6)) for i in range(batches)]
    task, points = Task(data[0], data[0]), list(space.all())
    given = {"valid": data, "calibration": data}
    shared, alone = (score_paths(space, points, task, **given, shared=s) for s in (True, False))
    assert shared == alone


def test_norms_are_not_measured_on_nothing() -> None:
    space, task, valid, _ = made()
    with pytest.raises(InvalidSetting, match=r"give calibration=, or norms='batch'"):
        score_paths(space, [space.smallest()], task, valid=valid)


def test_a_hidden_state_makes_sharing_differ() -> None:
    """What `OneShot` guards against: its check needs a difference to be there to be seen."""

    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * self.calls

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = OneOf(a=nn.Identity(), b=nn.ReLU())
            self.count = Counter()
            self.last = OneOf(a=nn.Linear(4, 2), b=nn.Linear(4, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.count(self.op(x)))

    space = Space(Net)
    x, y = torch.randn(6, 4), torch.tensor([0, 1] * 3)
    task, points = Task((x, y), (x, y)), list(space.all())
    shared = score_paths(space, points, task, valid=[(x, y)])
    alone = score_paths(space, points, task, valid=[(x, y)], shared=False)
    assert any(abs(a["loss"] - b["loss"]) > 1e-3 for a, b in zip(shared, alone))
