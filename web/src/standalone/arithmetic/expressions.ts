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
  | Readonly<{ rule: "function"; function: FunctionName; input: Operand }>
  | Readonly<{ rule: "moved"; input: Operand; shape: Index }>;

/** The numbers of a tensor of the page. */
export type Read = (tensor: number) => ArrayLike<number>;

export type Leaf = Readonly<{ type: "leaf"; of: Operand; cell: Index; number: number }>;
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
export type Apply = Readonly<{ type: "apply"; function: FunctionName; x: Leaf }>;
export type Expr = Leaf | Dot | Largest | Apply;

export type FunctionName = "relu" | "tanh" | "sigmoid";

/** Functions of one number: the formula, the value, and the roundings of a kernel in units of the result. */
export const FUNCTIONS: Readonly<
  Record<FunctionName, Readonly<{ formula: string; value: (x: number) => number; roundings: number }>>
> = {
  relu: { formula: "max(0, {x})", value: (x) => Math.max(0, x), roundings: 0 },
  tanh: { formula: "tanh({x})", value: Math.tanh, roundings: 6 },
  sigmoid: { formula: "1 ÷ (1 + exp(−{x}))", value: (x) => 1 / (1 + Math.exp(-x)), roundings: 10 },
};

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
      return { type: "apply", function: rule.function, x: leaf(rule.input, cell, read) };
    case "convolution":
      return convolution(rule, cell, read);
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
      return FUNCTIONS[expr.function].value(expr.x.number);
  }
}

/** How far a kernel's number may be from it: convscope/expr/expr.py has the reasons. */
export function boundOf(expr: Expr, { sum, tiny, room }: Precision): number {
  if (expr.type === "apply") {
    const { value, roundings } = FUNCTIONS[expr.function];
    const roundoff = Math.abs(roundings * value(expr.x.number));
    return sum * roundoff + (roundoff === 0 ? 0 : tiny);
  }
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
