"""What `bench.path_memory` measures of NNI 3.0, and the steps and bytes that both measure alike.

    python -m bench.nni_steps '{"input_shape": [1, 28, 28], "operations": [[3, 3], [5, 3]], ...}'

Imports torch, numpy and NNI, so that it runs where Assay is not installed; `path_memory` makes such
an environment. The networks are built from the plan in plain torch; NNI's own strategies turn them
into supernets (`mutate_model`, `configure_oneshot_module`), and give the samples (`resample`), the
optimiser of the architecture and the list of weights.

A bare loop stands for `training_step` of NNI's Lightning modules, in their order: `resample`,
gradients dropped, forward, backward, clipping for weights, the optimiser's step. Trainer, hooks,
logging, metrics and the loading of data are left out, which spares NNI. As there, no step stops the
gradients that it has no use for: an architecture step also differentiates the weights, a weight
step of `Proxyless` also the gates. So both of them run the operations that were not sampled, too:
without a graph, one by one, within the backward.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.harness import paired_ratios, seconds

Plan = Mapping[str, Any]
"""JSON: `input_shape`, `classes`, `stem`, `stages` as [width, blocks, stride], `head`, `operations`
as [kernel, expansion], `alone` as one of them, `batch`, `pairs`, and `lr`, `momentum`,
`weight_decay` and `clip` of SGD."""

Choose = Callable[[str, dict[str, nn.Module]], nn.Module]
"""Label and operations by name -> the module that is put there."""


# --- what both sides measure with -----------------------------------------------------------------


class Step:
    """A step that remembers the seconds of each time it was taken."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work
        self.taken: list[float] = []

    def __call__(self) -> None:
        self.taken.append(seconds(self.work))

    @property
    def ms(self) -> float:
        return round(1000 * float(np.median(self.taken)), 2)


def kept_bytes(model: nn.Module, work: Callable[[], object]) -> int:
    """Return the bytes that some work leaves for a backward, each storage once, no weights."""
    own = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    storages: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        # Detached, or a node would hold its own output, and neither would ever be freed.
        kept = tensor.detach()
        address = kept.untyped_storage().data_ptr()
        if address not in own:
            storages[address] = kept  # held, so that no other tensor is given its address
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        work()
    return sum(kept.untyped_storage().nbytes() for kept in storages.values())


def mib(num_bytes: float) -> float:
    return round(num_bytes / 2**20, 3)


def middle(ratios: list[float]) -> float:
    return round(float(np.median(ratios)), 3)


# --- the same blocks in plain torch ---------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


def conv(channels: int, out: int, kernel: int = 1, **more: Any) -> list[nn.Module]:
    layer = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False, **more)
    return [layer, nn.BatchNorm2d(out)]


def bottleneck(channels: int, out: int, kernel: int, expansion: int, stride: int) -> nn.Module:
    hidden = channels * expansion
    return nn.Sequential(
        *conv(channels, hidden), nn.ReLU(),
        *conv(hidden, hidden, kernel, stride=stride, groups=hidden), nn.ReLU(),
        *conv(hidden, out),
    )  # fmt: skip


def name_of(kernel: int, expansion: int) -> str:
    return f"k{kernel}e{expansion}"


def network(plan: Plan, choose: Choose) -> nn.Sequential:
    """Build the network of a plan, with what `choose` makes of the operations in each block."""
    channels = plan["stem"]
    layers = [*conv(plan["input_shape"][0], channels, 3), nn.ReLU()]
    for i, (width, blocks, stride) in enumerate(plan["stages"], start=1):
        for j in range(blocks):
            operations = {
                name_of(k, e): bottleneck(channels, width, k, e, stride if j == 0 else 1)
                for k, e in plan["operations"]
            }
            if j > 0:
                operations = {name: Residual(body) for name, body in operations.items()}
            layers.append(choose(f"stage{i}_{j}", operations))
            channels = width
    layers += [*conv(channels, plan["head"]), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(plan["head"], plan["classes"]))


# --- NNI's supernets and their steps --------------------------------------------------------------


