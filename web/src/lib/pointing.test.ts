import { expect, test } from "vitest";
import { cellUnder } from "./pointing";

const BOX = { left: 10, top: 20, width: 90, height: 40 };

test("a pointer is on the cell below it, in a map of any size on screen", () => {
  expect(cellUnder({ clientX: 10, clientY: 20 }, BOX, 4, 3)).toEqual({ row: 0, column: 0 });
  expect(cellUnder({ clientX: 69, clientY: 59 }, BOX, 4, 3)).toEqual({ row: 3, column: 1 });
});

test("beside the map the nearest cell is meant", () => {
  expect(cellUnder({ clientX: 500, clientY: -7 }, BOX, 4, 3)).toEqual({ row: 0, column: 2 });
});
