"""Training steps and backward passes over HTTP: what the server says is what the library records and proves."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from asking import Page, opened, page_of
from convscope.server.session.workspace import Workspace

FORWARD = {"input": {"kind": "sample", "source": "shapes", "split": "test", "index": 3}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> cs.Run:
    return cs.train("shapes", model="simple-cnn", epochs=2, seed=0, out=tmp_path_factory.mktemp("runs") / "relu")


@pytest.fixture(scope="module")
def page(run: cs.Run) -> Iterator[Page]:
    with opened(Workspace.of_folder(run.path.parent)) as result:
        yield result


def test_a_step_of_a_run_is_described_as_it_was_recorded(page: Page, run: cs.Run) -> None:
    info = page.post("training-steps", model="relu", step=3)
    trace = cs.trace(run, at_step=3)
    effect, losses = cs.step_effect(trace), cs.image_losses(trace)
    assert losses is not None
    assert (info["step"], info["optimizer"], info["mode"]) == (3, "Adam", "training")
    assert (info["before"], info["after"]) == (effect.before, effect.after)
    assert info["count"] == len(losses)
    assert [image["loss"] for image in info["images"]] == sorted(losses.tolist(), reverse=True)[:64]
    labels = trace.inputs["target"]
    classes = trace.card.classes
    assert all(image["label"] == classes[labels[image["index"]]] for image in info["images"])
    assert [update["name"] for update in info["updates"]] == ["conv1.weight", "fc1.weight", "conv1.bias", "fc1.bias"]
    identity = info["trace"]["id"]
    for update in info["updates"]:
        shape = tuple(update["shape"])
        gradient = page.raw(f"traces/{identity}/steps/{update['gradient']}/output").reshape(shape)
        np.testing.assert_array_equal(gradient, trace[f"{update['name']}.grad"].output.reshape(shape))
        after = page.raw(f"traces/{identity}/steps/{update['updated']}/output").reshape(shape)
        np.testing.assert_array_equal(after, trace[f"{update['name']}.updated"].output)
        along = page.raw(f"training-steps/{identity}/directions/{update['name']}")
        before = page.raw(f"traces/{identity}/parameters/{update['name']}")
        np.testing.assert_allclose(before - update["rate"] * along, after, atol=1e-7)
        assert not update["plain"]
    assert page.post("training-steps", model="relu", step=3)["trace"]["id"] == identity
    assert page.post("training-steps", model="relu", step=4)["trace"]["id"] != identity


def test_a_gradient_and_an_update_are_explained_and_proved(page: Page, run: cs.Run) -> None:
    info = page.post("training-steps", model="relu", step=2)
    trace = cs.trace(run, at_step=2)
    identity, update = info["trace"]["id"], info["updates"][0]
    for step, name in ((update["gradient"], "conv1.weight.grad"), (update["updated"], "conv1.weight.updated")):
        answer = page.get(f"traces/{identity}/steps/{step}/explain", cell="3,0,1,1")
        why = cs.explain(trace, name, (3, 0, 1, 1))
        assert answer["of"] == {"trace": identity, "step": step, "cell": [3, 0, 1, 1]}
        assert answer["explanation"]["recorded"] == why.recorded
        assert answer["proof"]["proved"]
        assert answer["code"] is None  # a trace of one forward pass does not have this number


def test_another_learning_rate_is_recomputed(page: Page, run: cs.Run) -> None:
    identity = page.post("training-steps", model="relu", step=5)["trace"]["id"]
    trace = cs.trace(run, at_step=5)
    for times in (0.1, 10, 1000):
        effect = page.get(f"training-steps/{identity}/effect", times=times)
        assert effect["after"] == cs.step_effect(trace, times).after
    page.get(f"training-steps/{identity}/effect", 422, times=-1)
    message = page.get(f"training-steps/{identity}/directions/conv9", 400)
    assert "no update of 'conv9'; updated parameters: conv1.weight" in message


def test_what_cannot_be_repeated_gets_a_sentence(page: Page, run: cs.Run) -> None:
    total = run.steps[-1]
    assert f"has steps 1 to {total}, not {total + 1}" in page.post("training-steps", 400, model="relu", step=total + 1)
    assert "unknown model" in page.post("training-steps", 404, model="other", step=1)
    page.post("training-steps", 422, model="relu", step=0)
    forward = page.trace(FORWARD["input"])["id"]
    assert "not a training step" in page.get(f"training-steps/{forward}/effect", 404)
    with opened(Workspace.of_model(cs.load_model("shapes-cnn"))) as other:
        message = other.post("training-steps", 422, model=other.models[0], step=1)
        assert "was not loaded from a run" in message


def test_a_backward_pass_has_a_gradient_in_the_place_of_each_step(page: Page, run: cs.Run) -> None:
    info = page.post("gradients", forward={"model": "relu", **FORWARD})
    forward = page.trace(FORWARD["input"])
    names = [step["name"] for step in info["trace"]["steps"]]
    assert names == ["input.grad", *(f"{step['name']}.grad" for step in forward["steps"])]
    data = cs.load_dataset("shapes", split="test")
    label = int(data.labels[3])
    trace = cs.trace(run.model, cs.load_image("shapes:test/3", like=run.model), target=[label])
    assert (info["of"], info["index"], info["label"]) == ("loss", label, data.classes[label])
    assert info["value"] == float(trace["loss"].output)
    identity = info["trace"]["id"]
    for step in info["trace"]["steps"]:
        np.testing.assert_array_equal(
            page.raw(f"traces/{identity}/steps/{step['id']}/output").ravel(), trace[step["name"]].output.ravel()
        )
    conv = next(step for step in info["trace"]["steps"] if step["name"] == "conv1.grad")
    assert info["blocked"] == [conv["id"]]
    mask = page.raw(f"gradients/{identity}/steps/{conv['id']}/blocked", channel=2)
    np.testing.assert_array_equal(mask > 0, trace["conv1"].output[0, 2] <= 0)
    header, body = page.pack(f"traces/{identity}/thumbnails", steps=str(conv["id"]), channels=4)
    (item,) = header["items"]
    assert item["blocked"]
    bytes_ = np.frombuffer(body, np.uint8).reshape(item["shape"])
    np.testing.assert_array_equal(bytes_[2] == 0, trace["conv1"].output[0, 2] <= 0)
    last = info["trace"]["steps"][-1]["id"]
    assert "no activation blocks" in page.get(f"gradients/{identity}/steps/{last}/blocked", 404)
    products = trace["conv1"].output[0].astype(np.float64) * trace["conv1.grad"].output[0]
    contributed = page.raw(f"gradients/{identity}/steps/{conv['id']}/channels")
    np.testing.assert_allclose(contributed, products.sum((1, 2)), rtol=1e-6)
    image = info["trace"]["steps"][0]["id"]
    assert "a forward pass, which has no gradients" in page.get(f"gradients/{forward['id']}/steps/0/channels", 404)
    assert "input.grad is not the gradient of a step" in page.get(f"gradients/{identity}/steps/{image}/channels", 404)
    assert "has channels 0 to 7" in page.get(f"gradients/{identity}/steps/{conv['id']}/blocked", 404, channel=9)


def test_the_score_of_a_class_and_edited_weights_are_differentiated(page: Page, run: cs.Run) -> None:
    edit = {"parameter": "fc1.bias", "cell": [1], "values": [5.0]}
    info = page.post("gradients", forward={"model": "relu", **FORWARD, "edits": [edit]}, of="class", index=1)
    bias = run.model.fc1.bias.detach().numpy().copy()  # type: ignore[operator, union-attr]
    bias[1] = 5.0
    image = cs.load_image("shapes:test/3", like=run.model)
    scores = cs.trace(run.model, image, overrides={"fc1.bias": bias}).output
    assert info["value"] == float(scores[0, 1])
    ends = info["trace"]["steps"][-1]["id"]
    assert page.raw(f"traces/{info['trace']['id']}/steps/{ends}/output").tolist() == [0.0, 1.0]
    message = page.post("gradients", 400, forward={"model": "relu", **FORWARD}, index=9)
    assert "label 9 is not one of the model's 2 classes" in message
    message = page.post("gradients", 400, forward={"model": "relu", **FORWARD}, of="class", index=9)
    assert "the model answers with the classes 0 to 1; there is no class 9" in message


def test_a_label_that_the_model_does_not_have_is_not_taken(tmp_path: Path) -> None:
    model = cs.load_model("simple-cnn", args={"classes": 2})
    with opened(Workspace.of_model(model)) as page:
        forward = {"input": {"kind": "sample", "source": "mnist", "split": "test", "index": 0}}
        info = page.post("gradients", forward={"model": page.models[0], **forward})
        assert info["index"] in {0, 1}


class Residual(nn.Module):
    """Two layers and a way around the second: the sum passes its gradient on to both."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 3, padding=1), nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = self.second(x) + x
        result: Tensor = self.last(x.flatten(1))
        return result


