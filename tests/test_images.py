"""Images: what reading a file gives, in every mode and format, and what is refused."""

import contextlib
import io
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

import convscope as cs
from convscope import images
from convscope.errors import DataWarning, ImageError, UsageError
from convscope.images import FORMATS, pixels, read_image
from convscope.preprocess import Preprocess
from convscope.typing import Array

COLOR = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3) * 8  # (H, W, C)
GREY = COLOR[..., 0]
ALPHA = np.where(np.arange(10).reshape(2, 5) % 2, 0, 255).astype(np.uint8)  # transparent at odd cells

PALETTE = Image.fromarray(COLOR).quantize(16)


def over_white(plane: Array) -> Array:
    return np.where(ALPHA == 0, 255, plane)


def with_transparent_zero() -> Image.Image:
    picture = Image.fromarray(GREY)
    picture.info["transparency"] = 0
    return picture


MODES: dict[str, tuple[Image.Image, Array]] = {
    "grey": (Image.fromarray(GREY), GREY[None]),
    "colour": (Image.fromarray(COLOR), COLOR.transpose(2, 0, 1)),
    "black and white": (Image.fromarray(ALPHA).convert("1"), ALPHA[None]),
    "palette": (PALETTE, np.asarray(PALETTE.convert("RGB")).transpose(2, 0, 1)),
    "colour with alpha": (
        Image.fromarray(np.dstack([COLOR, ALPHA])),
        np.stack([over_white(COLOR[..., c]) for c in range(3)]),
    ),
    "grey with alpha": (Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), over_white(GREY)[None]),
    "grey with one transparent value": (with_transparent_zero(), np.where(GREY == 0, 255, GREY)[None]),
}


@pytest.mark.parametrize(("picture", "expected"), MODES.values(), ids=MODES)
def test_every_mode_of_a_png_is_read(tmp_path: Path, picture: Image.Image, expected: Array) -> None:
    path = tmp_path / "picture.png"
    picture.save(path)
    read = read_image(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, expected)


def test_cmyk_and_other_colour_spaces_become_rgb() -> None:
    picture = Image.fromarray(COLOR)
    for mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        converted = picture if mode == "LAB" else picture.convert(mode)
        assert pixels(converted).shape == (3, 2, 5)


def test_sixteen_bits_keep_their_precision(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 65535], [1, 1000, 256]], np.uint16)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        read = read_image(tmp_path / name)
        assert read.dtype == np.float32
        np.testing.assert_allclose(read[0], deep / 257, rtol=1e-6)


def test_thirty_two_bits_are_brought_to_the_same_range(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 65535]], np.int32)).save(tmp_path / "whole.tif")
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "share.tif")
    Image.fromarray(np.array([[0, 51, 255]], np.float32)).save(tmp_path / "bytes.tif")
    np.testing.assert_allclose(read_image(tmp_path / "whole.tif")[0], [[0, 255]])
    np.testing.assert_allclose(read_image(tmp_path / "share.tif")[0], [[0, 127.5, 255]])
    np.testing.assert_allclose(read_image(tmp_path / "bytes.tif")[0], [[0, 51, 255]])


def test_an_image_with_values_that_are_no_numbers_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, np.nan]], np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(ImageError, match=r"nan\.tif has pixels that are not finite numbers"):
        read_image(tmp_path / "nan.tif")


TURNS: dict[int, Callable[[Array], Array]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.T,
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).T,
    8: lambda upright: np.rot90(upright, -1),
}
"""EXIF orientation -> how a camera that is held so stores an upright picture."""


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_exif_rotation_is_undone(tmp_path: Path, orientation: int, depth: type) -> None:
    upright: Array = np.arange(6, dtype=depth).reshape(2, 3) * 40
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(TURNS[orientation](upright))).save(path, exif=exif)
    read = read_image(path)
    np.testing.assert_allclose(read[0], upright / (257 if depth is np.uint16 else 1), rtol=1e-6)


@pytest.mark.parametrize("kind", FORMATS)
def test_common_formats_are_read(tmp_path: Path, kind: str) -> None:
    square = Image.new("RGB", (16, 16), (200, 100, 50))
    path = tmp_path / "square"
    square.save(path, format=kind)
    read = read_image(path)
    assert read.shape == (3, 16, 16)
    assert abs(read.reshape(3, -1).mean(axis=1) - (200, 100, 50)).max() < 4


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert set(read_image(tmp_path / "film.gif").ravel()) == {10}


def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture at all")
    (tmp_path / "empty.png").write_bytes(b"")
    for name, parts in {
        "missing.png": "there is no file",
        "notes.png": "is not an image that can be read",
        "empty.png": "is not an image that can be read",
        "": "is a folder; name one image, or use folder:",
    }.items():
        with pytest.raises(ImageError, match=parts) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value)


def test_too_large_a_picture_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (100, 60)).save(tmp_path / "large.png")
    monkeypatch.setattr("convscope.images.MAX_PIXELS", 5_999)
    with pytest.raises(ImageError, match=r"has 100x60 pixels; at most 5,999 are read"):
        read_image(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow's own limit, which it enforces at twice the number
    with pytest.raises(ImageError, match=r"far more than the 5,999 pixels"):
        read_image(tmp_path / "large.png")


def test_pillow_does_not_warn_of_a_picture_within_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (100, 60)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_999)  # it warns above this, and refuses above twice as many
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "large.png").shape == (1, 60, 100)


def stored(kind: str) -> bytes:
    buffer = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (12, 9, 3), np.uint8)).save(buffer, format=kind)
    return buffer.getvalue()


