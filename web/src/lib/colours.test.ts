import { expect, test } from "vitest";
import { between, colour, css, DIVERGING, inkOn, mapLimit, mixed, scaleOf, scaleOver, typicalOf } from "./colours";

const PAGE = { light: 0xfff7fafb, dark: 0xff1e1c1c };

test.each(["light", "dark"] as const)("zero is the page's own neutral in %s", (theme) => {
  expect(colour(DIVERGING[theme], 0, 1)).toBe(PAGE[theme]);
});

test("what is not finite has a colour that no number has", () => {
  for (const map of Object.values(DIVERGING)) {
    expect([...map.levels]).not.toContain(map.strange);
    expect(colour(map, NaN, 1)).toBe(map.strange);
  }
});

test("a scale is the same on both sides of zero", () => {
  expect(scaleOf(-0.5, 2)).toEqual({ low: -0.5, high: 2, limit: 2 });
  expect(scaleOver([NaN, 0]).limit).toBe(1);
});

test("text can be read on every colour", () => {
  const luminance = (packed: number): number =>
    [0.2126, 0.7152, 0.0722].reduce((sum, part, k) => {
      const c = ((packed >> (8 * k)) & 255) / 255;
      return sum + part * (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    }, 0);
  for (const map of Object.values(DIVERGING)) {
    for (const level of map.levels) {
      const [ink, paper] = [inkOn(level) === "#ffffff" ? 1 : 0, luminance(level)];
      expect((Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)).toBeGreaterThanOrEqual(4.5);
    }
  }
});

test("a colour between two is one of them at either end", () => {
  const [a, b] = [mixed(1, 0.2, 0), mixed(0, 1, 0.4)];
  expect(between(a, b, 0)).toBe(a);
  expect(between(a, b, 1)).toBe(b);
  expect(css(between(a, b, 0.5))).toBe("rgb(128 153 51)");
});

test("a small map has the colours of its step, of most of its step, or its own", () => {
  const [step, bytes] = [{ low: -1, high: 3, typical: 0.5 }, Uint8Array.of(64, 191)]; // near 0 and 2
  expect(mapLimit(step, "full", bytes)).toBe(3);
  expect(mapLimit(step, "typical", bytes)).toBe(0.5);
  expect(mapLimit(step, "each", bytes)).toBeCloseTo(2, 1);
});

test("99 of 100 numbers are within what is typical of them", () => {
  const values = Float32Array.from({ length: 1000 }, (_, i) => (i % 2 === 0 ? i : -i));
  expect(typicalOf(values)).toBe(990);
  expect([typicalOf(new Float32Array()), typicalOf(Float32Array.of(-2))]).toEqual([0, 2]);
});
