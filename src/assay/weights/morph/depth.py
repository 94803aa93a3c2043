"""Deeper networks: layers that begin as the identity, and branches that begin as zero."""

from __future__ import annotations

import copy
import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from assay.errors import InvalidSetting, UnsupportedLayer, nearest
from assay.train.task import call_model
from assay.weights.morph.channels import Axis
from assay.weights.morph.flow import trace
from assay.weights.morph.graphs import block_graph
from assay.weights.morph.rewrite import copied
from assay.weights.morph.same import judging

__all__ = ["add_branch", "deepen", "neutralise", "silence"]

_IDEMPOTENT = (nn.ReLU, nn.ReLU6, nn.Hardtanh)
_ACTIVATIONS = "torch.nn.modules.activation"
_CONVOLUTIONS = {-2: nn.Conv1d, -3: nn.Conv2d, -4: nn.Conv3d}
_NORMS: dict[int, type[nn.Module]] = {
    -1: nn.BatchNorm1d, -2: nn.BatchNorm1d, -3: nn.BatchNorm2d, -4: nn.BatchNorm3d,
}  # fmt: skip
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_TRANSPARENT = (nn.Identity, nn.modules.dropout._DropoutNd)  # in eval mode


def deepen(
    model: nn.Module,
    after: str,
    *,
    kernel: int = 3,
    batch: Any = None,
    noise: float = 0.0,
    rng: np.random.Generator | None = None,
) -> nn.Module:
    """Return a copy of a model with one more layer, which begins as the identity.

    After an activation f the new layer is followed by f again, which changes nothing where
    f(f(v)) = f(v). After any other layer it is linear.

    Source: Chen, Goodfellow, Shlens 2015, "Net2Net: Accelerating Learning via Knowledge Transfer",
    arXiv:1511.05641, on Net2DeeperNet; differs: the statistics of the new batch norm are those of
    one batch in eval mode, so the function is kept in eval mode and nearly kept in train mode.

    Args:
        model: Left as it is; torch.fx must be able to trace it.
        after: Module path of an activation or another layer, called once.
        kernel: Side of the new convolution, odd; a linear layer has none.
        batch: Inputs `[N, ...]` from which a batch norm behind the new layer is set to be the
            identity; None for no batch norm.
        noise: Deviation of what is added to the new weights, as a multiple of theirs.
        rng: Draws the noise.
    Raises:
        InvalidSetting: no such layer, an even kernel, a negative noise, or one without `rng`.
        UnsupportedLayer: an activation that is not idempotent (use `add_branch`), a layer that is
            called more than once, channels that cannot be followed, or a batch that does not
            reach it.
    """
    if not noise >= 0:
        raise InvalidSetting(f"noise={noise!r} is a deviation: give 0 or more")
    twin, place, axis = _opened(model, after, kernel)
    act = type(place).__module__ == _ACTIVATIONS
    if act and not isinstance(place, _IDEMPOTENT):
        name = type(place).__name__
        raise UnsupportedLayer(
            f"{after!r} is a {name}, and {name}({name}(v)) is not {name}(v), so a layer behind it "
            "cannot begin as the identity; use add_branch, which begins as zero behind anything"
        )
    layer = _identity(axis, kernel).to(_like(twin))
    if noise:
        if rng is None:
            raise InvalidSetting(f"noise={noise:g} is drawn: give rng")
        drawn = torch.from_numpy(rng.standard_normal(tuple(layer.weight.shape)))
        layer.weight.data += noise * layer.weight.data.std(correction=0) * drawn.to(layer.weight)
    norm = [] if batch is None else [_neutral_norm(axis, _seen(twin, after, batch))]
    behind = [copy.deepcopy(place)] if act else []
    _put(twin, place, nn.Sequential(place, layer, *norm, *behind).train(place.training))
    return twin


