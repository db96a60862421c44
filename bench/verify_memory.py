"""The memory that verifying takes on top of the trace, each case in a fresh process: `python bench/verify_memory.py`.

The limit is 256 MB and three times the largest step: the numbers that one operation reads and makes, as the trace holds
them. Linux only: the peak is the kernel's own (`VmHWM`), reset after tracing.
"""

import argparse
import gc
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import convscope as cs
from measure import header

MEGABYTE = 1_000_000


class Calls(nn.Module):
    """A function of one tensor as a model."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        """What the function makes of x."""
        return self.call(x)


SIZE = (1, 16, 1000, 1000)
INDEX = torch.arange(0, 1000, 2)
GRID = functional.affine_grid(torch.tensor([[[0.9, 0.1, 0.0], [0.0, 0.8, 0.1]]]), [1, 16, 1000, 1000], False)


def heads(x: Tensor) -> Tensor:
    """(1, 16, H, W) as (1, 8, 2H, W)."""
    return x.reshape(1, 8, -1, x.shape[-1])


def attend(x: Tensor) -> Tensor:
    rows = heads(x)[..., :64]
    return functional.scaled_dot_product_attention(rows, rows, rows)


def scores(x: Tensor) -> Tensor:
    rows = heads(x)[:, :4, :, :64]
    return torch.softmax(rows @ rows.transpose(2, 3), -1) @ rows


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "bilinear": lambda x: functional.interpolate(x[..., ::2, ::2].contiguous(), scale_factor=2, mode="bilinear"),
    "bilinear down": lambda x: functional.interpolate(x, scale_factor=0.5, mode="bilinear"),
    "antialiased": lambda x: functional.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True),
    "bicubic": lambda x: functional.interpolate(x[..., ::2, ::2].contiguous(), scale_factor=2, mode="bicubic"),
    "area": lambda x: functional.interpolate(x, size=(300, 300), mode="area"),
    "nearest": lambda x: functional.interpolate(x, scale_factor=0.5, mode="nearest"),
    "max pool": lambda x: functional.max_pool2d(x, 2),
    "max pool 3": lambda x: functional.max_pool2d(x, 3, 1, 1),
    "average pool": lambda x: functional.avg_pool2d(x, 2),
    "average pool 3": lambda x: functional.avg_pool2d(x, 3, 1, 1),
    "adaptive": lambda x: functional.adaptive_avg_pool2d(x, 7),
    "global": lambda x: functional.adaptive_avg_pool2d(x, 1),
    "adaptive max": lambda x: functional.adaptive_max_pool2d(x, 7),
    "attention": attend,
    "scores": scores,
    "softmax": lambda x: torch.softmax(x, 1),
    "softmax flat": lambda x: torch.softmax(x.flatten(), 0),
    "softmax rows": lambda x: torch.softmax(x.flatten(1), 1),
    "log softmax": lambda x: torch.log_softmax(x, 1),
    "log softmax flat": lambda x: torch.log_softmax(x.flatten(), 0),
    "logsumexp": lambda x: torch.logsumexp(x, 1),
    "logsumexp flat": lambda x: torch.logsumexp(x.flatten(), 0),
    "instance norm": functional.instance_norm,
    "local response": lambda x: functional.local_response_norm(x, 5),
    "normalize": lambda x: functional.normalize(x, dim=1),
    "cumsum": lambda x: x.cumsum(1),
    "cumsum flat": lambda x: x.flatten().cumsum(0),
    "cumprod": lambda x: x.cumprod(1),
    "sum": lambda x: x.sum(),
    "mean": lambda x: x.mean((2, 3)),
    "var": lambda x: x.var((2, 3)),
    "var flat": lambda x: x.var(),
    "max all": lambda x: x.max(),
    "sort": lambda x: x.sort(-1)[0],
    "sort flat": lambda x: x[:, :4].flatten().sort(0)[0],
    "topk": lambda x: x.topk(9, -1)[0],
    "topk flat": lambda x: x[:, :4].flatten().topk(9)[0],
    "gather": lambda x: x.gather(3, (x * 9).long().clamp(0, 9)),
    "index select": lambda x: x.index_select(2, INDEX),
    "index": lambda x: x[:, :, INDEX],
    "embedding": lambda x: functional.embedding(torch.arange(8000).flip(0), x.reshape(-1, x.shape[-1])),
    "cross-entropy map": lambda x: functional.cross_entropy(x, torch.ones_like(x[:, 0], dtype=torch.long)),
    "mse": lambda x: functional.mse_loss(x, torch.ones_like(x)),
    "grid sample": lambda x: functional.grid_sample(x, GRID, align_corners=False),
    "transposed": nn.ConvTranspose2d(16, 8, 3, padding=1),
    "conv": nn.Conv2d(16, 8, 3, padding=1),
    "depthwise": nn.Conv2d(16, 16, 7, padding=3, groups=16),
    "conv 1d": lambda x: functional.conv1d(x.reshape(1, 16, -1), torch.ones(8, 16, 5)),
    "linear": lambda x: functional.linear(x, torch.ones(500, x.shape[-1])),
    "einsum": lambda x: torch.einsum("nchw,cd->ndhw", x, torch.ones(16, 8)),
    "chain": lambda x: torch.tanh(x * 2 + 1) * torch.sigmoid(x) - x.abs(),
    "concatenation": lambda x: torch.cat([x[:, :8], x[:, 8:] + 1], 1),
    "concatenation flat": lambda x: torch.cat([x.flatten()[9:], x[:, :1].flatten()], 0),
    "stack": lambda x: torch.stack([x[:, :8], x[:, 8:]], 1),
    "permute": lambda x: x.permute(0, 2, 3, 1).contiguous(),
    "pad reflect": lambda x: functional.pad(x, (3, 3, 3, 3), mode="reflect"),
    "pad": lambda x: functional.pad(x, (3, 3, 3, 3)),
    "flip": lambda x: x.flip(3),
    "roll": lambda x: x.roll(5, 3),
    "pixel shuffle": lambda x: functional.pixel_shuffle(x, 2),
    "unfold": lambda x: functional.unfold(x[:, :4], 3),
    "fold": lambda x: functional.fold(x.reshape(1, 64, -1), x.shape[2:], 2, stride=2),
    "where": lambda x: torch.where(x > 0.5, x, -x),
    "clamp": lambda x: x.clamp(0.2, 0.8),
    "pow": lambda x: x**2.5,
    "expand": lambda x: x * x[:, :1],
    "norm": lambda x: torch.linalg.vector_norm(x, dim=1),
    "norm flat": torch.linalg.vector_norm,
    "cdist": lambda x: torch.cdist(x[0, 0, :, :64], x[0, 1, :, :64]),
    "glu": lambda x: functional.glu(x, 1),
    "prelu": nn.PReLU(16),
    "std": lambda x: x.std((2, 3)),
    "argmax": lambda x: x.argmax(1),
    "tile": lambda x: x[:, :8].repeat(1, 2, 1, 1),
}
"""Name -> an operation on a tensor of 64 MB."""


TRAINED = (2, 8, 700, 700)


def trained(layer: nn.Module, size: tuple[int, ...] = ()) -> Callable[[], cs.Trace]:
    """A training step of convolution, `layer` and classifier."""

    def trace() -> cs.Trace:
        images = torch.rand(size or TRAINED)
        channels = images.shape[1]
        model = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), layer, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        model.append(nn.LazyLinear(10))
        model(images[:, :, :64, :64])
        return cs.trace(model, images, target=torch.arange(len(images)), loss="cross-entropy", optimizer="sgd")

    return trace


class Residual(nn.Module):
    """Convolution, batch norm, ReLU and the way around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        return torch.relu(self.bn(self.conv(x))) + x


