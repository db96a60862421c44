"""Shift: does the answer stay when the picture moves, turns, grows, gets noisy or is partly covered?

Invariance of the answer is measured here; equivariance of the maps in `motion`; the result has both.
Uses scans, changes and sharing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convscope.cards.card_inference import card_of
from convscope.data.catalog import load_dataset
from convscope.data.dataset import Dataset
from convscope.errors import UnknownName, UsageError
from convscope.probe.support.batching import Classes, classes_of, feeder, first_of, notes_of
from convscope.probe.support.robustness import Shift, Steadiness
from convscope.probe.support.scan import READ, Batch, BatchResult, scan
from convscope.probe.support.shift_cache import PART, ShiftCache, share
from convscope.probe.support.transforms import CHANGES, Level, Motion, levels_of, motions
from convscope.progress import Progress, silent
from convscope.training.outputs import answer, in_eval_mode, scores_of
from convscope.training.runs import Model, as_model
from convscope.type_checks import takes

CHECKED = 1e-4
"""Tolerance between shared layers and the model itself, relative to the largest output."""

AT_ONCE = 250_000
"""Outputs that are counted together, of as many levels as have no more numbers."""


@takes(models="Module | Run | str | Path | Sequence | list | tuple | dict | Mapping", data="Dataset | str")
def shift(
    models: Model | Sequence[Model] | Mapping[str, Model],
    data: str | Dataset,
    *,
    kind: str = "translation",
    levels: Sequence[Level] | None = None,
    reach: int = 10,
    split: str = "test",
    seed: int = 0,
    data_dir: str | Path | None = None,
    folder: str | Path | None = None,
    progress: Progress = silent,
) -> Shift:
    """Change the images of a data set, step by step, and count how models answer.

    >>> result = shift({"mlp": "shapes-mlp", "cnn": "shapes-cnn"}, "shapes", reach=1)
    >>> len(result.levels), result.images, result.models[1].motion[0].border
    (9, 200, 1)

    Args:
        models: A model or several, with names or without: modules, names, run folders.
        data: A data set's name, or labelled images.
        kind: translation, rotation, scale, noise or erase.
        levels: What to measure; by default translations of up to `reach` pixels in each direction, and a fixed row of
            the others.
        reach: The largest translation, in pixels; at most the longer side of an image, beyond which nothing of it is
            left.
        split: The split of a data set given by name.
        seed: The seed of generated data and of the noise.
        data_dir: The folder of the MNIST family's files.
        folder: Where partial results are kept, so that an interrupted scan can go on.
        progress: Receives how many images are done.

    Returns:
        Counts at each level for each model, and how each layer's maps move.

    Raises:
        UnknownName: no such kind, data set or model.
        UsageError: no model, or a level that cannot be meant.
        DataError: a model does not know one of the data's classes.
        ModelError: a model fails on these images.
        ShapeError: a model that does not take these images, answers with something else than one score per class
            (maps, as segmentation does), or has fewer outputs than the data has classes.
    """
    if kind not in CHANGES:
        raise UnknownName("kind of change", kind, CHANGES)
    named = _named(models)
    images = load_dataset(data, split=split, seed=seed, data_dir=data_dir) if isinstance(data, str) else data
    chosen_levels, unmoved = _levels(kind, levels, images, reach)
    nets = list(named.values())
    black = np.zeros((1, *images.shape), images.images.dtype)
    fills = [feeder(images, net)(black)[0, :, :1, :1] for net in nets]  # (C, 1, 1) each
    sharing, moved = _tried(kind, chosen_levels, nets, fills, [first_of(images, net, 32) for net in nets])
    classes = [classes_of(net, images) for net in nets]
    work = partial(
        _work, nets=nets, sharing=sharing, fills=fills, kind=kind, levels=chosen_levels, classes=classes, seed=seed,
        report=lambda batch, share: progress(kind, int(batch.indices[0] + share * len(batch)), len(images)),
    )  # fmt: skip
    settings = {"kind": kind, "levels": [list(level) for level in chosen_levels], "seed": seed}
    counts = scan(images, nets, work, _added, what=kind, settings=settings, folder=folder, progress=progress)
    images_read = int(counts[READ])
    return Shift(
        f"{images.name}:{images.split}", kind, chosen_levels, unmoved, images_read, images.listed - images_read,
        counts["whole"],
        tuple(
            _steadiness(name, net, k, counts, shared=sharing[k] is not None, motion=moved[k])
            for k, (name, net) in enumerate(named.items())
        ),
        notes_of(classes),
    )  # fmt: skip


def _tried(
    kind: str, levels: Sequence[Level], nets: Sequence[nn.Module], fills: Sequence[Tensor], samples: Sequence[Tensor]
) -> tuple[list[ShiftCache | None], list[tuple[Motion, ...]]]:
    """Which models can share layers between translations, and how the maps of each move; tried on a few images."""
    with torch.no_grad(), ExitStack() as stack:
        for net in nets:
            stack.enter_context(in_eval_mode(net))
        for net, x in zip(nets, samples, strict=True):
            answer(net, x[:1].to(_like(net)))
        if kind != "translation":
            return [None] * len(nets), [()] * len(nets)
        sharing = [share(net) for net in nets]
        fits = [_same(s, net, x, levels, fill) for s, net, x, fill in zip(sharing, nets, samples, fills, strict=True)]
        moved = [
            motions(net, x.to(_like(net)), fill.to(_like(net)))
            for net, x, fill in zip(nets, samples, fills, strict=True)
        ]
    return [s if fit else None for s, fit in zip(sharing, fits, strict=True)], moved


def _named(models: Model | Sequence[Model] | Mapping[str, Model]) -> dict[str, nn.Module]:
    """The models, loaded, each with a name of its own."""
    named_models: list[tuple[str | None, Model]]
    if isinstance(models, Mapping):
        named_models = list(models.items())
    elif isinstance(models, Model):
        named_models = [(None, models)]
    else:
        named_models = [(None, model) for model in models]
    if not named_models:
        raise UsageError("there is no model to ask; give one, or several.")
    result: dict[str, nn.Module] = {}
    for name, model in named_models:
        net = as_model(model)
        base, number = name or card_of(net).name, 2
        unique = base
        while unique in result:
            unique, number = f"{base}-{number}", number + 1
        result[unique] = net
    return result


def _levels(kind: str, levels: Sequence[Level] | None, data: Dataset, reach: int) -> tuple[tuple[Level, ...], int]:
    """The levels, the one that changes nothing among them, and its place."""
    height, width = data.shape[1:]
    nothing = tuple(float(part) for part in CHANGES[kind].unmoved)
    edge = max(height, width)
    if reach < 0:
        raise UsageError(f"reach is a number of pixels from 0, not {reach}.")
    farthest = min(reach, edge)  # beyond it nothing of an image is left
    requested = list(() if levels is None else levels) or levels_of(kind, (height, width), farthest)
    if any(np.ndim(level) != 1 or np.asarray(level).dtype.kind not in "biuf" for level in requested):
        raise UsageError(f"a level of {kind} is ({CHANGES[kind].unit}), not {next(iter(requested))!r:.80}.")
    chosen_levels = [tuple(float(v) for v in level) for level in requested]
    for level in chosen_levels:
        is_integer = kind not in {"translation", "erase"} or all(part == int(part) for part in level)
        if len(level) != len(nothing) or not is_integer or (kind == "scale" and level[0] <= 0):
            raise UsageError(f"a level of {kind} is ({CHANGES[kind].unit}), not {level}.")
    if nothing not in chosen_levels:
        chosen_levels.insert(0, nothing)
    return tuple(chosen_levels), chosen_levels.index(nothing)


def _work(
    batch: Batch, *, nets: Sequence[nn.Module], sharing: Sequence[ShiftCache | None], fills: Sequence[Tensor],
    kind: str, levels: Sequence[Level], classes: Sequence[Classes], seed: int, report: Callable[[Batch, float], None],
) -> BatchResult:  # fmt: skip
    """One batch: the answers of every model at every level; `report` is called with the fraction that is done."""
    whole_images = _whole(batch.images, fills[0].to(batch.images), kind, levels)  # (L, n)
    names = ("right", "kept", "right_whole", "kept_whole", "change")
    result: BatchResult = {name: np.zeros((len(nets), len(levels)), np.int64) for name in names[:4]}
    result["change"], result["sums"] = np.zeros((len(nets), len(levels))), np.zeros((len(nets), 3))
    for k, (net, shared, fill) in enumerate(zip(nets, sharing, fills, strict=True)):
        images = batch.images if k == 0 else batch.others[k - 1]
        for start in range(0, len(batch), PART):
            part, labels = images[start : start + PART], batch.labels[start : start + PART]
            still = scores_of(net(part), len(part)).double()
            first = classes[k].decide(still, len(part))
            result["sums"][k] += [still.numel(), float(still.sum()), float(still.square().sum())]
            generator = torch.Generator().manual_seed((seed * 1_000_003 + int(batch.indices[start])) % (1 << 63))
            part_whole = whole_images[:, start : start + PART]
            outputs = _outputs(net, shared, part, kind=kind, levels=levels, fill=fill.to(part), generator=generator)
            span = (k + start / len(batch)) / len(nets), len(part) / len(batch) / len(nets) / len(levels)
            for positions, output in _together(_telling(outputs, partial(report, batch), *span)):
                answers = classes[k].decide(output, len(output)).reshape(-1, len(part))  # (l, n)
                right, same_class, entire = answers == labels, answers == first, part_whole[positions]
                change = (output.double().reshape(len(positions), -1) - still.reshape(1, -1)).abs()
                result["right"][k, positions] += _counted(right)
                result["kept"][k, positions] += _counted(same_class)
                result["right_whole"][k, positions] += _counted(right & entire)
                result["kept_whole"][k, positions] += _counted(same_class & entire)
                result["change"][k, positions] += change.sum(dim=1).cpu().numpy()
    result["whole"] = _counted(whole_images)
    return result


def _counted(flags: Tensor) -> NDArray[np.int64]:
    """How many are set in each row."""
    result: NDArray[np.int64] = flags.sum(dim=1).cpu().numpy()
    return result


def _telling(
    outputs: Iterable[tuple[int, Tensor]], tell: Callable[[float], None], begun: float, each: float
) -> Iterator[tuple[int, Tensor]]:
    """The outputs, one level after the other; tells the fraction that is done, of which a level is `each`."""
    for position, output in outputs:
        yield position, output
        tell(begun + each * (position + 1))


def _together(outputs: Iterable[tuple[int, Tensor]]) -> Iterator[tuple[list[int], Tensor]]:
    """Outputs of several levels as one, as many as fit: the levels' places, and shape (levels * images, K)."""
    positions, parts = list[int](), list[Tensor]()
    for position, output in outputs:
        positions.append(position)
        parts.append(output)
        if (len(parts) + 1) * output.numel() > AT_ONCE:
            yield positions, torch.cat(parts)
            positions, parts = [], []
    if parts:
        yield positions, torch.cat(parts)


