from __future__ import annotations

import functools
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from assay.train.arrays import Normalise
from assay.train.augment import ShiftAndFlip
from assay.train.content import digest_of, named, written
from assay.train.splits import InMemory, Loaded, Streamed
from tests.train.small import Pairs

X, Y = torch.arange(12.0).reshape(6, 2), torch.arange(6) % 2


def changed(tensor, index, value):
    other = tensor.clone()
    other[index] = value
    return other


SPLITS = [
    InMemory(X, Y),
    InMemory(changed(X, (3, 1), 9), Y),
    InMemory(X, changed(Y, 5, 0)),
    InMemory(X.reshape(6, 2, 1), Y),
    InMemory(X.double(), Y),
    InMemory(X.bfloat16(), Y),
    InMemory({"a": X, "b": X}, Y),
    InMemory(X, Y, Normalise(X)),
    InMemory(X, Y, Normalise(2 * X)),
    Streamed(Pairs(X, Y)),
    Streamed(Pairs(changed(X, (5, 0), 7), Y)),
    Streamed(Pairs(X[:5], Y[:5])),
    Loaded(DataLoader(Pairs(X, Y))),
]


def test_what_differs_has_another_digest():
    digests = [digest_of(split) for split in SPLITS]
    assert len(set(digests)) == len(SPLITS)
    assert len({digest_of(SPLITS[0], extra) for extra in (None, "a", 1, (1,))}) == 4


@pytest.mark.parametrize("index", range(len(SPLITS)))
def test_what_is_equal_has_the_same_digest(index):
    split = SPLITS[index]
    again = InMemory(X.clone(), Y.clone()) if index == 0 else split
    assert digest_of(again) == digest_of(split)


def test_a_data_set_that_draws_has_one_digest():
    split = Streamed(Pairs(X, Y, draw=lambda: torch.rand(())))
    assert digest_of(split) == digest_of(split)


@pytest.mark.parametrize("collate", ["pairs", "dicts"])
def test_a_loader_goes_by_what_it_makes_of_its_first_and_last_items(collate):
    def coded(items):
        codes = [[ord(letter) for letter in item["text"].ljust(8)] for item in items]
        told, labels = torch.tensor(codes), torch.tensor([item["label"] for item in items])
        return ({"codes": told} if collate == "dicts" else told), labels

    def digest(texts):
        items = [{"text": text, "label": len(text)} for text in texts]
        return digest_of(Loaded(DataLoader(items, batch_size=2, collate_fn=coded)))

    told = [digest(t) for t in (["a", "bc", "d"], ["a", "bc", "e"], ["f", "bc", "d"], ["a", "d"])]
    assert len(set(told)) == 4
    assert digest(["a", "bc", "d"]) == told[0]


def test_the_digest_is_the_same_in_another_process():
    code = (
        "import torch; from assay.train.splits import InMemory; "
        "from assay.train.content import digest_of; "
        "print(digest_of(InMemory(torch.arange(12.).reshape(6, 2), torch.arange(6) % 2)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest_of(SPLITS[0])


def test_callables_are_named_with_their_settings():
    assert named(F.cross_entropy) == "torch.nn.functional:cross_entropy"
    assert named(ShiftAndFlip(2)) == "assay.train.augment:ShiftAndFlip(shift=2, flip=False)"
    partial = functools.partial(F.cross_entropy, ignore_index=3)
    assert named(partial) == "torch.nn.functional:cross_entropy with () {'ignore_index': 3}"
    assert named(torch.nn.MSELoss()) == "torch.nn.modules.loss:MSELoss(reduction='mean')"


def test_what_a_callable_was_made_with_is_in_its_name():
    class Stronger:
        def __init__(self, strength, hidden):
            self.strength, self._hidden, self.calls = strength, hidden, 0

        def __call__(self, x, generator):
            return self.strength * x

    weights = torch.tensor([1.0, 2.0])
    one, other = Stronger(2, 3), Stronger(4, 3)
    assert named(one).endswith("Stronger(strength=2)")
    assert named(other).endswith("Stronger(strength=4)")
    losses = [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weights), nn.CrossEntropyLoss(2 * weights)]
    assert len({named(loss) for loss in losses}) == 3
    assert named(losses[1]) == named(nn.CrossEntropyLoss(weights.clone()))


def test_a_lambda_goes_by_what_it_does():
    def scaled(factor):
        return lambda x, y: factor * x.sub(y).abs().mean()

    lambdas = [lambda x, y: x - y, lambda x, y: x + y, lambda x, y: x + y + 1, scaled(2), scaled(3)]
    assert len({named(f) for f in lambdas}) == len(lambdas)
    assert named(lambda x, *, w=3.0: w) != named(lambda x, *, w=4.0: w)
    assert named(scaled(2)) == named(lambdas[3])
    code = "from assay.train.content import named; print(named(lambda x, y: x in {'a', 'b'} or y))"
    told = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(told) == 1


def smoothed(strength, *, scale=1.0):
    def loss(output, targets, k=scale):
        return strength * k * F.cross_entropy(output, targets)

    return loss


def weighing(weights):
    return lambda output, targets: F.cross_entropy(output, targets, weights)


