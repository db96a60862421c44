/** Encode inputs, changes and edits as short strings for the URL, and decode them. Painted pixels are encoded as bytes. */
import { floats, fromBase64, toBase64 } from "./pack";
import { toBytes } from "./painting";
import type { Cell, Change, Edit, InputRef, SampleRef } from "./types";

const ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$/;
const SPLITS: readonly string[] = ["train", "test", "all"];

const LONGEST = 12_000; // maximum bytes of a painting in the URL

/** s~shapes~test~12, u~ID, or p~1x28x28~BYTES; null for a painting that is too large for the URL. */
export function inputText(input: InputRef): string | null {
  if (input.kind === "sample") return `s~${input.source}~${input.split}~${input.index}`;
  if (input.kind === "stored") return `u~${input.id}`;
  if (input.shape[0] * input.shape[1] * input.shape[2] > LONGEST) return null;
  const bytes = toBytes(floats(fromBase64(input.data)));
  return `p~${input.shape.join("x")}~${toBase64(bytes)}`;
}

/** The input encoded by such a string; null if it is invalid. */
export function inputFrom(text: string): InputRef | null {
  const [kind, a = "", b = "", c = ""] = text.split("~");
  if (kind === "s" && ID.test(a) && SPLITS.includes(b) && /^\d{1,9}$/.test(c)) {
    return { kind: "sample", source: a, split: b as SampleRef["split"], index: Number(c) };
  }
  if (kind === "u" && ID.test(a)) return { kind: "stored", id: a };
  if (kind === "p" && /^\d{1,5}x\d{1,5}x\d{1,5}$/.test(a) && /^[\w-]+$/.test(b)) {
    const shape = a.split("x").map(Number) as [number, number, number];
    const bytes = bytesFrom(b);
    return bytes?.length === shape[0] * shape[1] * shape[2] ? painted(bytes, shape) : null;
  }
  return null;
}

/** The bytes of a base64 text; null if its length is that of none. */
function bytesFrom(text: string): Uint8Array | null {
  try {
    return fromBase64(text);
  } catch {
    return null;
  }
}

/** Painted pixels as an input: bytes 0..255 become brightness 0..1. */
export function painted(bytes: Uint8Array, shape: readonly [number, number, number]): InputRef {
  const levels = Float32Array.from(bytes, (byte) => byte / 255);
  return { kind: "pixels", shape: [...shape], data: toBase64(new Uint8Array(levels.buffer)) };
}

const CHANGES = { r: "rotate", d: "down", x: "right", n: "noise", s: "seed" } as const;

/** What the server takes of each: the least, the most, and whether it is a whole number. */
const RANGES: Readonly<Record<keyof Change, readonly [number, number, boolean]>> = {
  rotate: [-180, 180, false],
  down: [-512, 512, true],
  right: [-512, 512, true],
  noise: [0, 2, false],
  seed: [0, 2 ** 31 - 1, true],
};

/** r15,d2: the nonzero parts of a change; null if there are none. */
export function changeText(change: Change): string | null {
  const parts = Object.entries(CHANGES).flatMap(([letter, name]) =>
    change[name] === 0 ? [] : [`${letter}${change[name]}`],
  );
  return parts.join(",") || null;
}

/** The change encoded by such a string; null if the server takes none such. */
export function changeFrom(text: string): Change | null {
  const change: Change = { rotate: 0, down: 0, right: 0, noise: 0, seed: 0 };
  for (const part of text.split(",")) {
    const name = CHANGES[part.charAt(0) as keyof typeof CHANGES];
    const value = part.slice(1).trim() === "" ? NaN : Number(part.slice(1));
    if (name === undefined) return null;
    const [least, most, whole] = RANGES[name];
    if (!(value >= least && value <= most) || (whole && !Number.isInteger(value))) return null;
    change[name] = value;
  }
  return change;
}

/** A whole number of at most nine digits; null for any other text. */
export const numberFrom = (text: string | null): number | null =>
  text !== null && /^-?\d{1,9}$/.test(text) ? Number(text) : null;

/** conv1.weight:3.0.1.1:0.5,0.25;conv1.bias:0:1 */
export function editsText(edits: readonly Edit[]): string | null {
  const parts = edits.map((e) => `${encodeURIComponent(e.parameter)}:${e.cell.join(".")}:${e.values.join(",")}`);
  return parts.join(";") || null;
}

/** One of the edits encoded by such a string; null if it is invalid. */
export function editFrom(text: string): Edit | null {
  const [name = "", cell = "", values = "", ...more] = text.split(":");
  const numbers = values.split(",").map(Number);
  const index = cellFrom(cell);
  if (name === "" || values === "" || more.length > 0 || index === null) return null;
  if (values.split(",").includes("") || !numbers.every((n) => Number.isFinite(Math.fround(n)))) return null;
  try {
    return { parameter: decodeURIComponent(name), cell: [...index], values: numbers };
  } catch {
    return null;
  }
}

/** A name escaped for a trail, whose separators it may contain. */
export const escaped = (text: string): string => encodeURIComponent(text).replaceAll("_", "%5F").replaceAll("~", "%7E");

export function unescaped(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** 2.10.8: a cell, or an empty one; null if it is neither. */
export function cellFrom(text: string | null): Cell | null {
  if (text === null || !/^\d{1,7}(\.\d{1,7}){0,7}$|^$/.test(text)) return null;
  return text === "" ? [] : text.split(".").map(Number);
}

/** 1, or 1-0 for the difference of two classes. */
export function whyFrom(text: string): readonly [number, number | null] | null {
  const [, one, minus] = /^(\d{1,7})(?:-(\d{1,7}))?$/.exec(text) ?? [];
  return one === undefined ? null : [Number(one), minus === undefined ? null : Number(minus)];
}
