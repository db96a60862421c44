/** The JSON of an explanation, as docs/reference/explanation.md describes it, under short names; and what the page asks of it. */
import type { components } from "./schema";
import type { Cell, Num } from "./types";
import { real } from "./types";

type Schemas = components["schemas"];

export type Leaf = Schemas["LeafJson"];
export type Cells = Schemas["CellsJson"];
export type Dot = Schemas["DotJson"];
export type Apply = Schemas["ApplyJson"];
export type Explanation = Schemas["ExplanationJson"];
export type Expr = NonNullable<Explanation["expr"]>;
export type Kind = Cells["kind"];

/** Where one term of many stands. */
export type Term = Readonly<{ name: string; kind: Kind; cell: Cell; value: Num }>;

/** One of many cells. */
export function termOf(cells: Cells, index: number): Term {
  return { name: cells.name, kind: cells.kind, cell: cells.cells[index] ?? [], value: cells.values[index] ?? "nan" };
}

/** The planes of a window, (channels, rows, columns); null where the sum has none and is a list of terms. */
export type Planes = Readonly<{ channels: number; rows: number; columns: number }>;

/** How a sum's terms form windows: as the text of an explanation decides it. */
export function planesOf(dot: Dot): Planes | null {
  const { grid } = dot.left;
  const convolution = dot.right !== null && dot.right.kind !== "computed";
  const spatial = grid.length - (convolution ? 1 : 0);
  const [rows = 1, columns = 1] = grid.slice(-2);
  if (spatial !== 2 || rows * columns < 2 || (dot.left.cells[0]?.length ?? 0) < 3) return null;
  return { channels: Math.max(1, dot.left.values.length / (rows * columns)), rows, columns };
}

/** The cells that a function chose from, where they form one small plane. */
export function candidates(apply: Apply): Cells | null {
  const cells = Object.values(apply.arguments).find((a): a is Cells => a.type === "cells");
  if (cells === undefined || cells.grid.length !== 2 || cells.values.length < 2 || cells.values.length > 1024)
    return null;
  return (cells.cells[0]?.length ?? 0) >= 3 && /^(arg)?(max|min)$/.test(apply.function) ? cells : null;
}

/** Which of the candidates won: where the result is one of them. */
export function winner(apply: Apply, cells: Cells): number {
  const values = cells.values.map((v, i) => (cells.padding.includes(i) ? NaN : real(v)));
  const best = apply.function.endsWith("min") ? Math.min : Math.max;
  const found = best(...values.filter((v) => !Number.isNaN(v)));
  const nan = values.findIndex((v, i) => Number.isNaN(v) && !cells.padding.includes(i));
  return nan >= 0 ? nan : values.indexOf(found);
}

/** Every single number and list of numbers that an expression is made of, the outermost first. */
export function leaves(expr: Expr | Cells | null): (Leaf | Cells)[] {
  if (expr === null) return [];
  if (expr.type === "leaf" || expr.type === "cells") return [expr];
  if (expr.type === "dot") return [expr.left, ...(expr.right === null ? [] : [expr.right]), ...leaves(expr.bias)];
  return Object.values(expr.arguments).flatMap(leaves);
}

/** The windows' place in words: rows 5–7, columns 16–18. */
export function region(cells: readonly Cell[]): string {
  const span = (word: string, axis: number): string => {
    const at = [...new Set(cells.map((cell) => cell.at(axis) ?? 0))].sort((a, b) => a - b);
    const [low, high] = [at[0] ?? 0, at.at(-1) ?? 0];
    const text = (n: number): string => String(n).replace("-", "−");
    // a word and its numbers stay on one line
    if (low === high) return `${word}\u00a0${text(low)}`;
    if (high - low === at.length - 1) return `${word}s\u00a0${text(low)}–${text(high)}`;
    return `${word}s ${at.map(text).join(", ")}`;
  };
  return `${span("row", -2)}, ${span("column", -1)}`;
}

/** Where on a map the numbers of a window are, padding left out: rows and columns from the first to the last. */
export type Frame = Readonly<{
  name: string;
  kind: Kind;
  channel: number;
  top: number;
  left: number;
  bottom: number;
  right: number;
}>;

/** The frame of one cell, of which a term of a sum is the number; null if it is on no map. */
export function frameOfTerm(term: Term): Frame | null {
  if (term.cell.length < 3 || (term.kind !== "step" && term.kind !== "input")) return null;
  const [channel = 0, row = 0, column = 0] = term.cell.slice(-3);
  return { name: term.name, kind: term.kind, channel, top: row, left: column, bottom: row, right: column };
}

/** The frame of a window's cells in one channel; null where none of them is on a map. */
export function frameOf(of: Cells, channel: number | null): Frame | null {
  const real = of.cells.filter((_, i) => !of.padding.includes(i));
  const chosen = channel ?? real[0]?.at(-3) ?? 0;
  const cells = real.filter((cell) => (cell.at(-3) ?? 0) === chosen);
  if (cells.length === 0) return null;
  const [rows, columns] = [-2, -1].map((axis) => cells.map((cell) => cell.at(axis) ?? 0)) as [number[], number[]];
  const span = {
    top: Math.min(...rows),
    bottom: Math.max(...rows),
    left: Math.min(...columns),
    right: Math.max(...columns),
  };
  return { name: of.name, kind: of.kind, channel: chosen, ...span };
}

/** The colours of pixels that are shown as greys: between these numbers. */
export type Greys = Readonly<{ low: number; high: number }>;
