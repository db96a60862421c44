"""Weight matching: find a model's tensors in a checkpoint by names and shapes instead of a list of keys.

A checkpoint is seen as one list of dotted names: `{"state_dict": {"module.conv.weight": ...}}` holds
`state_dict.module.conv.weight`. A model's own names occur in it behind a prefix, here `state_dict.module.`; the prefix
behind which every one of them occurs, with its shape, is where the model's weights are. Uses tensors; no files.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import Parameter, is_lazy

from convscope.errors import UnknownName, WeightsError
from convscope.type_checks import kind_of

DEPTH = 6
"""Maximum nesting depth at which to look for tensors."""
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts that DataParallel, torch.compile, FSDP and checkpointing insert anywhere into names."""
PLAIN = WRAPPERS | {
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params"
}  # fmt: skip
"""Keys and prefixes of the weights that were trained; others, such as `ema`, may hold averages or another network."""
BESIDE = frozenset({"criterion", "loss", "loss_fn", "loss_func", "loss_function"})
"""Modules of training scripts whose tensors do not belong to the network."""
COUNTERS = frozenset({"total_ops", "total_params", "n_averaged", "_extra_state"})
"""Last name parts of tensors added by FLOP counters, weight averaging and other tools, which do not affect outputs."""


COMPARED = 16
"""Maximum number of matching positions whose numbers are compared."""


@dataclass(frozen=True, slots=True)
class CheckpointEntry:
    """A tensor of a checkpoint."""

    tensor: Tensor
    container: str
    """The dotted keys of the mapping that holds it, "" for the outermost."""


@dataclass(frozen=True, slots=True)
class Match:
    """A place in a checkpoint at which a model's names occur."""

    prefix: str
    """Prefix of the model's names in the checkpoint, including the last dot."""
    added: str
    """Prefix of the checkpoint's names in the model, including the last dot."""
    names: Mapping[str, str]
    """The model's names that occur -> the checkpoint's dotted names."""
    view: Mapping[str, str]
    """The checkpoint's dotted names by what they were compared as: themselves, or without wrappers."""

    @property
    def key(self) -> str:
        """The key that selects it: the prefix without its last dot."""
        return self.prefix.removesuffix(".")

    @property
    def plain(self) -> bool:
        """Whether the keys and prefixes before the names are those of the weights that were trained."""
        return all(part in PLAIN for part in self.key.split(".")) if self.key else True


def entries_of(content: object) -> dict[str, CheckpointEntry]:
    """The tensors of a checkpoint by their dotted names.

    >>> [*entries_of({"epoch": 3, "net": {"fc.bias": torch.zeros(2)}})]
    ['net.fc.bias']
    """
    return dict(_walk(content, (), set()))


def _walk(content: Any, path: tuple[str, ...], visited: set[int]) -> Iterator[tuple[str, CheckpointEntry]]:
    if isinstance(content, Tensor):
        # Detached by the class' own method: a pickle may give a tensor attributes that hide its methods.
        plain = Tensor.detach(content) if type(content) in {Tensor, Parameter} else content
        yield ".".join(path), CheckpointEntry(plain, ".".join(path[:-1]))
        return
    if len(path) >= DEPTH or id(content) in visited:
        return
    visited.add(id(content))  # each once: the same container in many places could be walked for ever
    items: Iterable[tuple[Any, Any]] = dict.items(content) if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        if isinstance(value, Tensor | dict | list | tuple):
            yield from _walk(value, (*path, str(key)), visited)


def find_weights(
    entries: Mapping[str, CheckpointEntry], module_weights: Mapping[str, Tensor], key: str | None, name: str, path: str
) -> tuple[Match, list[Match]]:
    """The model's weights in a checkpoint: the best match, and other matches with other numbers.

    Args:
        entries: The tensors of the checkpoint.
        module_weights: The model's tensors by name.
        key: Which to take, as `Match.key`; None: the only one, or the only one with a plain name.
        name: What the model is called in messages.
        path: What the file is called in messages.

    Raises:
        UnknownName: there is no such key.
        WeightsError: several fit equally well.
    """
    if key is None:
        return _chosen(_distinct(_matches(entries, module_weights), entries), name, path)
    inside = {dotted: entry for dotted, entry in entries.items() if not key or dotted.startswith(f"{key}.")}
    if not inside:
        raise UnknownName(f"key of {path}", key, keys_of(entries))
    matches = _matches(inside, module_weights)
    exact = [match for match in matches if match.key == key]
    return _chosen(exact or _distinct(matches, entries), name, path)[0], []


