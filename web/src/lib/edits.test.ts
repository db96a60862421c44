import { expect, test } from "vitest";
import {
  cellIn,
  edited,
  editOf,
  float32,
  parameterOf,
  placed,
  planeOf,
  weightOf,
  withEdit,
  withoutEdits,
  type Weight,
} from "./edits";
import type { Edit, StepInfo, TraceInfo } from "./types";

const step = (op: string, more: Partial<StepInfo> = {}): StepInfo =>
  ({ op, parameters: { weight: "w" }, transposed: false, shape: [], ...more }) as StepInfo;
const trace = (shape: number[]): TraceInfo =>
  ({ parameters: [{ name: "w", shape, changed: false }] }) as unknown as TraceInfo;
const of = (op: string, shape: number[], more: Partial<StepInfo> = {}): Weight =>
  weightOf(step(op, more), trace(shape)) as Weight;

test("a kernel of one input channel is edited as a whole", () => {
  expect(planeOf(of("convolution", [8, 3, 5, 4]), 6, 2)).toEqual({
    parameter: "w",
    lead: [6, 2],
    rows: 5,
    columns: 4,
    written: true,
  });
});

test("a linear layer has units, whatever PyTorch calls its arguments; another product of matrices has none", () => {
  const added = step("addmm", { parameters: { self: "b", mat2: "w" }, module_type: "Linear" });
  expect(weightOf(added, trace([10, 144]))).toMatchObject({ name: "w", kernels: 10, inputs: 1 });
  expect(parameterOf(added, "bias")).toBe("b");
  expect(weightOf({ ...added, module_type: "Mine" }, trace([10, 144]))).toBeNull();
});

test("a transposed kernel has its input channel first", () => {
  const weight = of("convolution", [3, 8, 2, 2], { transposed: true, shape: [1, 8, 12, 12] });
  expect([weight.kernels, weight.inputs]).toEqual([8, 3]);
  expect(planeOf(weight, 6, 2).lead).toEqual([2, 6]);
});

test("in groups, a transposed kernel has the input channels of its group", () => {
  const weight = of("convolution", [6, 4, 2, 2], { transposed: true, shape: [1, 8, 12, 12] });
  expect([weight.kernels, weight.inputs]).toEqual([8, 3]);
  expect(planeOf(weight, 3, 2).lead).toEqual([2, 3]);
  expect(planeOf(weight, 6, 2).lead).toEqual([5, 2]);
});

test("the weights of a unit are wrapped, and edited one by one where there are many", () => {
  const weight = of("linear", [10, 144]);
  const plane = planeOf(weight, 3, 0);
  expect(plane).toEqual({ parameter: "w", lead: [3], rows: 12, columns: 12, written: false });
  expect(cellIn(plane, weight, 143)).toEqual([3, 143]);
  expect(cellIn(planeOf(of("convolution", [8, 3, 9, 9]), 1, 2), of("convolution", [8, 3, 9, 9]), 80)).toEqual([
    1, 2, 8, 8,
  ]);
});

test("a step without kernels has none", () => {
  expect(weightOf(step("batch_norm"), trace([4]))).toBeNull();
});

test("an edit takes the place of a former one, and leaves with its kernel", () => {
  const one = withEdit([], { parameter: "w", cell: [1, 0], values: [0.1, 2] });
  const two = withEdit(one, { parameter: "w", cell: [1, 0], values: [3, 4] });
  const three = withEdit(two, { parameter: "b", cell: [1], values: [5] });
  expect(three.map((e) => e.values)).toEqual([[3, 4], [5]]);
  expect(editOf(three, "w", [1, 0])).toEqual([3, 4]);
  expect(withoutEdits(three, "w", [1])).toEqual([three[1]]);
  expect(withoutEdits(three, "w", [2])).toEqual(three);
});

test("numbers keep their float32", () => {
  for (const value of [0.1, -1 / 3, 1e-7, 123456.789]) expect(Math.fround(float32(value))).toBe(Math.fround(value));
});

test("a named kernel is centred", () => {
  const plane = planeOf(of("convolution", [1, 1, 5, 5]), 0, 0);
  const values = placed(
    [
      [1, 2, 3],
      [4, 5, 6],
      [7, 8, 9],
    ],
    plane,
  ) as number[];
  expect(values.slice(5, 10)).toEqual([0, 1, 2, 3, 0]);
  expect(placed([[1, 1, 1, 1, 1, 1]], plane)).toBeNull();
});

test("numbers are shown with the edits of one number, of their plane, and of all planes of their kernel, in order", () => {
  const shape = [2, 3, 1, 2];
  const edit = (cell: number[], ...values: number[]): Edit => ({ parameter: "w", cell, values });
  const edits = [edit([1, 2], 5, 6), edit([1, 2, 0, 1], 7), edit([1, 0], 8, 9), edit([0, 2], 1, 1)];
  expect([...edited([3, 4], edits, "w", shape, [1, 2])]).toEqual([5, 7]);
  expect([...edited([3, 4], [edit([1], 1, 2, 3, 4, 5, 6)], "w", shape, [1, 2])]).toEqual([5, 6]);
  expect([...edited([3, 4], [edit([1, 2], 5, 6)], "v", shape, [1, 2])]).toEqual([3, 4]);
  expect([...edited([3, 4], [edit([1, 1, 0, 1], 5)], "w", shape, [1, 2])]).toEqual([3, 4]);
});
