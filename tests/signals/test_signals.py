"""Measuring: what is left as it was, what is shared, what is refused."""

from __future__ import annotations

import gc
import importlib
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.errors import InvalidSetting, InvalidTask, NotFinite
from assay.signals import SIGNALS, attempt, measure
from assay.testing import tiny_task
from tests.signals.nets import measured, normal, task


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()), nn.Dropout(),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip


def batch() -> tuple[Tensor, Tensor]:
    return normal(8, 2, 4, 4).float(), torch.tensor([0, 1, 2, 0] * 2)


def test_every_signal_is_one_of_its_module() -> None:
    for target in SIGNALS.values():
        module, _, function = target.partition(":")
        assert function in importlib.import_module(module).__all__


def test_the_network_and_the_generators_are_left_as_they_were() -> None:
    network, (x, y) = net(), batch()
    network[0].eval()
    F.cross_entropy(network(x), y).backward()
    state = {k: v.clone() for k, v in network.state_dict().items()}
    grads = [p.grad.clone() for p in network.parameters()]
    modes = [m.training for m in network.modules()]
    drawn, own = torch.get_rng_state(), [dict(vars(m)) for m in network.modules()]
    with torch.no_grad():
        measure(network, list(SIGNALS), batch=(x, y), task=task(F.cross_entropy))
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(network.parameters(), grads))
    assert [m.training for m in network.modules()] == modes
    assert [dict(vars(m)) for m in network.modules()] == own
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not x.requires_grad


def test_a_signal_depends_on_no_other_and_on_no_mode() -> None:
    made = {"batch": batch(), "task": task(F.cross_entropy)}
    together = measure(net(), list(SIGNALS), **made)
    backwards = measure(net().eval(), list(SIGNALS)[::-1], **made)
    alone = {name: measure(net(), [name], **made)[name] for name in SIGNALS}
    assert list(together) == list(SIGNALS)
    assert together == backwards == alone


class Flattening(nn.Module):
    """A convolution whose output is flattened by `view`, which asks for the usual layout."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()
        self.layouts: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.layouts.append(x.is_contiguous(memory_format=torch.channels_last))
        out = self.inner[:3](x)
        out = out.view(out.shape[0], -1)
        return self.inner[4](out)


def test_channels_are_last_in_memory_unless_the_forward_cannot_take_it() -> None:
    seen: list[bool] = []
    network, given = net(), {"batch": batch(), "task": task(F.cross_entropy)}
    network[2].register_forward_pre_hook(
        lambda _, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    told = measure(network, ["snip", "jacob_cov"], **given)
    assert seen == [True, True]
    flattening = Flattening()
    assert measure(flattening, ["snip", "jacob_cov"], **given) == pytest.approx(told, rel=1e-4)
    assert flattening.layouts == [True, False, False]


def test_what_a_network_draws_is_fixed_by_the_seed() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    network, x = nn.Sequential(nn.Linear(3, 2), Noisy()), torch.randn(4, 3)
    first, again, other = (measured("snip", network, x, seed=s) for s in (0, 0, 1))
    assert first == again != other


def test_hidden_statistics_of_a_norm_are_put_back() -> None:
    network = net()
    mean = torch.ones(8)
    vars(network[0][1])["running_mean"] = mean
    measure(network, ["snip"], batch=batch(), task=task(F.cross_entropy))
    assert vars(network[0][1])["running_mean"] is mean
    assert "running_mean" not in vars(network[2][1])


def test_signals_that_cannot_be_are_told_apart_from_those_that_can() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
    x, y = torch.randn(4, 3), torch.tensor([0, 1] * 2)
    made = {"batch": (x, y), "task": task(F.cross_entropy)}
    names = ["naswot", "params", "progressivity"]
    values, refused = attempt(network, names, **made)
    assert values == {"params": 20.0}
    assert list(refused) == ["naswot", "progressivity"]
    with pytest.raises(InvalidSetting, match="has no ReLU"):
        measure(network, names, **made)
    network[0].weight.data.fill_(torch.nan)
    with pytest.raises(NotFinite, match="the signal 'snip' is nan for this network"):
        measure(network, ["snip"], **made)


class Stateful(nn.Module):
    """Begins in a state of its own type, whatever type its inputs are."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x, torch.zeros(1, len(x), 4))[0][:, -1])


def test_a_signal_that_a_networks_code_fails_at_is_one_that_cannot_be() -> None:
    x, y = torch.randn(4, 5, 3), torch.tensor([0, 1] * 2)
    made = {"batch": (x, y), "task": task(F.cross_entropy)}
    names = ["synflow", "params", "zen", "snip"]
    network = Stateful()
    values, refused = attempt(network, names, **made)
    assert list(values) == ["params", "snip"]
    assert list(refused) == ["synflow", "zen"]
    with pytest.raises(
        InvalidSetting, match=r"the signal 'zen' cannot run this network \(.*Error: .*leave it out"
    ):
        measure(network, ["zen"], **made)


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError, InvalidTask])
def test_a_lack_of_memory_is_no_property_of_a_signal(error: type[Exception]) -> None:
    class Large(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise error("too large")

    with pytest.raises(error, match="too large"):
        attempt(Large(3, 2), ["snip"], batch=(torch.randn(4, 3), torch.zeros(4, 2)), task=task())


def test_a_refusal_keeps_no_network() -> None:
    network = nn.Sequential(nn.Linear(3, 2))
    made = {"batch": (torch.randn(4, 3), torch.randn(4, 2)), "task": task()}
    refused = attempt(network, ["naswot", "zen"], **made)[1]
    kept = weakref.ref(network)
    del network
    gc.collect()
    assert set(refused) == {"naswot", "zen"}
    assert kept() is None


def test_networks_of_words() -> None:
    words = torch.randint(9, (8, 5), generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(
        nn.Embedding(9, 6), nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Flatten(),
        nn.Linear(40, 3),
    )  # fmt: skip
    y = torch.tensor([0, 1, 2, 0] * 2)
    values, refused = attempt(network, list(SIGNALS), batch=(words, y), task=task(F.cross_entropy))
    assert set(refused) == {"synflow", "zen", "jacob_cov"}
    assert len(values) == len(SIGNALS) - 3


def test_what_is_asked_for_must_be_possible() -> None:
    made = {"batch": batch(), "task": task(F.cross_entropy)}
    with pytest.raises(InvalidSetting, match="unknown signal 'snap'; did you mean 'snip'"):
        measure(net(), ["snap"], **made)
    x, y = batch()
    with pytest.raises(InvalidSetting, match="4 samples or more, not 3"):
        measure(net(), ["snip"], batch=(x[:3], y[:3]), task=made["task"])
    inputs, targets = next(tiny_task().valid.batches(8))
    with pytest.raises(InvalidTask, match="has 2 outputs"):
        measure(nn.Linear(6, 2), ["snip"], batch=(inputs, targets), task=tiny_task())
