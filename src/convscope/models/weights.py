"""Weights: reading them from a file safely and putting them into a model, all or nothing.

Knows safetensors and PyTorch's own files; never runs code from a file.
"""

import pickle
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from convscope.errors import WeightsError
from convscope.models.sealed import check_seal

PICKLED = (".pt", ".pth", ".bin", ".ckpt")
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep a state dict, beside their optimizer and epoch."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before every name."""
LISTED = 3  # how many names of each kind a message lists


def load_weights(model: nn.Module, path: str | Path) -> tuple[str, ...]:
    """Put the weights of a file into a model; where they do not fit, nothing changes.

    >>> load_weights(net, "net.pt")  # doctest: +SKIP
    ("took the weights from 'model_state_dict'", "removed the prefix 'module.' from 42 names")

    Args:
        model: Any module.
        path: A .safetensors file, or a state dict saved by `torch.save` (.pt, .pth, .bin, .ckpt).

    Returns:
        What had to be done, in words: unwrapped, renamed, converted.

    Raises:
        WeightsError: no such file, damaged, a pickled object, or names and shapes that do not fit.
    """
    path = Path(path)
    found, said = _unwrapped(_read(path), path)
    own = model.state_dict()
    renamed, said_too = _renamed(found, own)
    _check(renamed, own, model, path)
    model.load_state_dict({name: tensor for name, tensor in renamed.items() if name in own}, strict=False)
    return (*said, *said_too, *_conversions(renamed, own))


def _conversions(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Which types had to become the model's own; an integer counter is not worth a word."""
    pairs = {
        (str(tensor.dtype).removeprefix("torch."), str(own[name].dtype).removeprefix("torch."))
        for name, tensor in found.items()
        if name in own and not is_lazy(own[name]) and tensor.dtype != own[name].dtype
    }
    return [f"converted {have} to {want}" for have, want in sorted(pairs)]


def _read(path: Path) -> Any:
    """What the file holds, its tensors on the CPU."""
    if path.is_dir():
        there = sorted(file.name for file in path.iterdir() if file.suffix in {".safetensors", *PICKLED})
        raise WeightsError(f"{path} is a folder; name a file in it: {', '.join(there) or 'it has no weights'}.")
    if not path.is_file():
        raise WeightsError(f"there is no file {path}; check the path.")
    if path.suffix not in {".safetensors", *PICKLED}:
        raise WeightsError(
            f"{path} is of no known kind; weights are read from .safetensors files, "
            f"and from state dicts in {', '.join(PICKLED)}."
        )
    try:
        if path.suffix == ".safetensors":
            check_seal(path)
            return load_file(path)
        with warnings.catch_warnings():  # about the pickle protocol of files that are none of torch's
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except SafetensorError as error:
        raise WeightsError(f"{path} is damaged or no safetensors file: {error}.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from None
    except Exception as error:  # on a damaged file PyTorch's reader raises whatever it stumbles over
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> WeightsError:
    """Why `torch.load(weights_only=True)` refused: a whole model or other objects, or damage."""
    script = "TorchScript" in str(error)
    whole = isinstance(error, pickle.UnpicklingError) and (
        zipfile.is_zipfile(path) or "Unsupported global" in str(error)
    )
    if not (script or whole):
        return WeightsError(f"{path} is damaged or was not written by torch.save.")
    how = (
        "a TorchScript archive"
        if script
        else "a pickled object (a whole model, or more than tensors), which could run code when it is opened"
    )
    load = "torch.jit.load" if script else "torch.load"
    trust = "" if script else ", weights_only=False"
    return WeightsError(
        f"{path} is {how}; only tensors are read. If you trust it, convert it once, where its code is: "
        f"`from safetensors.torch import save_model; save_model({load}({path.name!r}{trust}), "
        f"{path.with_suffix('.safetensors').name!r})`."
    )


def _unwrapped(found: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict inside whatever a training script saved."""
    notes = []
    while isinstance(found, Mapping):
        inner = next((key for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        notes.append(f"took the weights from {inner!r}")
        found = found[inner]
    tensors = (
        {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
        if isinstance(found, Mapping)
        else {}
    )
    if not tensors:
        holds = (
            f"its names are {_some(map(str, found))}"
            if isinstance(found, Mapping)
            else f"it is a {type(found).__name__}"
        )
        raise WeightsError(f"{path} holds no state dict ({holds}); save one with torch.save(model.state_dict(), ...).")
    return tensors, notes


def _renamed(found: dict[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The same tensors under the model's names, where only prefixes of wrappers stand before these."""
    renamed: dict[str, Tensor] = {}
    removed: Counter[str] = Counter()
    for name, tensor in found.items():
        short = _without_prefixes(name, own)
        fits = short in own and (short == name or short not in found) and short not in renamed
        renamed[short if fits else name] = tensor
        if fits and short != name:
            removed[name.removesuffix(short)] += 1
    return renamed, [f"removed the prefix {prefix!r} from {count} names" for prefix, count in removed.items()]


def _without_prefixes(name: str, own: Mapping[str, Tensor]) -> str:
    while name not in own:
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            break
        name = name.removeprefix(prefix)
    return name


def _check(found: Mapping[str, Tensor], own: Mapping[str, Tensor], model: nn.Module, path: Path) -> None:
    """Refuse names that are missing or unexpected and shapes that differ, listing the first few of each."""
    missing = _missing(found, own)
    unexpected = [name for name in found if name not in own]
    wrong = [
        f"{name} is {_shape(tensor)}, the model's {_shape(own[name])}"
        for name, tensor in found.items()
        if name in own and not is_lazy(own[name]) and tensor.shape != own[name].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
    said = [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]
    if said:
        fit = len(found) - len(unexpected) - len(wrong)
        raise WeightsError(
            f"the weights in {path} do not fit {type(model).__name__}: {'; '.join(said)}. "
            f"{fit} of its {len(own)} tensors fit; check that the model and its arguments are those of the training."
        )


def _missing(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """The model's names that the file lacks; not those that share their memory with one it has, nor batch counters.

    Safetensors keeps a shared tensor once. PyTorch itself does without `num_batches_tracked` in older files.
    """
    present = {own[name].data_ptr() for name in found.keys() & own.keys() if not is_lazy(own[name])} - {0}
    return [
        name
        for name, tensor in own.items()
        if name not in found
        and not name.endswith("num_batches_tracked")
        and (is_lazy(tensor) or tensor.data_ptr() not in present)
    ]


def _some(names: Iterable[str]) -> str:
    """The first few names, and how many more."""
    listed = list(names)
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return ", ".join(listed[:LISTED]) + more


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"
