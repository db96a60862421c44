"""The last batch of an epoch, where a single image would be left for batch norm."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from convscope.training.batches import batch_count, batch_parts

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 16, 16), np.uint8)
LABELS = np.arange(40) % 2


def net(*, norm: bool = True) -> nn.Module:
    torch.manual_seed(0)
    last = nn.BatchNorm1d(8) if norm else nn.Identity()
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last, nn.Linear(8, 2))


def trained(out: Path, count: int = 33, *, norm: bool = True, **more: Any) -> cs.Run:
    settings = {"epochs": 2, "batch_size": 32, "schedule": "constant", **more}
    return cs.train((IMAGES[:count], LABELS[:count]), net(norm=norm), out=out, **settings)


@pytest.mark.parametrize(("count", "steps"), [(33, 1), (34, 2), (32, 1), (31, 1)])
def test_a_last_image_joins_the_batch_before_it(tmp_path: Path, count: int, steps: int) -> None:
    run = trained(tmp_path / "run", count)
    assert run.config["recipe"]["join_last"] == (count == 33)
    assert any("its images are added to the batch before it" in note for note in run.config["notes"]) == (count == 33)
    assert [event["step"] for event in run.history if event["event"] == "epoch"] == [steps, 2 * steps]
    assert run.finished


def test_without_batch_norm_batches_are_as_they_were(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", norm=False)
    assert run.config["recipe"]["join_last"] is False
    assert not any("are added to the batch" in note for note in run.config["notes"])


def test_a_training_that_goes_on_has_the_same_batches_and_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    trained(tmp_path / "parts", epochs=1)
    parts = trained(tmp_path / "parts", epochs=2, resume=True, batch_size=None, schedule=None)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name]), name


def test_a_run_that_was_begun_otherwise_goes_on_as_it_was(tmp_path: Path) -> None:
    """A run from before, whose config.json does not say it: a network whose batch norm takes a single image."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 14 * 14, 2))
    recipe = cs.train((IMAGES[:33], LABELS[:33]), model, out=tmp_path / "new", batch_size=32, epochs=1).recipe
    assert recipe.join_last
    values = recipe.to_json()
    values.pop("join_last")
    assert type(recipe)(**values).join_last is False


def test_all_images_are_in_one_batch_each() -> None:
    for count in range(1, 40):
        for size in range(1, 12):
            for join in (False, True):
                parts = batch_parts(torch.arange(count), size, join_last=join)
                assert len(parts) == batch_count(count, size, join_last=join)
                assert torch.equal(torch.cat(parts), torch.arange(count))
                assert not (join and count >= size) or min(map(len, parts)) >= size
