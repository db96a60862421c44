/** A calculation as lines: what convscope/render/worksheet.py writes for the expressions of `expressions.ts`. */
import { count } from "../../lib/format";
import type { Line } from "../../lib/types";
import {
  FUNCTIONS,
  labelOf,
  productsOf,
  totalOf,
  valueOf,
  type Apply,
  type Cells,
  type Dot,
  type Expr,
  type Largest,
} from "./expressions";
import { brief, decimalsOf, exactSum, NumberScale, numberOf, small, table } from "./numbers";

const TERMS = 8; // lines of a long sum
const CHANNELS = 8; // channels of a window that have a line of their own
const LARGEST = 64; // windows with more rows or columns are not drawn
const ROUNDING = "rounding of the numbers shown";
const PLAIN: Line = { kind: "row", label: "", number: "", after: "", channel: null, term: null };

const row = (label: string, number: string, more: Partial<Line> = {}): Line => ({ ...PLAIN, label, number, ...more });
const RULE: Line = { ...PLAIN, kind: "rule" };
const BLANK: Line = { ...PLAIN, kind: "blank" };
const shownOf = (many: number, most: number): number => (many <= most * 1.5 ? many : most);
const byLargest = (keys: readonly number[]): number[] =>
  keys.map((_, i) => i).sort((a, b) => Math.abs(keys[b] ?? 0) - Math.abs(keys[a] ?? 0) || a - b);

/** The headline, the result and the lines of a calculation, and the scale of its products. */
export type Worksheet = Readonly<{ headline: string; result: string; lines: Line[]; scale: NumberScale | null }>;

export function worksheet(expr: Expr, recorded: number, bound: number): Worksheet {
  const last = row("calculated", resultOf(expr), { after: roundingOf(expr) });
  const lines = [...calculation(expr), RULE, last, ...compared(expr, recorded, bound)];
  const scale = expr.type === "dot" && expr.left.values.length > 0 ? scaleOf(expr) : null;
  return { headline: headline(expr), result: resultOf(expr), lines, scale };
}

function calculation(expr: Expr): Line[] {
  switch (expr.type) {
    case "leaf":
      return [row(labelOf(expr.of, expr.cell), brief(expr.number, 9))];
    case "dot":
      return channelsOf(expr).length > 0 ? windowLines(expr) : listed(expr);
    case "largest":
      return candidates(expr);
    case "apply":
      return putIn(expr);
  }
}

function headline(expr: Expr): string {
  if (expr.type === "leaf") return `the same number as ${labelOf(expr.of, expr.cell)}`;
  return expr.type === "apply" ? filled(FUNCTIONS[expr.function].formula, "x") : expr.note;
}

function resultOf(expr: Expr): string {
  const value = valueOf(expr);
  if (expr.type !== "dot") return brief(value);
  return expr.left.values.length > 0 ? resultScale(expr).show(value) : "0";
}

function roundingOf(expr: Expr): string {
  if (numberOf(resultOf(expr)) === valueOf(expr)) return "";
  if (expr.type !== "dot") return "rounded to 5 digits";
  const scale = resultScale(expr);
  return scale.power === 0 ? `rounded to ${scale.decimals} decimals` : "";
}

function scaleOf(dot: Dot): NumberScale {
  const extra = dot.divisor === 1 ? [valueOf(dot), ...(dot.bias === null ? [] : [dot.bias.number])] : [totalOf(dot)];
  return NumberScale.of([...productsOf(dot), ...extra]);
}

function resultScale(dot: Dot): NumberScale {
  if (dot.divisor === 1) return scaleOf(dot);
  const bias = dot.bias === null ? [] : [dot.bias.number];
  return NumberScale.of([valueOf(dot), totalOf(dot) * (1 / dot.divisor), ...bias]);
}

/** How many consecutive terms make each plane of a window; 0 where the sum is not a window of planes. */
function areaOf({ left, right }: Dot): number {
  const [rows = 1, columns = 1] = left.grid.slice(-2);
  const planes = left.grid.length - (right === null ? 0 : 1) === 2 && left.of.made.length >= 3;
  return planes && Math.max(rows, columns) <= LARGEST && left.values.length >= 2 ? rows * columns : 0;
}

type Channel = Readonly<{ number: number | null; products: readonly number[]; total: number }>;

