"""Provenance: where the numbers of an expression were made, through hidden views and copies. Uses traces and rules.

A rule names the tensor that its operation read. This may be a view, a transposed weight, a padded copy; a person looks
for the step, the parameter or the image behind it. Cells are followed by their addresses in memory, all at once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from convscope.expr.call import Cell, Source
from convscope.expr.expr import Apply, Cells, Dot, Expr, Leaf
from convscope.ops.source_cells import MOVES, SOURCES
from convscope.ops.titles import result_name
from convscope.proof.calls import call_of, source_of
from convscope.traces.step import Ref, Step
from convscope.traces.trace import Trace
from convscope.typing import Array


class Provenance(NamedTuple):
    """Some of the cells that were asked for, and where they were made."""

    which: Array
    """Their places in the question, (T',)."""
    source: Source
    cells: Array
    """(T', axes)"""


def with_provenance(trace: Trace, step: Step, expr: Expr) -> Expr:
    """An expression of a step with every recorded number named by where it was made."""
    refs = {}
    for name, place, ref in step.refs():
        refs[name if step.arguments[name] is ref else f"{name}.{place}"] = ref
    return _with_provenance(trace, refs, expr)


def provenance(trace: Trace, ref: Ref, cells: Array) -> list[Provenance]:
    """The origin of cells of an argument: the step, parameter, constant or input, and its cells.

    Args:
        ref: The argument.
        cells: Its cells, shape (T, axes).
    """
    return list(_provenance(trace, ref, cells, np.arange(len(cells))))


def _with_provenance(trace: Trace, refs: Mapping[str, Ref], expr: Expr) -> Expr:
    match expr:
        case Leaf():
            ref = refs.get(expr.source.argument)
            if ref is None:
                return expr
            origin = provenance(trace, ref, np.array([expr.cell], np.int64).reshape(1, len(expr.cell)))[0]
            return Leaf(expr.number, origin.source, tuple(map(int, origin.cells[0])))
        case Dot():
            left = _cells(trace, refs, expr.left)
            right = left if expr.right is expr.left else None
            if expr.right is not None and right is None:
                right = _cells(trace, refs, expr.right)
            bias = None if expr.bias is None else _with_provenance(trace, refs, expr.bias)
            assert not isinstance(bias, Dot)
            return replace(expr, left=left, right=right, bias=bias)
        case Apply():
            arguments = {
                name: _cells(trace, refs, a) if isinstance(a, Cells) else _with_provenance(trace, refs, a)
                for name, a in expr.arguments.items()
            }
            return replace(expr, arguments=arguments)


def _cells(trace: Trace, refs: Mapping[str, Ref], cells: Cells) -> Cells:
    if cells.derive is not None:
        derive = cells.derive
        return replace(cells, derive=lambda index: _with_provenance(trace, refs, derive(index)))
    ref = refs.get(cells.source.argument)
    if ref is None:
        return cells
    inside = np.flatnonzero(cells.inside) if cells.inside is not None else np.arange(len(cells))
    origins = provenance(trace, ref, cells.cells[inside])
    if len({f.source for f in origins}) != 1:
        return _of_several(cells, ref, inside, origins) if ref.rewritten else cells
    placed = _around(cells, inside, origins)
    return replace(cells, source=origins[0].source, places=placed)


def _of_several(cells: Cells, ref: Ref, inside: Array, origins: list[Provenance]) -> Cells:
    """Cells of a tensor that was written in parts after it was made: its own step no longer holds all of them."""
    whole = Source(f"{ref.name}, written into later", "constant", ref.shape, ref.dtype)
    places: list[tuple[Source, Cell]] = [(whole, tuple(cell)) for cell in cells.cells.tolist()]
    for part in origins:
        for place, cell in zip(inside[part.which], part.cells.tolist(), strict=True):
            places[place] = part.source, tuple(cell)
    return replace(cells, source=whole, origins=tuple(places))


def _around(cells: Cells, inside: Array, origins: list[Provenance]) -> Array:
    """The found cells in the order of the question; padding keeps its distance from them."""
    width = origins[0].cells.shape[1]
    placed = np.empty((len(cells), width), np.int64)
    for part in origins:
        placed[inside[part.which]] = part.cells
    if len(inside) < len(cells):
        outside = np.delete(np.arange(len(cells)), inside)
        shift = placed[inside[0]] - cells.cells[inside[0]] if width == cells.cells.shape[1] else 0
        placed[outside] = cells.cells[outside] + shift if width == cells.cells.shape[1] else -1
    return placed


def _provenance(trace: Trace, ref: Ref, cells: Array, indices: Array) -> Iterator[Provenance]:
    if not len(cells):
        return
    addresses = ref.offset + cells @ np.array(ref.stride, np.int64).reshape(-1)
    left = np.ones(len(cells), bool)
    for writer in reversed(ref.rewritten):
        maker = trace.all_steps[writer]
        for result in maker.results:
            if result.memory != ref.memory or not left.any():
                continue
            made_cells, hit = result.cells_at(addresses[left])
            hit_indices = np.flatnonzero(left)[hit]
            yield from _result_provenance(trace, maker, result, made_cells[hit], indices[hit_indices])
            left[hit_indices] = False
    if left.any():
        yield from _behind(trace, ref, cells[left], addresses[left], indices[left])


def _behind(trace: Trace, ref: Ref, cells: Array, addresses: Array, indices: Array) -> Iterator[Provenance]:
    """The base of a view, or the step that made the tensor."""
    if ref.kind != "step":
        outside = trace.outside[ref.kind, ref.id]
        source_cells, hit = outside.cells_at(addresses)
        yield Provenance(indices, source_of(outside if hit.all() else ref), source_cells if hit.all() else cells)
        return
    maker = trace.all_steps[ref.id]
    if maker.view:
        viewed = next(r for _, _, r in maker.refs())
        source_cells, hit = viewed.cells_at(addresses)
        if hit.all() and (viewed.memory, viewed.dtype) == (ref.memory, ref.dtype):  # addresses count in units of it
            yield from _provenance(trace, viewed, source_cells, indices)
            return
    yield from _result_provenance(trace, maker, ref, cells, indices)


def _result_provenance(trace: Trace, maker: Step, ref: Ref, cells: Array, indices: Array) -> Iterator[Provenance]:
    """The result of a step; for a hidden move, the tensor that it moved."""
    if not len(cells):
        return
    if maker.hidden and maker.op in MOVES:
        name = SOURCES.get(maker.op, "self")
        operand = maker.arguments[name]
        if isinstance(operand, Ref) and operand.dtype == ref.dtype:
            yield from _provenance(trace, operand, MOVES[maker.op](call_of(trace, maker, ref.output), cells), indices)
            return
    called = result_name(maker.op, ref.output)
    source = Source(maker.name, "step", maker.results[ref.output].shape, ref.dtype, ref.output, result=called)
    yield Provenance(indices, source, cells)
