import { expect, test } from "vitest";
import { fromBase64, pictures, toBase64 } from "./pack";

test("a pack is read as it was written", () => {
  const header = new TextEncoder().encode(
    JSON.stringify({
      items: [{ id: 3, shape: [1, 1, 2], channels: [0], total: 1, low: -1, high: "inf", offset: 1, label: null }],
    }) + "  ",
  );
  const bytes = new Uint8Array(4 + header.length + 3);
  new DataView(bytes.buffer).setUint32(0, header.length, true);
  bytes.set(header, 4);
  bytes.set([9, 7, 8], 4 + header.length);
  const [picture] = pictures(bytes.buffer);
  expect(picture?.id).toBe(3);
  expect([...(picture?.bytes ?? [])]).toEqual([7, 8]);
});

test("bytes survive base64url", () => {
  const bytes = Uint8Array.from({ length: 255 }, (_, i) => 255 - i);
  expect(fromBase64(toBase64(bytes))).toEqual(bytes);
  expect(toBase64(bytes)).toMatch(/^[\w-]+$/);
});
