"""Share of unseen `mobile` networks whose predicted latency is within 10 % of the measured."""

from __future__ import annotations

import time

import numpy as np
import torch

from assay.hardware.device import Device
from assay.hardware.table import LatencyTable
from assay.zoo.mobile import mobile
from bench.harness import interval, report

NETWORKS, SHAPE = 50, (1, 8, 8)


def main() -> None:
    torch.set_num_threads(1)
    space, example = mobile(input_shape=SHAPE), torch.zeros(1, *SHAPE)
    space.example = example
    started = time.perf_counter()
    table = LatencyTable.build(space, Device(), example=example)
    build_s = time.perf_counter() - started
    found = table.validate(NETWORKS, seed=1)
    assert found is not None  # the space has more networks than the fit saw
    within = [float(abs(p / m - 1) <= 0.1) for p, m, _, _ in found.pairs]
    report(
        "latency_table", found.within_10, "share", ">= 0.95", interval(within, np.mean),
        tau=round(found.tau, 4), rmse_ms=round(found.rmse_ms, 6), networks=len(found.pairs),
        build_s=round(build_s, 2), units=len(table.units), shape=list(SHAPE),
    )  # fmt: skip


if __name__ == "__main__":
    main()
