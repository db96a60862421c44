"""Partial results: what each batch of a scan gave, appended to a file as it comes, so that a scan can go on later.

A file holds records, each a length, a checksum, and arrays as safetensors; a record that a kill cut short is ignored.
Knows files and NumPy; nothing is pickled.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from convscope.errors import DataError
from convscope.files import make_folder, open_own, open_to_read, read_file, write_file
from convscope.json_values import parse_json

Arrays = Mapping[str, NDArray[Any]]
_HEAD = struct.Struct("<qqI")  # the batch, the bytes that follow, their checksum
KEY = "scan.json"


class Partial:
    """The partial results of one scan in a folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     partial = Partial(Path(folder), {"probe": "dead"}, rank=0)
    ...     partial.append(3, {"sum": np.ones(2)})
    ...     again = Partial(Path(folder), {"probe": "dead"}, rank=0)
    ...     again.batches, again.read(3)["sum"].tolist()
    ({3}, [1.0, 1.0])
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], rank: int) -> None:
        """Open a folder, or make it.

        Args:
            key: What the scan is; a folder of another scan is refused.
            rank: Which process appends; each has a file of its own.

        Raises:
            DataError: the folder holds another scan, is damaged, or one of its files is a link.
        """
        self._folder = folder
        self._path = folder / f"part-{rank}.bin"
        self._places: dict[int, tuple[Path, int, int]] = {}
        identity = json.dumps(key, sort_keys=True)
        with self._refusing():
            make_folder(folder)
            if not (folder / KEY).exists() and rank == 0:
                write_file(folder / KEY, identity.encode())
            self._check(identity)
            for path in sorted(folder.glob("part-*.bin")):
                self._index(path, mine=path == self._path)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Within it, what the system refuses is a sentence."""
        try:
            yield
        except OSError as error:
            where = error.filename or self._folder
            raise DataError(f"{where} cannot be used for partial results: {error.strerror or error}.") from None

    def _check(self, identity: str) -> None:
        path = self._folder / KEY
        text = read_file(path) if path.exists() else identity.encode()
        if text == identity.encode():
            return
        try:
            was = parse_json(text)
        except ValueError as error:
            was = str(error)
        if not isinstance(was, dict):
            raise DataError(f"{path} is damaged, or not written by a scan; remove the folder, or name another one.")
        now = json.loads(identity)
        changed = [name for name in now if was.get(name) != now[name]]
        raise DataError(
            f"{self._folder} holds the partial results of another scan (its {', '.join(changed) or 'key'} differ); "
            "name another folder, or remove it."
        )

    def _index(self, path: Path, *, mine: bool) -> None:
        """Find the whole records of a file; what a kill left behind them is cut off by the file's own process."""
        end = 0
        with open_own(path) if mine else open_to_read(path) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(0)
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                batch, length, checksum = _HEAD.unpack(head)
                body = file.read(length) if 0 <= length <= size - end - _HEAD.size else b""
                if batch < 0 or len(body) != length or zlib.crc32(body) != checksum:
                    break
                self._places[batch] = (path, end + _HEAD.size, length)
                end = file.tell()
            if mine and size > end:
                file.truncate(end)

    @property
    def batches(self) -> set[int]:
        """The batches whose results are here."""
        return set(self._places)

    def read(self, batch: int) -> dict[str, NDArray[Any]]:
        """What a batch gave.

        Raises:
            DataError: its record is damaged.
        """
        path, start, length = self._places[batch]
        with self._refusing(), open_to_read(path) as file:
            file.seek(start)
            try:
                found: dict[str, NDArray[Any]] = load(file.read(length))
            except (SafetensorError, ValueError, KeyError, OverflowError):
                raise DataError(f"{path} is damaged; remove it, and its batches are computed again.") from None
            return found

    def append(self, batch: int, arrays: Arrays) -> None:
        """Write what a batch gave."""
        body = save({name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()})
        with self._refusing(), open_own(self._path) as file:
            start = file.seek(0, os.SEEK_END) + _HEAD.size
            file.write(_HEAD.pack(batch, len(body), zlib.crc32(body)) + body)
        self._places[batch] = (self._path, start, len(body))

    def remove(self) -> None:
        """The scan is done: take away this process' file, and the key."""
        self._path.unlink(missing_ok=True)
        for path in {path for path, _, _ in self._places.values()}:
            path.unlink(missing_ok=True)
        (self._folder / KEY).unlink(missing_ok=True)