class Attention(nn.Module):
    """Attention of every row to all rows of its channel, as one operation or as three."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, L, D) to the same."""
        rows = x
        if self.fused:
            return functional.scaled_dot_product_attention(rows, rows, rows)
        return torch.softmax(rows @ rows.transpose(2, 3) / 8, -1) @ rows


def segmentation() -> cs.Trace:
    """A training step with a class for every pixel."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 10, 1))
    images = torch.rand(2, 3, *TRAINED[2:])
    target = torch.randint(0, 10, (2, *TRAINED[2:]))
    return cs.trace(model, images, target=target, loss=functional.cross_entropy, optimizer="sgd")


TRAINING: dict[str, Callable[[], cs.Trace]] = {
    "train relu": trained(nn.ReLU()),
    "train gelu": trained(nn.GELU()),
    "train batch norm": trained(nn.Sequential(nn.BatchNorm2d(8), nn.ReLU())),
    "train group norm": trained(nn.GroupNorm(2, 8)),
    "train instance norm": trained(nn.InstanceNorm2d(8)),
    "train layer norm": trained(nn.LayerNorm(64), (2, 8, 7000, 64)),
    "train max pool": trained(nn.MaxPool2d(2)),
    "train average pool": trained(nn.AvgPool2d(2)),
    "train bilinear": trained(nn.Upsample(scale_factor=0.5, mode="bilinear")),
    "train bicubic": trained(nn.Upsample(scale_factor=0.5, mode="bicubic")),
    "train transposed": trained(nn.ConvTranspose2d(8, 8, 3, padding=1)),
    "train depthwise": trained(nn.Conv2d(8, 8, 3, padding=1, groups=8)),
    "train dropout": trained(nn.Dropout(0.1)),
    "train softmax": trained(nn.Softmax(1)),
    "train residual": trained(nn.Sequential(*[Residual(8) for _ in range(4)])),
    "train attention": trained(Attention(True), (1, 8, 1400, 64)),
    "train scores": trained(Attention(False), (1, 8, 1400, 64)),
    "train map": segmentation,
}


def traced(name: str) -> cs.Trace:
    torch.manual_seed(0)
    if name in TRAINING:
        return TRAINING[name]()
    call = OPERATIONS[name]
    model = call if isinstance(call, nn.Module) else Calls(call)
    return cs.trace(model.eval(), torch.rand(SIZE))


def largest_step(trace: cs.Trace) -> tuple[int, str]:
    """Bytes of the largest step, and its name."""
    sizes = {
        step.name: sum(
            math.prod(ref.shape) * bytes_of(ref.dtype) for ref in (*step.results, *(r for *_, r in step.refs()))
        )
        for step in trace.all_steps
    }
    name = max(sizes, key=lambda name: sizes[name])
    return sizes[name], name


def bytes_of(dtype: str) -> int:
    return 1 if dtype == "bool" else int("".join(filter(str.isdigit, dtype))) // 8


def status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def measure(name: str) -> None:
    """One case, in this process."""
    cs.verify(cs.trace(nn.Conv2d(1, 1, 3), torch.rand(1, 1, 5, 5)))  # what is loaded once
    trace = traced(name)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before, start = status("VmRSS"), time.perf_counter()
    report = cs.verify(trace)
    seconds, used = time.perf_counter() - start, status("VmHWM") - before
    largest, step = largest_step(trace)
    allowed = 256 * MEGABYTE + 3 * largest
    findings = ", ".join(sorted({step.finding for step in report.steps}))
    print(
        f"- {name}: {used / MEGABYTE:.0f} MB, allowed {allowed / MEGABYTE:.0f} MB, {used / allowed:.2f}"
        f"{' BEYOND' if used > allowed else ''}; largest step {step} {largest / MEGABYTE:.0f} MB; {seconds:.1f} s; "
        f"{findings}",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("cases", nargs="*", help="all of them by default")
    options.add_argument("--one", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        measure(given.one)
        return
    header("Memory of verifying")
    for name in given.cases or [*OPERATIONS, *TRAINING]:
        subprocess.run([sys.executable, __file__, "--one", name], check=False)


if __name__ == "__main__":
    main()
