"""Partial results: what each batch of a scan gave, appended to a file as it comes, so that a scan can go on later.

A file holds records, each a length, a checksum, and arrays as safetensors; a record that a kill cut short is ignored.
Knows files and NumPy; nothing is pickled.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from convscope.errors import DataError

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
            DataError: the folder holds another scan.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._path = folder / f"part-{rank}.bin"
        said = json.dumps(key, sort_keys=True)
        if not (folder / KEY).exists() and rank == 0:
            (folder / KEY).write_text(said)
        self._check(said)
        self._places: dict[int, tuple[Path, int, int]] = {}
        for path in sorted(folder.glob("part-*.bin")):
            self._index(path, mine=path == self._path)

    def _check(self, said: str) -> None:
        held = (self._folder / KEY).read_text() if (self._folder / KEY).exists() else said
        if held != said:
            was, now = json.loads(held), json.loads(said)
            changed = [name for name in now if was.get(name) != now[name]]
            raise DataError(
                f"{self._folder} holds the partial results of another scan (its {', '.join(changed) or 'key'} differ); "
                "name another folder, or remove it."
            )

    def _index(self, path: Path, *, mine: bool) -> None:
        """Find the whole records of a file; what a kill left behind them is cut off by the file's own process."""
        end = 0
        with path.open("rb") as file:
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                batch, length, checksum = _HEAD.unpack(head)
                body = file.read(length)
                if len(body) != length or zlib.crc32(body) != checksum:
                    break
                self._places[batch] = (path, end + _HEAD.size, length)
                end = file.tell()
        if mine and path.stat().st_size > end:
            with path.open("r+b") as file:
                file.truncate(end)

    @property
    def batches(self) -> set[int]:
        """The batches whose results are here."""
        return set(self._places)

    def read(self, batch: int) -> dict[str, NDArray[Any]]:
        """What a batch gave."""
        path, start, length = self._places[batch]
        with path.open("rb") as file:
            file.seek(start)
            found: dict[str, NDArray[Any]] = load(file.read(length))
            return found

    def append(self, batch: int, arrays: Arrays) -> None:
        """Write what a batch gave."""
        body = save({name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()})
        with self._path.open("ab") as file:
            start = file.tell() + _HEAD.size
            file.write(_HEAD.pack(batch, len(body), zlib.crc32(body)) + body)
        self._places[batch] = (self._path, start, len(body))

    def remove(self) -> None:
        """The scan is done: take away this process' file, and the key."""
        self._path.unlink(missing_ok=True)
        for path in {path for path, _, _ in self._places.values()}:
            path.unlink(missing_ok=True)
        (self._folder / KEY).unlink(missing_ok=True)
