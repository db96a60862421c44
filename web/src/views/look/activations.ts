/** Activation functions and their slopes, for drawing: by the names that explanations have for them. */
import type { Apply } from "../../lib/explanation";
import { real } from "../../lib/types";

/** The settings of a function: alpha, low, … */
type Settings = Readonly<Record<string, number>>;

/** A function of one number, and its slope: at a kink the one that PyTorch uses. */
export type Activation = Readonly<{ at: (x: number) => number; slope: (x: number) => number }>;

const logistic = (x: number): number => 1 / (1 + Math.exp(-x));

/** The error function: Abramowitz and Stegun, formula 7.1.26, within 1.5e-7. */
function erf(x: number): number {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const sum = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - sum * Math.exp(-x * x));
}

const H = 1e-5;

/** A smooth function with its slope as a difference quotient. */
const smooth = (at: (x: number) => number): Activation => ({
  at,
  slope: (x) => (at(x + H) - at(x - H)) / (2 * H),
});

/** A function that is linear but for the places where it changes its slope. */
const linear = (at: (x: number) => number, slope: (x: number) => number): Activation => ({ at, slope });

const FUNCTIONS: Readonly<Record<string, (of: Settings) => Activation>> = {
  relu: () =>
    linear(
      (x) => Math.max(0, x),
      (x) => (x > 0 ? 1 : 0),
    ),
  hardtanh: ({ low = -Infinity, high = Infinity }) =>
    linear(
      (x) => Math.min(Math.max(x, low), high),
      (x) => (x > low && x < high ? 1 : 0),
    ),
  clamp: ({ low = -Infinity, high = Infinity }) =>
    linear(
      (x) => Math.min(Math.max(x, low), high),
      (x) => (x >= low && x <= high ? 1 : 0),
    ),
  clamp_min: ({ y = -Infinity }) =>
    linear(
      (x) => Math.max(x, y),
      (x) => (x >= y ? 1 : 0),
    ),
  clamp_max: ({ y = Infinity }) =>
    linear(
      (x) => Math.min(x, y),
      (x) => (x <= y ? 1 : 0),
    ),
  leaky_relu: ({ slope = 0 }) =>
    linear(
      (x) => (x > 0 ? x : slope * x),
      (x) => (x > 0 ? 1 : slope),
    ),
  hardsigmoid: () =>
    linear(
      (x) => Math.min(Math.max(x + 3, 0), 6) / 6,
      (x) => (x > -3 && x < 3 ? 1 / 6 : 0),
    ),
  hardswish: () =>
    linear(
      (x) => (x * Math.min(Math.max(x + 3, 0), 6)) / 6,
      (x) => (x <= -3 ? 0 : x < 3 ? (2 * x + 3) / 6 : 1),
    ),
  elu: ({ alpha = 1, scale = 1, input_scale: inner = 1 }) => ({
    at: (x) => (x > 0 ? scale * x : scale * alpha * Math.expm1(inner * x)),
    slope: (x) => (x > 0 ? scale : scale * alpha * inner * Math.exp(inner * x)),
  }),
  celu: ({ alpha = 1 }) => ({
    at: (x) => (x > 0 ? x : alpha * Math.expm1(x / alpha)),
    slope: (x) => (x > 0 ? 1 : Math.exp(x / alpha)),
  }),
  gelu: () => ({
    at: (x) => (x / 2) * (1 + erf(x / Math.SQRT2)),
    slope: (x) => (1 + erf(x / Math.SQRT2)) / 2 + (x * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI),
  }),
  gelu_tanh: () => smooth((x) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))),
  silu: () => smooth((x) => x * logistic(x)),
  sigmoid: () => smooth(logistic),
  tanh: () => smooth(Math.tanh),
  softplus: ({ beta = 1, threshold = 20 }) =>
    smooth((x) => (beta * x > threshold ? x : Math.log1p(Math.exp(beta * x)) / beta)),
  mish: () => smooth((x) => x * Math.tanh(Math.log1p(Math.exp(x)))),
};

/** The number that goes in, the one that comes out, and the function between them. */
export type Bend = Readonly<{ x: number; y: number; of: Activation }>;

/** What an explanation applies, if it is such a function; null if not, or if the curve would miss the number. */
export function bendOf(apply: Apply): Bend | null {
  const make = FUNCTIONS[apply.function];
  const into = apply.arguments["x"];
  if (make === undefined || into?.type !== "leaf") return null;
  const settings: Record<string, number> = {};
  for (const [name, each] of Object.entries(apply.arguments)) {
    if (name !== "x" && each.type !== "leaf") return null;
    if (name !== "x" && each.type === "leaf") settings[name] = real(each.value);
  }
  const [x, y, of] = [real(into.value), real(apply.value), make(settings)];
  return Math.abs(of.at(x) - y) <= 1e-5 * (1 + Math.abs(y)) ? { x, y, of } : null;
}
