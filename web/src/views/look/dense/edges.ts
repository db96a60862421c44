/** The edges of a dense layer that are drawn: of all weights, those of the units and inputs that matter most. Independent of the DOM. */

import { weightOf, type Weight } from "../../../lib/edits";
import type { StepInfo, TraceInfo } from "../../../lib/types";

/** The weights of a dense layer, and the step whose numbers it multiplies by them; null for any other step. */
export function denseOf(step: StepInfo, trace: TraceInfo): Readonly<{ weight: Weight; source: StepInfo }> | null {
  const weight = weightOf(step, trace);
  const source = trace.steps.find(({ id }) => id === step.inputs[0]);
  if (weight === null || weight.shape.length !== 2 || source === undefined) return null;
  const [units, inputs] = weight.shape;
  const vector = (shape: readonly number[], length: number | undefined): boolean =>
    shape.length === 2 && shape[0] === 1 && shape[1] === length;
  return vector(step.shape, units) && vector(source.shape, inputs) ? { weight, source } : null;
}

export type Measure = "contribution" | "weight";

/** An edge from an input to a unit; `share` is its part of the largest edge drawn, from −1 to 1. */
export type Edge = Readonly<{ input: number; unit: number; weight: number; contribution: number; share: number }>;

/** Weights (units x inputs, row by row) of units from `first` on, and the numbers that go in. */
export type Dense = Readonly<{ weights: ArrayLike<number>; values: ArrayLike<number>; first: number; units: number }>;

export type Drawn = Readonly<{ inputs: readonly number[]; units: readonly number[]; edges: readonly Edge[] }>;

const INPUTS = 24;
const UNITS = 12;

/**
 * Choose what is drawn.
 *
 * @param outputs - The units' own numbers, of which the largest are drawn.
 * @param chosen - A unit that is drawn in any case.
 */
export function drawnEdges(of: Dense, outputs: ArrayLike<number>, chosen: number | null, measure: Measure): Drawn {
  const count = of.values.length;
  const edge = (unit: number, input: number): Omit<Edge, "share"> => {
    const weight = of.weights[(unit - of.first) * count + input] ?? NaN;
    return { input, unit, weight, contribution: weight * (of.values[input] ?? NaN) };
  };
  const known = Array.from({ length: of.units }, (_, i) => of.first + i);
  const units = largest(known, (unit) => (unit === chosen ? Infinity : Math.abs(outputs[unit] ?? 0)), UNITS);
  const most = (input: number): number => Math.max(...units.map((unit) => size(edge(unit, input)[measure])));
  const inputs = largest(
    Array.from({ length: count }, (_, i) => i),
    most,
    INPUTS,
  );
  const all = units.flatMap((unit) => inputs.map((input) => edge(unit, input)));
  const limit = Math.max(...all.map((each) => size(each[measure]))) || 1;
  return { inputs, units, edges: all.map((each) => ({ ...each, share: (each[measure] || 0) / limit })) };
}

const size = (value: number): number => (Number.isFinite(value) ? Math.abs(value) : 0);

/** The `count` items with the largest sizes, in their own order. */
function largest(items: readonly number[], sizeOf: (item: number) => number, count: number): number[] {
  const sized = items.map((item) => ({ item, size: sizeOf(item) }));
  sized.sort((a, b) => b.size - a.size || a.item - b.item);
  return sized
    .slice(0, count)
    .map(({ item }) => item)
    .sort((a, b) => a - b);
}
