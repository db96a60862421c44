"""Networks of blocks: the templates are the built-in networks, the code is the network, and a run needs no trust."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convscope as cs
from convscope.blocks import TEMPLATES, template
from convscope.errors import RunError, UsageError
from convscope.models.run_config import config_text, read_config

BUILT_IN = [name for name in TEMPLATES if name != "detector"]
NET = [
    {"block": "conv", "kernels": 4, "padding": 1},
    {"block": "batch-norm"},
    {"block": "leaky-relu"},
    {"block": "max-pool"},
    {"block": "flatten"},
    {"block": "dropout", "p": 0.2},
    {"block": "linear"},
]


def of_blocks(name: str) -> tuple[Any, torch.Tensor]:
    """A template's network, and images for it."""
    entry = cs.MODELS[name]
    shape = tuple(length or 28 for length in entry.shape)
    classes = len(cs.DATASETS[entry.data[0]].classes) if entry.data else 10
    args = {"blocks": template(name), "shape": shape, "classes": classes}
    return cs.load_model("blocks", args=args), torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_template_is_the_built_in_network_bit_for_bit(name: str) -> None:
    model, images = of_blocks(name)
    built_in = cs.load_model(name, seed=7)
    model.load_state_dict(dict(zip(model.state_dict(), built_in.state_dict().values(), strict=True)))
    with torch.no_grad():
        assert torch.equal(model(images), built_in(images))
        for network in (model, built_in):
            network.train()
        torch.manual_seed(0)
        ours = model(images)
        torch.manual_seed(0)
        assert torch.equal(ours, built_in(images))  # dropout and batch norm alike


def test_every_built_in_network_is_a_template() -> None:
    assert {*BUILT_IN, "blocks"} == set(cs.MODELS)


@pytest.mark.parametrize("name", [*TEMPLATES, "own"])
def test_the_code_is_the_same_network(name: str, tmp_path: Path) -> None:
    blocks = NET if name == "own" else template(name)
    shape = (1, 3, 3) if name == "crosses" else (1, 28, 28)
    model = cs.load_model("blocks", args={"blocks": blocks, "shape": shape}, seed=3)
    (tmp_path / "net.py").write_text(cs.blocks.code(blocks, shape))
    written = cs.load_model(f"{tmp_path / 'net.py'}:Net")
    for parameter, value in written.state_dict().items():
        if "values" in json.dumps(blocks) and parameter.startswith("conv1"):
            assert torch.equal(value, model.state_dict()[parameter])  # given by hand
    written.load_state_dict(model.state_dict())
    images = torch.rand(2, *shape)
    with torch.no_grad():
        assert torch.equal(written(images), model(images))


def test_numbers_by_hand_may_be_in_one_row() -> None:
    flat: list[Any] = template("detector")
    flat[0]["values"]["weight"] = [number for row in flat[0]["values"]["weight"][0][0] for number in row]
    networks = [cs.load_model("blocks", args={"blocks": blocks}) for blocks in (flat, template("detector"))]
    assert torch.equal(*(network.get_parameter("conv1.weight") for network in networks))
    assert cs.blocks.code(flat) == cs.blocks.code(template("detector"))


def test_the_code_of_a_list_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(UsageError, match="block 1"):
        cs.blocks.code([{"block": "linear"}])


def test_a_detector_written_by_hand_finds_a_plus_sign_and_nothing_else() -> None:
    image = np.zeros((1, 9, 9), np.float32)
    image[0, 1, 1:4] = image[0, 0:3, 2] = 1  # a plus sign around (1, 2)
    image[0, 5:8, 5:8] = 1  # a square
    model = cs.load_model("blocks", args={"blocks": template("detector"), "shape": (1, 9, 9)})
    trace = cs.trace(model, image)
    assert np.argwhere(trace["relu1"].output[0, 0]).tolist() == [[0, 1]]
    why = cs.explain(trace, "conv1", (0, 0, 1))
    assert why.proved
    assert why.value == 1
    assert "5" in str(why)