FILES = {kind: stored(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")}


@given(kind=st.sampled_from(sorted(FILES)), at=st.floats(0, 1), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_an_image_or_an_image_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, at: float, value: int, cut: bool
) -> None:
    content = bytearray(FILES[kind])
    position = min(int(at * len(content)), len(content) - 1)
    content[position] = value
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    path.write_bytes(content[:position] if cut else content)
    with contextlib.suppress(ImageError):
        assert read_image(path).ndim == 3


def test_a_picture_that_is_given_stays_as_it_was() -> None:
    mine = Image.new("RGB", (4, 2), "red")
    mine.getexif()[ExifTags.Base.Orientation] = 6
    assert images.pixels(mine).shape == (3, 4, 2)
    assert mine.size == (4, 2)


def test_a_size_beyond_what_is_read_is_refused() -> None:
    with pytest.raises(UsageError, match="a picture of 9,999,999x9,999,999 pixels is too large; at most 100,000,000"):
        Preprocess(size=(9_999_999, 9_999_999))
    assert Preprocess(size=(10_000, 10_000)).size == (10_000, 10_000)


@pytest.mark.parametrize("kind", ["TGA", "ICO", "PCX", "EPS", "PDF", "ICNS", "SGI", "JPEG2000", "DDS"])
def test_other_formats_are_refused_by_default(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.png", format=kind)
    with pytest.raises(ImageError, match=r"photo\.png is not an image that can be read; save it as PNG, JPEG, WebP"):
        read_image(tmp_path / "photo.png")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{} loop\n"


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.eps", "photo.tif"])
def test_no_image_starts_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # it remembers what it found
    for folder in ("pets/cat", "pets/dog"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / folder / "a.png")
        (tmp_path / folder / name).write_bytes(POSTSCRIPT)
    with pytest.raises(ImageError, match="is not an image that can be read"):
        cs.load_image(tmp_path / "pets/cat" / name)
    with contextlib.nullcontext() if name.endswith("eps") else pytest.warns(DataWarning, match="2 of 4 images"):
        assert len(cs.load_dataset(f"folder:{tmp_path / 'pets'}", split="all")) == 2
    assert not (tmp_path / "called").exists()


def test_a_jpeg_of_very_many_scans_is_refused_and_what_follows_a_picture_is_not_counted(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.effect_noise((16, 16), 50).save(content, "JPEG", progressive=True)
    whole = content.getvalue()
    scans = [result.start() for result in re.finditer(b"\xff\xda", whole)]
    assert 2 < len(scans) < 20
    last = whole[scans[-1] : -2]
    (tmp_path / "many.jpg").write_bytes(whole[:-2] + last * 5000 + whole[-2:])
    with pytest.raises(
        ImageError, match=r"many\.jpg is a JPEG of more than 200 scans, too many to be read; save it again with fewer"
    ):
        read_image(tmp_path / "many.jpg")
    (tmp_path / "film.jpg").write_bytes(whole + b"\xff\xda" * 5000)  # as a telephone appends a film
    assert read_image(tmp_path / "film.jpg").shape == (1, 16, 16)


FLOATS = {
    "a little beyond 1": ([0, 1.0001], [0, 255]),
    "a little below 0": ([-0.02, 1], [0, 255]),
    "a little beyond 255": ([0, 255.3], [0, 255]),
}


@pytest.mark.parametrize(("stored", "read"), FLOATS.values(), ids=FLOATS)
def test_floating_point_pixels_a_little_outside_their_range_keep_it(
    tmp_path: Path, stored: list[float], read: list[float]
) -> None:
    Image.fromarray(np.array([stored], np.float32)).save(tmp_path / "float.tif")
    np.testing.assert_allclose(read_image(tmp_path / "float.tif")[0], [read], atol=0.03)


@pytest.mark.parametrize(
    ("stored", "known"),
    [
        (np.array([[0, 3]], np.float32), "0 to 3, and pixels of this kind go from 0 to 1, or 0 to 255"),
        (np.array([[-1, 1]], np.float32), "-1 to 1, and pixels"),
        (np.array([[0, 3000]], np.float32), "0 to 3000, and pixels"),
        (np.array([[0, 70_000]], np.int32), "0 to 70000, and pixels of this kind go from 0 to 65535"),
        (np.array([[-5, 7]], np.int32), "-5 to 7, and pixels of this kind go from 0 to 65535"),
    ],
)
def test_floating_point_pixels_of_no_known_range_are_refused(tmp_path: Path, stored: Array, known: str) -> None:
    Image.fromarray(stored).save(tmp_path / "float.tif")
    with pytest.raises(ImageError, match=rf"float\.tif has values from {known}.*; rescale them"):
        read_image(tmp_path / "float.tif")


def test_a_pipe_and_a_pointer_of_git_lfs_are_named_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(
        ImageError, match=r"pipe\.png is not a regular file, and reading a pipe or a device may never end"
    ):
        read_image(tmp_path / "pipe.png")
    (tmp_path / "photo.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(ImageError, match=r"photo\.png is a pointer of Git LFS, .* fetch that with `git lfs pull`"):
        read_image(tmp_path / "photo.png")


def test_a_pipe_called_as_an_array_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(ImageError, match=r"pipe\.npy is not a regular file"):
        cs.load_image(tmp_path / "pipe.npy")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_metadata_do_not_keep_a_picture_from_being_read(tmp_path: Path, kind: str) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8))
    for exif in (b"Exif\0\0" + bytes(60), b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0" + b"\x9c" * 60):
        picture.save(tmp_path / "plain", kind)
        picture.save(tmp_path / "odd", kind, exif=exif)
        np.testing.assert_array_equal(read_image(tmp_path / "odd"), read_image(tmp_path / "plain"))