def add_branch(
    model: nn.Module,
    after: str,
    *,
    rng: np.random.Generator,
    width: int | None = None,
    kernel: int = 3,
) -> nn.Module:
    """Return a copy of a model in which y, a layer's output, becomes y + branch(y).

    The branch is a layer, a ReLU and a layer whose weights are zero, so that the function is kept
    exactly, in train mode too, whatever the activation before it.

    Source: Wei et al. 2016, "Network Morphism", arXiv:1603.01670, on subnet morphing; differs: the
    new branch is zero where theirs splits an old one.

    Args:
        model: Left as it is; torch.fx must be able to trace it.
        after: Module path of a layer, called once.
        rng: Draws the weights of the branch's first layer.
        width: Channels inside the branch; by default those of y.
        kernel: Side of the branch's first convolution, odd; a linear layer has none.
    Raises:
        InvalidSetting: no such layer, an even kernel, or a width below 1.
        UnsupportedLayer: a layer that is called more than once, or channels that cannot be
            followed.
    """
    twin, place, axis = _opened(model, after, kernel)
    inside = axis.length if width is None else width
    if inside < 1:
        raise InvalidSetting(f"width={width} must be at least 1")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        first = _layer(axis.dim, axis.length, inside, kernel)
        last = _layer(axis.dim, inside, axis.length, 1)
    _zero(last)
    branch = nn.Sequential(first, nn.ReLU(), last).to(_like(twin))
    _put(twin, place, _summed(place, branch).train(place.training))
    return twin


def silence(block: nn.Module) -> bool:
    """Let a residual block begin as the identity: the last layer of its branch becomes zero.

    Args:
        block: x + branch(x), or an activation of that; changed in place. The branch ends in a batch
            norm, a convolution or a linear layer.
    Returns:
        Whether it is such a block; another one is left as it is.
    """
    last = _end_of_branch(block)
    if last is not None:
        _zero(last)
    return last is not None


def neutralise(block: nn.Module, seen: Tensor) -> bool:
    """Let a plain block begin as the identity, as `deepen` lets a layer.

    Convolutions and linear layers become the identity, and batch norms undo the statistics of what
    the block is given. Its activations do nothing where they are idempotent and `seen` comes from
    one of their kind.

    Args:
        block: A chain of such layers, each called once and with as many channels behind it as
            before it; changed in place.
        seen: What the block is given, `[N, C, ...]`.
    Returns:
        Whether it is such a block; another one is left as it is.
    """
    chain = _chain(block)
    if chain is None or not all(map(_can_be_neutral, chain)):
        return False
    for layer in chain:
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            _undo(layer, seen)
        elif hasattr(layer, "weight"):
            _make_identity(layer)
    return True


def _chain(block: nn.Module) -> list[nn.Module] | None:
    """Return the layers of a block, each of which reads the one before it; None of another one."""
    graph = block_graph(block)
    if graph is None:
        return [block]
    last, *nodes = graph.nodes
    if last.op != "placeholder":
        return None
    layers: list[nn.Module] = []
    for node in nodes:
        if node.all_input_nodes != [last] or node.op not in ("call_module", "output"):
            return None
        if node.op == "call_module":
            layers.append(block.get_submodule(str(node.target)))
        last = node
    return layers if len(set(layers)) == len(layers) else None


