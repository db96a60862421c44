"""Unregistered layers: what a model keeps in a Python list or dict, where PyTorch does not see it. Runs nothing."""

from collections.abc import Iterator, Mapping

from torch import nn

from convscope.escaping import first_few

DEPTH = 3
"""How deep containers within containers are searched."""


def unregistered(model: nn.Module) -> tuple[str, ...]:
    """The attributes, as paths, that hold layers or parameters in a plain container and not as parts of the model.

    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.convs = [nn.Conv2d(1, 2, 3)]
    >>> unregistered(Net())
    ('convs',)
    """
    registered = {id(parameter) for parameter in model.parameters()}
    return tuple(
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if not name.startswith("_")
        and any(id(p) not in registered and p.requires_grad for p in _parameters(value, DEPTH))
    )


def _parameters(value: object, depth: int) -> Iterator[nn.Parameter]:
    """The parameters in a container of Python, at any of its levels."""
    if isinstance(value, nn.Parameter):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.parameters()
    elif depth and isinstance(value, list | tuple | set | Mapping):
        for item in list(value.values() if isinstance(value, Mapping) else value):
            yield from _parameters(item, depth - 1)


def unregistered_note(model: nn.Module) -> tuple[str, ...]:
    """A note on layers that PyTorch does not see; empty if there are none."""
    names = unregistered(model)
    if not names:
        return ()
    return (
        f"the layers in {first_few(list(names))} are not part of the model, because they are in a Python list or dict: "
        "they are neither trained nor saved; use nn.ModuleList, nn.ModuleDict or nn.ParameterList.",
    )
