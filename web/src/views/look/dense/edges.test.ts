import { expect, test } from "vitest";
import { drawnEdges } from "./edges";

const numbers = (count: number, of: (i: number) => number): number[] => Array.from({ length: count }, (_, i) => of(i));

test("an edge is as wide as its contribution, or as its weight", () => {
  const dense = { weights: [1, -4, 2, 0.5], values: [3, 1], first: 0, units: 2 };
  const contributions = drawnEdges(dense, [0, 0], null, "contribution").edges;
  expect(contributions.map((edge) => edge.contribution)).toEqual([3, -4, 6, 0.5]);
  expect(contributions.map((edge) => edge.share)).toEqual([0.5, -4 / 6, 1, 0.5 / 6]);
  expect(drawnEdges(dense, [0, 0], null, "weight").edges.map((edge) => edge.share)).toEqual([0.25, -1, 0.5, 0.125]);
});

test("of many, the inputs with the largest edges are drawn, and the chosen unit in any case", () => {
  const [units, inputs] = [40, 100];
  const dense = {
    weights: numbers(units * inputs, (i) => (i % inputs) / inputs),
    values: numbers(inputs, () => 1),
    first: 0,
    units,
  };
  const drawn = drawnEdges(
    dense,
    numbers(units, (unit) => unit),
    0,
    "weight",
  );
  expect(drawn.inputs).toEqual(numbers(24, (i) => 76 + i));
  expect(drawn.units).toEqual([0, ...numbers(11, (i) => 29 + i)]);
});

test("infinite and undefined numbers draw no edge, and hide no other", () => {
  const dense = { weights: [NaN, 1, 2], values: [1, Infinity, 5], first: 7, units: 1 };
  const { edges } = drawnEdges(dense, [], 7, "contribution");
  expect(edges.find((edge) => edge.input === 2)?.share).toBe(1);
  expect(edges.find((edge) => edge.input === 0)?.share).toBe(0);
});