def keys_of(entries: Mapping[str, CheckpointEntry], limit: int = 12) -> list[str]:
    """The dotted keys of the containers that hold tensors, the first of them."""
    return [key for key in dict.fromkeys(entry.container for entry in entries.values()) if key][:limit]


def _chosen(matches: list[Match], name: str, path: str) -> tuple[Match, list[Match]]:
    """The only match, or the only one without a prefix among several."""
    plain = [match for match in matches if match.plain]
    if len(matches) == 1 or len(plain) == 1:
        chosen = plain[0] if len(plain) == 1 else matches[0]
        return chosen, [match for match in matches if match is not chosen]
    keys = ", ".join(repr(match.key) for match in matches[:6])
    key = matches[0].key
    raise WeightsError(
        f"{path} holds weights that fit {name} under {len(matches)} keys, with different numbers: {keys}; choose one: "
        f"weights_key={key!r} (--weights-key {key})."
    )


def _matches(entries: Mapping[str, CheckpointEntry], module_weights: Mapping[str, Tensor]) -> list[Match]:
    """All places where every name of the model occurs with its shape; if there are none, the best place."""
    same = {name: name for name in entries}
    for view in (same, _without_wrappers(entries)):
        for added in _common_prefixes(module_weights):
            complete = [
                match
                for match in _occurrences(view, module_weights, added)
                if _is_complete(match, entries, module_weights)
            ]
            if complete:
                return complete
    partial = [
        match for added in _common_prefixes(module_weights) for match in _occurrences(same, module_weights, added)
    ]
    return [max(partial, key=lambda match: fitting(match, entries, module_weights), default=Match("", "", {}, same))]


def _occurrences(view: Mapping[str, str], module_weights: Mapping[str, Tensor], added: str) -> list[Match]:
    """The model's names, without what all of them begin with, behind each prefix of the checkpoint's names."""
    shortened = {name.removeprefix(added): name for name in module_weights}
    behind: dict[str, dict[str, str]] = defaultdict(dict)
    for dotted, original in view.items():
        start = 0
        while start >= 0:
            if dotted[start:] in shortened:
                behind[dotted[:start]][shortened[dotted[start:]]] = original
            start = dotted.find(".", start) + 1 or -1
    return [Match(prefix, added, names, view) for prefix, names in behind.items()]


def _common_prefixes(module_weights: Mapping[str, Tensor]) -> Iterator[str]:
    """The prefixes that all names have, from none to the longest that leaves each a module: "", "net.", "net.body."."""
    names = list(module_weights)
    prefix = ""
    while names:
        yield prefix
        parts = {name[len(prefix) :].partition(".")[0] for name in names}
        prefix = f"{prefix}{min(parts)}."
        if len(parts) > 1 or not all("." in name[len(prefix) :] for name in names):
            return


def _without_wrappers(entries: Mapping[str, CheckpointEntry]) -> dict[str, str]:
    """The dotted names by themselves without the parts that wrappers add; those that would collide are unchanged."""
    short = {name: ".".join(part for part in name.split(".") if part not in WRAPPERS) for name in entries}
    once = defaultdict(list)
    for name, shortened in short.items():
        once[shortened].append(name)
    return {short[name] if len(once[short[name]]) == 1 else name: name for name in entries}


def _distinct(matches: list[Match], entries: Mapping[str, CheckpointEntry]) -> list[Match]:
    """One match of those with the same numbers, plain ones first; among many the numbers are not compared."""
    different: list[Match] = []
    matches = sorted(matches, key=lambda match: not match.plain)
    if len(matches) > COMPARED:  # a single layer, looked for in a large network
        return matches
    for match in matches:
        if not any(_same(match, kept, entries) for kept in different):
            different.append(match)
    return different


