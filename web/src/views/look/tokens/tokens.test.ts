import { expect, test } from "vitest";
import type { StepInfo, TraceInfo } from "../../../lib/types";
import { frameOfToken, patchesOf, sharesIn, tokenName } from "./tokens";

const step = (over: Partial<StepInfo>): StepInfo =>
  ({ id: 0, name: "", op: "add", inputs: [1], shape: [1, 7, 5], parameters: {}, ...over }) as StepInfo;

function network(kernel: readonly number[]): TraceInfo {
  const cut = step({ op: "convolution", inputs: [], shape: [1, 5, 2, 3], parameters: { weight: "proj.weight" } });
  const parameters = [{ name: "proj.weight", shape: [5, 3, ...kernel] }];
  return { steps: [cut], parameters, input: { shape: [3, 8, 12] } } as unknown as TraceInfo;
}

test("tokens are patches where the first convolution cuts the image into as many", () => {
  const patches = patchesOf(network([4, 4]), step({ shape: [1, 7, 5] }));
  expect(patches).toEqual({ rows: 2, columns: 3, prefix: 1, height: 8, width: 12 });
  expect(patchesOf(network([4, 4]), step({ shape: [1, 6, 5] }))?.prefix).toBe(0);
  const attention = step({ op: "_scaled_dot_product_flash_attention_for_cpu", shape: [1, 2, 7, 5] });
  expect(patchesOf(network([4, 4]), attention)?.prefix).toBe(1);
  expect(patchesOf(network([4, 4]), step({ op: "_softmax", shape: [1, 2, 7, 7] }))?.prefix).toBe(1);
});

test("what is not certainly a patch is not drawn as one", () => {
  expect(patchesOf(network([5, 5]), step({}))).toBeNull(); // patches that overlap
  expect(patchesOf(network([4, 4]), step({ shape: [1, 5, 5] }))).toBeNull(); // fewer tokens than patches
  expect(patchesOf(network([4, 4]), step({ shape: [1, 2, 7, 5] }))).toBeNull(); // maps, or a window
});

test("a patch has its pixels, and a class token has none", () => {
  const patches = { rows: 2, columns: 3, prefix: 1, height: 8, width: 12 };
  expect(frameOfToken(patches, 0)).toBeNull();
  expect(frameOfToken(patches, 5)).toMatchObject({ top: 4, bottom: 7, left: 4, right: 7 });
  expect(frameOfToken(patches, 7)).toBeNull();
  expect(tokenName(patches, 5)).toBe("patch row 1, column 1");
});

test("shares are those of the tokens whose values they weight", () => {
  const left = {
    cells: [
      [0, 1, 3, 2],
      [0, 1, 0, 2],
    ],
    values: [5, 6],
  };
  const right = { kind: "computed", name: "share", values: [0.75, 0.25] };
  const dot = { type: "dot", left, right } as never;
  expect(sharesIn(dot)).toEqual(
    new Map([
      [3, 0.75],
      [0, 0.25],
    ]),
  );
  expect(sharesIn({ type: "dot", left, right: { ...right, kind: "parameter" } } as never)).toBeNull();
});
