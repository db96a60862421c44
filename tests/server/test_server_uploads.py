"""Uploads: what is taken, what is refused before it costs anything, and what is left of a picture."""

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import ExifTags, Image, PngImagePlugin

import convscope as cs
from convscope.server.app import make_app
from convscope.server.http.security import Access
from convscope.server.session import uploads
from convscope.server.session.uploads import read_upload
from convscope.server.session.workspace import Workspace


def as_file(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    content = BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def png(width: int, height: int, data: bytes, *, depth: int = 8, color: int = 0, more: bytes = b"") -> bytes:
    """A PNG that says what it likes about itself."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")


COLOURS = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))


@pytest.mark.parametrize("kind", cs.FORMATS)
def test_every_format_that_is_listed_is_read(kind: str) -> None:
    pixels = read_upload(as_file(COLOURS, kind, **{"lossless": True} if kind == "WEBP" else {}))
    assert pixels.shape == (3, 4, 5)
    if kind not in {"JPEG", "GIF"}:
        np.testing.assert_array_equal(pixels, np.asarray(COLOURS).transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["ICO", "PCX", "TGA", "EPS", "PDF", "ICNS", "SGI", "JPEG2000", "DDS"])
def test_other_formats_are_refused_whatever_they_call_themselves(kind: str) -> None:
    content = as_file(Image.new("RGB", (32, 32)), kind)
    with pytest.raises(cs.ImageError, match=r"this file is not a picture that can be read here\. Choose a PNG, JPEG, "):
        read_upload(content)


@pytest.mark.parametrize(
    "content", [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html>", b"GIF89a", b"MZ", b"\0" * 99]
)
def test_what_is_no_picture_gets_a_sentence(content: bytes) -> None:
    with pytest.raises(
        cs.ImageError, match=r"^this (file is not a picture|picture cannot be read as an image: .* Save it anew)"
    ):
        read_upload(content)


def test_an_empty_upload_gets_a_sentence() -> None:
    with pytest.raises(cs.ImageError, match=r"this file is empty\. Choose a PNG"):
        read_upload(b"")


@pytest.mark.parametrize("kind", cs.FORMATS)
def test_damage_anywhere_is_a_sentence_or_a_picture(kind: str) -> None:
    whole = as_file(Image.effect_noise((40, 30), 50).convert("RGB"), kind)
    for cut in range(1, len(whole), max(1, len(whole) // 40)):
        damaged = bytearray(whole)
        damaged[cut] ^= 0xFF
        for content in (whole[:cut], bytes(damaged)):
            with suppress(cs.ImageError):  # and nothing else
                assert read_upload(content).shape[0] in {1, 3}


def test_only_the_first_frame_upright_and_without_metadata_is_kept() -> None:
    frames = [Image.new("L", (6, 4), value) for value in (10, 200)]
    assert set(read_upload(as_file(frames[0], "GIF", save_all=True, append_images=frames[1:])).ravel()) == {10}
    turned = Image.new("L", (6, 4))
    turned.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112], exif[0x9286] = 6, "where I live"  # orientation, a comment
    pixels = read_upload(as_file(turned, "PNG", exif=exif))
    assert pixels.shape == (1, 6, 4)
    assert pixels[0, 0, 3] == 255
    assert type(pixels) is np.ndarray  # numbers alone: nothing that a comment could travel in


def _webp(width: int, height: int) -> bytes:
    """The head of a lossless WebP of this size, and nothing behind it."""
    bits = (width - 1) | (height - 1) << 14
    data = b"\x2f" + struct.pack("<I", bits) + bytes(64)
    body = b"WEBPVP8L" + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _late_gif() -> bytes:
    """A GIF whose frame is far larger than its screen."""
    content = bytearray(as_file(Image.new("L", (8, 8)), "GIF"))
    at = content.index(b"\x2c", 13 + 3 * 2)  # the image descriptor, behind the colour table
    content[at + 5 : at + 9] = struct.pack("<HH", 60_000, 60_000)
    return bytes(content)


def _large_bmp() -> bytes:
    content = bytearray(as_file(Image.new("L", (8, 8)), "BMP"))
    struct.pack_into("<ii", content, 18, 50_000, 50_000)
    return bytes(content)


BOMBS: dict[str, Callable[[], bytes]] = {
    "many pixels in few bytes": lambda: png(30_000, 30_000, zlib.compress(bytes(30_001 * 3000), 9)),
    "just too many pixels": lambda: png(4001, 4000, zlib.compress(bytes(4002 * 4000), 9)),
    "one bit a pixel": lambda: png(60_000, 60_000, zlib.compress(bytes(7501 * 1000), 9), depth=1),
    "wrong size": lambda: png(2**31 - 1, 2**31 - 1, zlib.compress(b"")),
    "one endless row": lambda: png(2**31 - 1, 1, zlib.compress(bytes(50_000_000), 9)),
    "BMP": _large_bmp,
    "WebP": lambda: _webp(16_384, 16_384),
    "GIF": _late_gif,
    "TIFF": lambda: as_file(Image.new("1", (20_000, 20_000)), "TIFF", compression="group4"),
    "JPEG": lambda: as_file(Image.new("L", (8, 8)), "JPEG").replace(b"\x08\x00\x08\x00\x08", b"\x08\xff\xff\xff\xff"),
    "scans": lambda: as_file(Image.new("L", (8, 8)), "JPEG", progressive=True)[:-2] + b"\xff\xda\x00\x08" * 300,
    "text": lambda: png(8, 8, zlib.compress(bytes(72)), more=_text_chunk()),
}


def _text_chunk() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b" * 60_000_000, zip=True)
    whole = as_file(Image.new("L", (8, 8)), "PNG", pnginfo=info)
    at = whole.index(b"zTXt") - 4
    return whole[at : at + 12 + struct.unpack(">I", whole[at : at + 4])[0]]


MEASURE = """
import sys
from pathlib import Path
from convscope.server.session.uploads import read_upload
import convscope as cs, PIL.Image
def highest():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
PIL.Image.init()
content = sys.stdin.buffer.read()
before = highest()
try:
    said = f"read {read_upload(content).shape}"
except cs.ImageError as error:
    said = str(error)
print(highest() - before, said)
"""


def _measured(content: bytes) -> tuple[int, str]:
    """How many KiB reading took at its height, in a process of its own, and what came of it."""
    result = subprocess.run([sys.executable, "-c", MEASURE], input=content, capture_output=True, check=True)
    more, message = result.stdout.decode().strip().split(" ", 1)
    return int(more), message


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux tells it")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_takes_memory(name: str) -> None:
    content = BOMBS[name]()
    assert len(content) < uploads.MAX_BYTES
    more, message = _measured(content)
    assert more < 8_000, message
    assert message.startswith(("this picture ", "this file ")) or (name == "text" and message == "read (1, 8, 8)"), (
        message
    )


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux tells it")
@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("mode", ["RGBA", "F", "I;16"])
def test_the_largest_picture_that_is_taken_has_bounded_memory(mode: str, upright: bool) -> None:
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 1 if upright else 6
    content = as_file(Image.new(mode, (4000, 4000)), "TIFF", compression="tiff_adobe_deflate", exif=turned)
    assert len(content) < 1_000_000
    more, message = _measured(content)
    assert message.startswith("read ")
    assert more * 1024 < 18 * uploads.MAX_PIXELS


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_several_pictures_the_first_is_used_and_that_is_said(kind: str) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    content = as_file(frames[0], kind, save_all=True, append_images=frames[1:])
    assert uploads.notes_on(content) == ("the file has several pictures; the first one is used",)
    assert uploads.notes_on(as_file(frames[0], kind)) == ()
    assert uploads.notes_on(content[: len(content) // 2]) in {(), uploads.notes_on(content)}, "and no error"


def test_a_picture_that_is_too_large_says_how_large_it_may_be() -> None:
    with pytest.raises(cs.ImageError, match="is 4,001 pixels wide and 4,000 high; the limit is 16 million pixels"):
        read_upload(BOMBS["just too many pixels"]())


def test_the_route_keeps_the_picture_and_answers_with_sentences() -> None:
    gallery = Workspace.of_model(cs.load_model("crosses"))
    client = TestClient(make_app(gallery, Access("t")), base_url="http://localhost")
    headers = {"Authorization": "Bearer t", "Content-Type": "image/png"}
    hostile = "<img src=x onerror=alert(1)>.png"
    answer = client.post("/api/inputs", params={"name": hostile}, headers=headers, content=as_file(COLOURS))
    assert answer.status_code == 200, answer.text
    stored = answer.json()
    assert (stored["height"], stored["width"], stored["channels"]) == (4, 5, 3)
    assert "/" not in stored["id"]
    json.dumps(stored)
    assert stored["notes"] == []
    refused = client.post("/api/inputs", headers=headers, content=b"no picture")
    assert (refused.status_code, list(refused.json())) == (400, ["message"])
    gallery.close()
