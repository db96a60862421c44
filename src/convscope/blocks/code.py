"""Code: a network of blocks as a Python file, text for the user to keep; convscope never executes it."""

from collections.abc import Callable, Mapping

from convscope.blocks.layers import Placed, described
from convscope.blocks.plan import PlannedBlock, plan
from convscope.layer_arithmetic import Shape


def code(blocks: object, shape: object = (1, 28, 28), classes: object = 10) -> str:
    """A network of blocks as the text of a Python file with the class `Net`.

    >>> import convscope as cs
    >>> print(cs.blocks.code([{"block": "flatten"}, {"block": "linear"}], (1, 3, 3), 2).partition("class ")[2])
    Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flatten = nn.Flatten()  # size 3·3 = 9
            self.fc1 = nn.Linear(9, 2)  # parameters (9 + 1)·2 = 20
    <BLANKLINE>
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.flatten(x)  # (N, 9)
            x = self.fc1(x)  # (N, 2)
            return x
    <BLANKLINE>

    Its layers have the names of the network that convscope builds from the same list, so the weights of a run fit it:
    `convscope open net.py:Net --weights RUN/weights.safetensors`.

    Args:
        blocks: Plain values as `template` returns them.
        shape: (C, H, W) of the image.
        classes: How many classes there are.

    Raises:
        UsageError: a block has a problem.
    """
    result = plan(blocks, shape, classes)
    lines = [
        f'"""A network for {described(result.shape)} images, with {result.parameters:,} parameters."""',
        "",
        "import torch",
        "from torch import nn",
        "",
        "",
        "class Net(nn.Module):",
        "    def __init__(self) -> None:",
        "        super().__init__()",
        *(
            f"        self.{name} = {WRITERS[placed.block.kind.name](placed)}{_sums(planned)}"
            for (name, placed), planned in zip(result.layers, result.blocks, strict=True)
        ),
        *_by_hand(result.blocks),
        "",
        "    def forward(self, x: torch.Tensor) -> torch.Tensor:",
        *(f"        x = self.{planned.name}(x)  # (N, {_listed(planned.shape)})" for planned in result.blocks),
        "        return x",
        "",
    ]
    return "\n".join(lines)


Writer = Callable[[Placed], str]


def _convolution(placed: Placed) -> str:
    padding = f", padding={placed['padding']}" if placed["padding"] else ""
    stride = f", stride={placed['stride']}" if placed["stride"] != 1 else ""
    bias = "" if placed["bias"] else ", bias=False"
    return f"nn.Conv2d({placed.shape[0]}, {placed['kernels']}, {placed['size']}{stride}{padding}{bias})"


def _pool(name: str) -> Writer:
    def pool(placed: Placed) -> str:
        stride = f", stride={placed['stride']}" if placed["stride"] not in {None, placed["size"]} else ""
        padding = f", padding={placed['padding']}" if placed["padding"] else ""
        return f"nn.{name}({placed['size']}{stride}{padding})"

    return pool


def _linear(placed: Placed) -> str:
    return f"nn.Linear({placed.shape[0]}, {placed.units}{'' if placed['bias'] else ', bias=False'})"


def _plain(name: str, setting: str = "") -> Writer:
    return lambda placed: f"nn.{name}({placed[setting] if setting else ''})"


WRITERS: Mapping[str, Writer] = {
    "conv": _convolution,
    "max-pool": _pool("MaxPool2d"),
    "avg-pool": _pool("AvgPool2d"),
    "relu": _plain("ReLU"),
    "leaky-relu": _plain("LeakyReLU", "slope"),
    "tanh": _plain("Tanh"),
    "sigmoid": _plain("Sigmoid"),
    "batch-norm": lambda placed: f"nn.BatchNorm{2 if len(placed.shape) == 3 else 1}d({placed.shape[0]})",
    "dropout": _plain("Dropout", "p"),
    "flatten": _plain("Flatten"),
    "linear": _linear,
}
"""Kind of block -> its layer in PyTorch's words."""


def _sums(planned: PlannedBlock) -> str:
    """The sums of size and parameters as a comment."""
    texts = [f"{name} {text}" for name, text in planned.sums() if name != "multiply-adds"]
    return f"  # {'; '.join(texts)}" if texts else ""


def _by_hand(blocks: tuple[PlannedBlock, ...]) -> list[str]:
    """The lines that set the numbers typed in for a block."""
    lines = [
        f"            self.{planned.name}.{name}.copy_(torch.tensor({values.nested(_shape(planned, name))}))"
        for planned in blocks
        for name, values in (planned.block.values if planned.block is not None else {}).items()
    ]
    return ["        with torch.no_grad():", *lines] if lines else []


def _shape(planned: PlannedBlock, parameter: str) -> Shape:
    weight = planned.weight or ()
    return weight if parameter == "weight" else weight[:1]


def _listed(shape: Shape | None) -> str:
    return ", ".join(map(str, shape or ()))
