import { expect, test } from "vitest";
import { plusLike, plusSmall } from "./signed";

test("the contributions of a sum have the same decimals and their sign", () => {
  expect([0.5, -0.25, 0].map(plusLike([0.5, -0.25]))).toEqual(["+0.5000", "−0.2500", "0.0000"]);
  const colours = [0.00035461, -0.0000123, 0.00034231];
  expect(colours.map(plusSmall(colours))).toEqual(["+0.0003546", "−0.0000123", "+0.0003423"]);
  expect([1.5e-8, NaN, 0].map(plusSmall([1.5e-8]))).toEqual(["+1.5e−8", "nan", "0"]);
  expect([0].map(plusSmall([0]))).toEqual(["0"]);
});
