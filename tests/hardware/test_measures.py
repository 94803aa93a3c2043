"""Measured names: the figures of the built network, without building it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from assay.architecture import Architecture
from assay.errors import InvalidArchitecture, InvalidSetting
from assay.hardware.count import count
from assay.hardware.device import Device
from assay.hardware.measures import COSTS, Measures
from assay.space.choices import Depth, OneOf
from assay.space.sizes import Width
from assay.space.space import Space
from tests.hardware.models import Attentive, Cells, Looped, Slim
from tests.space.spaces import Tangle

EXAMPLES: dict[Callable[[], nn.Module], Any] = {
    Tangle: torch.zeros(1, 1, 4, 4),
    Looped: torch.zeros(2, 3, 7, 7),
    Slim: torch.zeros(4, 3, 5, 5),
    Cells: (torch.zeros(1, 4, 8, 6), torch.zeros(6, 3)),
}


@pytest.mark.parametrize("model", EXAMPLES)
def test_figures_are_those_of_the_built_network(model: Callable[[], nn.Module]) -> None:
    space, example = Space(model), EXAMPLES[model]
    measures, rng = Measures(space, Device(), example), np.random.default_rng(0)
    for _ in range(15):
        architecture = space.sample(rng, over="decisions")
        net = space.build(architecture)
        counts = count(net, example)
        state = {t.data_ptr(): t for t in net.state_dict().values()}
        saved = sum(t.numel() * t.element_size() for t in state.values())
        assert measures("macs", architecture) == counts.macs
        assert measures("params", architecture) == sum(p.numel() for p in net.parameters())
        assert measures("model_bytes", architecture) == saved
        assert measures("memory_bytes", architecture) == saved + counts.peak_bytes


def test_memory_by_hand() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            w = Width(4, 8)
            self.layers = nn.Sequential(nn.Linear(2, w), nn.ReLU(), nn.Linear(w, 1, bias=False))
            self.register_buffer("saved", torch.zeros(3))
            self.register_buffer("unsaved", torch.zeros(5), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    measures = Measures(Space(Net), Device(), torch.zeros(10, 2))
    wide, narrow = Architecture({"layers.0": 8}), Architecture({"layers.0": 4})
    # weights 2 x 8 + 8 + 8 and 2 x 4 + 4 + 4, and 3 saved; the ReLU reads and writes 10 x width
    assert measures("model_bytes", wide) == 4 * (32 + 3)
    assert measures("model_bytes", narrow) == 4 * (16 + 3)
    assert measures("memory_bytes", wide) == 4 * (32 + 3 + 5 + 160)
    assert measures("memory_bytes", narrow) == 4 * (16 + 3 + 5 + 80)


def test_tensors_that_are_shared_are_saved_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            w = Width(3, 5)
            self.embed = nn.Linear(w, 4, bias=False)
            self.out = nn.Linear(w, 4, bias=False)
            self.out.weight = self.embed.weight
            self.enter = nn.Linear(2, w)
            self.turn = OneOf(a=self.out, b=self.embed)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.turn(self.enter(x)) + self.embed(self.enter(x))

    space, x = Space(Tied), torch.zeros(1, 2)
    measures = Measures(space, Device(), x)
    for architecture in space.all():
        net = space.build(architecture)
        params = sum(p.numel() for p in net.parameters())
        assert measures("params", architecture) == params
        assert measures("model_bytes", architecture) == 4 * params


def test_parameters_that_never_run_and_frozen_ones_count() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack = Depth(nn.Linear(2, 2), nn.BatchNorm1d(2), min=1)
            self.spare = nn.Linear(3, 3).requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.stack(x)

    measures = Measures(Space(Net), Device(), torch.zeros(1, 2))
    assert measures("params", Architecture({"stack": 1})) == 6 + 12
    assert measures("params", Architecture({"stack": 2})) == 6 + 12 + 4
    # running mean and variance, and a step counter of eight bytes
    assert measures("model_bytes", Architecture({"stack": 2})) == 4 * (22 + 4) + 8


def test_a_users_function_gets_the_plain_network() -> None:
    seen: list[nn.Module] = []

    def layers(module: nn.Module) -> float:
        seen.append(module)
        return len(list(module.modules()))

    space = Space(nn.Sequential(OneOf(a=nn.Linear(2, 2), b=nn.Identity()), nn.Linear(2, 2)))
    measures = Measures(space, Device(), torch.zeros(1, 2))
    assert measures(layers, Architecture({"0": "b"})) == 3.0
    assert [type(m) for m in seen[0]] == [nn.Identity, nn.Linear]
    assert space.model[0].mix is None


def test_a_users_function_gets_the_network_as_it_is_measured() -> None:
    moved: list[nn.Module] = []

    class Net(nn.Sequential):
        def cpu(self) -> Any:
            moved.append(self)
            return super().cpu()

    def modes(module: nn.Module) -> float:
        assert moved == [module]
        return sum(m.training for m in module.modules())

    space = Space(Net(OneOf(a=nn.Linear(2, 2), b=nn.Identity())))
    measures = Measures(space, Device(), torch.zeros(1, 2))
    space.model.train()  # as a supernet leaves it, and perhaps on a GPU
    moved.clear()
    assert measures(modes, Architecture({"0": "a"})) == 0.0
    assert space.model.training


def raises(module: nn.Module) -> float:
    raise RuntimeError("of the user's\nand more")


def text(module: nn.Module) -> Any:
    return "abc"


def nan(module: nn.Module) -> float:
    return float("nan")


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (raises, "RuntimeError: of the user's and more"),
        (text, "ValueError: could not convert string to float: 'abc'"),
        (nan, "ValueError: it returned nan"),
    ],
)
def test_a_users_function_that_fails_is_named_with_the_architecture(
    function: Callable[[nn.Module], float], why: str
) -> None:
    space = Space(nn.Sequential(OneOf(a=nn.Linear(2, 2), b=nn.Tanh())))
    measures = Measures(space, Device(), torch.zeros(1, 2))
    with pytest.raises(InvalidSetting) as refused:
        measures(function, Architecture({"0": "b"}))
    assert str(refused.value) == (
        f'the function {function.__name__!r} cannot measure {{"0":"b"}} ({why}); it must '
        "take a module and return a finite float"
    )
    assert isinstance(refused.value.__cause__, RuntimeError | ValueError)


def test_latency_is_looked_up_where_there_is_a_table() -> None:
    space = Space(nn.Sequential(OneOf(a=nn.Linear(2, 2), b=nn.Tanh())))

    class Table:
        def __init__(self) -> None:
            self.calls = Measures(space, Device(), torch.zeros(1, 2))._calls

        def predict(self, architecture: Architecture) -> float:
            return {"a": 1.5, "b": 0.5}[str(architecture["0"])]

    measures = Measures(space, Device(), torch.zeros(1, 2), Table())  # type: ignore[arg-type]
    assert measures("latency_ms", Architecture({"0": "a"})) == 1.5
    assert measures("macs", Architecture({"0": "a"})) == 4


def test_latency_is_measured_where_there_is_no_table() -> None:
    space = Space(nn.Sequential(OneOf(a=nn.Linear(2, 2), b=nn.Tanh())))
    measures = Measures(space, Device("torch", runs=50, warmup=1), torch.zeros(1, 2))
    assert 0 < measures("latency_ms", Architecture({"0": "a"})) < 50


def test_a_wrong_name_is_told_the_nearest() -> None:
    with pytest.raises(InvalidSetting, match="unknown quantity 'mac'; did you mean 'macs'"):
        Measures.check_name("mac")
    with pytest.raises(InvalidSetting, match="unknown quantity 'scor'; did you mean 'score'"):
        Measures.check_name("scor", known=(*COSTS, "score"))
    for name in COSTS:
        Measures.check_name(name)
    space = Space(nn.Sequential(OneOf(a=nn.Linear(2, 2), b=nn.Tanh())))
    measures = Measures(space, Device(), torch.zeros(1, 2))
    with pytest.raises(InvalidSetting, match="unknown quantity 'latency'"):
        measures("latency", Architecture({"0": "a"}))
    for name in ("macs", "params", "model_bytes", "memory_bytes"):
        with pytest.raises(InvalidArchitecture):
            measures(name, Architecture({"0": "c"}))


def test_what_is_cheap_comes_first() -> None:
    def own(module: nn.Module) -> float:
        return 0.0

    given = [own, "latency_ms", "memory_bytes", "macs", "model_bytes", "params"]
    assert Measures.order(given) == [*COSTS, own]


def test_what_is_not_in_macs_is_named() -> None:
    example = {"tokens": torch.zeros(2, 5, dtype=torch.int64)}
    measures = Measures(Space(Attentive), Device(), example)
    point = Architecture({"mixer": "memory", "last": 3})
    assert measures.uncounted(point) == ("mixer.memory.1", "mv in the model")
    space = Space(Cells)
    assert Measures(space, Device(), EXAMPLES[Cells]).uncounted(space.largest()) == ()


class Recurrent(nn.Module):
    """A choice of recurrent layers, and a product in its own code."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = OneOf(small=nn.LSTM(16, 8), big=nn.LSTM(16, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.rnn(x)
        return y @ y.mT


def test_recurrent_layers_and_products_in_a_users_code_are_in_macs() -> None:
    measures = Measures(Space(Recurrent), Device(), torch.zeros(7, 1, 16))
    for option, width in (("small", 8), ("big", 64)):
        point = Architecture({"rnn": option})
        assert measures("macs", point) == 7 * (4 * width * (16 + width) + width)
        assert measures.uncounted(point) == ()


def test_macs_are_of_one_sample_and_memory_is_of_the_batch() -> None:
    space = Space(Looped)
    one = Measures(space, Device(), torch.zeros(1, 3, 7, 7))
    eight = Measures(space, Device(batch=8), torch.zeros(8, 3, 7, 7))
    point = space.largest()
    weights = one("model_bytes", point)
    assert eight("macs", point) == one("macs", point) > 0
    peaks = [measures("memory_bytes", point) - weights for measures in (one, eight)]
    assert peaks[1] == 8 * peaks[0] > 0
