"""The MNIST family: IDX files, where they are looked for, and downloading them from a server on this machine."""

import gzip
import hashlib
import re
import threading
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from convscope.data.catalog import DATASETS, at_hand, load_dataset
from convscope.data.idx import parse_idx, to_idx, uncompressed
from convscope.data.mnist import FAMILIES, Family, File
from convscope.errors import DataError, DataWarning, DownloadError, UsageError
from convscope.typing import Array

ARRAYS = {
    "train-images-idx3-ubyte": np.arange(6 * 9, dtype=np.uint8).reshape(6, 3, 3),
    "train-labels-idx1-ubyte": np.array([0, 1, 2, 0, 1, 9], np.uint8),
    "t10k-images-idx3-ubyte": np.arange(100, 118, dtype=np.uint8).reshape(2, 3, 3),
    "t10k-labels-idx1-ubyte": np.array([3, 4], np.uint8),
}
PLAIN = {name: to_idx(array) for name, array in ARRAYS.items()}
PACKED = {name: gzip.compress(content, mtime=0) for name, content in PLAIN.items()}


# --- the format ------------------------------------------------------------------------------------------------------


@given(
    array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6)), packed=st.booleans()
)
def test_an_array_survives_the_idx_format(array: Array, packed: bool) -> None:
    content = to_idx(array)
    stored = gzip.compress(content) if packed else content
    read = parse_idx(uncompressed(stored, "a file"), array.ndim, "a file")
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.uint8


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut off": (lambda c: c[:-1], "is cut off or too long: it has 31 bytes and its header says 2x2x4"),
    "too long": (lambda c: c + b"\0", "is cut off or too long"),
    "no header": (lambda c: c[:7], "is cut off within its header"),
    "empty": (lambda _: b"", "is not an IDX file of unsigned bytes; it begins with nothing"),
    "a page": (lambda _: b"<!DOCTYPE html>", "it begins with 3c 21 44 4f"),
    "floats": (lambda c: c[:2] + b"\x0d" + c[3:], "is not an IDX file of unsigned bytes"),
    "labels": (lambda _: to_idx(np.zeros(5, np.uint8)), "holds an array of 1 dimensions where 3 are needed"),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_idx_file_is_named(damage: Callable[[bytes], bytes], said: str) -> None:
    whole = to_idx(np.zeros((2, 2, 4), np.uint8))
    with pytest.raises(DataError, match=said) as caught:
        parse_idx(damage(whole), 3, "images.idx")
    assert "images.idx" in str(caught.value)