function channelsOf(dot: Dot): Channel[] {
  const area = areaOf(dot);
  if (area === 0) return [];
  const products = productsOf(dot);
  const several = (dot.left.of.made.at(-3) ?? 1) > 1;
  return Array.from({ length: products.length / area }, (_, k) => {
    const own = products.slice(k * area, (k + 1) * area);
    return { number: several ? (dot.left.cells[k * area]?.at(-3) ?? 0) : null, products: own, total: exactSum(own) };
  });
}

const unitsOf = (scale: NumberScale, numbers: readonly number[]): bigint =>
  numbers.reduce((all, n) => all + scale.units(n), 0n);

function windowLines(dot: Dot): Line[] {
  const [scale, channels] = [scaleOf(dot), channelsOf(dot)];
  const order = byLargest(channels.map(({ total }) => total));
  const shown = order.slice(0, shownOf(channels.length, CHANNELS)).map((k) => channels[k] as Channel);
  const units = shown.map(({ products }) => unitsOf(scale, products));
  const lines =
    channels.length < 2
      ? []
      : shown.map((each, i) =>
          row(
            `${dot.left.of.name} channel ${each.number}, sum of ${each.products.length}`,
            scale.text(units[i] ?? 0n),
            { channel: each.number },
          ),
        );
  const left = channels.length - shown.length;
  if (left > 0) {
    units.push(scale.units(totalOf(dot) - shown.reduce((all, { total }) => all + total, 0)));
    const many = left * (shown[0]?.products.length ?? 0);
    lines.push(row(`the other ${count(left)} channels, sum of ${count(many)}`, scale.text(units.at(-1) ?? 0n)));
  }
  const sum = units.reduce((all, n) => all + n, 0n);
  return [...lines, ...(lines.length > 0 ? [RULE] : []), ...closing(dot, scale, sum, true)];
}

function listed(dot: Dot): Line[] {
  if (dot.left.values.length === 0) return [row("nothing to add", "0")];
  const [scale, products] = [scaleOf(dot), productsOf(dot)];
  const few = shownOf(products.length, TERMS);
  const order = few === products.length ? products.map((_, i) => i) : byLargest(products).slice(0, few);
  const texts = termTexts(dot, order);
  const lines = order.map((i, k) => row(texts[k] ?? "", scale.show(products[i] ?? 0), { term: i }));
  let shown = unitsOf(
    scale,
    order.map((i) => products[i] ?? 0),
  );
  if (few < products.length) {
    const others = exactSum([...products, ...order.map((i) => -(products[i] ?? 0))]);
    lines.push(row(`${count(products.length - few)} others`, scale.show(others)));
    shown += scale.units(others);
  }
  return [...lines, ...closing(dot, scale, shown, false)];
}

/** The terms of a sum as aligned texts: label, value × label, weight =. */
function termTexts({ left, right }: Dot, order: readonly number[]): string[] {
  const padding = new Set(left.padding);
  const labels = order.map((i) =>
    padding.has(i) ? `padding around ${left.of.name}` : labelOf(left.of, left.cells[i] ?? []),
  );
  if (right === null) return labels;
  const column = ({ values }: Cells): string[] => {
    const numbers = order.map((i) => values[i] ?? 0);
    const scale = NumberScale.of(numbers);
    return numbers.map((n) => scale.show(n));
  };
  const [values, weights] = [column(left), column(right)];
  const rows = order.map((i, k) => [
    labels[k] ?? "",
    values[k] ?? "",
    "×",
    labelOf(right.of, right.cells[i] ?? []),
    weights[k] ?? "",
    "=",
  ]);
  return table(rows, "<><<><");
}

/** From the terms to the result: sum, rounding, divisor, bias. */
function closing(dot: Dot, scale: NumberScale, shown: bigint, drawn: boolean): Line[] {
  const word = dot.right === null ? "cells" : "products";
  const lines = drawn ? [row(`sum of the ${count(dot.left.values.length)} ${word}`, scale.text(shown))] : [];
  const bias = (of: NumberScale): Line[] =>
    dot.bias === null ? [] : [row(labelOf(dot.bias.of, dot.bias.cell), of.show(dot.bias.number))];
  const rest = (units: bigint, of: NumberScale): Line[] => (units === 0n ? [] : [row(ROUNDING, of.text(units))]);
  const added = (of: NumberScale): bigint => (dot.bias === null ? 0n : of.units(dot.bias.number));
  if (dot.divisor === 1)
    return [...lines, ...rest(scale.units(valueOf(dot)) - added(scale) - shown, scale), ...bias(scale)];
  const total = scale.units(totalOf(dot));
  lines.push(...rest(total - shown, scale));
  if (!drawn || total !== shown) lines.push(row("sum", scale.text(total)));
  const of = resultScale(dot);
  const factored = of.units(scale.worth(total) * (1 / dot.divisor));
  const left = of.units(valueOf(dot)) - added(of) - factored;
  return [...lines, row(`÷ ${count(dot.divisor)}`, of.text(factored)), ...rest(left, of), ...bias(of)];
}

