/** The numbers that a page carries in itself: compressed tensors, and thumbnails made from them. */
import { planeShape, shrunkSize } from "../lib/planes";
import { fromBase64, unpack } from "../lib/pack";
import type { Num } from "../lib/types";

/** A tensor in the page: its bytes are sorted by significance and compressed, so that they take less room. */
export type Stored = Readonly<{ shape: readonly number[]; type: "f4" | "f8" | "u1"; offset: number; length: number }>;

export type Numbers = Float32Array | Float64Array | Uint8Array;

async function inflated(bytes: Uint8Array): Promise<ArrayBuffer> {
  const stream = new Blob([bytes.slice()]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** Bytes in the order of the numbers: first came the first byte of every number, then the second of every one. */
function ordered(sorted: Uint8Array, width: number): ArrayBuffer {
  const bytes = new Uint8Array(sorted.length);
  const many = sorted.length / width;
  for (let byte = 0; byte < width; byte++)
    for (let i = 0; i < many; i++) bytes[i * width + byte] = sorted[byte * many + i] ?? 0;
  return bytes.buffer;
}

/** The header and the tensors of a page's data. */
export class Tensors<Header extends Readonly<{ tensors: readonly Stored[] }>> {
  readonly #read = new Map<number, Promise<Numbers>>();

  private constructor(
    readonly header: Header,
    readonly body: Uint8Array,
  ) {}

  /** Open data as the page carries them: a compressed header and the tensors, in base64. */
  static async open<Header extends Readonly<{ tensors: readonly Stored[] }>>(text: string): Promise<Tensors<Header>> {
    const bytes = fromBase64(text.trim());
    const { header, body } = unpack<{ header: number }>(bytes.buffer as ArrayBuffer);
    const content = new TextDecoder().decode(await inflated(body.subarray(0, header.header)));
    return new Tensors(JSON.parse(content) as Header, body.subarray(header.header));
  }

  /** The numbers of a tensor, which are unpacked when they are first read. */
  read(index: number): Promise<Numbers> {
    const known = this.#read.get(index);
    if (known !== undefined) return known;
    const made = this.#unpacked(index);
    this.#read.set(index, made);
    return made;
  }

  async #unpacked(index: number): Promise<Numbers> {
    const { offset, length, type } = this.header.tensors[index] as Stored;
    const bytes = new Uint8Array(await inflated(this.body.subarray(offset, offset + length)));
    if (type === "u1") return bytes;
    return type === "f4" ? new Float32Array(ordered(bytes, 4)) : new Float64Array(ordered(bytes, 8));
  }
}

/** A plane averaged down to at most `side` rows and columns; a single row to at most `side` squared columns. */
function shrunk(
  plane: ArrayLike<number>,
  height: number,
  width: number,
  side: number,
): Readonly<{ values: ArrayLike<number>; height: number; width: number }> {
  const [rows, columns] = shrunkSize(height, width, side);
  if (rows === height && columns === width) return { values: plane, height, width };
  const values = new Float64Array(rows * columns);
  const starts = (have: number, want: number): number[] =>
    Array.from({ length: want + 1 }, (_, i) => Math.floor((i * have) / want));
  const [top, left] = [starts(height, rows), starts(width, columns)];
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) {
      let [sum, many] = [0, 0];
      for (let y = top[r] ?? 0; y < (top[r + 1] ?? 0); y++)
        for (let x = left[c] ?? 0; x < (left[c + 1] ?? 0); x++, many++) sum += plane[y * width + x] ?? 0;
      values[r * columns + c] = sum / many;
    }
  return { values, height: rows, width: columns };
}

/** Some planes of a result as a picture, 0 for `low` and 255 for `high`. */
export function thumbnail(
  numbers: ArrayLike<number> & { subarray(from: number, to: number): ArrayLike<number> },
  shape: readonly number[],
  [low, high]: readonly [number, number],
  channels: readonly number[],
  side: number,
): Readonly<{ bytes: Uint8Array; shape: readonly [number, number, number] }> {
  const [, height, width] = planeShape(shape);
  const span = high - low;
  const parts = channels.map((k) =>
    shrunk(numbers.subarray(k * height * width, (k + 1) * height * width), height, width, side),
  );
  const { height: rows, width: columns } = parts[0] ?? { height: 1, width: 1 };
  const bytes = new Uint8Array(parts.length * rows * columns);
  parts.forEach(({ values }, k) => {
    for (let i = 0; i < rows * columns; i++) {
      const level = span > 0 && Number.isFinite(span) ? (((values[i] ?? 0) - low) * 255) / span : 0;
      bytes[k * rows * columns + i] = Math.round(Math.max(0, Math.min(255, Number.isNaN(level) ? 0 : level)));
    }
  });
  return { bytes, shape: [parts.length, rows, columns] };
}

/** Bytes of a pack, as the server sends them. */
export function packed(header: unknown, parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const room = text.length + ((4 - (text.length % 4)) % 4);
  const all = new Uint8Array(4 + room + parts.reduce((n, part) => n + part.length, 0)).fill(32, 4, 4 + room);
  new DataView(all.buffer).setUint32(0, room, true);
  all.set(text, 4);
  let at = 4 + room;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** A number as JSON can carry it. */
export const num = (value: number): Num =>
  Number.isFinite(value) ? value : Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
