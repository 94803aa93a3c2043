from __future__ import annotations

import ast
import operator
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, fx, nn

from assay.errors import ExportRefused
from assay.handover.source import load_source, write_source
from assay.space.choices import Inputs
from assay.space.space import Space
from assay.zoo import SPACES
from assay.zoo.blocks import named, residual
from assay.zoo.cell import cell
from assay.zoo.conv import conv
from assay.zoo.darts import darts
from assay.zoo.enas import macro, micro
from assay.zoo.memory_bank import memory_bank
from assay.zoo.mobile import mobile
from tests.space.spaces import randomise_norms


def written(net: nn.Module, folder: Path) -> nn.Module:
    """Write a network and its weights, and return what the source makes of them."""
    (folder / "model.py").write_text(write_source(net))
    save_file({k: v.contiguous() for k, v in net.state_dict().items()},
              folder / "weights.safetensors")  # fmt: skip
    return load_source(folder / "model.py")


def gap(net: nn.Module, x: object, folder: Path) -> float:
    """The largest difference between a network and the one its source makes."""
    twin = written(net.eval(), folder)
    assert list(twin.state_dict()) == list(net.state_dict())
    with torch.no_grad():
        return float((net(x) - twin(x)).abs().max())


def graph(inputs: list[str], output: object, g: fx.Graph, **children: nn.Module) -> fx.GraphModule:
    g.output(output)  # type: ignore[arg-type]
    return fx.GraphModule(nn.ModuleDict(children), g)


_READY = {
    "mobile": lambda: (mobile(), (2, 1, 8, 8)),
    "cell": lambda: (cell(channels=4, cells=1), (2, 3, 32, 32)),
    "conv": lambda: (conv(), (2, 1, 28, 28)),
    "memory-bank": lambda: (memory_bank(), (2, 1, 8, 8)),
    "darts": lambda: (darts(channels=2, cells=3), (2, 3, 16, 16)),
    "enas-macro": lambda: (macro(), (2, 1, 8, 8)),
    "enas-micro": lambda: (micro(), (2, 1, 8, 8)),
}


@pytest.mark.parametrize("name", SPACES)
def test_networks_of_the_ready_spaces(name: str, tmp_path: Path) -> None:
    space, shape = _READY[name]()
    rng = np.random.default_rng(0)
    randomise_norms(space.model)
    smallest = space.complete({}, lambda choice: choice.options[0])
    for point in (*(space.sample(rng) for _ in range(6)), smallest):
        assert gap(space.build(point), torch.randn(*shape), tmp_path) <= 1e-6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.py", "weights.safetensors"]


def test_it_reads_well() -> None:
    space = mobile()
    kernels = {"stage1.0": "k3e3", "stage2.1": "k5e6"}
    point = space.complete(kernels, lambda c: c.options[-1 if c.kind != "OneOf" else 1])
    source = write_source(space.build(point))
    assert "        return x + self.body(x)\n" in source
    assert "def conv_norm_relu(channels, out, kernel_size):\n" in source
    assert "def block(channels, hidden, out, kernel_size, stride=1):\n" in source
    assert "                block(16, 48, 24, kernel_size=3),\n" in source
    assert "                block(24, 144, 32, kernel_size=3, stride=2),\n" in source
    assert "                Residual(block(32, 192, 32, kernel_size=5)),\n" in source
    assert len(source.splitlines()) <= 130
    assert max(map(len, source.splitlines())) <= 100
    tree = ast.parse(source)
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    froms = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert imported | froms == {"json", "collections", "pathlib", "torch"}


def test_names_and_nesting(tmp_path: Path) -> None:
    inner = nn.Sequential(OrderedDict({"0a": nn.Linear(3, 4), "class": nn.Tanh()}))
    net = nn.Sequential(nn.Sequential(), named(first=inner, second=nn.Linear(4, 2)), nn.Identity())
    source = write_source(net)
    assert '"0a": ' not in source
    assert "'0a': nn.Linear(3, 4)," in source
    assert gap(net, torch.randn(5, 3), tmp_path) == 0.0