def _can_be_neutral(layer: Any) -> bool:
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return bool(layer.affine and layer.track_running_stats)
    if hasattr(layer, "weight") and not _has_own_weight(layer):
        return False
    if isinstance(layer, nn.Linear):
        return layer.in_features == layer.out_features
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        sides = zip(layer.kernel_size, layer.dilation)
        same = tuple(d * (k - 1) // 2 for k, d in sides)
        padded = layer.padding in ("same", same)
        odd = all(k % 2 for k in layer.kernel_size) and set(layer.stride) == {1}
        return bool(odd and padded and layer.in_channels == layer.out_channels)
    return isinstance(layer, _IDEMPOTENT + _TRANSPARENT)


def _end_of_branch(block: nn.Module) -> nn.Module | None:
    """Return the layer that a block adds to its own input."""
    graph = block_graph(block)
    if graph is None:
        return None
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    (out,) = [node for node in graph.nodes if node.op == "output"]
    total = out.args[0]
    if isinstance(total, fx.Node) and _is_idempotent(block, total):
        total = total.all_input_nodes[0]
    added = isinstance(total, fx.Node) and (total.target in _ADDITIONS or total.target == "add")
    if not added or len(inputs) != 1:
        return None
    others = [node for node in total.all_input_nodes if node is not inputs[0]]
    if len(total.all_input_nodes) != 2 or len(others) != 1 or others[0].op != "call_module":
        return None
    last = block.get_submodule(str(others[0].target))
    kinds = (nn.modules.batchnorm._BatchNorm, nn.Linear, *_CONVOLUTIONS.values())
    return last if isinstance(last, kinds) and _has_own_weight(last) else None


def _has_own_weight(layer: nn.Module) -> bool:
    """Whether its weight is a parameter: one that is made of others, as in weight norm, is none."""
    return layer._parameters.get("weight") is not None


def _is_idempotent(block: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(block.get_submodule(str(node.target)), _IDEMPOTENT)
    return node.target in (torch.relu, F.relu, F.relu6, "relu", "relu_")


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters(recurse=False):
        nn.init.zeros_(parameter)


def _opened(model: nn.Module, after: str, kernel: int) -> tuple[nn.Module, nn.Module, Axis]:
    """Return a copy, the layer in it, and the channels of the layer's output."""
    twin = copied(model)
    calls = trace(twin).outputs
    if after not in calls:
        raise InvalidSetting(f"no layer {after!r} is called; {nearest(after, calls)}")
    if len(calls[after]) > 1:
        raise UnsupportedLayer(
            f"{after!r} is called {len(calls[after])} times; give each call a module of its own"
        )
    if kernel < 1 or kernel % 2 == 0:
        raise InvalidSetting(f"kernel={kernel} has no centre: give an odd one, at least 1")
    (axis,) = calls[after]
    if axis is None or axis.dim == 0 or any(run.spread for run in axis.runs):
        raise UnsupportedLayer(
            f"the channels behind {after!r} cannot be followed; name the layer that makes them"
        )
    return twin, twin.get_submodule(after), axis


def _put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in the place of another one, under each name that this one has."""
    modules = list(model.named_modules(remove_duplicate=False))
    for path in [path for path, module in modules if module is old]:
        model.set_submodule(path, new)


def _layer(dim: int, inputs: int, outputs: int, kernel: int) -> Any:
    if dim == -1:
        return nn.Linear(inputs, outputs)
    return _CONVOLUTIONS[dim](inputs, outputs, kernel, padding=kernel // 2)


def _identity(axis: Axis, kernel: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        layer = _layer(axis.dim, axis.length, axis.length, kernel)
    _make_identity(layer)
    return layer


def _make_identity(layer: Any) -> None:
    """Let a layer with as many channels behind it as before it give out what it is given."""
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    if isinstance(layer, nn.Linear):
        nn.init.eye_(layer.weight)
    else:
        nn.init.dirac_(layer.weight, groups=layer.groups)


def _seen(model: nn.Module, path: str, batch: Any) -> Tensor:
    """Return what a layer gives on a batch, in eval mode."""
    seen: list[Tensor] = []
    layer = model.get_submodule(path)
    # What comes after may write into it.
    hook = layer.register_forward_hook(lambda m, a, out: seen.append(out.clone()))
    try:
        with judging(model):
            call_model(model, batch)
    finally:
        hook.remove()
    if not seen:
        raise UnsupportedLayer(
            f"{path!r} is not called in eval mode, in which a batch norm is set; leave out batch"
        )
    return seen[0]


def _neutral_norm(axis: Axis, seen: Tensor) -> nn.Module:
    """Make a batch norm whose scale and shift undo the statistics of what it reads."""
    if axis.dim == -1 and seen.ndim != 2:
        raise UnsupportedLayer(
            f"no batch norm fits {list(seen.shape)}, whose features come last; leave out batch"
        )
    norm = _NORMS[axis.dim](axis.length).to(seen)
    _undo(norm, seen)
    return norm


def _undo(norm: Any, seen: Tensor) -> None:
    """Let scale and shift of a batch norm undo the statistics of what it reads."""
    channels = seen.movedim(1, 0).flatten(1)
    norm.running_mean.copy_(channels.mean(1))
    norm.running_var.copy_(channels.var(1, correction=0))
    norm.weight.data.copy_((norm.running_var + norm.eps).sqrt())
    norm.bias.data.copy_(norm.running_mean)


def _summed(place: nn.Module, branch: nn.Module) -> fx.GraphModule:
    """Return the module that computes y = place(x) and gives y + branch(y)."""
    root = nn.ModuleDict({"place": place, "branch": branch})
    graph = fx.Graph()
    y = graph.call_module("place", (graph.placeholder("x"),))
    graph.output(graph.call_function(operator.add, (y, graph.call_module("branch", (y,)))))
    return fx.GraphModule(root, graph)


def _like(model: nn.Module) -> Tensor:
    """Return a tensor of a model, for its type and device."""
    return next(model.parameters())
