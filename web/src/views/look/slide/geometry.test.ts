import { describe, expect, test } from "vitest";
import type { Cells } from "../../../lib/explanation";
import { axisOf, nearest, spanOf } from "./geometry";

/** The cells of the window of an output row, with the same columns. */
function windowAt(out: number, size: number, stride: number, padding: number, dilation: number): Cells {
  const from = out * stride - padding;
  const rows = Array.from({ length: size }, (_, k) => from + k * dilation);
  const cells = rows.flatMap((row) => [[0, 3, row, 0]]);
  return { type: "cells", name: "x", kind: "step", grid: [1, size, 1], cells, values: cells.map(() => 0), padding: [] };
}

describe("where a window is", () => {
  for (const [size, stride, padding, dilation] of [
    [3, 1, 1, 1],
    [5, 2, 0, 1],
    [3, 1, 2, 2],
    [2, 2, 0, 1],
    [1, 1, 0, 1],
  ] as const) {
    test(`size ${size}, stride ${stride}, padding ${padding}, dilation ${dilation}: the middle leads back`, () => {
      const count = 9;
      const spans = Array.from({ length: count }, (_, out) => {
        const span = spanOf(windowAt(out, size, stride, padding, dilation), null);
        return [span?.top ?? NaN, span?.bottom ?? NaN] as const;
      });
      const axis = axisOf(spans[0] as [number, number], spans.at(-1) as [number, number], count);
      spans.forEach(([top, bottom], out) => {
        expect(axis.first + axis.step * out).toBeCloseTo((top + bottom) / 2);
        expect(nearest(axis, (top + bottom) / 2, count)).toBe(out);
      });
      expect(nearest(axis, -99, count)).toBe(0);
      expect(nearest(axis, 999, count)).toBe(count - 1);
    });
  }

  test("of a single window, and of another channel", () => {
    expect(nearest(axisOf([0, 2], [0, 2], 1), 40, 1)).toBe(0);
    expect(spanOf(windowAt(0, 3, 1, 1, 1), 2)).toBeNull();
    expect(spanOf(windowAt(0, 3, 1, 1, 1), 3)).toEqual({ top: -1, left: 0, bottom: 1, right: 0 });
  });
});
