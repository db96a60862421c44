"""Parquet and arrow files as anyone may make them: read, or refused in one sentence, whole and as a stream."""

import io
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convscope as cs
from convscope.errors import ConvscopeError

datasets = pytest.importorskip("datasets", reason="hub: data need Hugging Face datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

pytestmark = pytest.mark.usefixtures("own_cache")
COUNT = 8
ROW = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(place: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((6, 6), 20 * place, np.uint8)).save(file, "PNG")
    return file.getvalue()


def table(label: Any = None, image: Any = None, features: object = None) -> Any:
    """Eight images with two classes; other columns, or features as the library writes them, where they are given."""
    images = pa.array([{"bytes": png(k), "path": None} for k in range(COUNT)], ROW) if image is None else image
    labels = pa.array([0, 1] * (COUNT // 2)) if label is None else label
    made = pa.table({"image": images, "label": labels})
    header = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    return made if features is None else made.replace_schema_metadata(header)


def parquet(rows: Any) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        pq.write_table(rows, folder / "all.parquet")
        return f"hub:{folder}/all.parquet"

    return write


def paths(path: str) -> Callable[[Path], str]:
    return parquet(table(image=pa.array([{"bytes": None, "path": path}] * COUNT, ROW)))


def labels(values: list[Any], kind: Any = None) -> Callable[[Path], str]:
    return parquet(table(pa.array(values * (COUNT // len(values)), kind)))


def classes(names: object) -> Callable[[Path], str]:
    return parquet(table(features={"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}))


def saved(folder: Path) -> Path:
    """The folder of `save_to_disk`."""
    rows = datasets.Dataset.from_dict({"image": [png(k) for k in range(COUNT)], "label": [0, 1] * (COUNT // 2)})
    rows.save_to_disk(folder / "disk")
    return folder / "disk"


def state(text: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (saved(folder) / "state.json").write_text(text)
        return f"hub:{folder}/disk"

    return write


def arrow(change: Callable[[bytes], bytes]) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (file,) = saved(folder).glob("*.arrow")
        (folder / "all.arrow").write_bytes(change(file.read_bytes()))
        shutil.rmtree(folder / "disk")
        return f"hub:{folder}/all.arrow"

    return write


def footer(change: Callable[[bytes], bytes]) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        name = parquet(table())(folder)
        path = folder / "all.parquet"
        path.write_bytes(change(path.read_bytes()))
        return name

    return write


def _twice(folder: Path) -> str:
    one = table()
    columns = [one.column("image"), one.column("label"), one.column("label")]
    return parquet(pa.Table.from_arrays(columns, ["image", "label", "label"]))(folder)


HOSTILE: dict[str, Callable[[Path], str]] = {
    "labels in lists": labels([[0], [1]]),
    "labels in structs": labels([{"a": 0}, {"a": 1}]),
    "labels of a time": labels([0, 1], pa.timestamp("s")),
    "labels of a duration": labels([0, 1], pa.duration("s")),
    "labels of bytes": labels([b"a", b"\xff"]),
    "labels of fractions": labels([0.0, 1.0]),
    "a label of 10^12": labels([10**12, 0]),
    "a label of 2^63 - 1": labels([2**63 - 1, 0]),
    "a label of 2^64 - 1": labels([2**64 - 1, 0], pa.uint64()),
    "a negative label": labels([-5, 0]),
    "a label that is missing": labels([None, 0]),
    "labels of no type": labels([None], pa.null()),
    "a name of a million characters": labels(["x" * 1_000_000, "b"]),
    "a label beyond the classes": parquet(
        table(
            pa.array([7, 0] * (COUNT // 2)),
            features={"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}},
        )
    ),
    "classes that are numbers": classes([1, 2]),
    "classes alike": classes(["a", "a"]),
    "no classes": classes([]),
    "features that are a number": parquet(table(features={"image": 5})),
    "features that are a list": parquet(table(features=[1, 2])),
    "features of an unknown kind": parquet(table(features={"image": {"_type": "os.system"}, "label": {}})),
    "features nested deeply": parquet(table(features=json.loads('{"a":' * 200 + "{}" + "}" * 200))),
    "images that are lists": parquet(table(image=pa.array([[1, 2, 3]] * COUNT))),
    "images that are numbers": parquet(table(image=pa.array([1] * COUNT))),
    "images that are other structs": parquet(table(image=pa.array([{"a": 1}] * COUNT))),
    "images whose path is a number": parquet(table(image=pa.array([{"path": 3}] * COUNT))),
    "a path outside": paths("../../../../etc/passwd"),
    "a path of a device": paths("/dev/zero"),
    "a path with a zero": paths("a\0b"),
    "a path of a folder": paths("/"),
    "a long path": paths("x" * 100_000),
    "an address": paths("http://127.0.0.1:9/x.png"),
    "chained addresses": paths("hf://datasets/a/b/x.png::file:///etc/passwd"),
    "no rows": parquet(table().slice(0, 0)),
    "a column twice": _twice,
    "the state without files": state("{}"),
    "a list as state": state("[]"),
    "files of the state elsewhere": state('{"_data_files": [{"filename": "/etc/passwd"}]}'),
    "an arrow file cut": arrow(lambda content: content[: len(content) // 2]),
    "an arrow file of a huge message": arrow(lambda content: content[:4] + struct.pack("<i", 2**31 - 1) + content[8:]),
    "an arrow file of nothing": arrow(lambda _: b"ARROW1\0\0"),
    "a parquet file cut": footer(lambda content: content[: len(content) // 2]),
    "a parquet file of a huge footer": footer(lambda content: content[:-8] + b"\xff\xff\xff\xff" + content[-4:]),
    "a parquet file of an odd footer": footer(lambda content: content[:-200] + bytes(192) + content[-8:]),
}


@pytest.mark.parametrize("how", ["", "?stream"])
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_hostile_file_is_refused_in_a_sentence(name: str, how: str, tmp_path: Path) -> None:
    place = HOSTILE[name](tmp_path) + how
    with pytest.raises(ConvscopeError) as refused:
        cs.load_dataset(place, split="all")
    message = str(refused.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 700
    assert str(tmp_path) in message


def test_odd_but_sound_columns_are_read(tmp_path: Path) -> None:
    for name, column in {
        "words in a dictionary": pa.array(["x", "y"] * 4).dictionary_encode(),
        "numbers in a dictionary": pa.array([0, 1] * 4).dictionary_encode(),
        "long words": pa.array(["x", "y"] * 4, pa.large_string()),
        "truth values": pa.array([True, False] * 4),
        "bytes": pa.array([0, 1] * 4, pa.int8()),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        data = cs.load_dataset(parquet(table(column))(folder), split="all")
        assert len(data.classes) == 2, name
        assert sorted(set(data.labels.tolist())) == [0, 1]


def test_the_next_option_is_joined_as_it_has_to_be(tmp_path: Path) -> None:
    pq.write_table(table().rename_columns(["image", "kind"]), tmp_path / "all.parquet")
    with pytest.raises(ConvscopeError, match=r"name it: hub:.*\.parquet\?stream&label=COLUMN"):
        cs.load_dataset(f"hub:{tmp_path}/all.parquet?stream", split="all")
