/**
 * The explanation of one number from the numbers of the page, in the form in which the server answers: what
 * `convscope.explain` gives, for the rules of `expressions.ts`. The proof's other half, the recomputation by the NumPy
 * reference, was made when the page was written, for every number of the step.
 */
import { count, short } from "../../lib/format";
import type { Explained, Proof, StepInfo } from "../../lib/types";
import {
  boundOf,
  named,
  productsOf,
  stepLabel,
  valueOf,
  type Cells,
  type Dot,
  type Expr,
  type Index,
  type Leaf,
  type Operand,
} from "./expressions";
import { exactSum, PRECISIONS } from "./numbers";
import { expression, flat, type Read, type Rule } from "./rules";
import { productTexts, worksheet } from "./worksheet";

/** All that is needed to calculate each number of a step. */
export type Arithmetic = Readonly<{
  rule: Rule;
  /** The tensor of the step's result. */
  output: number;
  code: string | null;
  /** The root mean square of the step's numbers: a bound above a tenth of it proves nothing. */
  size: number;
  /** For each number, whether the reference agrees with it, and whether its bound is narrow enough; null: all. */
  agrees: string | null;
  resolves: string | null;
}>;

export type StatusText = Readonly<{ word: string; sentence: string; tone: Proof["tone"] }>;

type ExplanationJson = Explained["explanation"];
type ExprJson = NonNullable<ExplanationJson["expr"]>;
type CellsJson = { -readonly [Key in keyof CellsJsonRead]: CellsJsonRead[Key] };
type CellsJsonRead = Extract<ExprJson, { type: "dot" }>["left"];

const SOME = 256; // terms of a sum where not all are asked for
const MOST = 4096;
const NARROW = 0.1; // the largest share of the numbers' size that a bound may be

const numbersOf = ({ cells, values }: Cells): Pick<CellsJson, "cells" | "values"> => ({
  cells: cells.map((cell) => [...cell]),
  values: [...values],
});

const sourceOf = ({ name, kind, output }: Operand): Pick<CellsJson, "name" | "kind" | "output"> => ({
  name,
  kind,
  ...(output === 0 ? {} : { output }),
});

const cellsJson = (cells: Cells): CellsJson => ({
  type: "cells",
  ...sourceOf(cells.of),
  grid: [...cells.grid],
  ...numbersOf(cells),
  padding: [...cells.padding],
});

const leafJson = (leaf: Leaf): Extract<ExprJson, { type: "leaf" }> => ({
  type: "leaf",
  ...sourceOf(leaf.of),
  cell: [...leaf.cell],
  value: leaf.number,
});

function exprJson(expr: Expr): ExprJson {
  const value = valueOf(expr);
  switch (expr.type) {
    case "leaf":
      return leafJson(expr);
    case "dot":
      return {
        type: "dot",
        left: cellsJson(expr.left),
        right: expr.right === null ? null : cellsJson(expr.right),
        bias: expr.bias === null ? null : leafJson(expr.bias),
        scale: 1,
        divisor: expr.divisor,
        note: expr.note,
        value,
      };
    case "largest":
      return {
        type: "apply",
        function: "max",
        formula: "the largest of cells",
        arguments: { cells: cellsJson(expr.cells) },
        note: expr.note,
        value,
      };
    case "apply":
      return {
        type: "apply",
        function: expr.function,
        formula: named(expr.function),
        arguments: Object.fromEntries(Object.entries(expr.arguments).map(([name, each]) => [name, leafJson(each)])),
        note: "",
        value,
      };
  }
}

/** Why a number is what it is. */
export function explain(
  trace: string,
  step: StepInfo,
  how: Arithmetic,
  cell: Index,
  ask: Readonly<{ all: boolean; channel: number | null }>,
  read: Read,
  statuses: Readonly<Record<string, StatusText>>,
): Explained {
  const expr = expression(how.rule, cell, read);
  const [value, recorded] = [valueOf(expr), read(how.output)[flat(cell, step.shape)] ?? NaN];
  const precision = PRECISIONS[step.dtype];
  if (precision === undefined) throw new Error(`no precision is known for ${step.dtype}`);
  const bound = boundOf(expr, precision);
  const of = { trace, step: step.id, cell: [...cell] };
  const status = statusOf(how, flat(cell, step.shape), value, recorded, bound);
  const explanation: ExplanationJson = {
    format: "convscope explanation 1",
    step: { id: step.id, name: step.name, module: step.module, op: step.op },
    shape: [...step.shape],
    dtype: step.dtype,
    output: 0,
    cell: [...cell],
    name: `${stepLabel(step.name)} ${cellLabel(cell, step.shape)}`.trim(),
    value,
    recorded,
    difference: recorded - value,
    bound,
    status,
    proved: status === "proved",
    notes: [],
    expr: exprJson(expr),
  };
  const sentence = spoken(explanation, expr);
  const { word, sentence: meaning, tone } = statuses[status] as StatusText;
  const kept = expr.type === "dot" ? cut(explanation.expr, expr, ask.all ? MOST : SOME, ask.channel) : null;
  const paper = worksheet(expr, recorded, bound);
  const places = kept === null ? null : new Map(kept.map((term, place) => [term, place]));
  const lines = paper.lines.map((line) =>
    line.term == null || places === null ? line : { ...line, term: places.get(line.term) ?? null },
  );
  const terms = expr.type === "dot" ? (kept ?? expr.left.values.map((_, i) => i)) : [];
  const written =
    expr.type === "dot" && paper.scale !== null ? productTexts(expr, paper.scale, terms) : { products: [], sums: [] };
  return {
    of,
    explanation,
    sentence,
    rest: explanation.expr?.type === "dot" ? (explanation.expr.rest ?? null) : null,
    proof: { of, status, word, sentence: meaning, tone, proved: status === "proved" },
    paper: { headline: paper.headline, result: paper.result, lines, ...written },
    formula: formulaOf(how.rule, cell, step),
    code: how.code === null ? null : how.code + (cell.length > 0 ? `[${cell.join(", ")}]` : ""),
  };
}

