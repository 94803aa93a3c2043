from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from assay.errors import ExportRefused, InvalidSetting
from assay.hardware.onnx_graph import write_graph
from assay.hardware.runtimes import (
    export_onnx,
    graph_of,
    onnx_runner,
    quiet_exporter,
    torch_runner,
)
from tests.hardware.onnx_gap import onnx_gap


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


class Undecided(nn.Module):
    """Takes a branch by its input's values."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cos() if x.sum() > 0 else x.sin()


def test_the_exporter_is_silent_and_right(capfd):
    module, x = net().train(), torch.randn(3, 4)
    model = export_onnx(module, x)
    assert capfd.readouterr() == ("", "")
    assert all(m.training for m in module.modules())
    assert onnx_gap(model, module, x) <= 1e-6


def test_an_open_batch_takes_another(tmp_path):
    module = net()
    path = tmp_path / "model.onnx"
    path.write_bytes(export_onnx(module, torch.randn(3, 4), dynamic_batch=True).SerializeToString())
    for n in (1, 3, 7):
        assert onnx_gap(path, module, torch.randn(n, 4)) <= 1e-6


def test_what_the_exporter_refuses_is_told_with_its_reason(capfd):
    with pytest.raises(ExportRefused, match=r"exporter refuses Undecided: .+"):
        export_onnx(Undecided(), torch.ones(2, 4))
    assert capfd.readouterr() == ("", "")


def test_the_quiet_is_undone(capsys):
    import logging

    level = logging.getLogger("torch").level
    with pytest.raises(ZeroDivisionError), quiet_exporter():
        print("unheard", 1 // len(""))
    with quiet_exporter():
        print("unheard")
    print("heard")
    assert capsys.readouterr().out == "heard\n"
    assert logging.getLogger("torch").level == level
    assert logging.root.manager.disable == logging.NOTSET


def test_the_exporter_serves_what_has_no_rule():
    torch.manual_seed(0)
    module, x = nn.ConvTranspose2d(2, 3, 2), torch.randn(1, 2, 3, 3)
    assert onnx_gap(graph_of(module, x), module, x) <= 1e-6


def test_a_difference_is_found():
    module, x = net().eval(), torch.randn(3, 4)
    graph = write_graph(module, x)
    with torch.no_grad():
        module[3].bias[1] += 0.5
    assert onnx_gap(graph, module, x) == pytest.approx(0.5, abs=1e-6)


def test_a_runner_returns_what_the_network_does():
    module, x = net().eval(), torch.randn(3, 4)
    (found,) = onnx_runner(graph_of(module, x), x, threads=1)()
    with torch.no_grad():
        expected = module(x)
    assert np.abs(found - expected.numpy()).max() <= 1e-6
    assert torch.equal(torch_runner(module, x)(), expected)


def test_inputs_must_be_as_many_as_the_graph_has():
    graph = graph_of(net(), torch.randn(3, 4))
    with pytest.raises(ValueError, match="argument 2"):
        onnx_runner(graph, (torch.randn(3, 4), torch.randn(3, 4)), threads=1)


def test_a_torch_runner_measures_in_eval_mode_and_leaves_the_network():
    module, x = net().train(), torch.randn(3, 4)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    run = torch_runner(module, x)
    assert torch.equal(run(), run())
    assert all(m.training for m in module.modules())
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


def test_an_accelerator_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(InvalidSetting, match="no CUDA device; take 'cpu'"):
        torch_runner(net(), torch.zeros(1, 4), accelerator="cuda")
    with pytest.raises(
        InvalidSetting, match=r"CPUExecutionProvider.* only; install onnxruntime-gpu"
    ):
        onnx_runner(graph_of(net(), torch.zeros(1, 4)), torch.zeros(1, 4), threads=1,
                    accelerator="cuda")  # fmt: skip


@pytest.mark.gpu
def test_on_cuda_a_runner_gives_what_the_cpu_does():
    module, x = net().eval(), torch.randn(3, 4)
    found = torch_runner(module, x, accelerator="cuda")()
    assert (found.cpu() - torch_runner(module, x)()).abs().max() <= 1e-5


@pytest.mark.gpu
def test_on_cuda_onnx_runtime_gives_what_the_cpu_does():
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("needs onnxruntime-gpu")
    module, x = net().eval(), torch.randn(3, 4)
    graph = graph_of(module, x)
    (found,) = onnx_runner(graph, x, threads=1, accelerator="cuda")()
    (expected,) = onnx_runner(graph, x, threads=1)()
    assert np.abs(found.numpy() - expected).max() <= 1e-5
