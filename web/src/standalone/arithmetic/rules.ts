/**
 * What made one number, as the rules of convscope/ops say it, for the operations of the networks that tutorials use. The
 * recorded numbers come from the page; the reports' tests compare every kind of step with `convscope.explain`.
 */
import { count } from "../../lib/format";
import {
  stepLabel,
  type Apply,
  type Cells,
  type Dot,
  type Expr,
  type Index,
  type Leaf,
  type OfOne,
  type OfTwo,
  type Operand,
} from "./expressions";

type Sliding = Readonly<{ stride: Index; padding: Index; dilation: Index }>;

/** How one step calculates. */
export type Rule =
  | (Readonly<{ rule: "convolution"; input: Operand; weight: Operand; bias: Operand | null; groups: number }> & Sliding)
  | (Readonly<{ rule: "max"; input: Operand; size: Index }> & Sliding)
  | (Readonly<{ rule: "mean"; input: Operand; size: Index; counted: boolean; divisor: number | null }> & Sliding)
  | Readonly<{ rule: "product"; left: Operand; right: Operand; bias: Operand | null }>
  | (Readonly<{ rule: "transposed"; input: Operand; weight: Operand; bias: Operand | null; groups: number }> & Sliding)
  | Readonly<{ rule: "whole"; input: Operand; axes: Index; kept: boolean }>
  | Readonly<{ rule: "function"; function: OfOne; input: Operand }>
  | Readonly<{ rule: "pair"; function: OfTwo; x: Operand; y: Operand }>
  | Normalization
  | Readonly<{ rule: "moved"; input: Operand; shape: Index }>;

/** Batch norm with its running statistics; `off` is how far a kernel's eps may be from the one that was written. */
type Normalization = Readonly<{
  rule: "normalized";
  x: Operand;
  mean: Operand;
  var: Operand;
  weight: Operand | null;
  bias: Operand | null;
  eps: number;
  off: number;
}>;

/** The numbers of a tensor of the page. */
export type Read = (tensor: number) => ArrayLike<number>;

/** A number that is written in the call. */
function written(name: string, number: number, error = 0): Leaf {
  const of = { name, kind: "number", output: 0, shape: [], made: [], tensor: -1, transposed: false } as const;
  return { type: "leaf", of, cell: [], number, error };
}

/** The position of a cell in memory. */
export const flat = (cell: Index, shape: Index): number =>
  cell.reduce((at, index, axis) => at * (shape[axis] ?? 1) + index, 0);

function unflat(position: number, shape: Index): number[] {
  const cell = new Array<number>(shape.length).fill(0);
  for (let axis = shape.length - 1, rest = position; axis >= 0; axis--) {
    cell[axis] = rest % (shape[axis] ?? 1);
    rest = Math.floor(rest / (shape[axis] ?? 1));
  }
  return cell;
}

/** Where a number that an operation reads was made: its cell, and its position there. */
function origin(of: Operand, cell: Index): Readonly<{ cell: number[]; at: number }> {
  if (of.transposed) {
    const turned = [...cell].reverse();
    return { cell: turned, at: flat(turned, of.made) };
  }
  const at = flat(cell, of.shape);
  return { cell: unflat(at, of.made), at };
}

function leaf(of: Operand, cell: Index, read: Read): Leaf {
  const { cell: made, at } = origin(of, cell);
  return { type: "leaf", of, cell: made, number: read(of.tensor)[at] ?? NaN };
}

type Axis = number | readonly number[];

/** The cells at all combinations of positions on each axis; those outside of the tensor are padding, or left out. */
function outer(of: Operand, axes: readonly Axis[], read: Read, dropPadding = false): Cells {
  const inside = (at: number, axis: number): boolean => at >= 0 && at < (of.shape[axis] ?? 0);
  const positions = axes.map((axis, i) => {
    const all = typeof axis === "number" ? [axis] : axis;
    return dropPadding ? all.filter((at) => inside(at, i)) : all;
  });
  let all: number[][] = [[]];
  for (const axis of positions) all = all.flatMap((cell) => axis.map((at) => [...cell, at]));
  const numbers = read(of.tensor);
  const padding = all.flatMap((cell, i) => (cell.every(inside) ? [] : [i]));
  const lost = new Set(padding);
  const first = all.findIndex((_, i) => !lost.has(i));
  const shift = first < 0 ? [] : origin(of, all[first] as number[]).cell.map((at, i) => at - (all[first]?.[i] ?? 0));
  const alike = shift.length === of.shape.length;
  const values: number[] = [];
  const cells = all.map((cell, i) => {
    if (lost.has(i)) {
      values.push(0);
      return first < 0 ? cell : alike ? cell.map((at, k) => at + (shift[k] ?? 0)) : of.made.map(() => -1);
    }
    const { cell: made, at } = origin(of, cell);
    values.push(numbers[at] ?? NaN);
    return made;
  });
  const grid = positions.flatMap((axis, i) => (typeof axes[i] === "number" ? [] : [axis.length]));
  return { of, values, cells, grid, padding };
}