type Known = NonNullable<ExplanationJson["status"]>;

const bit = (mask: string | null, at: number): boolean => mask === null || mask[at] === "1";

function statusOf(how: Arithmetic, at: number, value: number, recorded: number, bound: number): Known {
  if (Math.abs(value - recorded) > bound || !bit(how.agrees, at)) return "mismatch";
  const narrow = (value === recorded && bound === 0) || bound <= NARROW * how.size;
  return narrow && bit(how.resolves, at) ? "proved" : "unresolved";
}

function cellLabel(cell: Index, shape: Index): string {
  const shown = cell.length > 1 && shape[0] === 1 ? cell.slice(1) : cell;
  return cell.length > 0 ? `(${shown.join(", ")})` : "";
}

/** Leave only the largest terms of a long sum, in their order; a window keeps whole channels. Returns which. */
function cut(json: ExprJson | null, dot: Dot, most: number, channel: number | null): number[] | null {
  if (json?.type !== "dot") return null;
  const products = productsOf(dot).map((p, i) => (dot.left.padding.includes(i) ? 0 : p));
  const kept = keptOf(dot.left, products, most, channel);
  if (kept === null || kept.length === products.length) return null;
  const stays = new Set(kept);
  const total = exactSum(products.filter((_, i) => !stays.has(i)));
  for (const part of [json.left, json.right]) if (part !== null) keep(part, kept);
  json.rest = { terms: products.length - kept.length, total };
  return kept;
}

function keptOf(left: Cells, products: readonly number[], most: number, channel: number | null): number[] | null {
  const [rows = 1, columns = 1] = left.grid.slice(-2);
  const area = left.grid.length > 2 ? rows * columns : 0;
  const plane = (k: number): number[] => Array.from({ length: area }, (_, i) => k * area + i);
  const planes = area > 0 ? Array.from({ length: products.length / area }, (_, k) => k) : [];
  if (channel !== null && area > 0) {
    const at = planes.find((k) => left.cells[k * area]?.at(-3) === channel);
    if (at === undefined) throw new RangeError(`the window has no channel ${channel}.`);
    return plane(at);
  }
  if (products.length <= most) return null;
  const ascending = (a: number, b: number): number => a - b;
  if (area > 0 && area <= most) {
    const sums = planes.map((k) => Math.abs(plane(k).reduce((all, i) => all + (products[i] ?? 0), 0)));
    const best = planes.sort((a, b) => (sums[b] ?? 0) - (sums[a] ?? 0) || a - b).slice(0, Math.floor(most / area));
    return best.sort(ascending).flatMap(plane);
  }
  const order = products.map((_, i) => i);
  order.sort((a, b) => Math.abs(products[b] ?? 0) - Math.abs(products[a] ?? 0) || a - b);
  return order.slice(0, most).sort(ascending);
}

function keep(part: CellsJson, kept: readonly number[]): void {
  const [rows = 1, columns = 1] = part.grid.slice(-2);
  const plane = part.grid.length > 2 ? rows * columns : 0;
  const starts = plane > 0 && kept.length % plane === 0 ? kept.filter((_, i) => i % plane === 0) : [];
  const whole = starts.length > 0 && starts.every((at) => at % plane === 0);
  const padding = new Set(part.padding);
  part.grid = whole ? [kept.length / plane, rows, columns] : [kept.length];
  part.padding = kept.flatMap((k, place) => (padding.has(k) ? [place] : []));
  part.cells = kept.map((k) => part.cells[k] ?? []);
  part.values = kept.map((k) => part.values[k] ?? 0);
}

const AXES: Readonly<Record<number, readonly string[]>> = {
  1: ["unit"],
  2: ["token", "feature"],
  3: ["channel", "row", "column"],
};