def _outputs(
    net: nn.Module, shared: ShiftCache | None, part: Tensor, *, kind: str, levels: Sequence[Level], fill: Tensor,
    generator: torch.Generator,
) -> Iterator[tuple[int, Tensor]]:  # fmt: skip
    """A model's outputs for some images at each level."""
    if shared is not None:
        offsets = [(int(down), int(right)) for down, right in levels]
        for position, output in shared.outputs(part, offsets, fill):
            yield position, scores_of(output, len(part))
        return
    for position, level in enumerate(levels):
        yield position, scores_of(net(CHANGES[kind].apply(part, level, fill, generator)), len(part))


def _whole(images: Tensor, fill: Tensor, kind: str, levels: Sequence[Level]) -> Tensor:
    """Whether only background has left the image at each level, shape (L, n)."""
    if kind != "translation":
        return torch.ones(len(levels), len(images), dtype=torch.bool, device=images.device)
    lit = (images != fill).any(dim=1)  # (n, H, W)
    rows, columns = lit.any(dim=2), lit.any(dim=1)
    size = torch.tensor(lit.shape[1:], device=images.device)
    first = torch.stack([rows.int().argmax(1), columns.int().argmax(1)])  # (2, n)
    last = size[:, None] - 1 - torch.stack([rows.flip(1).int().argmax(1), columns.flip(1).int().argmax(1)])
    empty = ~lit.any(dim=2).any(dim=1)
    moved = torch.tensor(levels, device=images.device)[:, :, None]  # (L, 2, 1)
    inside = (first + moved >= 0) & (last + moved < size[:, None])
    return inside.all(dim=1) | empty


