import { expect, test } from "vitest";
import { ranked } from "./order";

test("what takes away counts as what adds; channels that add the same keep their order", () => {
  const result = ranked("", Float32Array.of(0, 0.5, -2, 0.5, NaN));
  expect(result.order).toEqual([2, 1, 3, 0, 4]);
});
