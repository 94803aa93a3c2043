"""What the tests of graphs share: how far ONNX Runtime is from torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from assay.hardware.count import tensors_in
from assay.hardware.runtimes import onnx_runner
from assay.train.modes import evaluating
from assay.train.task import call_model


def onnx_gap(model: Path | onnx.ModelProto, module: nn.Module, inputs: Any) -> float:
    """Run a graph and return its largest absolute difference from the module in eval mode."""
    found: Any = onnx_runner(model, inputs, threads=1)()
    with evaluating(module), torch.no_grad():
        expected = tensors_in(call_model(module, inputs))
    return max(float(np.abs(e.numpy() - f).max()) for e, f in zip(expected, found, strict=True))
