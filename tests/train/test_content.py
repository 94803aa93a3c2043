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


HOLDING = """
import dataclasses, functools
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
