"""Inputs that are not one picture: several, volumes, integers, arrays of files; in Python and in commands."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import convscope as cs
from asking import opened
from commands import Commands
from convscope.errors import ImageError, ShapeError, UsageError
from convscope.inputs.arrays import taken
from convscope.server.session.workspace import Workspace

NETS = """
import torch
from torch import nn


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, left, right):
        return self.head((self.conv(left) - self.conv(right)).mean((2, 3)))


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(10, 2)

    def forward(self, image, facts):
        return self.head(torch.cat([self.conv(image).mean((2, 3)), facts], 1))


class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(2, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3, 4)))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.table(x).mean(1))
"""
namespace: dict[str, Any] = {}
exec(NETS, namespace)
Pair, Mixed, Volume, Words = (namespace[name] for name in ("Pair", "Mixed", "Volume", "Words"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "nets.py").write_text(NETS)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(folder / "a.png")
    Image.fromarray(rng.integers(0, 256, (9, 8, 4), dtype=np.uint8)).save(folder / "rgba.png")
    arrays: dict[str, Any] = {
        "b": rng.random((3, 9, 8), np.float32),
        "bytes": rng.integers(0, 256, (3, 9, 8), dtype=np.uint8),
        "volume": rng.random((2, 5, 6, 7)),
        "batch": rng.random((1, 2, 5, 6, 7), np.float32),
        "words": np.array([[1, 2, 3]]),
        "facts": rng.random((1, 6), np.float32),
        "bands": rng.random((5, 8, 9), np.float32),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "objects.npy", np.array([{}]), allow_pickle=True)
    (folder / "damaged.npy").write_bytes(b"\x93NUMPY....")
    return folder


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        (["Pair", "--input", "left=a.png", "--input", "right=b.npy"], [1, 4, 7, 6]),
        (["Pair", "--input", "left=bytes.npy", "--input", "right=a.png"], [1, 4, 7, 6]),
        (["Mixed", "--input", "image=a.png", "--input", "facts=facts.npy"], [1, 4, 7, 6]),
        (["Volume", "volume.npy"], [1, 4, 3, 4, 5]),
        (["Volume", "batch.npy"], [1, 4, 3, 4, 5]),
        (["Volume", "batch.npy", "--batched"], [1, 4, 3, 4, 5]),
        (["Words", "words.npy"], [1, 3, 4]),
    ],
    ids=str,
)
def test_commands_take_every_kind_of_input(
    convscope: Commands, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], shape: list[int]
) -> None:
    monkeypatch.chdir(folder)
    model, *inputs = arguments
    steps = json.loads(convscope.said("trace", f"nets.py:{model}", *inputs, "--json"))["steps"]
    assert steps[0]["shape"] == shape
    assert "100 % proved" in convscope.said("verify", f"nets.py:{model}", *inputs)
    at = f"{steps[0]['name']}:{','.join('0' for _ in shape[1:])}"
    assert "proved" in convscope.said("explain", f"nets.py:{model}", *inputs, "--at", at)
    for command in (["maps"], ["network"], ["number", "--at", at]):
        convscope.said("plot", command[0], f"nets.py:{model}", *inputs, *command[1:], "--out", f"{command[0]}.png")


def test_inputs_by_name_are_those_of_python(convscope: Commands, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    arguments = ("nets.py:Pair", "--input", "left=a.png", "--input", "right=b.npy", "--at", "head:1", "--json")
    warned = json.loads(convscope.said("explain", *arguments))
    model = cs.load_model("nets.py:Pair")
    left, right = cs.load_image("a.png", like=model), np.load("b.npy")
    by_name = cs.trace(model, {"left": left[None], "right": right[None]})
    assert warned["recorded"] == float(by_name["head"].output[0, 1])
    swapped = cs.trace(model, {"left": right, "right": left})
    assert float(swapped["head"].output[0, 1]) != warned["recorded"]
    np.testing.assert_array_equal(cs.trace(model, (left, right)).output, by_name.output)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Pair", "a.png"], "Pair takes several inputs, left, right; give each by its name: --input left=FILE"),
        (["Pair"], "Pair needs each of its inputs by --input: left, right"),
        (["Volume"], "Volume needs an IMAGE"),
        (["Pair", "--input", "left=a.png"], "Pair also takes right; pass it by --input right=FILE"),
        (["Pair", "--input", "rigth=a.png"], "Pair has no input 'rigth'; its forward takes left, right"),
        (["Pair", "--input", "left"], "an input is written NAME=FILE, such as --input left=a.png, not 'left'"),
        (["Pair", "--input", "left=a.png", "--input", "left=b.npy"], "--input left is given twice"),
        (["Pair", "a.png", "--input", "left=a.png"], "IMAGE and --input cannot be combined"),
        (["Words", "a.png"], "the input is float32, but the model starts with an embedding, which takes int64"),
        (["Volume", "objects.npy"], "objects.npy cannot be read as an array"),
        (["Volume", "damaged.npy"], "damaged.npy cannot be read as an array"),
        (["Volume", "words.npy"], "the input holds int64, and Volume takes fractions"),
    ],
    ids=str,
)
def test_what_is_missing_or_wrong_gets_a_sentence(
    convscope: Commands, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(folder)
    ended = convscope("trace", f"nets.py:{arguments[0]}", *arguments[1:])
    assert ended.status in {1, 2}
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_noise_stands_in_for_each_input(convscope: Commands, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for model in ("Pair", "Volume"):
        assert "100 % proved" in convscope.said("verify", f"nets.py:{model}")
    assert "Words takes integers; give it an input" in convscope("verify", "nets.py:Words").err


def test_lists_and_mappings_within_inputs() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, images: list[Tensor], sizes: dict[str, Tensor] | None = None) -> list[Tensor]:
            scale = 1.0 if sizes is None else sizes["scale"]
            return [self.conv(image[None]) * scale for image in images]

    pictures = [torch.randn(3, 8, 8), torch.randn(3, 9, 7)]
    alone, named = cs.trace(Detector(), pictures), cs.trace(Detector(), (pictures, {"scale": torch.tensor(2.0)}))
    assert list(alone.inputs) == ["input[0]", "input[1]"]
    assert list(named.inputs) == ["input0[0]", "input0[1]", "input1[scale]"]
    assert cs.verify(named).proved
    pictures[0].zero_()
    assert alone.inputs["input[0]"].any(), "a trace keeps its own"


def test_opacity_is_a_channel_for_a_model_of_four_and_white_for_one_of_three(folder: Path) -> None:
    raw = np.asarray(Image.open(folder / "rgba.png")).transpose(2, 0, 1)
    four = cs.load_image(folder / "rgba.png", like=nn.Conv2d(4, 2, 3))
    np.testing.assert_array_equal(four, raw.astype(np.float32) / np.float32(255))
    three = cs.load_image(folder / "rgba.png", like=nn.Conv2d(3, 2, 3))
    laid = raw[:3] * (raw[3:] / 255) + (255 - raw[3:])
    np.testing.assert_allclose(three, laid / 255, atol=1.5 / 255)
    opaque = cs.prepare(folder / "a.png", like=nn.Conv2d(4, 2, 3))
    assert opaque.notes == ("turned to RGBA, opaque",)
    assert (opaque.array[3] == 1).all()


def test_arrays_of_files(folder: Path) -> None:
    bands = cs.prepare(folder / "bands.npy", like=nn.Conv2d(5, 2, 3))
    np.testing.assert_array_equal(bands.array, np.load(folder / "bands.npy"))
    assert bands.notes == (taken(np.load(folder / "bands.npy")),)
    scaled = cs.load_image(folder / "bytes.npy", like=nn.Conv2d(3, 2, 3))
    np.testing.assert_array_equal(scaled, np.load(folder / "bytes.npy").astype(np.float32) / np.float32(255))
    with pytest.raises(ShapeError, match=r"looks like \(H, W, C\)"):
        cs.load_image(np.zeros((8, 9, 5), np.float32), like=nn.Conv2d(5, 2, 3))
    np.save(folder / "last.npy", np.zeros((1, 8, 9, 3), np.float32))
    expected = r"\(1, 8, 9, 3\) of last\.npy looks like \(N, H, W, C\); give array\.transpose\(0, 3, 1, 2\)"
    with pytest.raises(ShapeError, match=expected):
        cs.load_image(folder / "last.npy", like=nn.Conv2d(3, 2, 3))
    np.save(folder / "objects.npy", np.array([{}], object))
    with pytest.raises(ImageError, match=r"objects\.npy cannot .* holds Python objects, which may run code; save"):
        cs.load_image(folder / "objects.npy", like=nn.Conv2d(3, 2, 3))
    np.save(folder / "wrong.npy", np.array([[[0, 255, np.nan]]], np.float32))
    (note,) = cs.prepare(folder / "wrong.npy", like=nn.Conv2d(1, 2, 1)).notes
    assert note == "float32 numbers from 0 to 255, taken as they are; not finite: 1"
    with pytest.raises(ImageError, match=r"there is no file gone\.npy"):
        cs.load_image("gone.npy")


def test_an_array_file_says_how_much_it_holds_before_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convscope.inputs.arrays.MAX_PIXELS", 100)
    with pytest.raises(ImageError, match="holds 420 numbers; at most 100 are read"):
        cs.load_image(folder / "volume.npy", like=Volume())


OPENED: dict[str, tuple[Any, Any, str, list[int], list[str]]] = {
    "a volume": (Volume, np.arange(420, dtype=np.float32).reshape(2, 5, 6, 7), "array", [2, 5, 6, 7], []),
    "a pair": (Pair, (torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)), "several", [6, 8, 8], ["input0", "input1"]),
    "by name": (
        Mixed,
        {"image": torch.ones(3, 8, 8), "facts": torch.ones(1, 6)},
        "several",
        [4, 8, 8],
        ["image", "facts"],
    ),
    "words": (Words, np.array([[1, 2, 3]]), "array", [3], []),
    "noise for a pair": (Pair, None, "several", [6, 64, 64], ["left", "right"]),
    "four channels": (lambda: nn.Conv2d(4, 2, 3), torch.rand(4, 8, 8), "picture", [4, 8, 8], []),
}


@pytest.mark.parametrize(("build", "image", "form", "shape", "parts"), OPENED.values(), ids=OPENED)
def test_the_explorer_opens_on_it(build: Any, image: Any, form: str, shape: list[int], parts: list[str]) -> None:
    with opened(Workspace.of_model(build(), image)) as page:
        model = page.get("session")["models"][0]
        warned = page.trace(model["start"], model=model["id"])
        assert warned["error"] is None
        assert (warned["input"]["form"], warned["input"]["shape"]) == (form, shape)
        assert [part["name"] for part in warned["input"]["parts"]] == parts
        assert any("cannot be painted or changed" in note for note in warned["input"]["notes"]) == (form != "picture")
        step = warned["steps"][0]
        cell = ",".join("0" for _ in step["shape"][1:])
        why = page.get(f"traces/{warned['id']}/steps/{step['id']}/explain?cell={cell}")
        assert why["explanation"]["proved"]


def test_contributions_are_of_all_inputs() -> None:
    model = Pair()
    with opened(Workspace.of_model(model, {"left": torch.ones(3, 8, 8), "right": torch.ones(3, 8, 8)})) as page:
        entry = page.get("session")["models"][0]
        warned = page.trace(entry["start"], model=entry["id"])
        last = warned["steps"][-1]["id"]
        header, body = page.pack(f"traces/{warned['id']}/steps/{last}/contributions", cell="0")
        info, pixels = header["info"], np.frombuffer(body, "<f4")[: 6 * 64]
    assert info["shape"] == [6, 8, 8]
    assert pixels[: 3 * 64].sum() + pixels[3 * 64 :].sum() + info["constant"] == pytest.approx(info["value"], abs=1e-5)
    np.testing.assert_allclose(pixels[: 3 * 64], -pixels[3 * 64 :], atol=1e-6)


def test_a_picture_for_a_model_of_several_inputs_is_refused_by_the_page() -> None:
    with opened(Workspace.of_model(Pair())) as page:
        model = page.get("session")["models"][0]
        shapes = {"kind": "sample", "source": "crosses", "split": "test", "index": 0}
        assert "takes several inputs (left, right)" in page.trace(shapes, 422, model=model["id"])
        moved = {"rotate": 10, "down": 0, "right": 0, "noise": 0, "seed": 0}
        assert "is not a single picture" in page.trace(model["start"], 422, model=model["id"], change=moved)


class Locked(nn.Module):
    """Refuses new attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        object.__setattr__(self, "locked", True)

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__dict__.get("locked"):
            raise AttributeError("frozen")
        super().__setattr__(name, value)

    def forward(self, x: Tensor) -> Any:
        return self.conv(x)


