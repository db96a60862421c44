"""What `lesson_spreads.py` measures: a record for each claim of the tutorials, a function for each kind of question."""

import copy
import importlib.util
import math
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

import convscope as cs
from convscope.data.dataset import shared
from convscope.probe.support.transforms import translated

Watcher = Callable[[Mapping[str, Any]], None]
Row = dict[str, Any]
"""The condition, equal for all seeds, and the values of one seed."""
STEPS_RIGHT = [(0, pixels) for pixels in range(11)]
SIZES = [(1.0,), (0.9,), (0.8,), (0.7,), (0.6,), (0.5,)]
DIGITS = 1000
"""Test images of MNIST that are moved and scaled."""
ACTIVATIONS: Mapping[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}
REACH = 10
"""Pixels by which shapes are moved in each direction."""
DEPTHS = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A question, and how one seed answers it."""

    question: str
    measure: Callable[[int, Path, Watcher], Row]
    """(seed, folder for a run, watcher of its training) -> the row."""
    seeds: range | tuple[int, ...]


def trained(dataset: Any, model: str, seed: int, folder: Path, watch: Watcher, **settings: Any) -> cs.Run:
    """Train, or continue an interrupted training."""
    if (folder / "config.json").exists():
        return cs.train(out=folder, resume=True, watch=watch)
    return cs.train(dataset, model, seed=seed, out=folder, watch=watch, **settings)


def condition(run: cs.Run, **others: Any) -> Row:
    """The settings of a training as plain values."""
    config = run.config
    used = {name: value for name, value in config["dataset"]["options"].items() if name == "sampling"}
    recipe = {name: value for name, value in run.recipe.to_json().items() if name not in {"seed", "log_every"}}
    model = {"model": config["model"]["name"], "arguments": config["model"]["args"]}
    return {"dataset": config["dataset"]["name"], **used, **model, "recipe": recipe, **others}


def scores(run: cs.Run) -> Row:
    """How well it was trained, at the end and on the way."""
    epochs = [event for event in run.history if event["event"] == "epoch"]
    return {
        "parameters": run.parameters,
        "accuracy": run.metrics["accuracy"],
        "test_accuracy": run.metrics["test_accuracy"],
        "least_loss": min(event["loss"] for event in epochs),
        "seconds": run.metrics["seconds"],
    }


def steadiness(model: nn.Module, test: cs.Dataset, **settings: Any) -> Row:
    """What moving the images does to the answers: of those that are still whole, the unmoved ones left out."""
    found = cs.probe.shift(model, test, **settings)
    only = found.models[0]
    return {
        "right_by_level": found.accuracy().tolist(),
        "right_while_whole": found.while_whole(only.right_whole),
        "same_class_while_whole": found.while_whole(only.kept_whole),
        "whole_by_level": (found.whole / found.images).tolist(),
    }


def shapes(seed: int, folder: Path, watch: Watcher, *, model: str, recipe: str) -> Row:
    """A network of tutorial 5: accuracy, loss, test images that also occur in training, moved images."""
    run = trained("shapes", model, seed, folder, watch, recipe=recipe)
    options = run.config["dataset"]["options"]
    train, test = (cs.load_dataset("shapes", split=split, seed=seed, **options) for split in ("train", "test"))
    known = np.isin(np.arange(len(test)), shared(train, test))
    parts = {"seen": known, "unseen": ~known}
    accuracies = {
        f"accuracy_{name}": cs.evaluate(run, test.part(which)).accuracy if which.any() else None
        for name, which in parts.items()
    }
    moved = steadiness(run.model, test, reach=REACH)
    values = {**scores(run), "test_images_in_training": int(known.sum()), **accuracies}
    values |= {name: moved[name] for name in ("right_while_whole", "same_class_while_whole")}
    shutil.rmtree(folder)
    return {"condition": condition(run, test_images=len(test), moved_by_up_to=REACH), "values": values}


def color(seed: int, folder: Path, watch: Watcher) -> Row:
    """The colour network: accuracy, and what its first layer makes of the borders of red squares."""
    run = trained("color-shapes", "color-cnn", seed, folder, watch, recipe="tutorial")
    example = borders_example()
    outline = example.outline(run)
    values = {
        **scores(run),
        "outcome": outline.outcome,
        "red_outline": outline.most("red"),
        "yellow_outline": outline.most("yellow"),
        "accuracy_without_red": outline.accuracy_without_red,
        "red_share": outline.red_share,
        "red_share_at_first": outline.red_share_at_first,
    }
    shutil.rmtree(folder)
    return {"condition": condition(run, test_images=200, visible_from=example.VISIBLE), "values": values}


def borders_example() -> ModuleType:
    """`examples/borders.py`, which says when an outline is drawn."""
    path = Path(__file__).parents[1] / "examples" / "borders.py"
    spec = importlib.util.spec_from_file_location("borders", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def digits(seed: int, folder: Path, watch: Watcher, *, model: str, moved_by: int = 0, **settings: Any) -> Row:
    """A network for MNIST: accuracy, and what moving and scaling the digits does to the answers."""
    test = cs.load_dataset("mnist", split="test")
    data: Any = moved(cs.load_dataset("mnist"), moved_by, seed) if moved_by else "mnist"
    run = trained(data, model, seed, folder, watch, **settings, **({"test": test} if moved_by else {}))
    some = test.part(slice(0, DIGITS))
    right = steadiness(run.model, some, levels=STEPS_RIGHT)
    sizes = steadiness(run.model, some, kind="scale", levels=SIZES)["right_by_level"]
    first: Row = {"test_accuracy_at_first": accuracy_at(run, 0, test)}
    where = condition(run, trained_on_digits_moved_by=moved_by, test_images=len(test), moved_images=DIGITS)
    where |= {"pixels_right": [level[1] for level in STEPS_RIGHT], "sizes": [level[0] for level in SIZES]}
    epochs = [event["test_accuracy"] for event in run.history if event["event"] == "epoch"]
    first["test_accuracy_by_epoch"] = epochs
    values = {**scores(run), **first, **right, "right_by_size": sizes}
    shutil.rmtree(folder)
    return {"condition": where, "values": values}


def moved(data: cs.Dataset, most: int, seed: int) -> cs.Dataset:
    """Each image moved at random by up to `most` pixels down or up, right or left; what leaves the image is lost."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-most, most + 1, (len(data), 2))
    images = torch.from_numpy(data.images.copy())
    black = torch.zeros((1, 1, 1), dtype=torch.uint8)
    for level in {(int(down), int(right)) for down, right in steps}:
        which = torch.from_numpy((steps == level).all(axis=1))
        images[which] = translated(images[which], level, black)
    return cs.Dataset(data.name, images.numpy(), data.labels, data.classes, data.preprocess, data.split)


