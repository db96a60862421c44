"""Loading a model for a command, and what there is to say about it."""

from pathlib import Path
from typing import Any

import convscope as cs
from convscope.cli.console import remark


def load(model: str, weights: Path | None, model_args: list[str] | None) -> Any:
    """The model that a command names; its notes are said, and that nothing has trained it."""
    args = cs.parse_model_args(model_args or [])
    loaded = cs.load_model(model, weights=weights, args=args)
    for note in cs.card_of(loaded).notes:
        remark(f"note: {note}")
    if weights is None and not Path(model).is_dir() and not args.get("published") and _trainable(loaded):
        made = "as its code makes them" if ":" in model else "random"
        remark(f"note: {model} is not trained: its weights are {made}; name a run folder, or give --weights.")
    return loaded


def _trainable(model: Any) -> bool:
    return any(weight.requires_grad for weight in model.parameters())