const range = (from: number, to: number): number[] =>
  Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);

/** The window of a cell on each spatial axis. */
const under = (places: Index, size: Index, { stride, padding, dilation }: Sliding): number[][] =>
  places.map((at, axis) =>
    range(0, size[axis] ?? 1).map((k) => at * (stride[axis] ?? 1) - (padding[axis] ?? 0) + k * (dilation[axis] ?? 1)),
  );

/** What made the number at a cell, by the step's rule. */
export function expression(rule: Rule, cell: Index, read: Read): Expr {
  switch (rule.rule) {
    case "moved":
      return leaf(rule.input, unflat(flat(cell, rule.shape), rule.input.shape), read);
    case "function":
      return { type: "apply", function: rule.function, arguments: { x: leaf(rule.input, cell, read) } };
    case "pair": {
      const [x, y] = [rule.x, rule.y].map((of) => leaf(of, broadcast(cell, of.shape), read)) as [Leaf, Leaf];
      return { type: "apply", function: rule.function, arguments: { x, y } };
    }
    case "normalized":
      return normalization(rule, cell, read);
    case "convolution":
      return convolution(rule, cell, read);
    case "transposed":
      return transposed(rule, cell, read);
    case "whole": {
      const left = [...cell];
      const axes = rule.input.shape.map((size, axis) => {
        if (!rule.axes.includes(axis)) return left.shift() ?? 0;
        if (rule.kept) left.shift();
        return range(0, size);
      });
      const cells = outer(rule.input, axes, read);
      const many = cells.values.length;
      const note = `the mean of ${count(many)} cells`;
      return { type: "dot", left: cells, right: null, bias: null, divisor: many, note, extra: 2 };
    }
    case "product":
      return product(rule, cell, read);
    case "max": {
      const lead = cell.length - rule.size.length;
      const window = [...cell.slice(0, lead), ...under(cell.slice(lead), rule.size, rule)];
      const cells = outer(rule.input, window, read, true);
      return { type: "largest", cells, note: `the largest of ${cells.values.length} cells` };
    }
    case "mean":
      return mean(rule, cell, read);
  }
}

function convolution(rule: Rule & { rule: "convolution" }, cell: Index, read: Read): Dot {
  const [batch = 0, unit = 0, ...place] = cell;
  const [kernels = 1, channels = 1, ...size] = rule.weight.shape;
  const first = Math.floor(unit / (kernels / rule.groups)) * channels;
  const window = outer(rule.input, [batch, range(first, first + channels), ...under(place, size, rule)], read);
  const kernel = outer(rule.weight, [unit, range(0, channels), ...size.map((n) => range(0, n))], read);
  const name = rule.weight.name;
  const layer = name === "weight" ? "" : ` of ${stepLabel(name.replace(/\.weight$/, ""))}`;
  const outside = window.padding.length > 0 ? ` (${count(window.padding.length)} of them padding)` : "";
  const note = `${count(window.values.length)} window cells${outside} × kernel ${unit}${layer}${rule.bias === null ? "" : ", plus its bias"}`;
  const bias = rule.bias === null ? null : leaf(rule.bias, [unit], read);
  return { type: "dot", left: window, right: kernel, bias, divisor: 1, note, extra: 0 };
}

/** The cell of a tensor that broadcasting puts at a cell of the result. */
const broadcast = (cell: Index, shape: Index): number[] =>
  cell.slice(cell.length - shape.length).map((at, axis) => ((shape[axis] ?? 1) === 1 ? 0 : at));

