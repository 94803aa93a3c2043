from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from assay.errors import InvalidTask, TestSplitClosed
from assay.testing import tiny_task
from assay.train.augment import ShiftAndFlip
from assay.train.task import Tally, Task, call_model, evaluate
from tests.train.small import Pairs, blob_task, blobs, picture_task, pictures

X, Y = torch.arange(12.0).reshape(6, 2), torch.arange(6) % 2


def regression(**options):
    return Task((X, X[:, 0]), (X, X[:, 0]), loss=F.mse_loss, **options)


# --- what a task is -------------------------------------------------------------------------------


def test_integer_targets_are_classes():
    task = Task((X, Y), (X, Y))
    assert (task.num_classes, task.score, task.loss) == (2, "accuracy", F.cross_entropy)
    assert list(task.metrics) == ["accuracy"]


def test_another_loss_ranks_by_itself():
    task = regression()
    assert (task.num_classes, task.score, task.metrics) == (None, "-loss", {})
    assert task.score_of({"loss": 3.0}) == -3.0


def test_a_metric_may_rank_in_either_direction():
    error = {"error": lambda o, t: (o[:, 0] - t).abs()}
    task = regression(metrics=error, score="-error")
    assert task.score_of({"loss": 1.0, "error": 2.0}) == -2.0
    assert regression(metrics=error, score="error").score_of({"error": 2.0}) == 2.0


class Weighing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, output, targets):
        return self.weight * F.cross_entropy(output, targets)


def test_a_loss_whose_parameters_are_frozen_is_no_other_than_one_without():
    assert Task((X, Y), (X, Y), loss=Weighing().requires_grad_(False)).num_classes is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Task((X, X), (X, X)), "targets are floats, for which there is no default loss"),
        (lambda: Task((X, Y), (X, Y), loss="mse"), "loss='mse' is no function; give one of"),
        (lambda: Task((X, Y), (X, Y), loss=Weighing()), "the loss Weighing has parameters, which"),
        (lambda: regression(metrics={"m": 3}), "m=3 is no function; give one of"),
        (lambda: regression(metrics={"loss": F.mse_loss}), "metrics has 'loss', .* another name"),
        (lambda: regression(metrics={"training_s": F.mse_loss}), "metrics has 'training_s'"),
        (lambda: regression(score="acuracy"), "unknown score 'acuracy'; there are: loss"),
        (lambda: Task((X, Y), (X, Y), score="acuracy"), "did you mean 'accuracy'?"),
        (lambda: Task((X[:0], Y[:0]), (X, Y)), "the train split has 0 samples"),
        (lambda: Task((X, Y), (X[:0], Y[:0])), "the valid split has 0 samples"),
        (lambda: Task((X, Y), (X, Y), (X, Y + 1)), "label 2 of test sample 1 is out of range"),
        (lambda: Task((X, Y), (X, Y), num_classes=3), "class 2 of 0..2 is empty"),
        (lambda: Task((X, Y * 0), (X, Y * 0)), "there is 1 class"),
    ],
)
def test_what_is_no_task_is_refused(make, message):
    with pytest.raises(InvalidTask, match=message):
        make()


def test_classes_of_a_data_set_are_as_many_as_one_says():
    data = Pairs(X, Y)
    assert Task(data, data).num_classes is None
    assert Task(data, DataLoader(data), num_classes=2).num_classes == 2


def test_a_label_of_a_streamed_test_split_is_looked_at_when_it_is_met():
    task = Task((X, Y), (X, Y), Pairs(X, 3 * Y))
    with pytest.raises(InvalidTask, match=r"label 3 of a batch's sample .* is out of range"):
        evaluate(nn.Linear(2, 2), task.open_test().batches(4), task)
    assert Task((X, Y), (X, Y), (X, Y)).labels_known


def own_mse(output, targets):
    return ((output - targets) ** 2).mean()