def accuracy_at(run: cs.Run, step: int, test: cs.Dataset) -> float:
    """The test accuracy of the weights after `step` steps."""
    model = copy.deepcopy(run.model)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in run.weights_at(step).items()})
    return float(cs.evaluate(run.holding(model.eval()), test).accuracy)


def area(seed: int, _folder: Path, _watch: Watcher) -> Row:
    """How far the number of white pixels alone solves the shapes."""
    result = cs.probe.shortcut("shapes", seed=seed)
    best = next(feature for feature in result.features if feature.name == "area")
    values = {"rule": best.rule, "test_accuracy": best.test.share, "of_all_possible_images": best.exact}
    return {"condition": {"dataset": "shapes", "sampling": "split", "test_images": best.test.n}, "values": values}


def overlap(seed: int, _folder: Path, _watch: Watcher) -> Row:
    """Test images that also occur in training when both are drawn independently, as the tutorial does."""
    names, values = ("shapes", "color-shapes"), {}
    for name in names:
        train, test = (
            cs.load_dataset(name, split=split, seed=seed, sampling="published") for split in ("train", "test")
        )
        values[name] = len(shared(train, test))
    return {"condition": {"sampling": "published", "training_images": 1000, "test_images": 200}, "values": values}


def gradients(seed: int, _folder: Path, _watch: Watcher) -> Row:
    """How much of the gradient that arrives at the last hidden layer arrives at the first, before any training."""
    data = cs.load_dataset("shapes", seed=seed).part(slice(0, 16))
    values = {}
    for kind in ("convolution", "linear"):
        for name, activation in ACTIVATIONS.items():
            nets = [stack(kind, activation, depth, seed) for depth in DEPTHS]
            values[f"{kind}, {name}"] = [arriving(net, data, depth) for net, depth in zip(nets, DEPTHS, strict=True)]
    where = {"dataset": "shapes", "images": len(data), "hidden_layers": list(DEPTHS), "loss": "cross-entropy"}
    layers = {"convolution": "8 kernels 3x3, padding 1", "linear": "64 units"}
    return {"condition": {**where, **layers, "weights": "PyTorch's initial weights"}, "values": values}