function normalization(rule: Normalization, cell: Index, read: Read): Apply {
  const channel = [cell[1] ?? 0];
  const [x, mean, variance] = [leaf(rule.x, cell, read), leaf(rule.mean, channel, read), leaf(rule.var, channel, read)];
  const all: Record<string, Leaf> = { x, mean, var: variance, eps: written("eps", rule.eps, rule.off) };
  if (rule.weight === null && rule.bias === null) return { type: "apply", function: "normalize", arguments: all };
  all["weight"] = rule.weight === null ? written("weight", 1) : leaf(rule.weight, channel, read);
  if (rule.bias === null) return { type: "apply", function: "normalize_weight", arguments: all };
  all["bias"] = leaf(rule.bias, channel, read);
  return { type: "apply", function: "normalize_affine", arguments: all };
}

/** Each input cell lays a scaled kernel over the result; these are the ones that reach this cell. */
function transposed(rule: Rule & { rule: "transposed" }, cell: Index, read: Read): Dot {
  const [batch = 0, unit = 0, ...place] = cell;
  const [rows = 1, own = 1, ...size] = rule.weight.shape;
  const [channels, within] = [rows / rule.groups, unit % own];
  const inputs: number[][] = [];
  const taps: number[][] = [];
  for (const [axis, at] of place.entries()) {
    const [stride, length] = [rule.stride[axis] ?? 1, rule.input.shape[axis + 2] ?? 1];
    const start = (tap: number): number => at + (rule.padding[axis] ?? 0) - (rule.dilation[axis] ?? 1) * tap;
    const reaches = (tap: number): boolean =>
      start(tap) >= 0 && start(tap) % stride === 0 && start(tap) < length * stride;
    const kept = range(0, size[axis] ?? 1).filter(reaches);
    taps.push(kept);
    inputs.push(kept.map((tap) => start(tap) / stride));
  }
  const first = Math.floor(unit / own) * channels;
  const group = range(first, first + channels);
  const window = outer(rule.input, [batch, group, ...inputs], read);
  const kernel = outer(rule.weight, [group, within, ...taps], read);
  const name = rule.weight.name;
  const layer = name === "weight" ? "" : ` of ${stepLabel(name.replace(/\.weight$/, ""))}`;
  const reach = `${count(window.values.length)} input cells whose kernel reaches here`;
  const note = `${reach} × kernel ${unit}${layer}${rule.bias === null ? "" : ", plus its bias"}`;
  const bias = rule.bias === null ? null : leaf(rule.bias, [unit], read);
  return { type: "dot", left: window, right: kernel, bias, divisor: 1, note, extra: 0 };
}

function product(rule: Rule & { rule: "product" }, cell: Index, read: Read): Dot {
  const [row = 0, column = 0] = cell;
  const depth = range(0, rule.left.shape[1] ?? 0);
  const left = outer(rule.left, [row, depth], read);
  const right = outer(rule.right, [depth, column], read);
  const at = rule.bias === null ? [] : rule.bias.shape.length === 1 ? [column] : cell;
  const bias = rule.bias === null ? null : leaf(rule.bias, at, read);
  const many = left.values.length;
  const note = `${count(many)} number${many === 1 ? "" : "s"}, each times its weight${bias === null ? "" : ", plus the bias"}`;
  return { type: "dot", left, right, bias, divisor: 1, note, extra: 0 };
}

function mean(rule: Rule & { rule: "mean" }, cell: Index, read: Read): Dot {
  const lead = cell.length - rule.size.length;
  const lengths = rule.input.shape.slice(lead);
  const places = under(cell.slice(lead), rule.size, rule).map((at, axis) =>
    at.filter((k) => k < (lengths[axis] ?? 0) + (rule.padding[axis] ?? 0)),
  );
  const all = places.reduce((n, at) => n * at.length, 1);
  const window = outer(rule.input, [...cell.slice(0, lead), ...places], read, !rule.counted);
  const many = window.values.length;
  const divisor = rule.divisor ?? (rule.counted ? all : many);
  const outside = window.padding.length > 0 ? `, ${window.padding.length} of them padding` : "";
  const whole = divisor === many;
  const note = `the ${whole ? "mean" : "sum"} of ${many} cells${outside}${whole ? "" : `, divided by ${divisor}`}`;
  return { type: "dot", left: window, right: null, bias: null, divisor, note, extra: 2 };
}
