"""A call of every public function that gives a result, from which `test_fuzz_python` makes others."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

import convscope as cs

Call = tuple[tuple[Any, ...], Mapping[str, Any]]


def call(*args: Any, **named: Any) -> Call:
    """Arguments as they are written."""
    return args, named


def sound_calls(
    net: nn.Module, image: Any, *, trace: cs.Trace, step: cs.Trace, data: cs.Dataset, run: cs.Run
) -> dict[str, Call]:
    """Name of a function, or of a method with arguments -> a call of it.

    Args:
        net: Takes `image`, a picture of shape (1, 8, 8), and has two classes.
        trace: Of them.
        step: A training step of it, with an update.
        data: Small, of pictures that the run's network does not take.
        run: Of crosses.
    """
    why = cs.explain(trace, "3", (1,))
    x, y, kernel = np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    rows, weight, bias = np.ones((2, 3)), np.ones((4, 3)), np.ones(4)
    layers = [cs.reference.Layer("flatten"), cs.reference.Layer("linear", "fc")]
    params = {"fc.weight": np.ones((2, 16)), "fc.bias": np.zeros(2)}
    stop = cs.lessons.ShownStop(net, image, "", "", "")
    blocks = cs.blocks.template("shapes-cnn")
    small = _pictures(data)
    explained = {
        "follow": call(why.parts()[0]), "parts": call(all=True), "to_json": call(depth=1), "to_paths": call(),
        "to_text": call(depth=2), "to_walk": call([("1", (0, 1, 1)), ("0", (0, 1, 1))]), "walk": call(depth=2),
    }  # fmt: skip
    recorded = {
        "load": call("t.safetensors"), "operand": call("0", "input"), "operands": call("0"),
        "origin": call("3", "mat1", (0, 1)), "parameters_of": call(trace.steps[0]), "save": call("other.safetensors"),
    }  # fmt: skip
    return {
        "Card": call("mine", classes=("a", "b")), "Card.from_json": call(cs.card_of(net).to_json()),
        "Dataset": call("mine", np.zeros((2, 1, 3, 3), np.uint8), np.array([0, 1]), ("a", "b")),
        "Preprocess": call(size=(8, 8), channels=1), "Preprocess.from_json": call({"size": [8, 8], "channels": 1}),
        "Trace.load": call("t.safetensors"),
        "block.changed": call(kernels=3), "blocks.code": call(blocks, (1, 28, 28), 2),
        "blocks.plan": call(blocks, (1, 28, 28), 2), "blocks.read": call("net.json"),
        "blocks.read_block": call(blocks[0]), "blocks.template": call("crosses"),
        "card.from_json": call(cs.card_of(net).to_json()), "card_of": call(net),
        "check": call(cs.reference.relu, "relu", layout="nchw", seconds=5),
        "dataset.first": call(2), "dataset.image": call(1), "dataset.index": call(1), "dataset.part": call([0, 2]),
        "dataset.picture": call(1), "dataset.readable": call(slice(0, 2)), "dataset.scaled": call([1]),
        "difference": call(trace, trace), "difference.cells": call("0"), "evaluate": call(run, "crosses", split="test"),
        "explain": call(trace, "0", (0, 1, 1), output=0),
        **{f"explanation.{name}": each for name, each in explained.items()},
        **{f"gradient.{name}": each for name, each in explained.items()},
        "filters.apply_filter": call(image, "blur", mode="same"), "filters.edge_response": call("sobel-x"),
        "filters.parse_kernel": call("1 0; 0 1"), "filters.parse_numbers": call("1 2; 3 4", "picture"),
        "lesson": call("crosses", {}, short=True), "lessons.check_stop": call(stop),
        "lessons.find_lesson": call("crosses"), "lessons.is_file_name": call("mine.md"), "lessons.model_of": call(stop),
        "lessons.parse": call("---\ntitle: T\nminutes: 5\nneeds: nothing\n---\n\nText.\n", "mine"),
        "lessons.with_runs_in": call("convscope open runs/mine"), "lessons.write_notebook": call("books", "crosses"),
        "load_dataset": call("shapes", split="test", size=20), "load_image": call("a.png", net),
        "load_model": call("net.json", args={"classes": 2}), "load_run": call("run"),
        "plot.attribution": call(cs.probe.attribution(net, image)),
        "plot.compare": call(cs.probe.compare([net, net], small)),
        "plot.confusion": call([[1, 2], [3, 4]], ["a", "b"]), "plot.connections": call(5, 3),
        "plot.contributions": call(why.to_input()), "plot.dead": call(cs.probe.dead(net, small)),
        "plot.explanation": call(why, depth=2), "plot.filtered": call(image, cs.filters.FILTERS["blur"], image),
        "plot.gradients": call(cs.probe.gradients(net, small, images=8, batch=4, points=2)),
        "plot.history": call(run), "plot.kernels": call(net, "0"), "plot.lint": call(cs.probe.lint(net, small)),
        "plot.maps": call(trace, steps=["0"]),
        "plot.maps_by_class": call(cs.trace(net, small.scaled([0, 1])), "0", small, [0, 1]),
        "plot.network": call(trace, depth=1), "plot.patches": call(cs.probe.patches(net, small, "0", count=2)),
        "plot.pixels": call(image, crop=(0, 0, 3, 3)), "plot.planes": call(np.zeros((3, 4, 4), np.float32)),
        "plot.receptive_field": call(cs.probe.receptive_field(trace, "0", (0, 1, 1))),
        "plot.samples": call(data, per_class=2),
        "plot.shift": call(cs.probe.shift("run", "crosses", reach=1)), "plot.shortcut": call(cs.probe.shortcut(data)),
        "plot.spread": call(data, 2), "plot.training_step": call(step, "0.weight"),
        "predict": call(run, "crosses:plus"), "prepare": call(image, net), "prepare_inputs": call(image, net),
        "probe.attribution": call(net, image, 0), "probe.compare": call([net, net], small, shown=2),
        "probe.dead": call(net, small, ["1"]), "probe.gradients": call(run, "crosses", images=4, points=2),
        "probe.lint": call(net, small, images=8), "probe.patches": call(net, small, "0", count=2),
        "probe.receptive_field": call(trace, "0", (0, 1, 1)), "probe.receptive_fields": call(trace),
        "probe.shift": call("run", "crosses", reach=1, split="test"), "probe.shortcut": call(data),
        "random_image": call(net, seed=1), "random_inputs": call(net, seed=1), "read_image": call("a.png"),
        "reference.adadelta": call(rows, rows, {}, lr=0.1), "reference.adam": call(rows, rows, {}, lr=0.1),
        "reference.sgd": call(rows, rows, {}, lr=0.1, momentum=0.5),
        "reference.avg_pool2d": call(x, 2, 1), "reference.avg_pool2d_backward": call(y, x, (2, 2), 1),
        "reference.max_pool2d": call(x, 2, 1), "reference.max_pool2d_backward": call(y, x, (2, 2), 1),
        "reference.backward": call(layers, params, cs.reference.forward(layers, params, x), np.ones((1, 2))),
        "reference.forward": call(layers, params, x),
        "reference.step": call(layers, params, {}, x, np.array([1]), loss="cross_entropy", optimizer="sgd", lr=0.1),
        "reference.conv2d": call(x, kernel, None, stride=1), "reference.conv2d_backward": call(y, x, kernel),
        "reference.cross_entropy": call(rows, [0, 1]), "reference.cross_entropy_backward": call(rows, np.array([0, 1])),
        "reference.linear": call(rows, weight, bias), "reference.linear_backward": call(np.ones((2, 4)), rows, weight),
        "reference.lookup": call("relu"), "reference.mse": call(rows, rows), "reference.mse_backward": call(rows, rows),
        "reference.relu": call(rows), "reference.relu_backward": call(rows, rows), "reference.softmax": call(rows, 1),
        "reference.softmax_backward": call(rows, rows, 1), "reference.tanh": call(rows),
        "reference.tanh_backward": call(rows, rows),
        "report": call(net, image, out="o.html"), "run.holding": call(run.model),
        "run.report": call("crosses:plus", out="o.html"),
        "run.described": call("mine"),
        "run.weights_at": call(0), "step_effect": call(step, 0.5), "summary": call(net, (1, 8, 8)),
        "summary.to_text": call(short=True),
        "trace": call(net, np.stack([image, image]), target=[0, 1], loss="cross-entropy", optimizer="sgd", lr=0.1),
        **{f"trace.{name}": each for name, each in recorded.items()},
        **{f"updated.{name}": each for name, each in recorded.items()},
        "train": call("crosses", "crosses", epochs=1, batch_size=2, optimizer="adam", lr=0.1),
        "verify": call(trace, cells=5, seed=1), "widget": call(net, image), "workbook": call(net, image, out="o.xlsx"),
    }  # fmt: skip


def _pictures(data: cs.Dataset) -> cs.Dataset:
    """Pictures of 8x8 with two classes."""
    return cs.Dataset("mine", np.ascontiguousarray(data.images[:8, :, 8:16, 8:16]), data.labels[:8], data.classes)