/** The candidates of a maximum and the winner. */
function candidates({ cells }: Largest): Line[] {
  const { values, grid } = cells;
  const winner = values.indexOf(Math.max(...values));
  const label = (i: number): string => labelOf(cells.of, cells.cells[i] ?? []);
  const [rows = 9, columns = 9] = grid;
  if (grid.length === 2 && cells.of.made.length >= 3 && rows <= 8 && columns <= 8 && values.length >= 2)
    return [row(`${label(winner)}, the largest`, brief(values[winner] ?? 0), { term: winner })];
  const all = values.map((_, i) => i).sort((a, b) => (values[b] ?? 0) - (values[a] ?? 0) || a - b);
  const order = all.slice(0, shownOf(values.length, TERMS));
  const scale = NumberScale.of(order.map((i) => values[i] ?? 0));
  const lines = order.map((i) =>
    row(label(i), scale.show(values[i] ?? 0), { after: i === winner ? "← the largest" : "", term: i }),
  );
  const left = values.length - order.length;
  return left > 0 ? [...lines, row(`${count(left)} others, none larger`, "")] : lines;
}

/** A template with a number put in; a negative one gets brackets unless it is alone between commas. */
function filled(template: string, number: string): string {
  const at = template.indexOf("{x}");
  if (at < 0) return template;
  const before = template.slice(0, at).trimEnd().slice(-1);
  const after = template
    .slice(at + 3)
    .trimStart()
    .slice(0, 1);
  const bare = !number.startsWith("−") || (!"+−×÷√".includes(before || " ") && !"²³".includes(after || " "));
  return template.slice(0, at) + (bare ? number : `(${number})`) + filled(template.slice(at + 3), number);
}

/** The argument, and the formula with its number put in. */
function putIn(apply: Apply): Line[] {
  const { formula, value } = FUNCTIONS[apply.function];
  const shown = brief(apply.x.number);
  const [exact, withShown] = [valueOf(apply), value(numberOf(shown))];
  const scale = NumberScale.fine(exact || withShown);
  const rest = scale.units(exact) - scale.units(withShown);
  return [
    row(`x   ${labelOf(apply.x.of, apply.x.cell)}`, shown),
    BLANK,
    row(filled(formula, shown), brief(withShown)),
    ...(rest === 0n ? [] : [row(ROUNDING, scale.text(rest))]),
  ];
}

/** The number in full, the recorded one, and the allowed difference. */
function compared(expr: Expr, recorded: number, bound: number): Line[] {
  const value = valueOf(expr);
  if (!Number.isFinite(bound)) return [row("recorded", brief(recorded, 9))];
  if (bound === 0 && value === recorded) {
    const full = brief(value, Math.fround(value) === value ? 9 : 17);
    const exact = row("difference", "0", { after: "none is allowed: nothing is rounded here" });
    return [...(resultOf(expr) === full ? [] : [row("in full", full)]), row("recorded", full), exact];
  }
  const decimals = decimalsOf(bound, value);
  const after = `allowed ± ${small(bound)}`;
  if (decimals === null)
    return [
      row("in full", brief(value, 12)),
      row("recorded", brief(recorded, 12)),
      row("difference", brief(recorded - value, 2), { after }),
    ];
  const scale = new NumberScale(decimals);
  const difference = scale.units(recorded) - scale.units(value);
  return [
    row("in full", scale.show(value)),
    row("recorded", scale.show(recorded)),
    row("difference", scale.text(difference), { after }),
  ];
}

/** Some products as they are shown, and their sum so far; each channel of a window separately. */
export function productTexts(
  dot: Dot,
  scale: NumberScale,
  terms: readonly number[],
): Readonly<{ products: string[]; sums: string[] }> {
  const [products, area] = [productsOf(dot), areaOf(dot)];
  let soFar = 0n;
  const sums = terms.map((i) => {
    const added = scale.units(products[i] ?? 0);
    soFar = area > 0 && i % area === 0 ? added : soFar + added;
    return scale.text(soFar);
  });
  return { products: terms.map((i) => scale.show(products[i] ?? 0)), sums };
}
