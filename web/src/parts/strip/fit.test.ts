import { expect, test } from "vitest";
import { fitOf, mapCount, mapsOf } from "./fit";

const SHAPES_CNN = [8, 8, 8, 16, 16, 16, 1, 1];

test("a row that fits has its usual size", () => {
  expect(fitOf(SHAPES_CNN, false, 1100)).toBe(1);
});

test("a row that is a little too wide is made smaller until all of it is in view", () => {
  const fit = fitOf(SHAPES_CNN, false, 925);
  expect(fit).toBeLessThan(1);
  const width = SHAPES_CNN.reduce((all, count) => {
    const { columns, edge } = mapsOf(count);
    return all + 16 + Math.max(80 * fit, columns * Math.floor(edge * fit) + 3 * (columns - 1));
  }, 0);
  expect(width).toBeLessThanOrEqual(925);
});

test("a row that would need tiny maps scrolls at its usual size, as does one that is not laid out yet", () => {
  expect(fitOf(SHAPES_CNN, false, 600)).toBe(1);
  expect(
    fitOf(
      Array.from({ length: 60 }, () => 16),
      false,
      1200,
    ),
  ).toBe(1);
  expect(fitOf(SHAPES_CNN, false, 0)).toBe(1);
});

test("a line of words makes a card with one map wider", () => {
  expect(fitOf([16, 1, 1], false, 400)).toBe(1);
  expect(fitOf([16, 1, 1], true, 400)).toBeLessThan(1);
});

test("a card has as many maps as its step has channels, up to those of the thumbnails", () => {
  expect([mapCount([1, 8, 28, 28]), mapCount([1, 64, 3, 3]), mapCount([1, 10]), mapCount([1, 576])]).toEqual([
    8, 16, 1, 1,
  ]);
});