def _same(shared: ShiftCache | None, net: nn.Module, images: Tensor, levels: Sequence[Level], fill: Tensor) -> bool:
    """Whether the shared layers give what the model itself gives, at a few translations of a few images."""
    if shared is None:
        return False
    images, fill = images[:4].to(_like(net)), fill.to(_like(net))
    checked_levels = sorted({0, len(levels) // 3, len(levels) // 2, len(levels) - 1})
    offsets = [(int(down), int(right)) for down, right in levels]
    for position, output in shared.outputs(images, offsets, fill, checked_levels):
        moved = CHANGES["translation"].apply(images, offsets[position], fill, torch.Generator())
        expected = scores_of(net(moved), len(images))
        if float((scores_of(output, len(images)) - expected).abs().max()) > CHECKED * max(
            1e-6, float(expected.abs().max())
        ):
            return False
    return True


def _like(net: nn.Module) -> Tensor:
    return next(net.parameters(), torch.empty(0))


def _added(first: BatchResult, second: BatchResult) -> BatchResult:
    return {name: first[name] + second[name] for name in first}


def _steadiness(
    name: str, net: nn.Module, k: int, counts: BatchResult, *, shared: bool, motion: tuple[Motion, ...]
) -> Steadiness:
    number, total, squares = counts["sums"][k]
    spread = float(np.sqrt(max(squares / number - (total / number) ** 2, 1e-30)))
    return Steadiness(
        name,
        sum(p.numel() for p in net.parameters()),
        counts["right"][k],
        counts["kept"][k],
        counts["right_whole"][k],
        counts["kept_whole"][k],
        counts["change"][k] / number / spread,
        motion,
        shared,
    )