@pytest.mark.parametrize("loss", [own_mse, F.mse_loss, nn.L1Loss(), nn.HuberLoss()])
@pytest.mark.parametrize(
    ("output", "targets"), [(X[:, :1], X[:, 0]), (X[:, 0], X[:, :1]), (X[:, :1, None], X[:, :1])]
)
def test_a_loss_that_holds_each_output_against_every_target_is_refused(loss, output, targets):
    task = Task((X, targets), (X, targets), loss=loss, metrics={"error": own_mse})
    with pytest.raises(InvalidTask, match=r"loss holds each of .* output\.reshape"):
        task.check_output(output, targets)
    task.check_output(output.reshape(targets.shape), targets)
    task.loss = lambda o, t: loss(o.reshape(t.shape), t)
    with pytest.raises(InvalidTask, match="error holds each of"):
        task.check_output(output, targets)


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, t: F.mse_loss(o[:, 0], t),
        lambda o, t: F.mse_loss(o, t[:, None]),
        lambda o, t: F.mse_loss(o.squeeze(), t) + 0 * torch.rand(()),
        lambda o, t: (o.mean() - t.mean()).abs(),  # of no pairs
        lambda o, t: F.binary_cross_entropy_with_logits(o, t.unsqueeze(-1)),
    ],
)
def test_a_loss_may_bring_the_shapes_together_itself(loss):
    Task((X, X[:, 0]), (X, X[:, 0]), loss=loss).check_output(X[:, 1:], X[:, 0])


# --- the test split -------------------------------------------------------------------------------


def test_the_test_split_is_closed_until_it_is_opened():
    task = blob_task()
    with pytest.raises(TestSplitClosed, match="opens once, in the finalists' step"):
        _ = task.test
    assert task.has_test
    opened = task.open_test()
    assert task.test is opened


def test_the_test_split_closes_again():
    task = blob_task()
    task.open_test()
    task.close_test()
    with pytest.raises(TestSplitClosed):
        task.test  # noqa: B018


def test_a_task_without_a_test_split_says_so():
    task = regression()
    assert not task.has_test
    assert task.open_test() is task.valid
    with pytest.raises(TestSplitClosed):
        _ = task.test


# --- arrays ---------------------------------------------------------------------------------------


