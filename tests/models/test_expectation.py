"""What a model expects is found by running a copy of it: channels, size, the form of an input and its batch axis."""

import random
from collections.abc import Callable, Mapping
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from convscope.cards.card_inference import card_of
from convscope.cards.trial_copy import TrialCopies
from convscope.cards.trial_runs import expectation
from convscope.errors import ShapeError

Layers = Mapping[str, Callable[[], nn.Module]]
Forward = Callable[[Any, Tensor], Any]


class Built(nn.Module):
    """Layers defined in one order and run in another."""

    def __init__(self, layers: Layers, order: tuple[str, ...], forward: Forward) -> None:
        super().__init__()
        for name in order:
            setattr(self, name, layers[name]())
        self.how = forward

    def forward(self, x: Tensor) -> Any:
        return self.how(self, x)


def channel_attention(net: Any, x: Tensor) -> Any:
    maps = torch.relu(net.body(x))
    weights = torch.sigmoid(net.line(maps.mean((2, 3))[:, None])[:, 0])
    return net.head((maps * weights[:, :, None, None]).mean((2, 3)))


def spatial_attention(net: Any, x: Tensor) -> Any:
    maps = torch.relu(net.body(x))
    both = torch.cat([maps.mean(1, keepdim=True), maps.amax(1, keepdim=True)], 1)
    return net.head((maps * torch.sigmoid(net.gate(both))).mean((2, 3)))


def edge_branch(net: Any, x: Tensor) -> Any:
    grey = net.edge(x.mean(1, keepdim=True))
    return torch.cat([net.body(x), grey], 1).mean((2, 3))


def shifted(net: Any, x: Tensor) -> Any:
    x = (x - torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)) / 0.2
    return edge_branch(net, x)


def tokens_of_patches(net: Any, x: Tensor) -> Any:
    tokens = net.patch(x).flatten(2).transpose(1, 2)
    tokens = tokens + net.place(torch.arange(tokens.shape[1]))
    return net.head((tokens + net.mix(tokens, tokens, tokens)[0]).mean(1))