class Trained:
    """A network with its batch and its optimiser, put and set as Assay's training loop does.

    Norms and biases are not decayed.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        self.model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        random = torch.Generator().manual_seed(0)
        self.images = torch.randn(plan["batch"], *plan["input_shape"], generator=random)
        self.classes = torch.randint(plan["classes"], (plan["batch"],), generator=random)
        decayed = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.SGD(
            [{"params": decayed, "weight_decay": plan["weight_decay"]}, {"params": others}],
            lr=plan["lr"], momentum=plan["momentum"], nesterov=True, foreach=True,
        )  # fmt: skip
        self.clip = plan["clip"]

    def backward(self) -> None:
        loss = nn.functional.cross_entropy(self.model(self.images), self.classes)
        loss.backward()  # type: ignore[no-untyped-call]

    def weight_step(self) -> None:
        self.optimizer.zero_grad()
        self.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, self.clip, foreach=True)
        self.optimizer.step()

    def kept(self) -> int:
        return kept_bytes(self.model, lambda: self.model(self.images))


class Search(Trained):
    """A strategy of NNI on the blocks of a plan."""

    def __init__(self, strategy: Any, plan: Plan) -> None:
        from nni.nas.evaluator.pytorch import LightningModule  # type: ignore[import-not-found]
        from nni.nas.nn.pytorch import LayerChoice, ModelSpace  # type: ignore[import-not-found]

        class Blocks(ModelSpace):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.body = network(plan, lambda label, ops: LayerChoice(ops, label=label))

            def forward(self, x: Tensor) -> Any:
                return self.body(x)

        training = LightningModule()
        training.set_model(strategy.mutate_model(Blocks()))
        super().__init__(training.model, plan)
        self.one_shot = strategy.configure_oneshot_module(training)
        self.optimizer = self.one_shot.postprocess_weight_optimizers(self.optimizer)
        self.arch_optimizer = self.one_shot.configure_architecture_optimizers()

    def weight_step(self) -> None:
        self.one_shot.resample()
        super().weight_step()

    def weight_step_on(self, operation: str) -> None:
        self.take(operation)
        super().weight_step()

    def architecture_step(self) -> None:
        self.one_shot.resample()
        self.arch_optimizer.zero_grad()
        self.backward()
        self.arch_optimizer.step()

    def take(self, operation: str) -> None:
        """Sample the same operation in all blocks."""
        for layer in self.one_shot.supernet_modules():
            layer.resample({layer.label: operation})

    def kept_on(self, operation: str) -> int:
        self.take(operation)
        return self.kept()


def measured(plan: Plan) -> dict[str, Any]:
    """Return the figures of a plan, by the names that `path_memory` has for its own."""
    from nni.nas.strategy import DARTS, Proxyless, RandomOneShot  # type: ignore[import-not-found]

    operations = [name_of(*o) for o in plan["operations"]]
    fixed = name_of(*plan["alone"])
    alone = Trained(network(plan, lambda _, ops: ops[fixed]), plan)
    path, proxyless, darts = (Search(s(), plan) for s in (RandomOneShot, Proxyless, DARTS))
    kept = {
        "alone": alone.kept(),
        "same": path.kept_on(fixed),
        "path": float(np.mean([path.kept_on(o) for o in operations])),
        "proxyless": float(np.mean([proxyless.kept_on(o) for o in operations])),
        "darts": darts.kept(),
    }
    steps = {
        "alone": Step(alone.weight_step),
        "same": Step(lambda: path.weight_step_on(fixed)),
        "path": Step(path.weight_step),
        "proxyless": Step(proxyless.architecture_step),
        "proxyless_weight": Step(proxyless.weight_step),
        "darts": Step(darts.weight_step),
        "darts_architecture": Step(darts.architecture_step),
    }

    def ratio(a: str, b: str) -> float:
        return middle(paired_ratios(steps[a], steps[b], pairs=plan["pairs"]))

    return {
        "path_to_alone": round(kept["same"] / kept["alone"], 4),
        "proxyless_to_path": round(kept["proxyless"] / kept["path"], 4),
        "darts_to_path": round(kept["darts"] / kept["path"], 2),
        "time_path_to_alone": ratio("same", "alone"),
        "time_architecture_to_path": ratio("proxyless", "path"),
        "time_weight_to_path": ratio("proxyless_weight", "path"),
        "time_darts_to_path": ratio("darts", "path"),
        "time_darts_architecture_to_path": ratio("darts_architecture", "path"),
        "kept_mib": {name: mib(value) for name, value in kept.items()},
        "step_ms": {name: step.ms for name, step in steps.items()},
    }


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(json.dumps(measured(json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
