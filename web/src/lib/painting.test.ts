import { expect, test } from "vitest";
import { inverted, middle, Stroke, toBytes, unpaintable, type Brush } from "./painting";

const PEN: Brush = { size: 1, ink: [255] };
const on = (bytes: Uint8Array): number[] => [...bytes].flatMap((byte, i) => (byte > 0 ? [i] : []));

test("a brush of one pixel paints one pixel", () => {
  const stroke = new Stroke(new Uint8Array(12), [1, 3, 4], PEN);
  const at = middle({ x: 2.1, y: 1.9 });
  stroke.line(at, at);
  expect(on(stroke.bytes)).toEqual([6]);
  expect(stroke.bytes[6]).toBe(255);
  expect(stroke.changed).toBe(true);
});

test("a line leaves no gap", () => {
  const stroke = new Stroke(new Uint8Array(100), [1, 10, 10], PEN);
  stroke.line({ x: 0.5, y: 0.5 }, { x: 9.5, y: 9.5 });
  expect(on(stroke.bytes)).toEqual(expect.arrayContaining([0, 11, 22, 33, 44, 55, 66, 77, 88, 99]));
});

test("a wide brush has a soft edge, and passing twice does not harden it", () => {
  const [once, twice] = [1, 2].map((times) => {
    const stroke = new Stroke(new Uint8Array(81), [1, 9, 9], { size: 4, ink: [200] });
    for (let i = 0; i < times; i++) stroke.line({ x: 4.5, y: 4.5 }, { x: 5.2, y: 4.5 });
    return stroke.bytes;
  });
  expect(Math.max(...(once as Uint8Array))).toBe(200);
  expect((once as Uint8Array).some((byte) => byte > 0 && byte < 200)).toBe(true);
  expect(twice).toEqual(once);
});

test("every channel gets its own ink", () => {
  const stroke = new Stroke(new Uint8Array(3), [3, 1, 1], { size: 1, ink: [10, 20, 30] });
  stroke.line({ x: 0.5, y: 0.5 }, { x: 0.5, y: 0.5 });
  expect([...stroke.bytes]).toEqual([10, 20, 30]);
});

test("outside the picture nothing is painted", () => {
  const stroke = new Stroke(new Uint8Array(4), [1, 2, 2], PEN);
  stroke.line({ x: -3, y: -3 }, { x: -1, y: 9 });
  expect(stroke.changed).toBe(false);
});

test("inverted twice is as before", () => {
  const bytes = Uint8Array.from([0, 1, 128, 255]);
  expect(inverted(inverted(bytes))).toEqual(bytes);
});

test("brightness becomes bytes, none of them beyond black and white", () => {
  expect([...toBytes(Float32Array.from([-0.2, 0, 0.5, 1, 1.5]))]).toEqual([0, 0, 128, 255, 255]);
});

test("what cannot be painted on says why in a sentence", () => {
  expect(unpaintable({ form: "picture", shape: [3, 224, 224] }, 375_000)).toBeNull();
  expect(unpaintable({ form: "picture", shape: [1, 398, 512] }, 375_000)).toBeNull();
  expect(unpaintable({ form: "picture", shape: [3, 398, 512] }, 375_000)).toMatch(
    /^This input has 611.328 numbers, more than the 375.000 .*\.$/,
  );
  expect(unpaintable({ form: "array", shape: [3, 8, 8] }, 375_000)).toMatch(/not a single picture/);
  expect(unpaintable({ form: "picture", shape: [4, 8, 8] }, 375_000)).toMatch(/4 channels/);
});
