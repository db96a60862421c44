import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { alike, cellWords, digitsFor, fixed, full, like, namesAre, percent, short, size } from "./format";

type Cases = {
  compact: [number, number, string][];
  change: [number, number, number, string][];
  aligned: [number[], string[]][];
  percent: [number, string][];
  cell: [number[], string][];
};
const CASES = JSON.parse(
  readFileSync(new URL("../../../tests/support/number_cases.json", import.meta.url), "utf8"),
) as Cases;

test("numbers are written as Python writes them", () => {
  for (const [value, digits, text] of CASES.compact) expect(short(value, digits)).toBe(text);
  for (const [value, change, digits, text] of CASES.change) {
    expect(digitsFor(value, change)).toBe(digits);
    expect(short(value, digits)).toBe(text);
  }
  for (const [values, texts] of CASES.aligned) expect(values.map(like(values))).toEqual(texts);
  for (const [share, text] of CASES.percent) expect(percent(share)).toBe(text);
  for (const [cell, text] of CASES.cell) expect(cellWords(cell)).toBe(text);
});

test("a number has few digits and a true minus sign", () => {
  expect([-1.12449, 0, 2, 0.0000123, 123456.7, 1e9].map((n) => short(n))).toEqual([
    "−1.124",
    "0",
    "2",
    "1.23e−5",
    "123457",
    "1e9",
  ]);
  expect([short("nan"), short("inf"), short("-inf")]).toEqual(["nan", "inf", "−inf"]);
});

test("a full number is the float64 itself", () => {
  expect(Number(full(-0.1234567890123).replace("−", "-"))).toBe(-0.1234567890123);
});

test("numbers of one table have the same decimals", () => {
  expect([-1.5447, 0.25, 3, 0].map(like([-1.5447, 0.25, 3, 0]))).toEqual(["−1.5447", "0.2500", "3.0000", "0.0000"]);
  expect([-1, 8].map(like([-1, 8]))).toEqual(["−1", "8"]);
  expect(like([1, NaN])(NaN)).toBe("nan");
});

test("zero has no sign", () => {
  expect(fixed(-0.00001, 2)).toBe("0.00");
});

test("only what is certain is 100 %", () => {
  expect([1, 0.999999, 0.5, 0.000001, 0].map(percent)).toEqual([
    "100.00 %",
    "> 99.99 %",
    "50.00 %",
    "< 0.01 %",
    "0.00 %",
  ]);
});

test("shapes and cells read as people write them", () => {
  expect(size([8, 28, 28])).toBe("8×28×28");
  expect(cellWords([3, 6, 17])).toBe("channel 3, row 6, column 17");
});

test("a number has the decimals of one that is written already", () => {
  expect(["0.006058", "−12.3", "7", "1.2345e−7", "2.5e9"].map((text) => alike(text, -1.5e-7))).toEqual([
    "0.000000",
    "0.0",
    "0",
    "−1.5000e−7",
    "0.0e9",
  ]);
  expect(alike("0.006058", -0.0025734)).toBe("−0.002573");
  expect([alike("", 1 / 3), alike("0.5", Infinity)]).toEqual(["0.333333", "inf"]);
});

test("many steps are named by the first ones", () => {
  expect([["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"]].map(namesAre)).toEqual([
    "a is",
    "a and b are",
    "a, b and c are",
    "a, b and 2 other steps are",
  ]);
});
