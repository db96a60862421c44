/** Edits of parameters, and the planes of a weight that are edited together. Independent of DOM and server. */
import type { Edit, StepInfo, TraceInfo } from "./types";

const WRITTEN = 49; // maximum numbers of a plane shown as input fields: a kernel of 7×7

/** A part of a weight that is edited at once: a kernel of one input channel, or the weights of one unit. */
export type Plane = Readonly<{
  parameter: string;
  lead: readonly number[];
  rows: number;
  columns: number;
  written: boolean;
}>;

/** How a weight is divided into planes: its numbers of kernels, of input channels per kernel, and of groups. */
export type Weight = Readonly<{
  name: string;
  shape: readonly number[];
  kernels: number;
  inputs: number;
  groups: number;
  transposed: boolean;
}>;

/** The argument names of a linear layer's weight and bias when PyTorch runs it as `addmm`. */
const LINEAR = { weight: "mat2", bias: "self" } as const;

/** The name of a step's weight or bias. */
export function parameterOf(step: StepInfo, which: "weight" | "bias"): string | undefined {
  return step.parameters[which] ?? (step.module_type === "Linear" ? step.parameters[LINEAR[which]] : undefined);
}

/** The weight of a step; null if it has no kernels or units. */
export function weightOf(step: StepInfo, trace: TraceInfo): Weight | null {
  const name = parameterOf(step, "weight");
  const shape = trace.parameters.find((p) => p.name === name)?.shape;
  if (name === undefined || shape === undefined || shape.length < 2 || /embedding|norm/.test(step.op)) return null;
  const { transposed } = step;
  const [first = 1, second = 1] = shape;
  if (shape.length === 2) return { name, shape, kernels: first, inputs: 1, groups: 1, transposed: false };
  if (!transposed) return { name, shape, kernels: first, inputs: second, groups: 1, transposed };
  const groups = Math.max(1, Math.round((step.shape[1] ?? second) / second)); // the weight has the kernels of one group
  return { name, shape, kernels: second * groups, inputs: first / groups, groups, transposed };
}

/** The plane of a weight for kernel `kernel` and input channel `input`. */
export function planeOf(weight: Weight, kernel: number, input: number): Plane {
  const { shape, name } = weight;
  if (shape.length === 2) {
    const length = shape[1] ?? 1;
    const columns = length <= 8 ? length : Math.ceil(Math.sqrt(length));
    return { parameter: name, lead: [kernel], rows: Math.ceil(length / columns), columns, written: length <= WRITTEN };
  }
  const columns = shape.at(-1) ?? 1;
  const rows = shape.slice(2, -1).reduce((a, b) => a * b, 1); // a 3D kernel: its slices are stacked vertically
  return { parameter: name, lead: leadOf(weight, kernel, input), rows, columns, written: rows * columns <= WRITTEN };
}

/** The plane's leading index in the weight; transposed weights have the input channels first, group by group. */
function leadOf(weight: Weight, kernel: number, input: number): number[] {
  if (!weight.transposed) return [kernel, input];
  const each = weight.kernels / weight.groups;
  return [Math.floor(kernel / each) * weight.inputs + input, kernel % each];
}

/** The full index of one number of a plane, for an edit of this number alone. */
export function cellIn(plane: Plane, weight: Weight, index: number): number[] {
  const inner = weight.shape.slice(plane.lead.length);
  const at: number[] = [];
  let rest = index;
  for (const size of [...inner].reverse()) {
    at.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return [...plane.lead, ...at];
}

const same = (a: Edit, b: Pick<Edit, "parameter" | "cell">): boolean =>
  a.parameter === b.parameter && a.cell.join() === b.cell.join();

/** Round to float32, keeping only the digits that identify it. */
export const float32 = (value: number): number => Number(Math.fround(value).toPrecision(9));

/** The edits with one more, which replaces an earlier edit of the same cells. */
export function withEdit(edits: readonly Edit[], edit: Edit): Edit[] {
  const next = { ...edit, cell: [...edit.cell], values: edit.values.map(float32) };
  return [...edits.filter((e) => !same(e, next)), next];
}

/** The edits without those inside a plane. */
export function withoutEdits(edits: readonly Edit[], parameter: string, lead: readonly number[]): Edit[] {
  return edits.filter((e) => e.parameter !== parameter || !lead.every((n, i) => e.cell[i] === n));
}

/** The values of the edit of exactly these cells. */
export function editOf(edits: readonly Edit[], parameter: string, cell: readonly number[]): readonly number[] | null {
  return edits.find((e) => same(e, { parameter, cell: [...cell] }))?.values ?? null;
}

/** The position of a cell, or of the first one below a leading index, in a parameter's memory. */
const flat = (shape: readonly number[], cell: readonly number[]): number =>
  shape.reduce((sum, size, axis) => sum * size + (cell[axis] ?? 0), 0);

/** Where an edit's values begin, counted from the first number below a leading index. */
const offset = (edit: Edit, shape: readonly number[], lead: readonly number[]): number =>
  flat(shape, edit.cell) - flat(shape, lead);

/** The numbers below a leading index of a parameter, with all edits that touch them: of one number, of some, or of all. */
export function edited(
  numbers: ArrayLike<number>,
  edits: readonly Edit[],
  parameter: string,
  shape: readonly number[],
  lead: readonly number[],
): Float32Array {
  const result = Float32Array.from(numbers);
  for (const edit of edits.filter((each) => each.parameter === parameter)) {
    const from = offset(edit, shape, lead);
    edit.values.forEach((value, i) => {
      if (from + i >= 0 && from + i < result.length) result[from + i] = value;
    });
  }
  return result;
}

/** A named kernel centred in a plane, padded with zeros; null if it does not fit. */
export function placed(kernel: readonly (readonly number[])[], plane: Plane): number[] | null {
  const [rows, columns] = [kernel.length, kernel[0]?.length ?? 0];
  if (rows > plane.rows || columns > plane.columns) return null;
  const [top, left] = [Math.floor((plane.rows - rows) / 2), Math.floor((plane.columns - columns) / 2)];
  const values = new Array<number>(plane.rows * plane.columns).fill(0);
  kernel.forEach((row, r) => row.forEach((value, c) => (values[(top + r) * plane.columns + left + c] = value)));
  return values;
}
