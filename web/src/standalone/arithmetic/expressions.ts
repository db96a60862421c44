/** What made one number: expressions with their values and error bounds, as in convscope/expr. */
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
