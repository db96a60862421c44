import { describe, expect, test, vi } from "vitest";

vi.mock("./api", () => ({ upload: null }));
vi.mock("./http", () => ({ Refused: Error }));
vi.mock("./session.svelte", () => ({ opened: () => null }));
const { refusal } = await import("./files");

describe("a file of the user", () => {
  test("is sent where it may be a picture", () => {
    for (const type of ["image/png", "image/tiff", "image/x-portable-pixmap", ""])
      expect(refusal({ name: "a", size: 100, type }, 100)).toBeNull();
  });
  test("is refused in plain words where it is none, or too large", () => {
    expect(refusal({ name: "a.svg", size: 1, type: "image/svg+xml" }, 100)).toBe(
      "“a.svg” is not a picture that can be read here. Choose a PNG, JPEG, WebP, GIF, BMP, TIFF or PPM file.",
    );
    expect(refusal({ name: "a.tif", size: 34_000_000, type: "image/tiff" }, 20_000_000)).toBe(
      "“a.tif” has 34 MB; the limit is 20 MB. Make the picture smaller, or save it as a JPEG.",
    );
  });
});
