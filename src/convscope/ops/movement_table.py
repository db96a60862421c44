"""MOVEMENT: the operations whose every cell is a copy of one input cell, rows of the table of all operations."""

from collections.abc import Mapping

from convscope.ops import movement, titles
from convscope.ops.op import Op, Vectorized

_RULE = Vectorized(movement.moved, movement.alike)

MOVEMENT: Mapping[str, Op] = {
    **dict.fromkeys(
        ("view", "_unsafe_view"),
        Op(_RULE, movement.moved_dependencies, movement.moved_vjp, title=titles.reshape, role="view"),
    ),
    **dict.fromkeys(
        ("alias", "clone", "detach", "copy"),
        Op(_RULE, movement.moved_dependencies, movement.moved_vjp, role="copy"),
    ),
    "lift_fresh": Op(
        _RULE,
        movement.moved_dependencies,
        movement.moved_vjp,
        title=titles.named("tensor made without PyTorch operations"),
        role="copy",
    ),
    **dict.fromkeys(
        (
            "expand",
            "transpose",
            "t",
            "permute",
            "select",
            "slice",
            "unsqueeze",
            "squeeze",
            "as_strided",
            "split",
            "split_with_sizes",
            "unsafe_split",
            "unbind",
            "unfold",
            "diagonal",
        ),
        Op(_RULE, movement.moved_dependencies, movement.moved_vjp, role="view"),
    ),
    **dict.fromkeys(
        (
            "flip",
            "roll",
            "repeat",
            "unsafe_split_with_sizes",
            "pixel_shuffle",
            "pixel_unshuffle",
            "channel_shuffle",
            "reflection_pad1d",
            "reflection_pad2d",
            "reflection_pad3d",
            "replication_pad1d",
            "replication_pad2d",
            "replication_pad3d",
        ),
        Op(_RULE, movement.moved_dependencies, movement.moved_vjp),
    ),
    **dict.fromkeys(
        ("index_select", "gather"),
        Op(_RULE, movement.moved_dependencies, movement.moved_vjp, role="index", selected_by=("index",)),
    ),
    **dict.fromkeys(
        ("embedding", "index"),
        Op(_RULE, movement.moved_dependencies, movement.moved_vjp, role="index", selected_by=("indices",)),
    ),
    **dict.fromkeys(
        (
            "alias_copy",
            "as_strided_copy",
            "detach_copy",
            "diagonal_copy",
            "expand_copy",
            "narrow_copy",
            "permute_copy",
            "rot90",
            "select_copy",
            "slice_copy",
            "split_copy",
            "split_with_sizes_copy",
            "squeeze_copy",
            "t_copy",
            "transpose_copy",
            "unbind_copy",
            "unfold_copy",
            "unsqueeze_copy",
            "view_copy",
        ),
        Op(_RULE, movement.moved_dependencies, movement.moved_vjp),
    ),
    "take": Op(_RULE, movement.moved_dependencies, movement.moved_vjp, role="index", selected_by=("index",)),
    "masked_select": Op(_RULE, movement.moved_dependencies, movement.moved_vjp, role="index", selected_by=("mask",)),
    "_to_copy": Op(Vectorized(movement.converted, movement.alike), movement.moved_dependencies, movement.moved_vjp),
}