@given(at=st.floats(0, 1), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_gzip_file_is_an_error_or_the_same_content(at: float, value: int, cut: bool) -> None:
    content = bytearray(PACKED["train-images-idx3-ubyte"])
    path = 2 + int(at * (len(content) - 3))
    content[path] = value
    stored = bytes(content[:path] if cut else content)
    try:
        read = uncompressed(stored, "a file")
    except DataError:
        return
    assert read == PLAIN["train-images-idx3-ubyte"]


# --- a family of small files instead of the real ones ----------------------------------------------------------------


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, somewhere else for once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CONVSCOPE_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path / "cache" / "convscope" / "mnist"


@pytest.fixture
def family(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Family:
    """`mnist` with small files, and servers that do not answer."""
    pairs = {
        split: tuple(
            File(f"{part}-{kind}-ubyte", digest(PLAIN[f"{part}-{kind}-ubyte"]))
            for kind in ("images-idx3", "labels-idx1")
        )
        for split, part in {"train": "train", "test": "t10k"}.items()
    }
    small = replace(
        FAMILIES["mnist"],
        mirrors=("http://127.0.0.1:9/first/", "http://127.0.0.1:9/second/"),
        files=cast("dict[str, tuple[File, File]]", pairs),
    )
    monkeypatch.setitem(cast("MutableMapping[str, Family]", FAMILIES), "mnist", small)
    return small


def put(folder: Path, files: dict[str, bytes], rename: Callable[[str], str] = str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / rename(name)).write_bytes(content)
    return folder


SPELLINGS: dict[str, tuple[dict[str, bytes], Callable[[str], str]]] = {
    "gzip": (PACKED, lambda name: f"{name}.gz"),
    "plain": (PLAIN, str),
    "dotted": (PLAIN, lambda name: name.replace("-idx", ".idx")),
    "dotted gzip": (PACKED, lambda name: name.replace("-idx", ".idx") + ".gz"),
    "unpacked, still called .gz": (PLAIN, lambda name: f"{name}.gz"),
}


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize(("files", "rename"), SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("below", ["", "mnist"])
def test_files_are_found_under_each_of_their_names(
    tmp_path: Path, files: dict[str, bytes], rename: Callable[[str], str], below: str
) -> None:
    put(tmp_path / "data" / below, files, rename)
    train, test, both = (load_dataset("mnist", split=s, data_dir=tmp_path / "data") for s in ("train", "test", "all"))
    np.testing.assert_array_equal(train.images[:, 0], ARRAYS["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(train.labels, ARRAYS["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(test.images[:, 0], ARRAYS["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(both.images, np.concatenate([train.images, test.images]))
    np.testing.assert_array_equal(both.labels, np.concatenate([train.labels, test.labels]))


@pytest.mark.usefixtures("family")
def test_data_dir_goes_before_the_variable_and_this_before_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache, PACKED, lambda name: f"{name}.gz")
    assert load_dataset("mnist").labels[0] == 0
    marked = {name: to_idx(np.full_like(array, 7)) for name, array in ARRAYS.items()}
    monkeypatch.setenv("CONVSCOPE_DATA", str(put(tmp_path / "variable", {}).parent))
    assert load_dataset("mnist").labels[0] == 0  # a variable that names no folder with these files is passed over
    monkeypatch.setenv("CONVSCOPE_DATA", str(put(tmp_path / "variable", marked)))
    with pytest.warns(DataWarning, match="is not the published file of mnist"):
        assert load_dataset("mnist").labels[0] == 7
    assert load_dataset("mnist", data_dir=put(tmp_path / "given", PLAIN)).labels[0] == 0


@pytest.mark.usefixtures("family")
def test_a_wrong_checksum_is_warned_about_and_the_file_used(tmp_path: Path) -> None:
    put(tmp_path, PLAIN | {"train-labels-idx1-ubyte": to_idx(np.array([5, 5, 5, 5, 5, 5], np.uint8))})
    message = re.escape(
        f"{tmp_path / 'train-labels-idx1-ubyte'} is not the published file of mnist (its checksum differs)"
    )
    with pytest.warns(DataWarning, match=message):
        assert set(load_dataset("mnist", data_dir=tmp_path).labels) == {5}
    load_dataset("mnist", split="test", data_dir=tmp_path)  # those files are as published: no warning


@pytest.mark.usefixtures("family")
def test_the_files_of_another_family_are_refused(tmp_path: Path) -> None:
    put(tmp_path, PLAIN)
    with pytest.raises(DataError, match="train-images-idx3-ubyte belongs to mnist, not to kmnist"):
        load_dataset("kmnist", data_dir=tmp_path)


@pytest.mark.usefixtures("family")
def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere to take mnist from; check --data-dir"):
        load_dataset("mnist", data_dir=tmp_path / "nowhere")
    broken = put(tmp_path / "broken", PACKED | {"train-images-idx3-ubyte": PACKED["train-images-idx3-ubyte"][:40]})
    with pytest.raises(DataError, match="train-images-idx3-ubyte is a damaged gzip file"):
        load_dataset("mnist", data_dir=broken)
    few = put(tmp_path / "few", PLAIN | {"train-labels-idx1-ubyte": to_idx(np.array([1, 2], np.uint8))})
    with pytest.warns(DataWarning), pytest.raises(DataError, match=r"mnist has 6 images and labels of shape \(2,\)"):
        load_dataset("mnist", data_dir=few)
    outside = put(
        tmp_path / "outside", PLAIN | {"train-labels-idx1-ubyte": to_idx(np.array([1, 2, 3, 10, 0, 0], np.uint8))}
    )
    with (
        pytest.warns(DataWarning),
        pytest.raises(DataError, match="label 10 of image 3 of mnist is outside its 10 classes"),
    ):
        load_dataset("mnist", data_dir=outside)


def test_a_packed_checksum_is_compared_with_the_packed_file_only(
    tmp_path: Path, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "train-images-idx3-ubyte"
    packed = replace(family.files["train"][0], sha256=digest(PACKED[name]), packed=True)
    changed = replace(family, files={**family.files, "train": (packed, family.files["train"][1])})
    monkeypatch.setitem(cast("MutableMapping[str, Family]", FAMILIES), "mnist", changed)
    load_dataset("mnist", data_dir=put(tmp_path / "packed", PACKED))
    load_dataset("mnist", data_dir=put(tmp_path / "plain", PLAIN))  # cannot be checked: no warning
    other = PACKED | {name: gzip.compress(PLAIN[name], 1, mtime=9)}
    with pytest.warns(DataWarning, match="its checksum differs"):
        load_dataset("mnist", data_dir=put(tmp_path / "other", other))


# --- downloading -----------------------------------------------------------------------------------------------------


class Server:
    """Answers each path with a content or a status, and remembers what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | int] = {}
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                answer = server.answers.get(self.path, 404)
                self.send_response(answer if isinstance(answer, int) else 200)
                if isinstance(answer, bytes):
                    self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer if isinstance(answer, bytes) else b"")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name that it has there
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def give(self, mirror: str, files: dict[str, bytes]) -> None:
        self.answers |= {f"/{mirror}/{name}.gz": content for name, content in files.items()}


@pytest.fixture
def server(family: Family, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with two mirrors of `mnist`, `first` and `second`, both empty."""
    running = Server()
    thread = threading.Thread(target=partial(running.http.serve_forever, poll_interval=0.01))
    thread.start()
    mirrors = tuple(f"{running.url}/{mirror}/" for mirror in ("first", "second"))
    monkeypatch.setitem(cast("MutableMapping[str, Family]", FAMILIES), "mnist", replace(family, mirrors=mirrors))
    yield running
    running.http.shutdown()
    running.http.server_close()
    thread.join()


def test_files_are_downloaded_once(server: Server, cache: Path) -> None:
    server.give("first", PACKED)
    warned: list[tuple[str, int, int]] = []
    data = load_dataset("mnist", progress=lambda *state: warned.append(state))
    np.testing.assert_array_equal(data.labels, ARRAYS["train-labels-idx1-ubyte"])
    assert server.asked == ["/first/train-images-idx3-ubyte.gz", "/first/train-labels-idx1-ubyte.gz"]
    size = len(PACKED["train-images-idx3-ubyte"])
    assert warned[0] == ("downloading train-images-idx3-ubyte.gz", 0, size)
    assert ("downloading train-images-idx3-ubyte.gz", size, size) in warned
    server.answers.clear()
    load_dataset("mnist")
    assert len(server.asked) == 2
    assert sorted(path.name for path in cache.iterdir()) == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]


def test_the_second_mirror_is_asked_where_the_first_fails_or_lies(server: Server) -> None:
    server.give("second", PACKED)
    server.answers["/first/train-labels-idx1-ubyte.gz"] = PACKED["t10k-labels-idx1-ubyte"]
    data = load_dataset("mnist")
    np.testing.assert_array_equal(data.labels, ARRAYS["train-labels-idx1-ubyte"])
    assert server.asked == [f"/{mirror}/{name}.gz" for name in list(PACKED)[:2] for mirror in ("first", "second")]


def test_a_file_that_lost_a_byte_in_the_cache_is_downloaded_again(server: Server, cache: Path) -> None:
    server.give("first", PACKED)
    load_dataset("mnist")
    path = cache / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    np.testing.assert_array_equal(load_dataset("mnist").images[:, 0], ARRAYS["train-images-idx3-ubyte"])
    assert len(server.asked) == 3


def test_corrupted_downloads_leave_nothing_behind(server: Server, cache: Path) -> None:
    server.give("first", {name: content[:-3] for name, content in PACKED.items()})
    server.answers["/second/train-images-idx3-ubyte.gz"] = 503
    with pytest.raises(DownloadError) as caught:
        load_dataset("mnist")
    message = str(caught.value)
    assert "127.0.0.1" in message
    assert "it sent a different file: the checksum is wrong" in message
    assert "HTTP 503" in message
    assert list(cache.iterdir()) == []


def test_a_download_that_breaks_off_is_not_kept(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.give("first", PACKED)

    def interrupt(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_dataset("mnist", progress=interrupt)
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("family")
def test_offline_it_says_which_files_to_put_where(cache: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        load_dataset("mnist", split="test")
    message = str(caught.value)
    assert message.startswith(
        "mnist is not on this machine: t10k-images-idx3-ubyte.gz cannot be downloaded (127.0.0.1:9: no"
    )
    for name in PLAIN:
        assert f"{name}.gz" in message
    assert f"into {cache}, or name the folder that has them with --data-dir or CONVSCOPE_DATA." in message
    assert caught.value.exit_status == 1


def test_a_cache_that_cannot_be_written_is_named(server: Server, cache: Path) -> None:
    server.give("first", PACKED)
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match=re.escape(f"{cache} cannot be written: ")):
        load_dataset("mnist")


# --- the real files --------------------------------------------------------------------------------------------------


def test_real_mnist_is_as_it_was_published(shared_data: Path) -> None:
    train, test, both = (load_dataset("mnist", split=s, data_dir=shared_data) for s in ("train", "test", "all"))
    for data in (train, test, both):
        assert len(data) == DATASETS["mnist"].sizes[data.split]
        assert data.shape == DATASETS["mnist"].shape
    assert train.counts() == dict(zip("0123456789", np.bincount(train.labels), strict=True))
    assert list(train.labels[:5]) == [5, 0, 4, 1, 9]
    assert list(test.labels[:5]) == [7, 2, 1, 0, 4]
    assert abs(train.images.mean() / 255 - 0.1307) < 1e-4  # the mean that everybody normalizes with
    assert train.image(0).max() == 1


def test_the_table_of_families_is_complete() -> None:
    for name, family in FAMILIES.items():
        assert len(family.mirrors) == 2, name
        assert len(set(family.classes)) == 10
        files = [file for split in ("train", "test") for file in family.files[split]]
        assert [file.name for file in files] == list(PLAIN)
        assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in files)
    digests = [file.sha256 for family in FAMILIES.values() for pair in family.files.values() for file in pair]
    assert len(set(digests)) == 12


def test_whether_files_are_at_hand_is_told_without_reading_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONVSCOPE_DATA", raising=False)
    monkeypatch.setattr("convscope.data.mnist.cache_folder", lambda: tmp_path / "cache")
    assert at_hand("crosses")
    assert not at_hand("mnist", data_dir=tmp_path)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{part}-ubyte.gz").touch()
    assert at_hand("mnist", data_dir=tmp_path)
    with pytest.raises(UsageError, match="there is no folder"):
        at_hand("mnist", data_dir=tmp_path / "none")


def test_a_gzip_bomb_is_unpacked_no_further_than_its_header_says(monkeypatch: pytest.MonkeyPatch) -> None:
    head = bytes([0, 0, 8, 3]) + (10).to_bytes(4, "big") + (28).to_bytes(4, "big") * 2
    bomb = gzip.compress(head + bytes(50_000_000), 1)
    unpacked = uncompressed(bomb, "a file")
    assert len(unpacked) == len(head) + 10 * 28 * 28 + 1
    with pytest.raises(DataError, match=r"a file is cut off or too long: .* its header says 10x28x28"):
        parse_idx(unpacked, 3, "a file")
    assert len(uncompressed(gzip.compress(bytes(50_000_000), 1), "a file")) < 2_000
    huge = gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12 + bytes(5_000))
    with pytest.raises(DataError, match=r"the numbers of a file need about 79,228,162,458,924,105,728 GB of memory"):
        uncompressed(huge, "a file")


def test_a_damaged_checksum_is_seen_of_a_small_file_too() -> None:
    content = bytearray(gzip.compress(to_idx(np.arange(5, dtype=np.uint8))))
    content[-5] ^= 1
    with pytest.raises(DataError, match="is a damaged gzip file"):
        uncompressed(bytes(content), "a file")


def test_a_pointer_of_git_lfs_is_named() -> None:
    with pytest.raises(DataError, match=r"a file is a pointer of Git LFS, .*git lfs pull"):
        parse_idx(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", 3, "a file")
