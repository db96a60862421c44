"""Shift cache: the same model on many translations of an image, at little more than the cost of one pass.

The layers before the first padding are run once on the image with the background around it; the maps of a translation
are then windows of those maps, for each phase of the strides so far. A linear layer that takes a flattened window is a
convolution of these maps, whose kernel is as large as the window. Exact, because such a layer gives for a window of
its input the window of its output; what differs is at most the order of a sum. Uses torch.fx; no data, no probes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

PART = 256
"""Images that are worked on together: more of them leave the processor's cache, fewer spend their time on calls."""
POINTWISE: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.ELU, nn.Hardtanh, nn.ReLU6, nn.Hardswish,
    nn.Softplus, nn.Identity, nn.Dropout, nn.Dropout2d, nn.BatchNorm2d,
)  # fmt: skip
"""Layers that treat every place alike (in evaluation mode)."""
LINEAR_CELLS = 16_000_000
"""The most numbers that a linear layer gives for all windows at once; beyond it takes them one by one."""
FUNCTIONS = (torch.relu, torch.tanh, torch.sigmoid, F.relu, F.gelu, F.tanh, F.sigmoid, F.leaky_relu, F.silu)
METHODS = ("relu", "tanh", "sigmoid")


@dataclass(frozen=True, slots=True)
class Slide:
    """How far apart the windows of a layer are, and how large they are, along rows and columns."""

    stride: tuple[int, int] = (1, 1)
    extent: tuple[int, int] = (1, 1)