def test_the_seed_alone_divides_arrays():
    one, same, other = (picture_task(seed=seed) for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    sizes = len(one.train), len(one.valid), len(one.open_test())
    assert sizes == (24, 8, 8)
    assert torch.bincount(one.valid.targets).tolist() == [2, 2, 2, 2]


def test_an_example_is_as_a_network_sees_it():
    task = picture_task()
    example = task.example(3)
    assert (example.shape, example.dtype) == ((3, 3, 8, 8), torch.float32)
    assert torch.equal(example, next(task.valid.batches(3))[0])
    assert picture_task(normalise=False).example(2).max() <= 1.0


def test_an_example_has_as_many_samples_as_are_asked_for():
    task = picture_task()
    few, many = task.example(8), task.example(19)
    assert torch.equal(many, torch.cat([few, few, few[:3]]))
    loader = DataLoader(Pairs(X, Y), batch_size=2)
    assert torch.equal(Task((X, Y), loader, num_classes=2).example(5), X[:5])
    pair = Task(({"a": X, "b": X + 1}, Y), ({"a": X, "b": X + 1}, Y)).example(14)
    assert pair["a"].shape == (14, 2)
    assert torch.equal(pair["b"], pair["a"] + 1)


def test_batches_that_differ_in_shape_give_an_example_of_the_first():
    def padded(items):
        longest = max(len(x) for x, _ in items)
        inputs = torch.stack([F.pad(x, (0, longest - len(x))) for x, _ in items])
        return inputs, torch.tensor([y for _, y in items])

    texts = Pairs([torch.arange(1, n + 1) for n in (2, 1, 4, 3)], [0, 1, 0, 1])
    task = Task((X, Y), DataLoader(texts, 2, collate_fn=padded), num_classes=2)
    assert task.example(3).tolist() == [[1, 2], [1, 0], [1, 2]]


# --- fingerprint and description ------------------------------------------------------------------


def test_the_fingerprint_is_of_all_that_changes_results():
    tasks = [
        Task((X, Y), (X, Y)),
        Task((X, Y), (X, Y), (X, Y)),
        Task((X, 1 - Y), (X, Y)),
        Task((X, Y), (X + 1, Y)),
        Task((X, Y), (X, Y), loss=F.cross_entropy),
        Task((X, Y), (X, Y), loss=F.nll_loss),
        Task((X, Y), (X, Y), score="-loss"),
        Task((X, Y), (X, Y), augment=ShiftAndFlip(1)),
        Task((X, Y), (X, Y), augment=ShiftAndFlip(2)),
        Task(Pairs(X, Y), (X, Y)),
    ]
    assert len({task.fingerprint for task in tasks}) == len(tasks)
    assert Task((X, Y), (X, Y), name="other").fingerprint == tasks[0].fingerprint


def test_the_fingerprint_stays_though_a_loss_keeps_what_it_saw():
    seen = []

    def loss(output, targets):
        seen.append(output)
        return F.cross_entropy(output, targets)

    task = Task((X, Y), (X, Y), loss=loss)
    before = task.fingerprint
    task.loss(X[:, :2], Y)
    assert task.fingerprint == before != Task((X, Y), (X, Y), loss=loss).fingerprint


def test_the_description_is_json_and_says_how_inputs_are_prepared():
    import json

    task = Task.from_arrays(np.array([[0, 4], [2, 4]] * 5), np.arange(10) % 2, valid=0.2, test=0.2)
    told = task.describe()
    assert json.loads(json.dumps(told)) == told
    assert told["normalised"] == {"mean": [1.0, 4.0], "deviation": [1.0, 1.0]}
    assert (told["train"], told["valid"], told["test"], told["classes"]) == (6, 2, 2, 2)


# --- calling and judging --------------------------------------------------------------------------


class Sum(nn.Module):
    def forward(self, a, b):
        return a + 2 * b


def test_tuples_go_by_position_and_dicts_by_keyword():
    a, b = torch.ones(2), torch.full((2,), 5.0)
    assert call_model(Sum(), (a, b)).tolist() == [11.0, 11.0]
    assert call_model(Sum(), {"b": a, "a": b}).tolist() == [7.0, 7.0]
    assert call_model(nn.Identity(), a) is a


def test_figures_are_means_over_samples_not_over_batches():
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0], [10.0]])
    task = Task(
        (x, x), (x, x), loss=lambda o, t: o.mean(),
        metrics={"sample": lambda o, t: o[:, 0], "batch": lambda o, t: o.mean()},
        score="sample",
    )  # fmt: skip
    figures = evaluate(nn.Identity(), task.valid.batches(2), task)
    assert figures == pytest.approx({"loss": 3.2, "sample": 3.2, "batch": 3.2})


def test_accuracy_counts_pixels_of_masks():
    logits = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # [1, 2, 1, 2]: classes 0 and 1
    task = Task((torch.zeros(2, 1, 1, 2), torch.tensor([[[0, 0]], [[1, 1]]])),
                (torch.zeros(1, 1, 1, 2), torch.tensor([[[0, 0]]])))  # fmt: skip
    tally = Tally(task)
    tally.add(logits, torch.tensor([[[0, 0]]]))
    assert tally.means()["accuracy"] == 0.5
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2
    assert tally.means()["loss"] == pytest.approx(expected, rel=1e-6)


def test_judging_leaves_every_module_in_its_mode():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
    network.train()
    network[1].eval()  # a frozen norm
    before = {k: v.clone() for k, v in network.state_dict().items()}
    task = Task((X, Y), (X, Y))
    first, again = (evaluate(network, task.valid.batches(4), task) for _ in range(2))
    assert first == again  # dropout was off
    assert [m.training for m in network] == [True, False, True]
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        evaluate(network, [(torch.zeros(2, 9), Y[:2])], task)
    assert [m.training for m in network] == [True, False, True]


