/**
 * Numbers as convscope/render/numbers.py writes them, and sums as Python adds them. Whole units of the last decimal are
 * bigints, as they are in Python.
 */
import { short } from "../../lib/format";

const MINUS = "−";

/** The sum of the numbers with a single rounding: Python's `math.fsum` (Shewchuk 1997). */
export function exactSum(numbers: Iterable<number>): number {
  const partials: number[] = [];
  for (const number of numbers) {
    let x = number;
    let kept = 0;
    for (let y of partials) {
      if (Math.abs(x) < Math.abs(y)) [x, y] = [y, x];
      const high = x + y;
      const low = y - (high - x);
      if (low !== 0) partials[kept++] = low;
      x = high;
    }
    partials.length = kept;
    partials.push(x);
  }
  let left = partials.length;
  let [high, low] = [left > 0 ? (partials[--left] as number) : 0, 0];
  while (left > 0) {
    const x = high;
    const y = partials[--left] as number;
    high = x + y;
    low = y - (high - x);
    if (low !== 0) break;
  }
  const next = partials[left - 1] ?? 0;
  if (left > 0 && low * next > 0) {
    // half way between two numbers, and the rest decides which one is nearer
    const twice = low * 2;
    const x = high + twice;
    if (twice === x - high) high = x;
  }
  return high;
}

/** The nearest integer; of two equally near ones the even one. */
function nearest(value: number): bigint {
  const whole = Math.floor(value);
  const part = value - whole;
  return BigInt(part > 0.5 || (part === 0.5 && whole % 2 !== 0) ? whole + 1 : whole);
}

/** The power of ten of a number's first digit. */
const exponentOf = (value: number): number => Number(Math.abs(value).toExponential().split("e")[1]);
const powerOfTen = (exponent: number): number => Number(`1e${exponent}`);

/** The format of a column of numbers: its decimals, and a power of ten for very large and small ones. */
export class NumberScale {
  constructor(
    readonly decimals: number,
    readonly power = 0,
  ) {}

  /** Five digits for the largest; fewer where no number needs them. */
  static of(numbers: Iterable<number>): NumberScale {
    const all = [...numbers].map(Math.abs);
    const top = all.reduce((most, n) => Math.max(most, n), 0);
    if (top < 1e6 && all.every(Number.isInteger)) return new NumberScale(0);
    let exponent = exponentOf(top);
    const power = exponent < -6 || exponent > 7 ? exponent : 0;
    exponent -= power;
    const decimals = Math.max(4 - Math.max(exponent, 0), 0) + Math.max(-exponent - 1, 0);
    for (let d = 1; d < Math.min(decimals, 3); d++)
      if (power === 0 && all.every((n) => Number(n.toFixed(d)) === n)) return new NumberScale(d, power);
    return new NumberScale(decimals, power);
  }

  /** Five significant digits of one number. */
  static fine(number: number): NumberScale {
    if (number === 0) return new NumberScale(0);
    const exponent = exponentOf(number);
    const power = exponent >= -6 && exponent < 7 ? 0 : exponent;
    return new NumberScale(Math.max(4 - exponent + power, 0), power);
  }

  units(number: number): bigint {
    return nearest((number / powerOfTen(this.power)) * powerOfTen(this.decimals));
  }

  text(units: bigint): string {
    const digits = (units < 0n ? -units : units).toString().padStart(this.decimals + 1, "0");
    const at = digits.length - this.decimals;
    const power = this.power === 0 ? "" : `e${this.power}`.replace("-", MINUS);
    const rest = this.decimals > 0 ? `.${digits.slice(at)}` : "";
    return `${units < 0n ? MINUS : ""}${digits.slice(0, at)}${rest}${power}`;
  }

  show(number: number): string {
    return this.text(this.units(number));
  }

  /** What whole units are worth. */
  worth(units: bigint): number {
    return (Number(units) / powerOfTen(this.decimals)) * powerOfTen(this.power);
  }
}

/** A number inside a formula: five significant digits. */
export const brief = (number: number, digits = 5): string => short(number, digits);

/** Parse a number as it is displayed. */
export const numberOf = (text: string): number => Number(text.replaceAll(MINUS, "-"));

/** An error or a bound, written out to two digits. */
export function small(number: number): string {
  if (number === 0) return "0";
  const exponent = exponentOf(number);
  if (exponent >= -12 && exponent < 6) return number.toFixed(Math.max(1 - exponent, 0));
  const [mantissa = "", power = "0"] = number.toExponential(1).split("e");
  const digits = power.replace(/^[+-]/, "").padStart(2, "0");
  return `${mantissa}e${power.startsWith("-") ? MINUS : "+"}${digits}`;
}

/** Number of decimals that shows a bound with two digits; null where scientific notation is needed. */
export function decimalsOf(bound: number, value: number): number | null {
  if (bound === 0) return null;
  const decimals = Math.max(1 - exponentOf(bound), 0);
  return decimals <= 16 && Math.abs(value) < 1e12 ? decimals : null;
}

/** Rows of texts with aligned columns; "<" and ">" say to which side each column is aligned. */
export function table(rows: readonly (readonly string[])[], alignment: string, gap = "  "): string[] {
  const widths = [...alignment].map((_, i) => Math.max(0, ...rows.map((row) => row[i]?.length ?? 0)));
  return rows.map((row) =>
    row
      .map((text, i) => (alignment[i] === "<" ? text.padEnd(widths[i] ?? 0) : text.padStart(widths[i] ?? 0)))
      .join(gap)
      .trimEnd(),
  );
}

const UNIT = 2 ** -24;
const OURS = 2 ** -53;

/** The unit roundoffs of a kernel by the type of its result, with that of our own float64. */
export type Precision = Readonly<{ sum: number; tiny: number; room: number }>;

export const PRECISIONS: Readonly<Record<string, Precision>> = {
  float64: { sum: OURS + OURS, tiny: 2 ** -1022, room: Number.MAX_VALUE },
  float32: { sum: UNIT + OURS, tiny: 2 ** -126, room: 3.4028234663852886e38 },
};

/** The largest relative error that this number of roundings can build up (Higham 2002, lemma 3.1). */
export function gamma(roundings: number, u: number): number {
  const spread = roundings * u;
  return spread < 1 ? spread / (1 - spread) : Infinity;
}