def patched_by_hand(net: Any, x: Tensor) -> Any:
    n, _, h, w = x.shape
    patches = x.reshape(n, 3, h // 4, 4, w // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(n, -1, 48)
    return net.head(net.embed(patches).mean(1))


def by_its_values(net: Any, x: Tensor) -> Any:
    maps = net.body(x)
    return net.head((maps if maps.mean().item() > 0 else -maps).mean((2, 3)))


COLOUR: Mapping[str, tuple[Layers, Forward]] = {
    "a head": (
        {"head": lambda: nn.Conv2d(16, 2, 1), "body": lambda: nn.Conv2d(3, 16, 3)},
        lambda net, x: net.head(torch.relu(net.body(x))).mean((2, 3)),
    ),
    "spatial attention": (
        {
            "gate": lambda: nn.Conv2d(2, 1, 7, padding=3),
            "body": lambda: nn.Conv2d(3, 8, 3),
            "head": lambda: nn.Linear(8, 2),
        },
        spatial_attention,
    ),
    "attention over channels, 1-d": (
        {
            "line": lambda: nn.Conv1d(1, 1, 3, padding=1),
            "body": lambda: nn.Conv2d(3, 8, 3),
            "head": lambda: nn.Linear(8, 2),
        },
        channel_attention,
    ),
    "a branch of one channel": (
        {"edge": lambda: nn.Conv2d(1, 2, 3), "body": lambda: nn.Conv2d(3, 4, 3)},
        edge_branch,
    ),
    "a branch of one channel, after a normalization that would broadcast": (
        {"edge": lambda: nn.Conv2d(1, 2, 3), "body": lambda: nn.Conv2d(3, 4, 3)},
        shifted,
    ),
    "grouped": (
        {"deep": lambda: nn.Conv2d(6, 6, 3, groups=3), "stem": lambda: nn.Conv2d(3, 6, 1, groups=3)},
        lambda net, x: net.deep(net.stem(x)).mean((2, 3)),
    ),
    "a pixel unshuffle": (
        {"body": lambda: nn.Conv2d(12, 4, 3), "fold": lambda: nn.PixelUnshuffle(2)},
        lambda net, x: net.body(net.fold(x)).mean((2, 3)),
    ),
    "a transposed convolution": (
        {"up": lambda: nn.ConvTranspose2d(3, 5, 2, stride=2), "body": lambda: nn.Conv2d(5, 7, 3)},
        lambda net, x: net.body(net.up(x)).mean((2, 3)),
    ),
    "values decide": ({"head": lambda: nn.Linear(9, 2), "body": lambda: nn.Conv2d(3, 9, 3)}, by_its_values),
    "a decoder": (
        {"down": lambda: nn.Conv2d(3, 8, 3, 2, 1), "up": lambda: nn.ConvTranspose2d(8, 3, 2, 2)},
        lambda net, x: net.up(torch.relu(net.down(x))),
    ),
    "a norm of other rows": (
        {"norm": lambda: nn.BatchNorm1d(8), "body": lambda: nn.Conv2d(3, 8, 3)},
        lambda net, x: net.norm(net.body(x).mean((2, 3))),
    ),
    "patches by hand": (
        {"head": lambda: nn.Linear(5, 2), "embed": lambda: nn.Linear(48, 5)},
        patched_by_hand,
    ),
}
CASES = {
    f"{name}: {', '.join(order)}": (layers, order, forward)
    for name, (layers, forward) in COLOUR.items()
    for order in permutations(layers)
}


@pytest.mark.parametrize(("layers", "order", "forward"), CASES.values(), ids=CASES)
def test_colour_is_found_in_whatever_order_layers_are_defined(
    layers: Layers, order: tuple[str, ...], forward: Forward
) -> None:
    net = Built(layers, order, forward)
    assert card_of(net).preprocess.channels == 3
    assert card_of(net).form == "picture"
    grey = np.random.default_rng(0).integers(0, 256, (1, 32, 32), dtype=np.uint8)
    image = cs.load_image(grey, like=net)
    assert image.shape[0] == 3
    assert cs.trace(net, image).input.shape == (1, *image.shape)


def test_a_parameter_of_the_models_own_and_shared_modules() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleDict({"b": nn.Conv2d(6, 2, 1), "a": nn.Conv2d(6, 6, 1)})
            self.kernels = nn.ParameterList([torch.randn(6, 2, 3, 3), torch.randn(6, 6, 1, 1)])

        def forward(self, x: Tensor) -> Any:
            x = torch.conv2d(x, self.kernels[0], groups=2)
            return self.heads["b"](self.heads["a"](self.heads["a"](torch.conv2d(x, self.kernels[1]))))

    assert card_of(Own()).preprocess.channels == 4, "two groups of two channels"


class Digits(nn.Module):
    def __init__(self, edge: int) -> None:
        super().__init__()
        self.out = nn.Linear(16, 2)
        self.hidden = nn.Linear(4 * ((edge - 2) // 2) ** 2, 16)
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Any:
        print("a forward that talks")  # noqa: T201 - as learners do
        return self.out(torch.relu(self.hidden(torch.max_pool2d(self.conv(x), 2).flatten(1))))


@pytest.mark.parametrize("edge", [8, 28, 32, 40, 64, 96, 224])
def test_the_only_size_that_runs_is_found_and_noted(edge: int, capsys: pytest.CaptureFixture[str]) -> None:
    card = card_of(Digits(edge))
    assert (card.preprocess.size, card.preprocess.channels) == ((edge, edge), 1)
    assert f"it runs with pictures of {edge}x{edge}" in card.notes[0]
    assert capsys.readouterr() == ("", "")


def test_a_picture_of_another_size_that_runs_keeps_its_own() -> None:
    """A pooling that leaves a row out makes 28 and 29 alike."""
    net = Digits(28)
    assert cs.load_image(np.zeros((1, 29, 29), np.uint8), like=net).shape == (1, 29, 29)
    assert cs.load_image(np.zeros((1, 30, 30), np.uint8), like=net).shape == (1, 28, 28)
    warned = cs.load_model(net, preprocess={"size": (29, 29)})
    assert cs.load_image(np.zeros((1, 28, 28), np.uint8), like=warned).shape == (1, 29, 29)
    assert card_of(warned).notes == ()


@pytest.mark.parametrize("order", [*permutations(("place", "mix", "patch", "head"))], ids=str)
def test_a_transformer_of_patches_with_as_many_places(order: tuple[str, ...]) -> None:
    layers: Layers = {
        "place": lambda: nn.Embedding(36, 8),
        "mix": lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        "patch": lambda: nn.Conv2d(3, 8, 6, 6),
        "head": lambda: nn.Linear(8, 2),
    }

    def forward(net: Any, x: Tensor) -> Any:
        if x.shape[-1] != 36:
            raise ValueError("36 places")
        return tokens_of_patches(net, x)

    net = Built(layers, order, forward)
    assert card_of(net).preprocess.size == (36, 36)
    assert cs.trace(net, torch.zeros(3, 36, 36)).input.shape == (1, 3, 36, 36)


class Signal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.conv = nn.Conv1d(2, 4, 5)

    def forward(self, x: Tensor) -> Any:
        n, _, _ = x.shape
        return self.head(self.conv(x).mean(2).reshape(n, 4))


class Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.conv = nn.Conv3d(1, 4, 3)

    def forward(self, x: Tensor) -> Any:
        n, _, _, _, _ = x.shape
        return self.head(self.conv(x).mean((2, 3, 4)).reshape(n, 4))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.table = nn.Embedding(10, 4)

    def forward(self, x: Tensor) -> Any:
        n, _ = x.shape
        return self.head(self.table(x).mean(1).reshape(n, 4))


class Rows(nn.Module):
    """A recurrent network over the rows of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(28, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.cell(x.squeeze(1))[0][:, -1])


class Clip(nn.Module):
    """Takes a picture and a clip."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (1, 3, 3))

    def forward(self, x: Tensor) -> Any:
        return self.conv(x.unsqueeze(2) if x.dim() == 4 else x)


AXES: Mapping[str, tuple[Callable[[], nn.Module], str, tuple[int, ...]]] = {
    "a signal": (Signal, "signal", (2, 50)),
    "a volume": (Volume, "volume", (1, 5, 6, 7)),
    "a bare 1-d convolution": (lambda: nn.Conv1d(3, 2, 3), "signal", (3, 20)),
    "a bare 3-d convolution": (lambda: nn.Conv3d(1, 2, 3), "volume", (1, 4, 8, 8)),
    "words": (Words, "tokens", (7,)),
    "rows of a picture": (Rows, "picture", (1, 28, 28)),
    "a picture for a network of clips": (Clip, "volume", (3, 8, 8)),
    "a clip": (Clip, "volume", (3, 2, 8, 8)),
    "a pooling of signals": (lambda: nn.MaxPool1d(2), "signal", (3, 8)),
}


@pytest.mark.parametrize(("build", "form", "shape"), AXES.values(), ids=AXES)
def test_the_batch_axis_is_added_once(build: Callable[[], nn.Module], form: str, shape: tuple[int, ...]) -> None:
    net = build()
    assert card_of(net).form == form
    image = torch.ones(shape, dtype=torch.int64) if form == "tokens" else torch.ones(shape)
    for loaded in (net, cs.load_model(net)):
        assert cs.trace(loaded, image).input.shape == (1, *shape)
        assert cs.trace(loaded, image[None]).input.shape == (1, *shape)
        assert cs.trace(loaded, torch.stack([image, image])).input.shape == (2, *shape)


def test_an_option_says_whether_there_is_a_batch_axis() -> None:
    net = nn.Sequential(nn.Conv3d(1, 2, 3))
    both = torch.zeros(1, 1, 4, 8, 8)
    assert cs.trace(net, both[0]).input.shape == (1, 1, 4, 8, 8)
    assert cs.trace(net, both[0], batched=True).input.shape == (1, 4, 8, 8)
    assert cs.trace(net, both[0], batched=False).input.shape == (1, 1, 4, 8, 8)
    assert cs.trace(nn.Conv2d(1, 1, 3), torch.zeros(1, 5, 5), batched=True).input.shape == (1, 5, 5)


def test_sequences_are_given_as_they_are() -> None:
    for net in (nn.LSTM(5, 4), nn.TransformerEncoderLayer(5, 1, 8), nn.LayerNorm(5)):
        assert cs.trace(net, torch.zeros(7, 2, 5)).input.shape[-3:] == (7, 2, 5)


def test_fractions_for_words_and_words_for_pictures_get_a_sentence() -> None:
    with pytest.raises(ShapeError, match=r"the input is float32, but .* embedding, which takes int64"):
        cs.trace(Words(), torch.rand(1, 7))
    with pytest.raises(ShapeError, match="the image is int64; the model takes floating-point numbers"):
        cs.trace(nn.Conv2d(1, 1, 3), torch.ones(1, 5, 5, dtype=torch.int64))
    path = Built({"place": lambda: nn.Embedding(4, 3), "body": lambda: nn.Conv2d(3, 3, 3)}, ("place", "body"), by_body)
    with pytest.raises(ShapeError, match="the image is uint8; the model takes floating-point numbers"):
        cs.trace(path, torch.ones(3, 5, 5, dtype=torch.uint8))


def by_body(net: Any, x: Tensor) -> Any:
    return net.body(x) + net.place.weight.sum()


def test_the_model_and_the_world_are_left_as_found() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.passes = nn.Buffer(torch.zeros(1))
            self.seen: list[tuple[int, ...]] = []
            self.line = nn.Conv1d(1, 1, 1)

        def forward(self, x: Tensor) -> Any:
            self.passes.add_(1)
            self.seen.append(tuple(x.shape))
            noise = torch.rand(1) + np.random.rand() + random.random()  # noqa: NPY002
            return self.norm(self.body(x)) + noise.to(x)

    net = Counts().train()
    heard: list[str] = []
    net.register_forward_hook(lambda *_: heard.append("net"))
    net.body.register_forward_pre_hook(lambda *_: heard.append("body"))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]  # noqa: NPY002
    result = expectation(net)
    assert result is not None
    assert (result.channels, net.seen, heard) == (3, [], [])
    assert all(module.training for module in net.modules())
    assert all(tensor.equal(before[name]) for name, tensor in net.state_dict().items())
    assert states[0].equal(torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())  # type: ignore[index]  # noqa: NPY002
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())


def test_a_large_model_is_tried_without_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convscope.cards.trial_copy.SMALL", 10)
    net = Built(COLOUR["spatial attention"][0], ("gate", "head", "body"), spatial_attention)
    assert card_of(net).preprocess.channels == 3


def test_a_model_that_cannot_be_copied_is_read_from_its_layers() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(5, 4, 3)

        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("not me")

        def forward(self, x: Tensor) -> Any:
            return self.body(x)

    assert card_of(Alone()).preprocess.channels == 5
    assert cs.trace(Alone(), torch.zeros(5, 8, 8)).input.shape == (1, 5, 8, 8)


def test_layers_that_change_are_looked_at_anew() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert card_of(net).preprocess.channels == 3
    net[0] = nn.Conv2d(7, 4, 3)
    assert card_of(net).preprocess.channels == 7


@pytest.mark.parametrize(
    ("net", "shape", "ran"),
    [(nn.Conv2d(3, 4, 3), (5, 3, 10**5, 10**5), True), (nn.Linear(100, 10**5), (5, 10**5, 10**4, 64), False)],
    ids=["convolution", "generator"],
)
def test_a_trial_takes_no_memory_for_a_huge_input(net: nn.Module, shape: tuple[int, ...], ran: bool) -> None:
    """A generator's layer has many outputs, which are tried as channels of pictures."""
    assert TrialCopies(net).attempt(shape).ran is ran
