"""Share of unseen `mobile` networks whose predicted latency is within 10 % of the measured."""

from __future__ import annotations

import time

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import nn

from assay.architecture import Architecture
from assay.hardware.device import Device
from assay.hardware.runtimes import export_onnx, onnx_runner
from assay.hardware.table import LatencyTable, Validation
from assay.zoo.mobile import mobile
from bench.harness import interval, report

NETWORKS, SHAPE, EXPORTED = 50, (1, 8, 8), 5


def as_if_trained(network: nn.Module) -> nn.Module:
    """Give norms other statistics than a fresh network's, whose zeros the exporter leaves out."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1, generator=generator)
    return network


def exported_ratio(table: LatencyTable, found: Validation) -> float:
    """Return the median ratio of latencies: torch's exporter's graph ÷ the one written here."""
    device, example = table.device, table.example
    ratios = []
    with device.ready():
        for _, _, text, _ in found.pairs[:EXPORTED]:
            network = as_if_trained(table.space.build(Architecture.from_json(text)))
            handed_over = onnx_runner(
                export_onnx(network, example), example, threads=device.threads
            )
            theirs, ours = device.medians_ms([handed_over, device.runner(network, example)])
            ratios.append(theirs / ours)
    return float(np.median(ratios))


def tau_interval(predicted: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """Return a 95 % percentile-bootstrap interval of Kendall's tau."""
    pairs = np.stack([predicted, measured], axis=1)
    return interval(pairs, lambda drawn: float(kendalltau(*drawn.T).statistic))


def main() -> None:
    torch.set_num_threads(1)
    space, example = mobile(input_shape=SHAPE), torch.zeros(1, *SHAPE)
    started = time.perf_counter()
    table = LatencyTable.build(space, Device(), example=example)
    build_s = time.perf_counter() - started
    found = table.validate(NETWORKS, seed=1)
    predicted, measured = (np.array(values) for values in list(zip(*found.pairs))[:2])
    ratios = predicted / measured
    report(
        "latency_table", found.within_10, "share", ">= 0.95",
        interval(np.abs(ratios - 1) <= 0.1, np.mean), tau=round(found.tau, 4),
        tau_interval=[round(v, 4) for v in tau_interval(predicted, measured)],
        rmse_ms=round(found.rmse_ms, 6), worst=round(float(np.abs(ratios - 1).max()), 4),
        bias=round(float(np.median(ratios) - 1), 4), networks=len(found.pairs),
        measured_ms=[round(float(v), 4) for v in (measured.min(), measured.max())],
        build_s=round(build_s, 2), units=len(table.units), shape=list(SHAPE),
        exported_ratio=round(exported_ratio(table, found), 4),
    )  # fmt: skip


if __name__ == "__main__":
    main()
