/** Binary formats of pictures and tensors. A pack is the length of its header, a JSON header, then bytes. */
import type { Num } from "./types";

/** One item of a pack of pictures: planes of bytes, 0 for `low`, 255 for `high`. */
export type PictureItem = Readonly<{
  id: number;
  shape: readonly [number, number, number];
  channels: readonly number[];
  total: number;
  low: Num;
  high: Num;
  /** The magnitude that 99 % of the step's numbers do not exceed; samples have none. */
  typical?: Num;
  offset: number;
  label: number | null;
  /** Whether byte 0 stands for cells at which an activation did not pass; numbers then begin at 1. */
  blocked?: boolean;
}>;

export type Picture = PictureItem & Readonly<{ bytes: Uint8Array }>;

/** A tensor: its numbers, its shape, and the range of the whole step's numbers. */
export type Tensor = Readonly<{
  data: Float32Array;
  shape: readonly number[];
  low: number;
  high: number;
  /** The magnitude that 99 % of a step's numbers do not exceed; NaN for other tensors. */
  typical: number;
}>;

/** The header and the bytes of a pack. */
export function unpack<Header>(buffer: ArrayBuffer): { header: Header; body: Uint8Array } {
  const length = new DataView(buffer).getUint32(0, true);
  const text = new TextDecoder().decode(new Uint8Array(buffer, 4, length));
  return { header: JSON.parse(text) as Header, body: new Uint8Array(buffer, 4 + length) };
}

/** The pictures of a pack. */
export function pictures(buffer: ArrayBuffer): Picture[] {
  const { header, body } = unpack<{ items: PictureItem[] }>(buffer);
  return header.items.map((item) => {
    const length = item.shape.reduce((a, b) => a * b, 1);
    return { ...item, bytes: body.subarray(item.offset, item.offset + length) };
  });
}

/** Little-endian float32 numbers that may start anywhere in a buffer. */
export function floats(bytes: Uint8Array): Float32Array {
  return new Float32Array(bytes.slice().buffer);
}

/** Decode base64url. */
export function fromBase64(text: string): Uint8Array {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(binary, (c) => c.charCodeAt(0));
}

/** Encode bytes as base64url without padding. */
export function toBase64(bytes: Uint8Array): string {
  let binary = "";
  for (let i = 0; i < bytes.length; i += 0x8000) binary += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}