def stack(kind: str, activation: type[nn.Module], depth: int, seed: int) -> nn.Module:
    """Equal hidden layers, then a linear layer for two classes."""
    torch.manual_seed(seed)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if kind == "linear":
        layers["flatten"] = nn.Flatten()
    for number in range(1, depth + 1):
        if kind == "linear":
            layers[f"layer{number}"] = nn.Linear(784 if number == 1 else 64, 64)
        else:
            layers[f"layer{number}"] = nn.Conv2d(1 if number == 1 else 8, 8, 3, padding=1)
        layers[f"activation{number}"] = activation()
    if kind == "convolution":
        layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(64 if kind == "linear" else 8 * 784, 2)
    return nn.Sequential(layers)


def arriving(model: nn.Module, data: cs.Dataset, depth: int) -> float:
    """Length of the gradient at the first hidden layer's output over that at the last one's."""
    step = cs.trace(model, data.scaled(), target=data.labels, loss="cross-entropy")
    first, last = (step[f"layer{number}.grad"].output.astype(np.float64) for number in (1, depth))
    share = float(np.linalg.norm(first) / np.linalg.norm(last))
    if not math.isfinite(share):
        raise SystemExit("no gradient arrives at the last hidden layer.")
    return share


SHAPES = ("shapes-mlp", "shapes-cnn-1", "shapes-cnn")
TEN, TWENTY, FIVE, THREE = range(10), range(20), range(5), range(3)
PUBLISHED = "As published: how accurate, how low does the loss get, does the answer stay when the shape moves?"
HONEST = "Without the softmax, and tested on images that do not occur in training: the same questions."

MEASUREMENTS: Mapping[str, Measurement] = {
    "overlap": Measurement("How many test images occur in training?", overlap, TWENTY),
    "area": Measurement("How far does area alone solve the shapes?", area, TWENTY),
    "gradients": Measurement("Do shared weights keep the gradient from vanishing?", gradients, TEN),
    **{f"{m}, published": Measurement(PUBLISHED, partial(shapes, model=m, recipe="tutorial"), TEN) for m in SHAPES},
    **{f"{m}, fast": Measurement(HONEST, partial(shapes, model=m, recipe="fast"), TEN) for m in SHAPES},
    "color-cnn, published": Measurement("Do the borders of red squares vanish?", color, TWENTY),
    "simple-cnn, published": Measurement(
        "How accurate is the network of tutorial 4 after one epoch?",
        partial(digits, model="simple-cnn", recipe="tutorial"),
        FIVE,
    ),
    "simple-cnn, moved digits": Measurement(
        "Does training on moved digits make the answer stay?",
        partial(digits, model="simple-cnn", moved_by=4, epochs=1, lr=1e-2),  # as the fast recipe
        FIVE,
    ),
    "mnist-convnet, fast": Measurement(
        "How accurate is the network of tutorial 3 by the fast recipe?", partial(digits, model="mnist-convnet"), FIVE
    ),
    "mlp-512, fast": Measurement("How accurate is an MLP?", partial(digits, model="mlp-512"), THREE),
    "mlp-512 of 17 units, fast": Measurement(
        "How accurate is an MLP with as few parameters as simple-cnn?",
        partial(digits, model="mlp-512", model_args={"hidden": 17}),
        FIVE,
    ),
    "simple-cnn, fast": Measurement(
        "How accurate is simple-cnn by the fast recipe?", partial(digits, model="simple-cnn"), FIVE
    ),
    "mnist-convnet, published": Measurement(
        "How accurate is the network of tutorial 3 as published?",
        partial(digits, model="mnist-convnet", recipe="tutorial"),
        (42, 43, 44),
    ),
}
"""Name -> what is measured, the quickest first."""
