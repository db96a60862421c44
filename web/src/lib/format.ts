/** Numbers and shapes as text, by the same rules as convscope/render/numbers.py; tests/support/number_cases.json binds both. */
import { real, type Num } from "./types";

const MINUS = "−";

function signed(text: string): string {
  return text.replaceAll("-", MINUS);
}

function strange(value: number): string {
  return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : `${MINUS}inf`;
}

/** A number with a fixed number of decimals; one half way between two is rounded to the even one, as Python does it. */
function rounded(value: number, decimals: number): string {
  const text = value.toFixed(decimals);
  const exact = value.toFixed(Math.min(100, decimals + 60));
  const cut = decimals === 0 ? exact.indexOf(".") : exact.indexOf(".") + 1 + decimals;
  if (!/^\.?50*$/.test(exact.slice(cut))) return text;
  const below = exact.slice(0, cut);
  return "02468".includes(below.at(-1) ?? "") ? below : text;
}

/** A number in at most `digits` significant digits, without trailing zeros: −1.124, 0, 1.23e−5. */
export function short(number: Num, digits = 4): string {
  const value = real(number);
  if (!Number.isFinite(value)) return strange(value);
  if (value === 0) return "0";
  const power = Math.floor(Math.log10(Math.abs(value)));
  if (power >= -4 && power < 6) {
    const text = rounded(value, Math.max(digits - 1 - power, 0));
    return signed(text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  }
  const [mantissa = "", exponent = "0"] = value.toExponential(digits - 1).split("e");
  return signed(`${mantissa.replace(/\.?0+$/, "")}e${Number(exponent)}`);
}

/** Significant digits of a number that show a change of it with three digits: at least five, at most 17. */
export function digitsFor(number: number, change: number): number {
  if (!Number.isFinite(number) || !Number.isFinite(change) || number === 0 || change === 0) return 5;
  const apart = Math.floor(Math.log10(Math.abs(number))) - Math.floor(Math.log10(Math.abs(change)));
  return Math.min(Math.max(5, apart + 3), 17);
}

/** The shortest text that identifies a float64. */
export function full(number: Num): string {
  const value = real(number);
  return Number.isFinite(value) ? signed(String(value)) : strange(value);
}

/** A formatter for several numbers with equal decimals: at most seven characters, unless all are tiny. */
export function like(values: Iterable<number>): (value: number) => string {
  let most = 0;
  let whole = true;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    most = Math.max(most, Math.abs(value));
    whole &&= Number.isInteger(value);
  }
  if (whole && most < 1e5) return (value) => (Number.isFinite(value) ? fixed(value, 0) : strange(value));
  if (most >= 1e-3 && most < 1e5) {
    const decimals = 4 - Math.max(0, Math.floor(Math.log10(most)));
    return (value) => (Number.isFinite(value) ? fixed(value, decimals) : strange(value));
  }
  return (value) => {
    if (!Number.isFinite(value)) return strange(value);
    return value === 0 ? "0" : signed(value.toExponential(1).replace("e+", "e"));
  };
}

/** A number with a fixed number of decimals; minus zero is written as zero. */
export function fixed(value: number, decimals: number): string {
  const text = value.toFixed(decimals);
  return signed(/[1-9]/.test(text) ? text : text.replace("-", ""));
}

/** A number with the decimals, and the power of ten, of another one that is written already. */
export function alike(written: string, value: number): string {
  const [, decimals = "", power = ""] = /^[^.e]*(?:\.(\d*))?(?:e(.*))?$/.exec(written) ?? [];
  if (written === "" || !Number.isFinite(value)) return short(value, 6);
  const scale = Number(`1e${power.replace(MINUS, "-") || 0}`);
  return fixed(value / scale, decimals.length) + (power === "" ? "" : `e${power}`);
}

/** A fraction as a percentage: 99.97 %, and 100 % only for exactly 1. */
export function percent(number: Num): string {
  const value = real(number);
  if (!Number.isFinite(value)) return strange(value);
  const text = (value * 100).toFixed(2);
  if (text === "100.00" && value < 1) return "> 99.99 %";
  if (text === "0.00" && value > 0) return "< 0.01 %";
  return `${text} %`;
}

/** A shape: 8×28×28. */
export function size(shape: readonly number[]): string {
  return shape.length ? shape.map((n) => n.toLocaleString("en")).join("×") : "1";
}

/** An integer with thousands separators. */
export function count(value: number): string {
  return value.toLocaleString("en");
}

/** A word with its number: 1 step, 3 steps. */
export function plural(value: number, word: string): string {
  return `${count(value)} ${word}${value === 1 ? "" : "s"}`;
}

/** Names of steps as the subject of a sentence, with its verb: conv1 is, conv1 and conv2 are, conv1, conv2 and 9 other steps are. */
export function namesAre(names: readonly string[]): string {
  if (names.length === 1) return `${names[0]} is`;
  if (names.length <= 3) return `${names.slice(0, -1).join(", ")} and ${names.at(-1)} are`;
  return `${names.slice(0, 2).join(", ")} and ${count(names.length - 2)} other steps are`;
}

/** A cell as an index: (3, 10, 12). */
export function cellText(cell: readonly number[]): string {
  return `(${cell.map((n) => signed(String(n))).join(", ")})`;
}

/** A cell in words, for breadcrumbs and screen readers. */
export function cellWords(cell: readonly number[]): string {
  const [a, b, c] = cell.map((n) => signed(String(n)));
  if (cell.length === 3) return `channel ${a}, row ${b}, column ${c}`;
  if (cell.length === 2) return `token ${a}, feature ${b}`;
  if (cell.length === 1) return `unit ${a}`;
  return cell.length ? cellText(cell) : "the number";
}
