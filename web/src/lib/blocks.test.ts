import { describe, expect, it } from "vitest";
import {
  blocksFrom,
  blocksText,
  byHand,
  moved,
  placeholder,
  random,
  repaired,
  valueOf,
  withSetting,
  withWeights,
} from "./blocks";
import type { BlockSpec, BlockKind } from "./types";

const NET: BlockSpec[] = [
  { block: "conv", kernels: 8, padding: 1, bias: false },
  { block: "leaky-relu", slope: 0.25 },
  { block: "max-pool", size: 3 },
  { block: "conv", kernels: 1, values: { weight: [0, -1.5, 1e-7], bias: [-4] } },
  { block: "flatten" },
  { block: "linear" },
];

const POOL: BlockKind = {
  name: "max-pool",
  summary: "",
  written: false,
  settings: [
    { name: "size", kind: "whole", default: 2, low: 1, high: 64, unset: "" },
    { name: "stride", kind: "whole", default: null, low: 1, high: 64, unset: "size" },
  ],
};

describe("a list of blocks in the URL", () => {
  it("comes back as it was", () => {
    expect(blocksText(NET)).toBe(
      "conv~kernels8~padding1~bias0_leaky-relu~slope0.25_max-pool~size3_conv~kernels1~weight0,-1.5,1e-7~offset-4_flatten_linear",
    );
    expect(blocksFrom(blocksText(NET))).toEqual(NET);
    const digits = [12345678901, 123456789012345680000, -0.0000012345678901234567, 3.4e38, Number.MIN_VALUE];
    const written: BlockSpec[] = [{ block: "conv", values: { weight: digits } }];
    expect(blocksFrom(blocksText(written))).toEqual(written);
    expect(blocksFrom("")).toEqual([]);
    expect(blocksFrom(blocksText([]))).toEqual([]);
  });

  it("is nothing if it is not such a list", () => {
    for (const text of [
      "conv~",
      "conv~kernels",
      "conv~code1",
      "conv~constructor1",
      "Conv",
      "_",
      "conv~kernels1,2",
      "conv~kernelsx",
      "<b>",
    ])
      expect(blocksFrom(text), text).toBeNull();
    expect(blocksFrom(new Array(65).fill("relu").join("_"))).toBeNull();
  });
});

describe("a block", () => {
  it("moves, and stays within the list", () => {
    expect(moved(["a", "b", "c"], 0, 1)).toEqual(["b", "a", "c"]);
    expect(moved(["a", "b", "c"], 2, -1)).toEqual(["c", "a", "b"]);
    expect(moved(["a", "b", "c"], 0, 9)).toEqual(["b", "c", "a"]);
  });

  it("is repaired as the server says", () => {
    const added: BlockSpec[] = [{ block: "flatten" }];
    expect(repaired([{ block: "linear" }], { title: "", at: 0, removed: 0, added })).toEqual([
      { block: "flatten" },
      { block: "linear" },
    ]);
  });

  it("shows what an empty field stands for", () => {
    const [size, stride] = POOL.settings as [BlockKind["settings"][number], BlockKind["settings"][number]];
    expect(placeholder({ block: "max-pool", size: 3 }, POOL, stride, 2)).toBe("3");
    expect(placeholder({ block: "max-pool" }, POOL, size, 2)).toBe("2");
    expect(valueOf({ block: "max-pool" }, size)).toBe(2);
    expect(withSetting({ block: "max-pool", size: 3 }, "size", null, null)).toEqual({ block: "max-pool" });
  });
});

describe("weights by hand", () => {
  const conv = byHand({ block: "conv", kernels: 2, size: 2 }, [2, 1, 2, 2]);

  it("begin at 0 and are set one by one", () => {
    expect(conv.values).toEqual({ weight: new Array(8).fill(0), bias: [0, 0] });
    expect(withWeights(conv, "weight", 4, [1, 2]).values?.weight).toEqual([0, 0, 0, 0, 1, 2, 0, 0]);
    expect(withWeights(conv, "bias", 1, [-4]).values?.bias).toEqual([0, -4]);
    expect(random(conv)).toEqual({ block: "conv", kernels: 2, size: 2 });
    expect(byHand({ block: "conv", bias: false }, [1, 1, 1, 1]).values).toEqual({ weight: [0] });
  });

  it("keep their place when kernels are added and when they grow", () => {
    const own = withWeights(withWeights(conv, "weight", 0, [1, 2, 3, 4]), "weight", 4, [5, 6, 7, 8]);
    expect(withSetting(own, "kernels", 3, [2, 1, 2, 2]).values).toEqual({
      weight: [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0],
      bias: [0, 0, 0],
    });
    expect(withSetting(own, "size", 3, [2, 1, 2, 2]).values?.weight).toEqual([
      1, 2, 0, 3, 4, 0, 0, 0, 0, 5, 6, 0, 7, 8, 0, 0, 0, 0,
    ]);
    expect(withSetting(own, "size", 1, [2, 1, 2, 2]).values?.weight).toEqual([1, 5]);
    expect(withSetting(own, "stride", 2, [2, 1, 2, 2]).values).toEqual(own.values);
    expect(withSetting(own, "bias", false, [2, 1, 2, 2]).values).toEqual({ weight: own.values?.weight });
  });
});
