"""Files of images and data sets, damaged in ways that a seed finds: an array or one sentence, within bounded time."""

import gzip
import io
import random
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from PIL import Image

import convscope as cs
from convscope.data.catalog import load_dataset
from convscope.data.idx import parse_idx, to_idx, uncompressed
from convscope.errors import ConvscopeError
from convscope.images import FORMATS

SHORT, LONG = 150, 3000
SECONDS = 30
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 6, 7), np.uint8)


def _image(kind: str, **options: bool) -> bytes:
    content = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (13, 9, 3), np.uint8)).save(content, kind, **options)
    return content.getvalue()


def _archive(*, compressed: bool, images: np.ndarray[tuple[int, ...], np.dtype[np.generic]] = IMAGES) -> bytes:
    content = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(content, images=images, labels=np.arange(12) % 2, classes=np.array(["cat", "dög"]))
    return content.getvalue()


def _read_image(content: bytes, folder: Path) -> None:
    (folder / "fuzzed").write_bytes(content)
    cs.read_image(folder / "fuzzed")


def _read_archive(content: bytes, folder: Path) -> None:
    (folder / "fuzzed.npz").write_bytes(content)
    load_dataset(f"npz:{folder / 'fuzzed.npz'}", split="all")


def _read_idx(content: bytes, _folder: Path) -> None:
    parse_idx(uncompressed(content, "fuzzed"), 3, "fuzzed")


Reader = Callable[[bytes, Path], None]
FILES: dict[str, tuple[bytes, Reader]] = {
    **{kind: (_image(kind), _read_image) for kind in FORMATS},
    "progressive": (_image("JPEG", progressive=True), _read_image),
    "stored": (_archive(compressed=False), _read_archive),
    "compressed": (_archive(compressed=True), _read_archive),
    "floats": (_archive(compressed=False, images=RNG.random((12, 5, 5, 3))), _read_archive),
    "bands": (_archive(compressed=True, images=RNG.integers(0, 9, (12, 5, 5, 7), np.uint16)), _read_archive),
    "idx": (to_idx(IMAGES), _read_idx),
    "idx.gz": (gzip.compress(to_idx(IMAGES)), _read_idx),
}
WORDS = (
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"(",
    b"'",
    b"9" * 20,
    b"PK\x01\x02",
    b"\xff\xda",
    b"O",
    b"\n",
)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The content with one to four changes: bits, bytes, words, parts repeated, removed or moved."""
    made = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at, to = sorted(rng.randrange(len(made) + 1) for _ in range(2))
        kind = rng.randrange(7)
        if kind == 0 and made:
            made[min(at, len(made) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1 and made:
            made[min(at, len(made) - 1)] = rng.randrange(256)
        elif kind == 2:
            word = rng.choice(WORDS)
            made[at : at + len(word)] = word
        elif kind == 3:
            made[at:at] = rng.choice(WORDS)
        elif kind == 4:
            del made[at : min(to, at + rng.choice([1, 8, 10**6]))]
        elif kind == 5:
            made[to:to] = made[at:to]
        else:
            del made[at:]
    return bytes(made)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def late(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"not done within {seconds} s")

    former = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def fuzz(name: str, seeds: range, folder: Path) -> list[str]:
    """What went wrong, by seed."""
    content, read = FILES[name]
    wrong = []
    for seed in seeds:
        made = damaged(content, random.Random(f"{name} {seed}"))
        try:
            with within(SECONDS):
                read(made, folder)
        except ConvscopeError as error:
            if len(str(error)) > 2_000 or "\n" in str(error):
                wrong.append(f"{name} {seed}: no sentence: {str(error)[:200]}")
        except Exception as error:  # whatever it is, it is no sentence
            wrong.append(f"{name} {seed}: {''.join(traceback.format_exception(error)[-2:])}")
    return wrong


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_or_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    FILES[name][1](FILES[name][0], tmp_path)
    wrong = fuzz(name, range(SHORT), tmp_path)
    assert not wrong, "\n".join(wrong[:5])


@pytest.mark.study
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_thousands_of_damaged_files(tmp_path: Path, name: str) -> None:
    wrong = fuzz(name, range(SHORT, SHORT + LONG), tmp_path)
    assert not wrong, "\n".join(wrong[:5])


def test_a_planted_error_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("planted")

    monkeypatch.setattr("convscope.data.npz.layout_of", broken)
    assert any("KeyError: 'planted'" in message for message in fuzz("bands", range(40), tmp_path))
