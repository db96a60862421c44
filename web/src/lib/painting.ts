/** Paint on the pixels of an image: (C, H, W) bytes. Independent of the DOM. */
import { count } from "./format";

/** A brush: its width in pixels, and the brightness it paints in each channel, 0 to 255. */
export type Brush = Readonly<{ size: number; ink: readonly number[] }>;

/** A position in pixels; the centre of the first pixel is at 0.5. */
export type Point = Readonly<{ x: number; y: number }>;

/** The distance of a point from a line segment. */
function distance(x: number, y: number, from: Point, to: Point): number {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const length = dx * dx + dy * dy;
  const part = length === 0 ? 0 : Math.max(0, Math.min(1, ((x - from.x) * dx + (y - from.y) * dy) / length));
  return Math.hypot(x - from.x - part * dx, y - from.y - part * dy);
}

/** One stroke: the coverage so far, and the picture before the stroke. */
export class Stroke {
  readonly #before: Uint8Array;
  readonly #covered: Float32Array; // coverage of each pixel, 0 to 1

  constructor(
    readonly bytes: Uint8Array,
    readonly shape: readonly [number, number, number],
    readonly brush: Brush,
  ) {
    this.#before = bytes.slice();
    this.#covered = new Float32Array(shape[1] * shape[2]);
  }

  /** Draw a line; a brush of one pixel has hard edges, a wider one soft ones. */
  line(from: Point, to: Point): void {
    const [channels, height, width] = this.shape;
    const { size, ink } = this.brush;
    const reach = size / 2 + 1;
    const low = (a: number, b: number): number => Math.max(0, Math.floor(Math.min(a, b) - reach));
    const high = (a: number, b: number, end: number): number => Math.min(end - 1, Math.floor(Math.max(a, b) + reach));
    const area = height * width;
    for (let y = low(from.y, to.y); y <= high(from.y, to.y, height); y++) {
      for (let x = low(from.x, to.x); x <= high(from.x, to.x, width); x++) {
        const far = distance(x + 0.5, y + 0.5, from, to);
        const cover = size <= 1 ? Number(far <= 0.5) : Math.max(0, Math.min(1, size / 2 + 0.5 - far));
        const i = y * width + x;
        if (cover <= (this.#covered[i] ?? 0)) continue;
        this.#covered[i] = cover;
        for (let c = 0; c < channels; c++) {
          const before = this.#before[c * area + i] ?? 0;
          this.bytes[c * area + i] = Math.round(before + ((ink[c] ?? ink[0] ?? 0) - before) * cover);
        }
      }
    }
  }

  /** Whether the stroke has changed any pixel. */
  get changed(): boolean {
    return this.bytes.some((byte, i) => byte !== this.#before[i]);
  }
}

/** The centre of a point's pixel, where a brush of one pixel paints. */
export function middle(at: Point): Point {
  return { x: Math.floor(at.x) + 0.5, y: Math.floor(at.y) + 0.5 };
}

/** The inverted picture. */
export function inverted(bytes: Uint8Array): Uint8Array {
  return bytes.map((byte) => 255 - byte);
}

/** Convert brightness from 0 to 1 to bytes. */
export function toBytes(levels: Float32Array): Uint8Array {
  return Uint8Array.from(levels, (level) => Math.round(Math.max(0, Math.min(1, level)) * 255));
}

/** Why an input cannot be painted on; null if it can. */
export function unpaintable(input: Readonly<{ form: string; shape: readonly number[] }>, most: number): string | null {
  if (input.form !== "picture")
    return "This input is not a single picture and cannot be painted on or moved; kernels can be edited.";
  const [channels = 1, height = 1, width = 1] = input.shape;
  const still = "it can be moved, and kernels can be edited";
  if (channels !== 1 && channels !== 3)
    return `This input has ${count(channels)} channels and cannot be painted on; ${still}.`;
  if (channels * height * width <= most) return null;
  return `This input has ${count(channels * height * width)} numbers, more than the ${count(most)} that can be painted on; ${still}.`;
}