def test_steps_that_share_a_gradient_are_one_and_it_belongs_to_the_sum() -> None:
    model, image = Residual().eval(), np.random.default_rng(0).random((1, 6, 6)).astype(np.float32)
    gallery = Workspace.of_model(model, image)
    with opened(gallery) as residual:
        shown = residual.get("session")["models"][0]
        forward = {"model": shown["id"], "input": shown["start"]}
        info = residual.post("gradients", forward=forward, of="class", index=2)["trace"]
        by_name = {step["name"]: step for step in info["steps"]}
        assert len({step["id"] for step in info["steps"]}) == len(info["steps"])
        shared = by_name["add.grad"]
        assert shared["inputs"] == [by_name["relu.grad#sum"]["id"]]
        assert "second" in shared["says"]
        channels = residual.raw(f"gradients/{info['id']}/steps/{shared['id']}/channels")
    trace = cs.trace(model, image)
    slopes = model.last.weight.detach().numpy()[2].reshape(3, 4, 4)
    np.testing.assert_allclose(channels, (trace["add"].output[0] * slopes).sum((1, 2)), rtol=1e-5)


@pytest.mark.parametrize("of", ["loss", "class"])
def test_a_network_of_one_number_is_differentiated(of: str) -> None:
    """Its loss compares the number with the class number; every class has the number as its score."""
    with page_of(cs.load_model("crosses", seed=1), "crosses:damaged-plus") as crosses:
        shown = crosses.get("session")["models"][0]
        forward = {"model": shown["id"], "input": shown["start"]}
        answer = crosses.post("traces", **forward)["answers"][0]
        info = crosses.post("gradients", forward=forward, of=of, index=answer["index"])
    expected = (answer["value"] - answer["index"]) ** 2 if of == "loss" else answer["value"]
    assert info["value"] == pytest.approx(expected, rel=1e-5)