class Slope:
    """Its method is a loss."""

    def __init__(self, slope):
        self.slope, self.calls = slope, 0

    def loss(self, output, targets):
        return self.slope * (output - targets).mean()


W = torch.tensor([1.0, 2.0])
UNLIKE = {
    "what a def captured": (lambda: smoothed(1.0), lambda: smoothed(2.0)),
    "defaults of a def": (lambda: smoothed(1.0), lambda: smoothed(1.0, scale=2.0)),
    "a tensor": (lambda: weighing(W.clone()), lambda: weighing(2 * W)),
    "its type": (lambda: weighing(W.clone()), lambda: weighing(W.double())),
    "an array": (lambda: weighing(W.numpy().copy()), lambda: weighing(2 * W.numpy())),
    "tensors in containers": (
        lambda: weighing({"of": [W.clone()]}), lambda: weighing({"of": [2 * W]}),
    ),
    "a module": (
        lambda: weighing(nn.CrossEntropyLoss(W)), lambda: weighing(nn.CrossEntropyLoss(2 * W)),
    ),
    "a partial": (
        lambda: weighing(functools.partial(F.softmax, dim=0)),
        lambda: weighing(functools.partial(F.softmax, dim=1)),
    ),
    "a closure": (lambda: weighing(smoothed(1.0)), lambda: weighing(smoothed(2.0))),
    "a decorated closure": (
        lambda: torch.no_grad()(smoothed(1.0)), lambda: torch.no_grad()(smoothed(2.0)),
    ),
    "what owns a method": (lambda: Slope(1.0).loss, lambda: Slope(2.0).loss),
    "torch's own closures": (lambda: F.max_pool2d, lambda: F.max_pool1d),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNLIKE)
def test_a_callable_goes_by_what_it_captured(kind):
    one, other = UNLIKE[kind]
    assert named(one()) == named(one()) != named(other()) == named(other())


def test_what_captures_itself_or_nothing_yet_is_named():
    def looped(strength):
        class Own(nn.Module):
            def __init__(self):
                super().__init__()
                self.f = lambda x: strength * self.g(x)
                self.g = lambda x: strength * self.f(Own, x)

        def countdown(n):
            return strength if n == 0 else countdown(n - 1) + later

        held = [countdown, Own().f, strength]
        held.append(held)
        told = named(lambda: held)
        later = 0
        return told, later

    assert looped(1.0) == looped(1.0) != looped(2.0)


def test_a_name_stays_short_and_quick_whatever_is_held_how_often():
    held = [0]
    for _ in range(14):
        held = [held, held]
    assert len(named(functools.partial(smoothed, held))) < 1500


def test_a_loss_goes_by_its_extra_state():
    class Kept(nn.Module):
        def __init__(self, kept):
            super().__init__()
            self._kept = kept

        def get_extra_state(self):
            return {"kept": self._kept}

    assert named(Kept(1)) == named(Kept(1)) != named(Kept(2))


HOLDING = """
import dataclasses, functools, torch
from torch import nn
from torch.nn import functional as F
from assay.train.content import named, written

def smooth(output, targets, base=None):
    return base(output, targets)

@dataclasses.dataclass
class Chain:
    steps: tuple
    kinds: set

class Own:
    def forward(self, x, f=smooth, *, g=smooth, kinds={"one", "two"}):
        return f(x)

junk = [object() for _ in range(COUNT)]
print(named(functools.partial(smooth, base=smooth)), named(functools.partial(smooth, [smooth])))
print(named(lambda output, targets, f=smooth, *, g=smooth: f(output, targets)))
print(named(Chain(steps=(smooth, Chain), kinds={"one", "two"})), written(Own))

def caught(*held):
    def loss(output, targets):
        return held, loss, torch, F
    return loss

print(named(caught(torch.ones(2), {"one", "two"}, object(), Chain((), set()), nn.ReLU(), Own)))
"""


def test_what_holds_functions_has_the_same_name_in_each_process():
    told = {
        subprocess.run(
            [sys.executable, "-c", HOLDING.replace("COUNT", str(count))], capture_output=True,
            text=True, check=True, env={**os.environ, "PYTHONHASHSEED": str(count)},
        ).stdout
        for count in (10, 1000)
    }  # fmt: skip
    assert len(told) == 1
    assert " at 0x" not in told.pop()


def test_a_method_goes_also_by_the_defaults_of_its_keywords():
    def kind(default):
        class Own:
            def forward(self, x, *, w=default):
                return w * x

        return Own

    assert written(kind(1)) == written(kind(1)) != written(kind(2))


def test_a_method_goes_also_by_what_it_captured_and_what_it_decorates():
    def kind(factor):
        class Own(nn.Module):
            def __init__(self):
                super().__init__()  # captures the class, which is no other for that

            def forward(self, x):
                return factor * x

        return Own

    def decorated(source):
        known = {"torch": torch, "__name__": "of_a_user"}
        exec(f"class Own:\n @torch.no_grad()\n def forward(self, x): return {source}", known)
        return known["Own"]

    assert written(kind(1)) == written(kind(1)) != written(kind(2))
    assert written(decorated("x + 1")) == written(decorated("x + 1")) != written(decorated("x * 1"))
