"""The commands that draw: they write the figure, say where, and refuse in one sentence."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import convscope as cs
from commands import Commands
from full_disk import largest_file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plots") / "shapes"
    cs.train("shapes", seed=0, epochs=2, out=path)
    return path


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run `convscope ...` in an empty folder and give what it printed; its errors are raised."""
    from convscope.cli import app

    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> str:
        result = CliRunner().invoke(app, [*map(str, arguments)])
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return call


def test_settings_of_the_working_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("savefig.dpi: 2000\ntext.usetex: True\n\x1b[31mno setting: 1\n")
    command = [sys.executable, "-m", "convscope", "plot", "kernels", "crosses", "--out", "a.png"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert (result.returncode, "\x1b" in result.stderr, "matplotlibrc" in result.stderr) == (0, False, False), result
    with Image.open(tmp_path / "a.png") as picture:
        assert max(picture.size) < 3000
        assert f"{picture.width}x{picture.height} pixels" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (("samples", "crosses", "--split", "all"), "samples-crosses-all.png"),
        (("pixels", "crosses:damaged-plus", "--unit"), "pixels-crosses-damaged-plus.png"),
        (("pixels", "color-shapes:test/1", "--crop", "1", "2", "3", "4"), "pixels-color-shapes-test-1.png"),
        (("kernels", "RUN", "--layer", "conv1"), "kernels-shapes-conv1.png"),
        (("maps", "RUN"), "maps-shapes.png"),
        (("maps", "RUN", "shapes:test/3", "--step", "conv1", "--shared"), "maps-shapes-shapes-test-3-conv1.png"),
        (("maps", "RUN", "--dataset", "shapes", "--step", "conv1", "--per-class", "2"), "maps-shapes-shapes-conv1.png"),
        (("kernels", "RUN", "--step", "conv2"), "kernels-shapes-conv2.png"),
        (("network", "RUN", "--depth", "1"), "network-shapes.png"),
        (("history", "RUN"), "history-shapes.png"),
        (("confusion", "RUN"), "confusion-shapes.png"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_plot_writes_a_figure_and_says_where(
    command: Callable[..., str], run: Path, arguments: tuple[str, ...], file: str
) -> None:
    message = command("plot", *(str(run) if word == "RUN" else word for word in arguments))
    with Image.open(file) as picture:
        size = f"{picture.width}x{picture.height}"
    assert re.fullmatch(rf"wrote {re.escape(file)} \({size} pixels, [\d,]+ kB\)", message.splitlines()[-1])


def test_filter_takes_typed_numbers_and_prints_small_outputs(command: Callable[..., str]) -> None:
    message = command("filter", "1 2 0 1; 0 1 3 1; 2 2 1 0; 1 0 1 3", "--kernel", "1 0; 0 1").splitlines()
    assert message[-4:-1] == ["  2  5  1", "  2  2  3", "  2  3  4"]
    with pytest.raises(cs.UsageError, match="the picture '1 2; 3' has rows of 2 and 1 numbers"):
        command("filter", "1 2; 3", "--kernel", "blur")


def test_kernels_are_titled_with_their_model_and_larger_ones_summed_as_text(command: Callable[..., str]) -> None:
    printed = command("plot", "kernels", "color-cnn", "--out", "k.svg")
    head, columns, first, second, wrote = printed.strip().split("\n")
    assert head == "conv1.weight (2x3x3x3), summed over rows and columns"
    assert wrote.startswith("wrote k.svg")
    assert columns.split() == ["red", "green", "blue", "sum", "bias"]
    for line in (first, second):
        *channels, total, _bias = (float(number.replace("−", "-")) for number in line.split()[2:])
        assert sum(channels) == pytest.approx(total, abs=2e-4)
    titles = [text.get_text() for text in cs.plot.kernels("color-cnn").axes[0].texts]
    assert titles[0] == "color-cnn: kernels of conv1"
    assert command("plot", "kernels", "mnist-convnet", "--layer", "conv2", "--out", "l.svg").startswith("wrote l.svg")


def test_unit_on_a_colour_picture_is_said_to_change_nothing(convscope: Commands, tmp_path: Path) -> None:
    for image, noted in (("color-shapes:test/1", True), ("shapes:test/1", False)):
        result = convscope("plot", "pixels", image, "--unit", "--out", tmp_path / "p.png")
        assert ("always shows both scales" in result.err) == noted


def test_connections_has_a_line_for_each_product(command: Callable[..., str]) -> None:
    command("plot", "connections", "--size", "4", "--kernel", "2", "--out", "lines.svg")
    figure = cs.plot.connections(size=4, kernel=2)
    colors = [line.get_color()[:7] for line in figure.axes[0].lines]
    assert len(colors) == 16 * 9 + 4 * 9
    assert len(set(colors[-36:])) == 4  # the convolution's weights
    assert len(set(colors[:144])) > 100  # the colours of neighbours can be equal in all bits
    with pytest.raises(cs.UsageError, match="an image of 3x3 under a kernel of 4x4 cannot be drawn"):
        command("plot", "connections", "--size", "3", "--kernel", "4")


def test_filter_prints_kernel_shapes_and_range_and_the_same_as_json(command: Callable[..., str]) -> None:
    message = command("filter", "square:0", "--kernel", "sobel-x", "--out", "edges.svg").splitlines()
    assert message[:4] == [
        "sobel-x, finds vertical edges: brightness that changes along x",
        "  −1   0   1",
        "  −2   0   2",
        "  −1   0   1",
    ]
    assert message[4] == "response: 4 to a vertical edge, 0 to a horizontal one (measured on test edges)"
    assert "0 to a horizontal one, each beyond the response to plain black or white (" in command(
        "filter", "crosses:plus", "--kernel", "1 0; 0 1"
    )
    assert message[5].split() == ["input", "1x10x10", "from", "0.0000", "to", "1.0000"]
    assert message[6].split() == ["output", "1x8x8", "from", "−4.0000", "to", "4.0000"]
    assert len(message) == 7 + 8 + 1  # its 8 rows
    assert message[-1].startswith("wrote edges.svg (")
    assert "<text" in Path("edges.svg").read_text()
    values = json.loads(command("filter", "square:0", "--kernel", "-1 0.5; 0 1/2", "--same", "--json"))
    assert values["kernel"]["numbers"] == [[-1, 0.5], [0, 0.5]]
    assert values["output"]["shape"] == [1, 10, 10]
    assert values["mode"] == "same"
    assert Path(values["figure"]).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("filter", "square:0", "--kernel", "sobel"), "no kernel is called 'sobel'; did you mean 'sobel-"),
        (
            ("filter", "square:0", "--kernel", "blur", "--out", "x.gif"),
            r"unsupported figure format '\.gif' of .*x\.gif; use \.png, \.svg or \.pdf",
        ),
        (("filter", "square:0", "--kernel", "blur", "--out", "no/x.png"), "no is not a folder; create it first"),
        (("plot", "maps", "RUN", "--step", "conv9"), "no step is called 'conv9'; did you mean 'conv"),
        (("plot", "maps", "RUN", "--dataset", "shapes"), "pass --step NAME and no IMAGE"),
        (("plot", "kernels", "mlp-512"), "has no convolution, so it has no kernels to draw"),
        (("plot", "history", "nowhere"), "nowhere does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_written_is_said_in_one_sentence(
    command: Callable[..., str], run: Path, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(cs.ConvscopeError, match=message):
        command(*(str(run) if word == "RUN" else word for word in arguments))


def test_a_photo_becomes_figures(command: Callable[..., str], shared_data: Path) -> None:
    photo = shared_data / "images" / "dog.jpg"
    assert "input   3x300x300" in command("filter", photo, "--kernel", "sobel-y")
    assert Path("filter-sobel-y-dog.png").is_file()
    assert command("plot", "pixels", photo, "--out", "dog.pdf").startswith("wrote dog.pdf (")


def test_a_picture_is_replaced_only_where_out_names_it(command: Callable[..., str]) -> None:
    first = command("plot", "samples", "crosses", "--per-class", "1")
    assert first.startswith("wrote samples-crosses.png (")
    drawn = Path("samples-crosses.png").read_bytes()
    assert command("plot", "samples", "crosses", "--per-class", "1") == first  # the same picture again
    Path("samples-crosses.png").write_bytes(b"another picture")
    numbered = command("plot", "samples", "crosses", "--per-class", "1")
    assert numbered.startswith("wrote samples-crosses-2.png (")
    assert Path("samples-crosses.png").read_bytes() == b"another picture"
    command("plot", "samples", "crosses", "--per-class", "1", "--out", "samples-crosses.png")
    assert Path("samples-crosses.png").read_bytes() == drawn


def test_a_figure_written_to_a_pipe_is_not_read_back(command: Callable[..., str], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    message = command("plot", "samples", "crosses", "--per-class", "1", "--out", pipe)
    reader.join(60)
    with Image.open(BytesIO(received[0])) as picture:
        assert f"({picture.width}x{picture.height} pixels, " in message
    assert pipe.is_fifo()


@pytest.mark.parametrize("end", ["png", "svg", "pdf"])
@pytest.mark.parametrize(
    "command", [["plot", "samples", "crosses"], ["filter", "crosses:plus", "--kernel", "blur"],
                ["probe", "lint", "crosses", "crosses"]], ids=lambda command: command[0],
)  # fmt: skip
def test_on_a_full_disk_the_former_picture_stays(
    convscope: Commands, tmp_path: Path, end: str, command: list[str]
) -> None:
    path = tmp_path / f"old.{end}"
    path.write_bytes(b"the former picture")
    with largest_file(1024):
        message = convscope(*command, "--out", path)
    assert message.status == 1
    assert message.err.splitlines()[-1] == f"error: {path} cannot be written: File too large."
    assert path.read_bytes() == b"the former picture"
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
