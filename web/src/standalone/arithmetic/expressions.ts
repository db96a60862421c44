/**
 * What made one number, as the rules of convscope/ops say it, for the operations of the networks that tutorials use. The
 * recorded numbers come from the page; the reports' tests compare every kind of step with `convscope.explain`.
 */
import { count } from "../../lib/format";
import type { Kind } from "../../lib/explanation";
import { exactSum, gamma, type Precision } from "./numbers";

export type Index = readonly number[];

/** A tensor that an operation reads: its shape there, and the tensor that its numbers were made in. */
export type Operand = Readonly<{
  name: string;
  kind: Kind;
  output: number;
  /** Shape as the operation reads it. */
  shape: Index;
  /** Shape of the tensor in which the numbers were made. */
  made: Index;
  /** Position of that tensor among those of the page. */
  tensor: number;
  /** Whether the operation reads that matrix transposed. */
  transposed: boolean;
}>;

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

/** A number of a tensor, or one that is written in the call; `error` is how far a kernel's own may be from it. */
export type Leaf = Readonly<{ type: "leaf"; of: Operand; cell: Index; number: number; error?: number }>;
export type Cells = Readonly<{
  of: Operand;
  values: readonly number[];
  cells: readonly Index[];
  grid: Index;
  /** Which of them are padding. */
  padding: readonly number[];
}>;
export type Dot = Readonly<{
  type: "dot";
  left: Cells;
  right: Cells | null;
  bias: Leaf | null;
  divisor: number;
  note: string;
  /** Roundings of the kernel beyond those of the sum, its divisor and its bias. */
  extra: number;
}>;
export type Largest = Readonly<{ type: "largest"; cells: Cells; note: string }>;
export type Apply = Readonly<{ type: "apply"; function: FunctionName; arguments: Readonly<Record<string, Leaf>> }>;
export type Expr = Leaf | Dot | Largest | Apply;

export type OfOne = "relu" | "tanh" | "sigmoid";
export type OfTwo = "add" | "sub" | "mul";
export type FunctionName = OfOne | OfTwo | "normalize" | "normalize_weight" | "normalize_affine";

/** A function: its formula, its value, and how far a kernel's result may be from it. */
type Fn = Readonly<{
  formula: string;
  value: (...numbers: number[]) => number;
  error: (precision: Precision, result: number, leaves: readonly Leaf[]) => number;
}>;

/** A function whose kernel rounds by this many units of the result. */
const rounded = (formula: string, value: Fn["value"], roundings: number): Fn => ({
  formula,
  value,
  error: ({ sum, tiny }, result) => {
    const roundoff = Math.abs(roundings * result);
    return sum * roundoff + (roundoff === 0 ? 0 : tiny);
  },
});

/** (x - mean) ÷ √(var + eps), then times the weight and plus the bias where there are any. */
const normalized = (formula: string): Fn => ({
  formula: `({x} − {mean}) ÷ √({var} + {eps})${formula}`,
  value: (x = 0, mean = 0, variance = 0, eps = 0, weight = 1, bias = 0) =>
    ((x - mean) / Math.sqrt(variance + eps)) * weight + bias,
  error: ({ sum, tiny }, _result, leaves) => {
    const [x = 0, mean = 0, variance = 0, eps = 0, weight = 1, bias = 0] = leaves.map((each) => each.number);
    const [width, off] = [variance + eps, leaves[3]?.error ?? 0];
    const narrowest = Math.max(width - off, 0.99 * eps);
    if (!(narrowest > 0)) return 0;
    const scale = Math.abs(weight) / Math.sqrt(width);
    const bent = Math.max(Math.sqrt(width / narrowest) - 1, 1 - Math.sqrt(width / (width + off)));
    const own = 8 * sum * (Math.abs(x * scale) + Math.abs(mean * scale) + Math.abs(bias));
    return Math.abs(x - mean) * scale * bent + own + tiny;
  },
});

export const FUNCTIONS: Readonly<Record<FunctionName, Fn>> = {
  relu: rounded("max(0, {x})", (x = 0) => Math.max(0, x), 0),
  tanh: rounded("tanh({x})", (x = 0) => Math.tanh(x), 6),
  sigmoid: rounded("1 ÷ (1 + exp(−{x}))", (x = 0) => 1 / (1 + Math.exp(-x)), 10),
  add: rounded("{x} + {y}", (x = 0, y = 0) => x + y, 1),
  sub: rounded("{x} − {y}", (x = 0, y = 0) => x - y, 1),
  mul: rounded("{x} × {y}", (x = 0, y = 0) => x * y, 1),
  normalize: normalized(""),
  normalize_weight: normalized(" × {weight}"),
  normalize_affine: normalized(" × {weight} + {bias}"),
};

/** A formula with the names of its arguments. */
export const named = (name: FunctionName): string => FUNCTIONS[name].formula.replaceAll(/\{(\w+)\}/g, "$1");

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

/** Each number times its weight. */
export const productsOf = (dot: Dot): number[] => dot.left.values.map((v, i) => v * (dot.right?.values[i] ?? 1));

/** The sum of the products alone. */
export const totalOf = (dot: Dot): number => exactSum(productsOf(dot));

/** The number, calculated in float64. */
export function valueOf(expr: Expr): number {
  switch (expr.type) {
    case "leaf":
      return expr.number;
    case "dot":
      return totalOf(expr) / expr.divisor + (expr.bias === null ? 0 : expr.bias.number);
    case "largest":
      return Math.max(...expr.cells.values);
    case "apply":
      return FUNCTIONS[expr.function].value(...Object.values(expr.arguments).map((each) => each.number));
  }
}

/** How far a kernel's number may be from it: convscope/expr/expr.py has the reasons. */
export function boundOf(expr: Expr, precision: Precision): number {
  const { sum, tiny, room } = precision;
  if (expr.type === "apply")
    return FUNCTIONS[expr.function].error(precision, valueOf(expr), Object.values(expr.arguments));
  if (expr.type !== "dot") return 0;
  const magnitudes = productsOf(expr).map(Math.abs);
  const whole = magnitudes.reduce((all, m) => all + m, 0);
  let size = whole * Math.abs(1 / expr.divisor);
  let roundings = magnitudes.filter((m) => m !== 0).length - (expr.right === null ? 1 : 0);
  roundings += expr.extra + (expr.divisor === 1 ? 0 : 1);
  if (expr.bias !== null) {
    size += Math.abs(expr.bias.number);
    roundings += 1;
  }
  const error = Math.max(whole, size) >= room ? Infinity : gamma(Math.max(roundings, 0), sum) * size;
  return error + (roundings > 0 ? tiny : 0);
}

/** A cell as a person reads it: conv1 (3, 10, 12), conv1.bias[3]. */
export function labelOf(of: Operand, cell: Index): string {
  if (cell.length === 0) return of.name;
  if (of.kind === "parameter" || of.kind === "constant") return `${of.name}[${cell.join(", ")}]`;
  const shown = cell.length > 1 && of.made[0] === 1 ? cell.slice(1) : cell;
  return `${stepLabel(of.name)} (${shown.join(", ")})`;
}

/** A step's name in a sentence: layers of `nn.Sequential` have numbers for names. */
export function stepLabel(name: string): string {
  return /^\d+(#|$)/.test(name) ? `layer ${name}` : name;
}