def exported() -> Any:
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Dropout(), nn.ReLU()).eval()
    return torch.export.export(net, (torch.randn(1, 3, 8, 8),))


@pytest.mark.parametrize("build", [Locked, exported, lambda: exported().module()], ids=["locked", "program", "module"])
def test_modules_that_refuse_attributes_and_modes_load(build: Any) -> None:
    model = cs.load_model(build(), classes=["a", "b"])
    assert cs.card_of(model).classes == ("a", "b")
    assert cs.card_of(model).preprocess.channels == 3
    assert not any(module.training for module in model.modules())
    assert cs.verify(cs.trace(model, cs.load_image(np.zeros((3, 8, 8), np.uint8), like=model))).proved


def test_a_program_of_torch_export_in_a_file(tmp_path: Path, convscope: Commands) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def program():\n    net = nn.Sequential(nn.Conv2d(3, 2, 3))\n"
        "    return torch.export.export(net, (torch.zeros(1, 3, 8, 8),))\n"
        "ready = program()\n"
    )
    Image.new("RGB", (20, 30)).save(tmp_path / "a.png")
    for name in ("program", "ready"):
        listed = convscope("trace", f"{tmp_path}/net.py:{name}", tmp_path / "a.png")
        assert "1x2x6x6" in listed.out, "brought to the size that the program was exported with"
        assert "resized from 30x20 to 8x8" in listed.err