def test_a_run_of_blocks_needs_no_trust_and_does_all_that_a_run_does(tmp_path: Path) -> None:
    (tmp_path / "net.json").write_text(json.dumps(NET))
    run = cs.train("shapes", tmp_path / "net.json", epochs=1, out=tmp_path / "run", data_options={"size": 100})
    assert run.config["model"] == {
        "name": "blocks", "source": "blocks", "args": {"classes": 2, "blocks": NET}, "class": "Blocks",
    }  # fmt: skip
    model: Any = cs.load_model(tmp_path / "run")
    assert all(map(torch.equal, model.parameters(), run.model.parameters()))
    assert 0 <= cs.evaluate(run).accuracy <= 1
    assert cs.verify(cs.trace(model, cs.load_image("shapes:test/3", like=model))).proved
    assert cs.train("shapes", tmp_path / "net.json", out=tmp_path / "run", resume=True).finished
    with pytest.raises(UsageError, match="was started with blocks"):
        cs.train(model="blocks", model_args={"blocks": NET[1:]}, out=tmp_path / "run", resume=True)
    assert cs.train("shapes", str(tmp_path / "net.json"), out=tmp_path / "run", resume=True).metrics == run.metrics


def test_numbers_by_hand_are_where_a_training_starts(tmp_path: Path) -> None:
    # no shape has a plus sign, so behind ReLU the detector would be 0 everywhere, and so its gradient
    blocks = [template("detector")[0], {"block": "tanh"}, {"block": "flatten"}, {"block": "linear"}]
    run = cs.train(
        "shapes", "blocks", model_args={"blocks": blocks}, epochs=1, out=tmp_path / "run", data_options={"size": 60}
    )
    first, last = run.weights_at(0)["conv1.weight"], run.weights_at(run.steps[-1])["conv1.weight"]
    assert np.array_equal(first, np.array(blocks[0]["values"]["weight"], np.float32))
    assert not np.array_equal(first, last)


@pytest.mark.parametrize(
    "args",
    [
        {"blocks": [{"block": "conv", "kernels": 10**9}]},
        {"blocks": [{"block": "linear"}]},
        {"blocks": "conv"},
        {"blocks": [["conv"]], "shape": [1, 28, 28]},
        {"shape": [1, 10**6, 10**6]},
        {"shape": "1x28x28"},
        {"classes": 10**9},
        {"classes": "2"},
        {"layers": []},
    ],
)
def test_a_hostile_run_is_refused_in_one_sentence(args: dict[str, Any], tmp_path: Path) -> None:
    run = cs.train("shapes", "shapes-mlp", epochs=1, out=tmp_path / "run", data_options={"size": 20})
    config = read_config(run.path)
    config["model"] = {"name": "blocks", "source": "blocks", "args": args}
    (run.path / "config.json").write_text(config_text(config))
    with pytest.raises((RunError, UsageError), match=r"^[^\n]{10,500}$") as refused:
        cs.load_model(run.path)
    assert "does not describe a blocks" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "net.json is not JSON: "),
        ("[" * 100_000, "net.json is not JSON: its brackets are nested too deeply."),
        ("3", "net.json does not describe a network; write a list such as"),
        ('{"blocks": 3}', "net.json does not describe a network; write a list such as"),
        ('{"blocks": [], "colour": 3}', "no part of "),
        ("[]", "the network has no blocks yet; add one."),
        ('[{"block": "linear"}]', "block 1 (fc1): a linear layer takes a list of numbers, but gets 1x28x28 maps;"),
        (" " * 4_000_001, "net.json cannot be read: it has 4,000,001 bytes, and at most 4,000,000 are read"),
    ],
)
def test_a_file_of_blocks_that_cannot_be_used_gets_a_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "net.json").write_text(text)
    with pytest.raises(UsageError, match=r"^[^\n]+$") as refused:
        cs.load_model(tmp_path / "net.json")
    assert sentence in str(refused.value)


def test_a_file_of_blocks_says_its_images(tmp_path: Path) -> None:
    file = tmp_path / "net.json"
    file.write_text(json.dumps({"blocks": template("shapes-cnn"), "shape": [3, 20, 30], "classes": 4}))
    model = cs.load_model(file)
    assert (cs.card_of(model).preprocess.size, cs.card_of(model).preprocess.channels) == ((20, 30), 3)
    assert cs.summary(model).layers[-1].shape == (1, 4)
    five: Any = cs.load_model(str(file), args={"classes": 5})
    assert five.fc1.out_features == 5
