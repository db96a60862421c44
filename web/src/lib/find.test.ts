import { describe, expect, test } from "vitest";
import { find, unfoldedTo } from "./find";
import { cards, nodes } from "./network";
import type { StepInfo, TraceInfo } from "./types";

function step(id: number, name: string, op: string, says: string, shape: number[]): StepInfo {
  return {
    id,
    name,
    op,
    says,
    shape: [1, ...shape],
    module: name,
    module_type: op === "convolution" ? "Conv2d" : "ReLU",
    dtype: "float32",
    inputs: id === 0 ? [] : [id - 1],
    parameters: {},
    transposed: false,
    outputs: 1,
    overridden: false,
  };
}

const deep = (blocks: number): TraceInfo =>
  ({
    steps: Array.from({ length: blocks }, (_, b) => [
      step(3 * b, `stage.${b}.conv`, "convolution", `convolution ${b % 2 ? "3x3" : "1x1"}`, [64 * (b + 1), 9, 9]),
      step(3 * b + 1, `stage.${b}.relu`, "relu", "ReLU", [64 * (b + 1), 9, 9]),
      step(3 * b + 2, `stage.${b}.pool`, "max_pool2d", "max pooling", [64 * (b + 1), 9, 9]),
    ]).flat(),
    modules: {},
  }) as unknown as TraceInfo;

describe("find", () => {
  const trace = deep(12);
  const names = (query: string): string[] =>
    find(trace, ["cat", "catfish", "dog"], query).map((hit) => (hit.kind === "step" ? hit.step.name : hit.name));

  test("needs every word, in names, operations and shapes", () => {
    expect(names("3x3 conv, 512")).toEqual(["stage.7.conv"]);
    expect(names("512x9x9 pool")).toEqual(["stage.7.pool"]);
    expect(names("conv").length).toBe(12);
    expect(names("nothing")).toEqual([]);
    expect(names("  ")).toEqual([]);
  });

  test("has classes, the closest name first", () => {
    expect(names("cat")).toEqual(["cat", "catfish"]);
    expect(names("DOG")).toEqual(["dog"]);
  });

  test("a found step gets a card of its own, whatever was folded", () => {
    for (const { id } of trace.steps) {
      const shown = cards(nodes(trace, unfoldedTo(trace, [], id)));
      expect(
        shown.filter((card) => card.steps.some((each) => each.id === id)).map((card) => card.steps.length),
      ).toEqual([1]);
    }
  });
});
