"""Layers that a model keeps in a plain list or dict, where PyTorch does not see them, are named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import convscope as cs
from convscope.cards.unregistered import unregistered


class Kept(nn.Module):
    """Keeps layers in an attribute."""

    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.kept = kept
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(torch.relu(self.conv(x)).mean((2, 3)))
        return out


@pytest.mark.parametrize(
    "kept",
    [
        [nn.Conv2d(4, 4, 1)],
        (nn.ReLU(), nn.Conv2d(4, 4, 1)),
        {"a": {"b": [nn.Linear(2, 2)]}},
        [nn.Parameter(torch.ones(2))],
    ],
    ids=["list", "tuple", "nested", "parameters"],
)
def test_what_a_container_keeps_is_named(kept: object) -> None:
    assert unregistered(nn.Sequential(Kept(kept))) == ("0.kept",)
    (note,) = cs.card_of(cs.load_model(Kept(kept))).notes[-1:]
    assert "the layers in kept are not part of the model" in note


@pytest.mark.parametrize(
    "kept",
    [
        nn.ModuleList([nn.Conv2d(4, 4, 1)]),
        [nn.ReLU()],
        [nn.Conv2d(4, 4, 1).requires_grad_(False)],
        [3, "text", torch.ones(2)],
        {1: None},
    ],
    ids=["module list", "no parameters", "frozen", "no layers", "none"],
)
def test_nothing_else_is(kept: object) -> None:
    assert unregistered(Kept(kept)) == ()


def test_a_second_reference_to_a_registered_layer_is_none() -> None:
    model = Kept(None)
    model.kept = [model.conv]
    assert unregistered(model) == ()


def test_a_training_says_so(tmp_path: Path) -> None:
    notes = list[str]()
    cs.train(
        "shapes",
        model=Kept([nn.Conv2d(4, 4, 1)]),
        epochs=1,
        out=tmp_path / "run",
        watch=lambda event: notes.extend(event["notes"] if event["event"] == "start" else []),
    )
    assert any("neither trained nor saved" in note for note in notes)
