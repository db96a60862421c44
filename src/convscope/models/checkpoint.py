"""Checkpoint: read a file saved by a training script without running any of its code."""

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from pickletools import genops
from threading import Lock
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from convscope.errors import WeightsError
from convscope.models.weights_files import check_seal, damaged, format_of

WRITTEN = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")
"""Usual suffixes of weights files; used to list a folder, never to decide how a file is read."""


class Omitted:
    """A stand-in for a checkpoint's non-tensor objects: accepts arguments and state, and discards them.

    Reading builds this class instead of the one that the file names, so nothing of that name is imported, looked up or
    called. It has no attribute that could be set and cannot be called.
    """

    __slots__ = ()

    def __new__(cls, *_arguments: object) -> "Omitted":
        """Accept any arguments."""
        return super().__new__(cls)

    def __init__(self, *_arguments: object) -> None: ...

    def __setstate__(self, _state: object) -> None: ...


class OmittedMapping:
    """Builds a plain OrderedDict for a checkpoint's dict subclasses: keeps their items and discards everything else.

    The default factory of a defaultdict is one of the arguments, and so dropped.
    """

    def __new__(cls, *_arguments: object) -> "OrderedDict[object, object]":  # type: ignore[misc]
        """Empty; the unpickler adds the items."""
        return OrderedDict()


class OmittedSequence:
    """Builds a plain list for a checkpoint's deques."""

    def __new__(cls, *_arguments: object) -> list[object]:  # type: ignore[misc]
        """Empty; the unpickler adds the items."""
        return []


def _named(module: str, names: str) -> tuple[str, ...]:
    return tuple(f"{module}.{name}" for name in names.split())


