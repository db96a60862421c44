import { expect, test } from "vitest";
import { cellsOf, decimalsFor, indexOf, sizeOf, strongestInput, timesAt, updated } from "./training-step";

const weight = { shape: [2, 3, 2, 2] };
const gradient = Float32Array.from({ length: 24 }, (_, i) => (i === 21 ? -9 : i / 24));

test("a kernel's cells are positions in the parameter", () => {
  expect(sizeOf(weight)).toEqual({ kernels: 2, inputs: 3 });
  const cells = cellsOf(weight, 1, 2, gradient);
  expect(cells).toEqual({ kernel: 1, columns: 2, whole: true, positions: [20, 21, 22, 23] });
  expect(indexOf(weight.shape, 21)).toEqual([1, 2, 0, 1]);
  expect(strongestInput(weight, gradient)).toBe(2);
});

test("of a long row, the weights with the largest gradients are shown, the largest first", () => {
  const row = { shape: [2, 40] };
  const slopes = Float32Array.from({ length: 80 }, (_, i) => (i === 70 ? -5 : i === 45 ? 3 : 0.01));
  const cells = cellsOf(row, 1, 0, slopes);
  expect([cells.whole, cells.positions.length, cells.positions.slice(0, 2)]).toEqual([false, 9, [70, 45]]);
  expect(indexOf(row.shape, 70)).toEqual([1, 30]);
  expect(cellsOf({ shape: [4] }, 0, 0, slopes).positions).toEqual([0, 1, 2, 3]);
});

test("with its own learning rate an update is the recorded one, with another one it is calculated", () => {
  const numbers = {
    before: new Float32Array([1]),
    gradient: new Float32Array([9]),
    direction: new Float32Array([0.5]),
    after: new Float32Array([0.75]),
  };
  expect(updated(numbers, 0, 0.1, 1)).toBe(0.75);
  expect(updated(numbers, 0, 0.1, 10)).toBeCloseTo(0.5);
  expect([timesAt(0), timesAt(1), timesAt(-1)]).toEqual([1, 10, 0.1]);
});

test("a small change has the decimals that show it", () => {
  expect([0, 0.5, 2e-4, 3e-8, NaN].map(decimalsFor)).toEqual([4, 4, 5, 7, 4]);
});
