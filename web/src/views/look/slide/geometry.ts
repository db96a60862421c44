/** Where a window is on its map as the kernel slides, and back: which output cell has its window at a place. */
import { candidates, leaves, type Cells, type Expr } from "../../../lib/explanation";
import type { StepInfo } from "../../../lib/types";
import { layout } from "../../../lib/planes";

/** Rows and columns from the first to the last; padding is outside the map. */
export type Span = Readonly<{ top: number; left: number; bottom: number; right: number }>;

/** The middle of a window for each output row (or column): `first` for the first, and `step` more for each next. */
export type Axis = Readonly<{ first: number; step: number }>;

/** What a step does as it goes over its map. */
export type Kind = "kernel" | "window" | "function";

const POINTWISE = /^(relu6?|leaky_relu|elu|gelu|silu|hardswish|hardtanh|hardsigmoid|tanh|sigmoid|softplus|mish)$/;

/** What slides in this step; null if nothing does: it is not a map that is made from one other, place by place. */
export function slides(step: StepInfo | null): Kind | null {
  if (step === null || step.inputs.length > 1 || step.shape.length !== 4 || step.shape[0] !== 1) return null;
  const { wrapped, length } = layout(step.shape);
  if (wrapped || length < 2) return null;
  if (step.op === "convolution") return "kernel";
  if (/^(max|avg)_pool2d/.test(step.op)) return "window";
  return POINTWISE.test(step.op) ? "function" : null;
}

/** The numbers of the step before that a number is made from; null if it is made from none. */
export function sourceOf(expr: Expr | null): Cells | null {
  if (expr?.type === "dot") return expr.left;
  if (expr?.type !== "apply") return null;
  const chosen = candidates(expr);
  if (chosen !== null) return chosen;
  const one = leaves(expr).find((leaf) => leaf.kind === "step" || leaf.kind === "input");
  if (one === undefined || one.type === "cells") return one ?? null;
  return { ...one, type: "cells", grid: [1], cells: [one.cell], values: [one.value], padding: [] };
}

/** The cells of a window in one channel, padding included; null if it has none there. */
export function spanOf(of: Cells, channel: number | null): Span | null {
  const chosen = channel ?? of.cells[0]?.at(-3) ?? 0;
  const cells = of.cells.filter((cell) => (cell.at(-3) ?? 0) === chosen);
  if (cells.length === 0) return null;
  const [rows, columns] = [-2, -1].map((axis) => cells.map((cell) => cell.at(axis) ?? 0)) as [number[], number[]];
  return {
    top: Math.min(...rows),
    left: Math.min(...columns),
    bottom: Math.max(...rows),
    right: Math.max(...columns),
  };
}

/** The axis on which windows move, from where the first and the last of `count` windows begin and end. */
export function axisOf(first: readonly [number, number], last: readonly [number, number], count: number): Axis {
  const [from, to] = [first, last].map(([low, high]) => (low + high) / 2) as [number, number];
  return { first: from, step: count > 1 ? (to - from) / (count - 1) : 1 };
}

/** The output row whose window is nearest to an input row. */
export function nearest(axis: Axis, at: number, count: number): number {
  const index = axis.step === 0 ? 0 : Math.round((at - axis.first) / axis.step);
  return Math.max(0, Math.min(count - 1, index));
}