@dataclass(frozen=True, slots=True, eq=False)
class ShiftCache:
    """A model, cut behind its last layer that treats every place alike."""

    module: fx.GraphModule = field(repr=False)
    head: tuple[fx.Node, ...]
    """The layers that are run once for all translations."""
    slides: tuple[Slide, ...]
    tail: fx.GraphModule = field(repr=False)
    """The other layers, which take the result of the head and run once for each translation."""
    linear: tuple[nn.Linear, fx.GraphModule] | None = field(repr=False, default=None)
    """The layer that takes the flattened result of the head, where the tail begins with one, and the tail behind it."""

    def outputs(
        self, images: Tensor, levels: Sequence[tuple[int, int]], fill: Tensor, chosen: Iterable[int] | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """The model's output for each translation, with its place in `levels`.

        Args:
            images: Shape (n, C, H, W).
            levels: (down, right) of each translation, in pixels.
            fill: The background, shape (C, 1, 1).
            chosen: Places of the levels whose output is wanted; by default all.
        """
        height, width = images.shape[2:]
        reach = (max(abs(down) for down, _ in levels), max(abs(right) for _, right in levels))
        canvas = fill.expand(*images.shape[:2], height + 2 * reach[0], width + 2 * reach[1]).clone()
        canvas[:, :, reach[0] : reach[0] + height, reach[1] : reach[1] + width] = images
        maps, stride = self._maps(canvas)
        size, tail, dense = self._size(height, width), self.tail, False
        if self.linear is not None and self._many_windows(maps, size, len(levels)):
            layer, tail = self.linear
            kernel = layer.weight.reshape(layer.out_features, -1, *size)
            maps = {phase: F.conv2d(values, kernel, layer.bias) for phase, values in maps.items()}
            size, dense = (1, 1), True
        for position in range(len(levels)) if chosen is None else chosen:
            down, right = levels[position]
            top, left = reach[0] - down, reach[1] - right
            result = maps[top % stride[0], left % stride[1]]
            top, left = top // stride[0], left // stride[1]
            window = result[:, :, top : top + size[0], left : left + size[1]]
            yield position, tail(window.flatten(1) if dense else window.contiguous())

    def _many_windows(self, maps: Mapping[tuple[int, int], Tensor], size: tuple[int, int], levels: int) -> bool:
        """Whether a large part of the windows of this size is asked for, and the linear layer's numbers of all fit."""
        assert self.linear is not None
        windows = sum((m.shape[2] - size[0] + 1) * (m.shape[3] - size[1] + 1) for m in maps.values())
        numbers = windows * len(next(iter(maps.values()))) * self.linear[0].out_features
        return windows <= 4 * levels and numbers <= LINEAR_CELLS

    def _maps(self, canvas: Tensor) -> tuple[Mapping[tuple[int, int], Tensor], tuple[int, int]]:
        """What the head gives, for each phase of its strides."""
        maps, stride = {(0, 0): canvas}, (1, 1)
        interpreter = fx.Interpreter(self.module)
        for node, slide in zip(self.head, self.slides, strict=True):
            phases = {
                (row + stride[0] * i, column + stride[1] * j): values[:, :, i:, j:]
                for (row, column), values in maps.items()
                for i in range(slide.stride[0])
                for j in range(slide.stride[1])
            }
            maps = {phase: _run(interpreter, node, values) for phase, values in phases.items()}
            stride = (stride[0] * slide.stride[0], stride[1] * slide.stride[1])
        return maps, stride

    def _size(self, *size: int) -> tuple[int, int]:
        """Of the head's output for one image."""
        for slide in self.slides:
            size = tuple((n - e) // s + 1 for n, e, s in zip(size, slide.extent, slide.stride, strict=True))
        return size[0], size[1]


def share(model: nn.Module) -> ShiftCache | None:
    """The model with its first layers shared among translations; None where none of them can be.

    >>> shared = share(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)))
    >>> [node.name for node in shared.head]
    ['_0', '_1', '_2']
    >>> share(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(72, 2))) is None
    True

    Args:
        model: In evaluation mode.
    """
    try:
        module = fx.symbolic_trace(model)
    except Exception:  # tracing runs the user's code on stand-ins, which may raise whatever it stumbles over
        return None
    nodes = list(module.graph.nodes)
    if sum(node.op == "placeholder" for node in nodes) != 1:
        return None
    head: list[fx.Node] = []
    slides: list[Slide] = []
    last = nodes[0]
    for node in nodes[1:]:
        slide = _slide(module, node) if node.all_input_nodes == [last] and len(last.users) == 1 else None
        if slide is None:
            break
        head.append(node)
        slides.append(slide)
        last = node
    worth = any(slide.extent != (1, 1) for slide in slides)
    if not worth:
        return None
    return ShiftCache(module, tuple(head), tuple(slides), _behind(module, last), _linear_behind(module, last))


def _linear_behind(module: fx.GraphModule, node: fx.Node) -> tuple[nn.Linear, fx.GraphModule] | None:
    """The linear layer that takes the flattened value of a node and nothing else, and the layers behind it."""
    flat = next(iter(node.users), node)
    linear = next(iter(flat.users), flat)
    alone = len(node.users) == 1 and len(flat.users) == 1
    if not alone or not _flattens(module, node, flat) or linear.op != "call_module":
        return None
    layer = module.get_submodule(str(linear.target))
    return (layer, _behind(module, linear)) if type(layer) is nn.Linear else None


def _flattens(module: fx.GraphModule, node: fx.Node, flat: fx.Node) -> bool:
    """Whether a node makes one row of numbers of each image."""
    if flat.op == "call_module":
        layer = module.get_submodule(str(flat.target))
        return isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1)
    return flat.target in {torch.flatten, "flatten"} and flat.args == (node, 1) and not flat.kwargs


def _behind(module: fx.GraphModule, last: fx.Node) -> fx.GraphModule:
    """The part of a model behind one node, whose value is its only input."""
    graph = fx.Graph()
    copies = {last: graph.placeholder("maps")}
    nodes = list(module.graph.nodes)
    for node in nodes[nodes.index(last) + 1 :]:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    return fx.GraphModule(module, graph)


def _slide(module: fx.GraphModule, node: fx.Node) -> Slide | None:
    """How a node slides over its input, if it treats all positions equally."""
    if node.op != "call_module":
        alike = {"call_function": FUNCTIONS, "call_method": METHODS}.get(node.op, ())
        return Slide() if node.target in alike else None
    return _slide_of(module.get_submodule(str(node.target)))


def _slide_of(layer: nn.Module) -> Slide | None:
    """How a layer slides over its input, if it treats all positions equally."""
    if isinstance(layer, POINTWISE):
        return Slide()
    if isinstance(layer, nn.Conv2d) and layer.padding in {"valid", (0, 0)}:
        extent = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return Slide((layer.stride[0], layer.stride[1]), (extent[0], extent[1]))
    if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) and _pair(layer.padding) == (0, 0) and not layer.ceil_mode:
        plain = _pair(getattr(layer, "dilation", 1)) == (1, 1) and not getattr(layer, "return_indices", False)
        return Slide(_pair(layer.stride), _pair(layer.kernel_size)) if plain else None
    return None


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _run(interpreter: fx.Interpreter, node: fx.Node, values: Tensor) -> Tensor:
    """One node of the head, given the values of the node before."""
    before = node.all_input_nodes[0]
    args = fx.map_arg(node.args, lambda n: values if n is before else n)
    kwargs = fx.map_arg(node.kwargs, lambda n: values if n is before else n)
    result: Tensor = getattr(interpreter, node.op)(node.target, args, kwargs)
    return result
