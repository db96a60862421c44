"""The command line on training steps: a batch with its labels, a run with its own loss, optimizer and state."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import convscope as cs
from commands import Commands


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> cs.Run:
    return cs.train("shapes", "shapes-cnn", epochs=1, seed=0, out=tmp_path_factory.mktemp("runs") / "shapes-cnn")


def test_a_gradient_of_a_batch_of_a_run(convscope: Commands, run: cs.Run) -> None:
    said = convscope("explain", str(run.path), "shapes:train/0-7", "--at", "conv1.weight.grad:3,0,1,1")
    assert said.out.startswith("one step of Adam (learning rate ")
    assert "on cross-entropy, in training mode" in said.out
    assert "the input under this kernel cell × the gradient of the output there" in said.out
    assert "✓ proved" in said.out


def test_an_update_continues_from_the_state_of_the_newest_snapshot(convscope: Commands, run: cs.Run) -> None:
    answer = json.loads(
        convscope("explain", str(run.path), "shapes:train/0-7", "--at", "fc.bias.updated:1", "--json").out
    )
    batch = cs.prepare_batch("shapes:train/0-7", run.model)
    model = cs.load_model(run.path).train()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    saved = torch.load(max((run.path / "snapshots").glob("[0-9]*")) / "optimizer.pt", weights_only=True)
    optimizer.load_state_dict(saved["optimizer"])
    for parameter, state in optimizer.state.items():  # trained with channels last, which a fused step takes for granted
        state.update({k: torch.empty_like(parameter).copy_(v) for k, v in state.items() if v.shape == parameter.shape})
    output = model(torch.tensor(np.stack([image.array for image in batch])))
    torch.nn.functional.cross_entropy(output, torch.tensor([image.label for image in batch])).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert answer["recorded"] == pytest.approx(float(dict(model.named_parameters())["fc.bias"].detach()[1]), rel=1e-7)
    assert answer["training"].startswith("one step of Adam")
    assert answer["proved"]


def test_verify_reports_finite_differences_and_the_chain(convscope: Commands, run: cs.Run) -> None:
    said = convscope("verify", str(run.path), "shapes:train/0-7", "--cells", "20").out
    assert "finite difference: " in said
    assert "product of the chain in float64: 7 gradients" in said
    assert said.strip().splitlines()[-1].startswith("✓ ")


def test_a_picture_needs_a_label(convscope: Commands, tmp_path: Path) -> None:
    np.save(tmp_path / "seven.npy", np.zeros((1, 28, 28), np.float32))
    picture = str(tmp_path / "seven.npy")
    refused = convscope("explain", "simple-cnn", picture, "--at", "fc1.bias.grad:3")
    assert refused.status == 2
    assert "--target 3" in refused.err
    shown = convscope("explain", "simple-cnn", picture, "--at", "fc1.bias.grad:3", "--target", "7").out
    assert "loss and gradients of cross-entropy, in evaluation mode" in shown


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("shapes:train/3-1", "goes from 3 to 1"),
        ("shapes:test/190-250", "has images 0 to 199"),
        ("shapes:middle/0-3", "a batch is written DATASET:SPLIT/FIRST-LAST"),
    ],
)
def test_a_batch_that_does_not_exist(convscope: Commands, image: str, message: str) -> None:
    assert message in convscope("explain", "shapes-cnn", image, "--at", "loss").err