VALUES = (
    # A pickle spells NumPy's scalars and arrays as calls of these; the modules had other names before NumPy 2.
    *_named("numpy.core.multiarray", "scalar _reconstruct"),
    *_named("numpy._core.multiarray", "scalar _reconstruct"),
    *_named("numpy.core.numeric", "_frombuffer"),
    *_named("numpy._core.numeric", "_frombuffer"),
    *_named("numpy", "dtype ndarray bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64"),
    *_named("numpy", "float16 float32 float64 complex64 complex128 str_ bytes_"),
    # Arguments and settings.
    "argparse.Namespace",
    "types.SimpleNamespace",
    *_named("builtins", "int float str bool bytes list tuple dict frozenset slice range object"),
    "typing.Any",
    # Places, times and numbers.
    *_named("pathlib", "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath"),
    *_named("pathlib._local", "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath"),
    *_named("datetime", "datetime date time timedelta timezone"),
    "decimal.Decimal",
    "fractions.Fraction",
    "uuid.UUID",
    "torch.torch_version.TorchVersion",
    # Configurations by OmegaConf, which Hydra and Lightning keep.
    *_named("omegaconf.dictconfig", "DictConfig"),
    *_named("omegaconf.listconfig", "ListConfig"),
    *_named("omegaconf.base", "ContainerMetadata Metadata"),
    *_named("omegaconf.nodes", "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode PathNode StringNode"),
    # Classes by which older releases of Lightning name the state of a callback.
    *_named("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
    *_named("pytorch_lightning.callbacks.early_stopping", "EarlyStopping"),
)
"""Names of plain value types that scripts save next to tensors; each is replaced by `Omitted`."""
MAPPINGS = (
    "collections.defaultdict",
    "easydict.EasyDict",
    "yacs.config.CfgNode",
    "munch.Munch",
    "addict.Dict",
    "addict.addict.Dict",
    "mmengine.config.config.ConfigDict",
    "mmcv.utils.config.ConfigDict",
    *(f"{module}.AttributeDict" for module in (
        "pytorch_lightning.utilities.parsing",
        "lightning.pytorch.utilities.parsing",
        "lightning_fabric.utilities.data",
        "lightning.fabric.utilities.data",
    )),
)  # fmt: skip
"""Subclasses of dict; each is replaced by a plain OrderedDict."""
STAND_INS: tuple[tuple[Callable[..., Any], str], ...] = (
    *((Omitted, name) for name in VALUES),
    *((OmittedMapping, name) for name in MAPPINGS),
    (OmittedSequence, "collections.deque"),
)
"""Name -> what is built for it, in addition to PyTorch's own. A name is safe because of what is built for it here, not
because of what it means elsewhere; any other name is rejected."""
SYSTEM = frozenset({"os", "posix", "nt", "sys", "subprocess", "shutil", "runpy", "importlib", "socket", "webbrowser"})
"""Modules whose functions are typical of a malicious pickle."""
_reading = Lock()
"""`safe_globals` changes a process-wide table, so only one file is read at a time."""


def read_checkpoint(path: Path) -> object:
    """The content of a weights file, with tensors on the CPU; objects other than containers and numbers are left out.

    Raises:
        WeightsError: it cannot be read, is something else, or names code.
    """
    try:
        if path.is_dir():
            names = sorted(file.name for file in path.iterdir() if file.suffix in WRITTEN)
            raise WeightsError(f"{path} is a folder; name a file in it: {', '.join(names) or 'it has no weights'}.")
        if not path.exists():
            raise WeightsError(f"there is no file {path}; check the path.")
        if not path.is_file():
            raise WeightsError(f"{path} is a device or a pipe; weights are read from files.")
        with path.open("rb") as file:
            if format_of(path, file) == "torch":
                return _read_torch(path, file)
        check_seal(path)
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{path} is damaged or not a safetensors file: {error}.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise WeightsError(f"{path} cannot be read: {reason or error}.") from None


def _read_torch(path: Path, file: BinaryIO) -> object:
    try:
        return _unpickled(file, STAND_INS)
    except Exception as error:  # PyTorch's reader raises many kinds of errors for a damaged file
        raise _refusal(path, file, error) from None


def _unpickled(file: BinaryIO, stand_ins: Iterable[tuple[Callable[..., Any], str]]) -> Any:
    """The result of `torch.load`, restricted to tensors, containers, numbers and the stand-ins."""
    file.seek(0)
    with _reading, warnings.catch_warnings(), torch.serialization.safe_globals(list(stand_ins)):
        warnings.simplefilter("ignore")  # about the pickle protocol of files that torch.save did not write
        return torch.load(file, map_location="cpu", weights_only=True)


def _refusal(path: Path, file: BinaryIO, error: Exception) -> WeightsError:
    """Why a file was rejected: a TorchScript archive, a reference to code, another protocol, or damage."""
    message = str(error)
    if "TorchScript" in message:
        return WeightsError(
            f"{path} is a TorchScript archive; only tensors are read. If you trust it, convert it once: "
            f"`from safetensors.torch import save_model; save_model(torch.jit.load({path.name!r}), "
            f"{_stem(path) + '.safetensors'!r})`."
        )
    if not isinstance(error, pickle.UnpicklingError):
        return WeightsError(damaged(path))
    global_match = re.search(r"GLOBAL (\S+)", message)
    if global_match is None:
        reason = "uses an instruction of pickle that is not read" if "operand" in message else "is not only tensors"
        return WeightsError(
            f"{damaged(path).rstrip('.')}; it is a pickle that {reason}. Save a state dict with "
            "torch.save(model.state_dict(), ...) and its default protocol."
        )
    hostile = (
        global_match[1].partition(".")[0] in SYSTEM or "." not in global_match[1]
    )  # PyTorch leaves out the word builtins
    advice = "Weights need no such name: do not open it by other means either, unless you know who wrote it and why."
    return WeightsError(
        f"{path} is a pickled object (a whole model, or more than tensors), which could run code when it is opened: it "
        f"names {global_match[1]}; only tensors are read. {advice if hostile else _advice(path, file)}"
    )


def _advice(path: Path, file: BinaryIO) -> str:
    """Advice on how to save only the tensors, judged by the file's outline, which is read without running code."""
    try:
        operations = _operations(file)
        outline = _outline(file, operations)
    except Exception:  # what cannot be looked at gets the general advice
        operations, outline = [], None
    load, stem = f"torch.load({path.name!r}, weights_only=False)", _stem(path)
    weights = f"{stem + '-weights.pth'!r}"
    code = f"from safetensors.torch import save_model; save_model({load}, {stem + '.safetensors'!r})"
    if isinstance(outline, dict):
        keys = [key for key, value in dict.items(outline) if _holds_tensors(value)]
        models = [key for key, value in dict.items(outline) if type(value) is Omitted]
        models.sort(key=lambda key: key not in {"model", "net", "network", "ema", "module"})
        if any(isinstance(outline[key], Tensor) for key in keys):
            code = f"torch.save({{name: value for name, value in {load}.items() if torch.is_tensor(value)}}, {weights})"
        elif keys:
            code = f"torch.save({load}[{keys[0]!r}], {weights})"
        elif models:
            code = f"torch.save({load}[{models[0]!r}].state_dict(), {weights})"
    elif "EMPTY_DICT" in operations[1:2]:  # a dict, and models in it that PyTorch before 1.6 wrote
        models_of = f"{load}.items() if hasattr(value, 'state_dict')"
        code = f"torch.save({{name: value.state_dict() for name, value in {models_of}}}, {weights})"
    return f"If you trust it, convert it once, where its code is: `{code}`."


def _outline(file: BinaryIO, operations: Iterable[str]) -> object:
    """The file's content with every name replaced by `Omitted`; None if it cannot be read that way."""
    stand_in_names = {name for _, name in STAND_INS}
    global_names = {
        operation.partition(" ")[2].replace(" ", ".") for operation in operations if operation[:7] == "GLOBAL "
    }
    try:  # PyTorch's own types come before these
        return _unpickled(file, (*STAND_INS, *((Omitted, name) for name in global_names - stand_in_names)))
    except Exception:  # it only serves a better sentence
        return None


def _operations(file: BinaryIO) -> list[str]:
    """The operations of a pickle, names with them: of a zip archive, or the fourth of a legacy file."""
    file.seek(0)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            listed = list(genops(archive.read(member)))
    else:
        file.seek(0)
        listed = [list(genops(file)) for _part in ("magic", "version", "system", "content")][3]
    return [f"{code.name} {value}" if code.name == "GLOBAL" else code.name for code, value, _ in listed]


def _holds_tensors(value: object) -> bool:
    if isinstance(value, dict):
        return any(isinstance(item, Tensor) for item in dict.values(value))
    return isinstance(value, Tensor)


def _stem(path: Path) -> str:
    """A file's name without the suffixes of weights: `model.pth.tar` gives `model`."""
    return re.sub(r"(\.(pth|pt|bin|ckpt|tar|pkl))+$", "", path.name)
