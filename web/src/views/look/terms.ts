/** The terms of a calculation: which numbers go into it, and which of them a line is about. Independent of the DOM. */
import {
  leaves,
  termOf,
  type Cells,
  type Dot,
  type Expr,
  type Leaf,
  type Planes,
  type Term,
} from "../../lib/explanation";
import type { Line } from "../../lib/types";

/** A number that goes in, or many of one step: then `many` has all of them, and `term` is the first. */
export type Input = Readonly<{ term: Term; many: Cells | null }>;

/** The numbers of steps and of the image that an expression other than a sum of products is made of, each once. */
export function inputsOf(expr: Expr): Input[] {
  const seen = new Set<string>();
  return leaves(expr).flatMap((leaf: Leaf | Cells): Input[] => {
    if (leaf.kind !== "step" && leaf.kind !== "input") return [];
    const key = `${leaf.type} ${leaf.name} ${leaf.type === "leaf" ? leaf.cell.join() : leaf.cells[0]?.join()}`;
    if (seen.has(key)) return [];
    seen.add(key);
    if (leaf.type === "cells") return [{ term: termOf(leaf, 0), many: leaf }];
    return [{ term: { name: leaf.name, kind: leaf.kind, cell: leaf.cell, value: leaf.value }, many: null }];
  });
}

/**
 * The index of the one term that a line of a sum is about; null if there are several. So are lines of channels that have
 * only one term each, as in a 1×1 convolution.
 */
export function termIn(line: Line, dot: Dot | null, planes: Planes | null): number | null {
  if (line.term != null) return line.term;
  if (dot === null || planes !== null || line.channel == null) return null;
  const index = dot.left.cells.findIndex((cell) => cell.at(-3) === line.channel);
  return index < 0 ? null : index;
}

/** The cell in the middle of a channel's window; null if it is padding. */
export function middleOf(dot: Dot, channel: number): Term | null {
  const inside = dot.left.cells.flatMap((cell, i) => (cell.at(-3) === channel ? [i] : []));
  const middle = inside[Math.floor(inside.length / 2)];
  return middle === undefined || dot.left.padding.includes(middle) ? null : termOf(dot.left, middle);
}

/**
 * The input channels whose windows can be chosen; none if there is only one.
 *
 * @param outOf - How many terms the whole sum has, of which the answer may have only some.
 * @param source - How many channels the step has that is read.
 */
export function channelsIn(dot: Dot, planes: Planes, outOf: number, source: number | undefined): number[] {
  const area = planes.rows * planes.columns;
  const total = Math.round(outOf / area);
  if (total <= 1) return [];
  const sent = new Set<number>();
  for (let k = 0; k < dot.left.cells.length; k += area) sent.add(dot.left.cells[k]?.at(-3) ?? 0);
  if (sent.size === total) return [...sent];
  return source === total ? Array.from({ length: total }, (_, i) => i) : [dot.left.cells[0]?.at(-3) ?? 0];
}