def test_a_module_that_forgot_its_beginning(tmp_path: Path, convscope: Commands) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        pass\n"
    )
    message = convscope("trace", f"{tmp_path}/net.py:Net", "crosses:plus")
    assert "its __init__ does not call super().__init__()" in message.err


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.LazyConv2d(4, 2)
        self.norm = nn.LazyBatchNorm2d()
        self.head = nn.LazyLinear(2)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.relu(self.norm(self.conv(x))).flatten(1))


def test_lazy_layers_get_their_shapes_from_the_first_image_and_their_weights_by_the_seed() -> None:
    state = torch.get_rng_state()
    models: list[Any] = [cs.load_model(Lazy(), seed=seed) for seed in (1, 1, 2)]
    assert "its lazy layers get their shapes from the first image" in cs.card_of(models[0]).notes[0]
    image = cs.load_image("crosses:plus")
    first, again, other = (cs.trace(model, image).output for model in models)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert cs.verify(cs.trace(models[0], image)).proved
    assert torch.get_rng_state().equal(state)
    assert type(models[0].conv) is nn.Conv2d
    assert not models[0].norm.training


def test_lazy_layers_get_their_shapes_from_what_is_said_or_from_weights(tmp_path: Path) -> None:
    warned: Any = cs.load_model(Lazy(), preprocess={"size": (6, 5), "channels": 3})
    assert (warned.conv.in_channels, warned.head.in_features, cs.card_of(warned).notes) == (3, 4 * 5 * 4, ())
    torch.save(warned.state_dict(), tmp_path / "lazy.pt")
    loaded: Any = cs.load_model(Lazy(), weights=tmp_path / "lazy.pt")
    assert (loaded.conv.in_channels, type(loaded.conv), type(loaded.head)) == (3, nn.Conv2d, nn.Linear)
    assert all(tensor.equal(warned.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert cs.card_of(loaded).preprocess.channels == 3


def test_a_lazy_model_is_left_as_it_was_where_an_image_does_not_fit() -> None:
    model = cs.load_model(Lazy())
    with pytest.raises(cs.ConvscopeError, match="cannot get their shapes from an input of"):
        cs.trace(model, torch.zeros(1, 1, 1))
    assert cs.trace(model, torch.zeros(1, 3, 3)).output.shape == (1, 2)


def test_everything_else_takes_lazy_layers(
    tmp_path: Path, convscope: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = "import torch\nfrom torch import nn\n\n\nclass Net(nn.Sequential):\n    def __init__(self):\n"
    layers = "nn.LazyConv2d(4, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)"
    Path("lazy.py").write_text(f"{source}        super().__init__({layers})\n")
    net = "lazy.py:Net"
    for command in (
        ["trace", net, "crosses:plus"],
        ["explain", net, "crosses:plus", "--at", "0:0,0,0"],
        ["verify", net],
        ["plot", "maps", net, "crosses:plus", "--out", "maps.png"],
        ["plot", "number", net, "crosses:plus", "--at", "0:0,0,0", "--out", "number.png"],
        ["plot", "kernels", net, "--preprocess", "size=3", "--preprocess", "channels=1", "--out", "kernels.png"],
        ["probe", "dead", net, "crosses"],
        ["probe", "receptive-field", net],
    ):
        convscope.said(*command)
    assert "its layers are lazy" in convscope("plot", "kernels", net, "--out", "kernels.png").err
    with opened(Workspace.of_model(cs.load_model(net), "crosses:plus")) as page:
        entry = page.get("session")["models"][0]
        assert page.trace(entry["start"], model=entry["id"])["steps"][0]["shape"] == [1, 4, 2, 2]


def test_a_single_input_for_several_is_refused_in_python() -> None:
    with pytest.raises(UsageError, match=r"Pair takes several inputs, left, right; .*\{'left': \.\.\.\} in Python"):
        cs.open(Pair(), torch.zeros(3, 8, 8))


def test_a_network_of_vectors_begins_with_one() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    noise = cs.prepare_inputs(cs.random_inputs(net), like=net)
    vector = np.asarray(noise.value)
    assert vector.shape == (1, 4)
    assert cs.trace(net, vector).output.shape == (1, 3)
    conv = nn.Conv2d(1, 2, 3)
    assert np.shape(np.asarray(cs.random_inputs(conv)))[0] == 1