/** An explanation in one sentence for a screen reader. */
function spoken({ step, cell, shape, recorded }: ExplanationJson, expr: Expr): string {
  return `${step.name}, ${cellWords(cell, shape)}, is ${short(recorded, 6)}: ${because(expr)}.`;
}

function cellWords(cell: Index, shape: Index): string {
  const shown = cell.length > 1 && shape[0] === 1 ? cell.slice(1) : cell;
  const names = AXES[shown.length];
  if (names === undefined || (shown.length === cell.length && cell.length > 1))
    return shown.length > 0 ? `cell ${shown.join(", ")}` : "its only cell";
  return names.map((name, i) => `${name} ${shown[i]}`).join(", ");
}

function because(expr: Expr): string {
  if (expr.type === "leaf") return `the number ${short(expr.number, 6)} of ${expr.of.name}, passed on`;
  if (expr.type === "largest") return `${expr.note}: the largest of cells`;
  if (expr.type === "apply") return named(expr.function);
  const many = expr.left.values.length;
  const bias = expr.bias === null ? "" : `, plus ${short(expr.bias.number, 6)}`;
  if (many === 0) return `nothing is added${bias}`;
  const plural = (word: string): string => `${count(many)} ${word}${many === 1 ? "" : "s"}`;
  const sum =
    expr.right === null
      ? `the sum of ${plural("number")} of ${expr.left.of.name}`
      : `the sum of ${plural("product")} of ${expr.left.of.name} and ${expr.right.of.name}`;
  const divided = expr.divisor === 1 ? "" : `, divided by ${short(expr.divisor, 6)}`;
  return sum + divided + bias;
}

/** The number as a formula with its indices filled in; null where it has none. */
function formulaOf(rule: Rule, cell: Index, step: StepInfo): string | null {
  const inner = cell.length > 1 && step.shape[0] === 1 ? cell.slice(1) : cell;
  const text = indexed(rule, inner, step.op);
  return text === null ? null : `out[${inner.join(", ")}] = ${text}`;
}

function indexed(rule: Rule, cell: Index, op: string): string | null {
  const [first, ...places] = cell;
  const at = cell.join(", ");
  switch (rule.rule) {
    case "convolution": {
      if (rule.groups !== 1 || places.length !== rule.stride.length) return null;
      const letters = [..."rst"].slice(0, places.length).join(", ");
      const bias = rule.bias === null ? "" : ` + bias[${first}]`;
      return `Σ over c, ${letters} of in[c, ${windowText(rule, places)}] · weight[${first}, c, ${letters}]${bias}`;
    }
    case "max":
    case "mean": {
      if (cell.length !== 3 || (rule.rule === "mean" && rule.divisor !== null)) return null;
      const word = rule.rule === "max" ? "the largest" : "the mean";
      return `${word} over r, s of in[${first}, ${windowText(rule, places)}]`;
    }
    case "product":
      return op === "addmm" && cell.length === 1 ? `Σ over i of in[i] · weight[i, ${first}] + bias[${first}]` : null;
    case "function": {
      const x = `in[${at}]`;
      if (rule.function === "relu") return `max(0, ${x})`;
      if (rule.function === "tanh") return `(e^z − e^−z) / (e^z + e^−z), where z = ${x}`;
      return `1 / (1 + e^−z), where z = ${x}`;
    }
    case "normalized": {
      const scaled = rule.weight === null ? "" : ` · weight[${first}]`;
      const moved = rule.bias === null ? "" : ` + bias[${first}]`;
      return `(in[${at}] − mean[${first}]) / √(var[${first}] + ${general(rule.eps)})${scaled}${moved}`;
    }
    case "transposed":
    case "whole":
    case "pair":
    case "moved":
      return null;
  }
}

/** A number as Python's format "g" writes it, with a proper minus: 1e−05. */
function general(number: number): string {
  const exponent = Number(Math.abs(number).toExponential(5).split("e")[1]);
  if (number === 0 || (exponent >= -4 && exponent < 6)) return String(Number(number.toPrecision(6)));
  const [digits, power = "0"] = number.toExponential(5).split("e");
  const sign = power.startsWith("-") ? "−" : "+";
  return `${Number(digits)}e${sign}${power.replace(/^[+-]/, "").padStart(2, "0")}`;
}

/** The row and column of a window's numbers in the input: 1 + 2r. */
function windowText(
  { stride, padding, dilation }: Readonly<{ stride: Index; padding: Index; dilation: Index }>,
  places: Index,
): string {
  const text = (place: number, axis: number): string => {
    const start = place * (stride[axis] ?? 1) - (padding[axis] ?? 0);
    const letter = "rst"[axis] ?? "";
    const moving = (dilation[axis] ?? 1) === 1 ? letter : `${dilation[axis]}${letter}`;
    return start === 0 ? moving : `${start} + ${moving}`.replace("-", "−");
  };
  return places.map(text).join(", ");
}
