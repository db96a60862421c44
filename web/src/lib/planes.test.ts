import { describe, expect, test } from "vitest";
import { cellAt, inputCell, layout, placeOf, planeName } from "./planes";
import type { InputInfo } from "./types";

describe("cells", () => {
  test.each([[[1, 8, 28, 28]], [[1, 5, 7]], [[1, 144]], [[1, 3, 4, 5, 6]], [[64, 49, 96]], [[1]]])(
    "every cell of %j has its place and back",
    (shape) => {
      const at = layout(shape);
      for (let channel = 0; channel < Math.min(at.channels, 3); channel++) {
        for (const [row, column] of [
          [0, 0],
          [at.height - 1, 0],
          [Math.floor(at.height / 2), at.width - 1],
        ] as const) {
          const cell = cellAt(at, shape, channel, row, column);
          if (cell === null) continue;
          expect(placeOf(at, cell)).toEqual({ channel, row, column });
        }
      }
    },
  );

  test("maps of one number each are shown together like a vector, and their cells keep all axes", () => {
    const shape = [1, 2048, 1, 1];
    const at = layout(shape);
    expect([at.channels, at.length]).toEqual([1, 2048]);
    expect(cellAt(at, shape, 0, 1, 0)).toEqual([at.width, 0, 0]);
    expect(placeOf(at, [at.width, 0, 0])).toEqual({ channel: 0, row: 1, column: 0 });
  });

  test("a wrapped vector ends where its numbers end", () => {
    const at = layout([1, 37]);
    expect(at.width * at.height).toBeGreaterThan(37);
    expect(cellAt(at, [1, 37], 0, at.height - 1, at.width - 1)).toBeNull();
  });
});

test("a cell of one of several inputs is among the planes of all", () => {
  const shown = { name: "", form: "several", label: null, notes: [], low: 0, high: 1, picture: "" } as const;
  const parts = [
    { name: "left", shape: [3, 4, 5], first: 0 },
    { name: "meta", shape: [6], first: 3 },
    { name: "clip", shape: [2, 2, 4, 5], first: 4 },
  ];
  const input: InputInfo = { ...shown, notes: [], shape: [8, 4, 6], picture_shape: [1, 4, 4], parts };
  expect(inputCell(input, "left", [0, 2, 1, 3])).toEqual([2, 1, 3]);
  expect(inputCell(input, "meta", [0, 5])).toEqual([3, 0, 5]);
  expect(inputCell(input, "clip", [0, 1, 0, 2, 3])).toEqual([6, 2, 3]);
  expect([0, 2, 3, 5].map((plane) => planeName(input, plane))).toEqual([
    "left, channel 0",
    "left, channel 2",
    "meta",
    "clip, channel 1",
  ]);
});
