"""Graphs as a whole: inputs, outputs, modes, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from assay.hardware.onnx_graph import NoRule, write_graph
from assay.hardware.runtimes import export_onnx
from assay.zoo.mobile import mobile
from tests.hardware.onnx_gap import onnx_gap


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        left, right = self.shared(left), self.shared(right)
        return {"sum": left + right, "left": left}


def optimised(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """Return the operators that ONNX Runtime runs in the end."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    source = model.SerializeToString()
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return Counter(n.op_type for n in onnx.load(folder / "optimised.onnx").graph.node)


@pytest.mark.parametrize("named", [False, True])
def test_several_inputs_and_outputs_keep_their_order(named):
    left, right = torch.randn(2, 4), torch.randn(2, 4)
    inputs = {"left": left, "right": right} if named else (left, right)
    graph = write_graph(Two(), inputs)
    names = [value.name for value in graph.graph.input]
    assert names == (["left", "right"] if named else ["input_0", "input_1"])
    assert len(graph.graph.output) == 2
    assert [list(v.shape) for v in map(_tensor, graph.graph.output)] == [[2, 4], [2, 4]]


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    return torch.empty([d.dim_value for d in value.type.tensor_type.shape.dim])


def test_a_shared_weight_is_kept_once():
    module = nn.Sequential(shared := nn.Conv2d(3, 3, 1), nn.ReLU(), shared)
    graph = write_graph(module, torch.randn(1, 3, 4, 4))
    assert len(graph.graph.initializer) == 2


def test_inputs_that_are_no_tensors_are_refused():
    with pytest.raises(NoRule, match="nested"):
        write_graph(Two(), (torch.zeros(1, 4), [torch.zeros(1, 4), torch.zeros(1, 4)]))


def test_an_input_written_into_is_left_alone():
    x = -torch.ones(1, 3)
    module = nn.ReLU(inplace=True)
    graph = write_graph(module, x)
    assert torch.equal(x, -torch.ones(1, 3))
    assert onnx_gap(graph, nn.ReLU(), x) == 0.0


def test_writing_is_in_eval_mode_and_restores_the_modes():
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout())
    module.train()
    module[1].eval()
    write_graph(module, torch.randn(4, 3))
    assert [m.training for m in module] == [True, False, True]
    assert module[1].num_batches_tracked == 0


def test_a_network_under_inference_mode_is_written_too():
    module, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(2, 3)
    with torch.inference_mode():
        graph = write_graph(module, x)
    assert onnx_gap(graph, module, x) <= 1e-6


def test_onnx_runtime_runs_the_same_operators_as_of_the_exporter(tmp_path):
    torch.manual_seed(0)
    space = mobile()
    point = {**space.smallest(), "stage1.depth": 2}
    network = space.build(space.complete(point, lambda choice: choice.options[0])).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # zeros would let the exporter drop the biases
            nn.init.normal_(module.bias)
    x = torch.randn(1, 1, 8, 8)
    ours, theirs = write_graph(network, x), export_onnx(network, x)
    assert onnx_gap(ours, network, x) <= 1e-5
    assert onnx_gap(theirs, network, x) <= 1e-5
    assert optimised(ours, tmp_path) == optimised(theirs, tmp_path)
