"""Weights: load a file into a model, all or nothing.

Uses what loading has to say; `checkpoint` reads, `matching` finds the model's tensors.
"""

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from convscope.errors import UsageError, WeightsError
from convscope.escaping import first_few
from convscope.models.checkpoint import read_checkpoint
from convscope.models.weight_matching import (
    CheckpointEntry,
    Match,
    entries_of,
    find_weights,
    fitting,
    left_over,
    misfit,
    missing,
)
from convscope.type_checks import kind_of


def load_weights(model: nn.Module, path: str | Path, key: str | None = None) -> tuple[str, ...]:
    """Load the weights of a file into a model; if they do not fit, nothing changes.

    >>> load_weights(net, "net.pth.tar")  # doctest: +SKIP
    ("took the weights from 'state_dict'", "removed the prefix 'module.' from 42 names")

    Args:
        model: Any module.
        path: A safetensors file, or what `torch.save` wrote: a state dict, or a checkpoint that holds one under any
            key. Files are recognized by their content, not by their suffix.
        key: Where in a checkpoint the weights are, such as "state_dict_ema" or "ema.model"; None finds them.

    Returns:
        What had to be done, in words: unwrapped, renamed, converted, left out.

    Raises:
        WeightsError: no such file, damaged, names code, or names and shapes that do not fit; or several sets of
            weights fit and none of them is plainly meant.
        UnknownName: the checkpoint has no such key.
        UsageError: `path` is not a path, or `key` no text.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"weights are loaded into an nn.Module, not into {kind_of(model)}.")
    path = _as_path(path)
    if not isinstance(key, str | None):
        raise UsageError(f"weights_key is the name of a key in the file, not {kind_of(key)}.")
    content = read_checkpoint(path)
    entries = entries_of(content) if isinstance(content, dict | list | tuple) else {}
    if not entries:
        raise WeightsError(
            f"{path} holds no state dict ({_described(content)}); save one with torch.save(model.state_dict(), ...)."
        )
    module_weights = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    match, other_matches = find_weights(entries, module_weights, key, type(model).__name__, str(path))
    in_container, elsewhere = left_over(match, entries)
    _check(match, entries, module_weights, in_container, f"the weights in {path} do not fit {type(model).__name__}")
    results = {name: entries[dotted].tensor for name, dotted in match.names.items()}
    try:
        model.load_state_dict(results, strict=False)
    except (RuntimeError, TypeError, ValueError) as error:  # a module may load its state by code of its own
        raise WeightsError(
            f"{type(model).__name__} does not take the weights in {path}: {str(error).splitlines()[0]}"
        ) from error
    return (
        *_moves(match, entries),
        *_others(match, other_matches),
        *_ignored(elsewhere),
        *_conversions(results, module_weights),
    )


def _as_path(path: object) -> Path:
    if isinstance(path, str | PathLike):
        return Path(fspath(path))
    way = "; to use a state dict, call model.load_state_dict(...)" if isinstance(path, Mapping) else ""
    raise UsageError(f"weights is the path of a file, not {kind_of(path)}{way}.")


def _described(content: object) -> str:
    if isinstance(content, dict):
        return f"its names are {first_few(map(str, dict.keys(content)))}" if content else "it is an empty dict"
    return f"it is {kind_of(content)}"


def _moves(match: Match, entries: Mapping[str, CheckpointEntry]) -> list[str]:
    """A note on the keys that the weights were taken from, and how names were matched."""
    container = entries[next(iter(match.names.values()))].container if match.names else ""
    inside = f"{container}." if container and match.prefix.startswith(f"{container}.") else ""
    notes = [f"took the weights from {part!r}" for part in container.split(".")] if inside else []
    removed, count = match.prefix.removeprefix(inside), len(match.names)
    if removed:
        notes.append(f"removed the prefix {removed!r} from {count} names")
    if match.added:
        notes.append(f"added the prefix {match.added!r} to {count} names")
    used = set(match.names.values())
    shortened = sum(compared != dotted and dotted in used for compared, dotted in match.view.items())
    if shortened:
        notes.append(f"removed the parts that wrappers add (module, _orig_mod) from {shortened} names")
    return notes


def _others(match: Match, others: list[Match]) -> list[str]:
    """A note on other weights in the file that fit too."""
    if not others:
        return []
    keys = first_few(repr(match.key) for match in others)
    taken_key = repr(match.key) if match.key else "the outermost level"
    fit = "fit" if len(others) > 1 else "fits"
    return [
        f"{keys} {fit} too, with other numbers; {taken_key} was taken (weights_key={others[0].key!r}, or --weights-key "
        f"{others[0].key}, takes the other)"
    ]


def _ignored(names: list[str]) -> list[str]:
    tensors = "1 tensor that is" if len(names) == 1 else f"{len(names)} tensors that are"
    return [f"left out {tensors} not the model's ({first_few(names)})"] if names else []


def _conversions(tensors: Mapping[str, Tensor], module_weights: Mapping[str, Tensor]) -> list[str]:
    """A note on types that were converted to the model's."""
    pairs = {
        (str(tensor.dtype).removeprefix("torch."), str(module_weights[name].dtype).removeprefix("torch."))
        for name, tensor in tensors.items()
        if not is_lazy(module_weights[name]) and tensor.dtype != module_weights[name].dtype
    }
    return [f"converted {stored} to {converted}" for stored, converted in sorted(pairs)]


def _check(
    match: Match,
    entries: Mapping[str, CheckpointEntry],
    module_weights: Mapping[str, Tensor],
    unexpected: list[str],
    subject: str,
) -> None:
    """Refuse names that are missing or unexpected and shapes that differ, listing the first few of each."""
    wrong = [
        f"{name} is {problem}"
        for name, dotted in match.names.items()
        if (problem := misfit(entries[dotted].tensor, module_weights[name]))
    ]
    kinds = {
        "missing": missing(match.names, module_weights),
        "unexpected": unexpected,
        "of another shape or type": wrong,
    }
    messages = [f"{len(names)} {kind} ({first_few(names)})" for kind, names in kinds.items() if names]
    if messages:
        fit = fitting(match, entries, module_weights)
        raise WeightsError(
            f"{subject}: {'; '.join(messages)}. {fit} of its {len(module_weights)} tensors fit; check that the "
            "model and its arguments are those of the training."
        )