def test_a_single_layer(tmp_path: Path) -> None:
    source = write_source(nn.Linear(3, 2))
    assert "    return nn.Linear(3, 2)\n" in source
    assert "OrderedDict" not in source
    assert gap(nn.Linear(3, 2), torch.randn(5, 3), tmp_path) == 0.0


def test_every_kind_of_tensor_is_read_back(tmp_path: Path) -> None:
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2, dtype=torch.float64))
    net[1].weight.data = net[1].weight.data.bfloat16()
    net[0].num_batches_tracked += 7
    state = written(net, tmp_path).state_dict()
    assert state["0.num_batches_tracked"] == 7
    assert torch.equal(state["1.weight"].bfloat16(), net[1].weight)
    assert torch.equal(state["1.bias"], net[1].bias.float())  # the layer is made as float32


# --- graphs ---------------------------------------------------------------------------------------


def test_graphs_become_classes(tmp_path: Path) -> None:
    g = fx.Graph()
    x = g.placeholder("x")
    a, b = g.call_module("one", (x,)), g.call_module("other", (x,))
    total = g.call_function(operator.mul, (g.call_function(operator.add, (a, b)), a))
    stacked = g.call_function(torch.cat, ([total, b],), {"dim": 1})
    net = graph(["x"], g.call_method("relu", (stacked,)), g,
                one=nn.Linear(3, 3), other=nn.Linear(3, 3))  # fmt: skip
    source = write_source(net)
    assert "class Graph1(nn.Module):\n    def __init__(self, one, other):" in source
    assert "        one = self.one(x)\n        other = self.other(x)\n" in source
    assert "        return torch.cat([(one + other) * one, other], dim=1).relu()\n" in source
    assert "    return Graph1(one=nn.Linear(3, 3), other=nn.Linear(3, 3))\n" in source
    assert gap(net, torch.randn(5, 3), tmp_path) == 0.0


def test_graphs_that_compute_the_same_share_a_class() -> None:
    source = write_source(nn.Sequential(residual(nn.Linear(3, 3)), residual(nn.Tanh())))
    assert source.count("class ") == 1
    assert "    return nn.Sequential(Residual(nn.Linear(3, 3)), Residual(nn.Tanh()))\n" in source


def test_the_inputs_of_a_cell(tmp_path: Path) -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pick = Inputs(3, 2)

        def forward(self, xs: list[Tensor]) -> list[Tensor]:
            return self.pick(xs)  # type: ignore[no-any-return]

    net = Space(Cell).build({"pick": (0, 2)}).pick
    xs = [torch.full((1,), float(i)) for i in range(3)]
    assert written(net, tmp_path)(xs) == [xs[0], xs[2]]  # type: ignore[arg-type]
    assert "return [xs[0], xs[2]]" in write_source(net)  # type: ignore[arg-type]


def test_what_a_graph_cannot_say_is_refused() -> None:
    g = fx.Graph()
    net = graph(["x"], g.call_function(len, (g.placeholder("x"),)), g)
    with pytest.raises(ExportRefused, match="no source for call_function <built-in function len>"):
        write_source(net)


@pytest.mark.parametrize(
    ("layer", "places"),
    [
        (nn.Linear(3, 3), "0.weight and 2.weight"),
        (nn.BatchNorm1d(3, affine=False), "0.running_mean and 2.running_mean"),
    ],
)
def test_weights_in_two_places_are_refused(layer: nn.Module, places: str) -> None:
    with pytest.raises(ExportRefused, match=f"the same weights in two places, {places}"):
        write_source(nn.Sequential(layer, nn.ReLU(), layer))


def test_a_layer_without_weights_may_stand_in_two_places(tmp_path: Path) -> None:
    relu = nn.ReLU()
    net = nn.Sequential(nn.Linear(3, 4), relu, nn.Linear(4, 2), relu)
    assert write_source(net).count("nn.ReLU()") == 2
    assert gap(net, torch.randn(5, 3), tmp_path) == 0.0
    g = fx.Graph()
    x = g.placeholder("x")
    twice = graph(["x"], g.call_module("b", (g.call_module("a", (x,)),)), g, a=relu, b=relu)
    assert gap(twice, torch.randn(5, 3), tmp_path) == 0.0