def test_a_loss_or_metric_with_tensors_of_its_own_is_computed_where_the_targets_are():
    def weighted():
        return nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]))

    task = Task((X, Y), (X, Y), loss=weighted(), metrics={"weighted": weighted()})
    output, targets = torch.zeros(6, 2, device="meta"), Y.to("meta")
    assert task.training_loss(output, targets, 0.0).device.type == "meta"
    assert task.loss.weight.device.type == "meta"
    task = Task((X, Y), (X, Y), loss=weighted(), metrics={"weighted": weighted()})
    Tally(task).add(output, targets)
    measures = (task.loss, task.metrics["weighted"])
    assert [m.weight.device.type for m in measures] == ["meta", "meta"]


# --- outputs that do not fit ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "targets", "message"),
    [
        (torch.zeros(4, 1), Y[:4], "the network has 1 outputs, but labels go up to 1; give it 2"),
        (torch.zeros(4), Y[:4], r"the network gives \[4\] for targets \[4\]; give logits"),
        (torch.zeros(4, 2, 3), Y[:4], r"the network gives \[4, 2, 3\] for targets \[4\]"),
        (torch.zeros(3, 2), Y[:4], r"the network gives \[3, 2\] for targets \[4\]"),
        ({"logits": 1}, Y[:4], r"the network gives dict for targets \[4\]"),
    ],
)
def test_an_output_that_the_loss_cannot_take_is_refused(output, targets, message):
    with pytest.raises(InvalidTask, match=message):
        Task((X, Y), (X, Y)).check_output(output, targets)


def test_an_output_that_fits_passes():
    Task((X, Y), (X, Y)).check_output(torch.zeros(4, 5), Y[:4])
    regression().check_output({"anything": 1}, Y)
    unknown = Task(Pairs(X, Y), Pairs(X, Y))
    unknown.check_output(torch.zeros(2, 2), torch.tensor([0, 1]))
    with pytest.raises(InvalidTask, match="labels go up to 2"):
        unknown.check_output(torch.zeros(2, 2), torch.tensor([0, 2]))


def test_label_smoothing_is_of_the_default_loss_in_training_only():
    logits, targets = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    log_p = torch.log_softmax(logits, 1)[0].tolist()
    task = blob_task()
    smoothed = float(task.training_loss(logits, targets, 0.3))
    assert smoothed == pytest.approx(-(0.7 * log_p[0] + 0.1 * sum(log_p)), rel=1e-6)
    assert float(task.loss(logits, targets)) == pytest.approx(-log_p[0], rel=1e-6)
    own = Task((X, Y), (X, Y), loss=lambda o, t: o.sum())
    assert float(own.training_loss(logits, targets, 0.3)) == 1.0


@pytest.mark.parametrize(
    ("loss", "what"),
    [
        (lambda o, t: F.cross_entropy(o, t, reduction="none"), r"\[6\]"),
        (lambda o, t: float(o.sum()), "float"),
    ],
)
def test_a_loss_that_is_no_scalar_is_refused(loss, what):
    task = Task((X, Y), (X, Y), loss=loss)
    with pytest.raises(InvalidTask, match=f"the loss gives {what} for a batch; give a scalar mean"):
        task.training_loss(torch.zeros(6, 2), Y, 0.0)


def test_an_epoch_of_a_loader_is_its_own():
    data = Pairs(X, Y)
    arrays = Task((X, Y), (X, Y))
    assert [arrays.steps_per_epoch(size) for size in (1, 2, 3, 4, 100)] == [6, 3, 2, 1, 1]
    assert Task(DataLoader(data, batch_size=2), data).steps_per_epoch(4) == 3


def test_the_small_data_is_what_the_tests_take_it_for():
    images, labels = pictures()
    assert images[1, 0, 0:4, 4:8].min() >= 150
    assert labels[1] == 1
    assert blobs()[0].shape == (60, 4)


def test_on_one_batch_it_keeps_loss_and_metrics_and_no_other_data():
    task = tiny_task()
    batch = next(task.train.train_batches(8, seed=0))
    light = task.on(batch)
    assert torch.equal(light.valid.inputs, batch[0])
    assert torch.equal(light.valid.targets, batch[1])
    assert len(light.train) == len(light.valid) == 8
    assert not light.has_test
    assert (light.loss, light.score, light.num_classes) == (task.loss, task.score, 3)
    assert len(task.train) > 8