def _same(first: Match, second: Match, entries: Mapping[str, CheckpointEntry]) -> bool:
    return first.names.keys() == second.names.keys() and all(
        torch.equal(entries[first.names[name]].tensor, entries[second.names[name]].tensor) for name in first.names
    )


def _is_complete(match: Match, entries: Mapping[str, CheckpointEntry], module_weights: Mapping[str, Tensor]) -> bool:
    return fitting(match, entries, module_weights) == len(match.names) and not missing(match.names, module_weights)


def fitting(match: Match, entries: Mapping[str, CheckpointEntry], module_weights: Mapping[str, Tensor]) -> int:
    """The number of the model's tensors that it contains with their shapes."""
    return sum(not misfit(entries[dotted].tensor, module_weights[name]) for name, dotted in match.names.items())


def misfit(tensor: Tensor, target: Tensor) -> str:
    """Why a tensor cannot be copied into one of a model; "" if it can."""
    oddity = _oddity(tensor)
    if oddity:
        return oddity
    if tensor.is_complex() and not target.is_complex():
        return f"complex, the model's {str(target.dtype).removeprefix('torch.')}"
    if is_lazy(target):  # it takes its shape from the file, so the file must hold as many numbers
        is_complete = tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()
        return "" if is_complete else f"{_shape(tensor)}, of fewer numbers in the file"
    if tensor.shape != target.shape:
        return f"{_shape(tensor)}, the model's {_shape(target)}"
    return (
        ""
        if _holds(target, tensor)
        else f"beyond the numbers of the model's {str(target.dtype).removeprefix('torch.')}"
    )


def _holds(target: Tensor, tensor: Tensor) -> bool:
    """Whether the finite numbers of a tensor are finite in another one's type, too."""
    if tensor.dtype == target.dtype or not (tensor.is_floating_point() and target.is_floating_point()):
        return True
    return bool((torch.isfinite(tensor.to(target.dtype)) | ~torch.isfinite(tensor.to(torch.float64))).all())


def _oddity(tensor: Tensor) -> str:
    """Description of a tensor that is not an ordinary one in memory, or ""."""
    if type(tensor) is not Tensor:
        return kind_of(tensor)
    if tensor.layout is not torch.strided or tensor.is_nested:
        return "sparse or nested"
    if tensor.is_quantized:
        return "quantized"
    return "" if tensor.device.type == "cpu" else f"without numbers (on the device {tensor.device})"


def missing(present: Iterable[str], module_weights: Mapping[str, Tensor]) -> list[str]:
    """The model's names that are not present; not those that share their memory with one that is, nor batch counters.

    Safetensors keeps a shared tensor once. PyTorch itself does without `num_batches_tracked` in older files.
    """
    names = set(present)
    shared = {module_weights[name].data_ptr() for name in names if not is_lazy(module_weights[name])} - {0}
    return [
        name
        for name, tensor in module_weights.items()
        if name not in names
        and not name.endswith("num_batches_tracked")
        and (is_lazy(tensor) or tensor.data_ptr() not in shared)
    ]


def left_over(match: Match, entries: Mapping[str, CheckpointEntry]) -> tuple[list[str], list[str]]:
    """The other tensors of the containers that a match is in: those among the model's, and those beside them.

    Among the model's names another tensor is a sign of another network, such as a longer one. Behind another prefix,
    in a loss, or as a counter, it is beside them.
    """
    containers = {entries[dotted].container for dotted in match.names.values()} or {
        entry.container for entry in [*entries.values()][:1]
    }
    used = set(match.names.values())
    in_container: list[str] = []
    elsewhere: list[str] = []
    for compared, dotted in match.view.items():
        container = entries[dotted].container
        if dotted in used or container not in containers:
            continue
        parts = compared.removeprefix(match.prefix).split(".")
        aside = not compared.startswith(match.prefix) or parts[0] in BESIDE or parts[-1] in COUNTERS
        (elsewhere if aside else in_container).append(dotted[len(container) + 1 :] if container else dotted)
    return in_container, elsewhere


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"
