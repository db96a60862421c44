import { describe, expect, test } from "vitest";
import { cards, edges, groups, lanes, mended, nodes, sameClasses, unfolded, unknownModules } from "./network";
import type { StepInfo, TraceInfo } from "./types";

const step = (id: number, module: string, inputs: number[]): StepInfo => ({
  id,
  module,
  inputs,
  name: `s${id}`,
  says: "",
  op: "relu",
  module_type: "",
  shape: [1, 2, 3, 4],
  dtype: "float32",
  parameters: {},
  transposed: false,
  outputs: 1,
  overridden: false,
});
const trace = (steps: StepInfo[]): TraceInfo => ({
  id: "t",
  model: "m",
  steps,
  modules: {},
  parameters: [],
  answers: [],
  output: null,
  notes: [],
  error: null,
  input: {
    name: "",
    form: "picture",
    parts: [],
    shape: [1, 4, 4],
    label: null,
    notes: [],
    low: 0,
    high: 1,
    picture: "",
    picture_shape: [1, 4, 4],
  },
});

/** A stem, then `blocks` blocks of four steps, the last of which adds what went in. */
function residual(blocks: number): TraceInfo {
  const steps = [step(0, "net.stem", [])];
  for (let b = 0; b < blocks; b++) {
    const at = steps.length;
    const path = `net.stages.${Math.floor(b / 4)}.${b % 4}`;
    steps.push(
      step(at, `${path}.conv1`, [at - 1]),
      step(at + 1, `${path}.conv2`, [at]),
      step(at + 2, path, [at + 1, at - 1]),
      step(at + 3, `${path}.act`, [at + 2]),
    );
  }
  return trace([...steps, step(steps.length, "head", [steps.length - 1])]);
}

describe("folding", () => {
  test("a small network shows every step", () => {
    expect(cards(nodes(residual(2), [])).every((card) => card.steps.length === 1)).toBe(true);
  });

  test("some steps of a deep one come in the modules that it folds into, each once and in order", () => {
    const deep = residual(40);
    const some = deep.steps.filter((s) => s.id % 4 !== 3).map((s) => ({ ...s, name: s.module }));
    const found = groups({ ...deep, steps: deep.steps.map((s) => some.find((t) => t.id === s.id) ?? s) }, some);
    expect(found.flatMap((group) => group.steps.map((s) => s.id))).toEqual(some.map((s) => s.id));
    expect(found.map((group) => group.path)).toEqual([
      "",
      ...Array.from({ length: 10 }, (_, i) => `net.stages.${i}`),
      "",
    ]);
  });

  test("a deep one shows few cards, which hold every step once and in order", () => {
    const deep = residual(40);
    const shown = cards(nodes(deep, []));
    expect(shown.length).toBeLessThanOrEqual(16);
    expect(shown.flatMap((card) => card.steps.map((s) => s.id))).toEqual(deep.steps.map((s) => s.id));
  });

  test("a module with nothing but one module inside opens with it", () => {
    const deep = trace(
      [0, 1, 2].flatMap((stage) =>
        Array.from({ length: 12 }, (_, i) => {
          const id = stage * 12 + i;
          return step(id, `stages.${stage}.layers.${Math.floor(i / 6)}.${i % 6}`, id === 0 ? [] : [id - 1]);
        }),
      ),
    );
    const labels = (open: string[]): string[] =>
      nodes(deep, open).flatMap((n) =>
        n.kind === "open" ? [n.label, ...n.nodes.map((inside) => inside.label)] : [n.label],
      );
    expect(labels([])).toEqual(["stages", "0", "1", "2"]);
    expect(nodes(deep, ["stages.1"]).flatMap((n) => (n.kind === "open" ? n.nodes : []))).toMatchObject([
      { kind: "folded", label: "0" },
      { kind: "open", label: "1.layers", nodes: [{ label: "0" }, { label: "1" }] },
      { kind: "folded", label: "2" },
    ]);
    expect(
      nodes(deep, ["stages.1", "stages.1.layers"]).flatMap((n) => (n.kind === "open" ? n.nodes : [])),
    ).toMatchObject([
      { kind: "folded", label: "0" },
      { kind: "folded", label: "1.layers" },
      { kind: "folded", label: "2" },
    ]);
  });

  test("a module opens and closes by hand", () => {
    const deep = residual(40);
    const folded = nodes(deep, []);
    const open = cards(nodes(deep, ["net.stages.3"]));
    expect(open.length).toBeGreaterThan(cards(folded).length);
    expect(unfolded(deep.steps).has("net.stages.3")).toBe(false);
  });
});

describe("what reads what", () => {
  test("a residual block has an edge that skips its steps", () => {
    const found = edges(cards(nodes(residual(1), [])));
    expect(found).toContainEqual({ from: 0, to: 3 });
    expect(found).toContainEqual({ from: -1, to: 0 });
  });

  test("edges that overlap get lanes of their own", () => {
    expect(
      lanes([
        { from: 0, to: 4 },
        { from: 1, to: 3 },
        { from: 4, to: 6 },
      ]),
    ).toEqual([0, 1, 0]);
  });
});

describe("answers of two networks", () => {
  const net = (id: string, classes: string[]) => ({ id, classes });
  const pass = (n: number) => ({ output: 1, steps: [{ id: 1, shape: [1, n] } as StepInfo] });
  test.each([
    ["the same network at two steps", net("a", ["x", "y"]), pass(2), net("a", ["x", "y"]), pass(2), true],
    ["the same classes", net("a", ["x", "y"]), pass(2), net("b", ["x", "y"]), pass(2), true],
    ["other names", net("a", ["x", "y"]), pass(2), net("b", ["0", "1"]), pass(2), false],
    ["more of them", net("a", ["x", "y"]), pass(2), net("b", ["x", "y", "z"]), pass(3), false],
    ["no names, as many", net("a", []), pass(10), net("b", []), pass(10), true],
    ["no names, more", net("a", []), pass(10), net("b", []), pass(12), false],
  ] as const)("%s", (_, model, a, other, b, same) => {
    expect(
      sameClasses({ ...model, classes: [...model.classes] }, a, { ...other, classes: [...other.classes] }, b),
    ).toBe(same);
  });
});

const INPUT = { shape: [2, 3, 4] } as unknown as TraceInfo["input"];
const ONE = { steps: [step(0, "a", [])], input: INPUT, output: 0 };
const GONE = { channel: 0, cell: null, window: null };

test.each([
  [99, 77, { step: null, channel: 0, cell: null, window: null, trail: [] }],
  [null, 77, { channel: 0 }],
  [0, 77, { channel: 1 }],
  [0, 1, null],
  [-1, 0, null],
  [-2, 0, null],
])("an address with step %s and channel %s is mended", (id, channel, patch) => {
  expect(mended(ONE, { step: id, channel, cell: null })).toEqual(patch);
});

test.each([
  [[1, 0, 0], null],
  [[1, 99, 0], GONE],
  [[2, 0, 0], GONE],
  [[1], GONE],
  [[1, 0, 0, 0], GONE],
  [[], GONE],
])("an address with cell %s is mended", (cell, patch) => {
  expect(mended(ONE, { step: 0, channel: 1, cell })).toEqual(patch);
  expect(mended(ONE, { step: -1, channel: 1, cell })).toEqual(patch);
  expect(mended(ONE, { step: -2, channel: 1, cell })).toEqual(patch);
});

describe("a convolution with its normalization and activation", () => {
  const named = (id: number, name: string, op: string, inputs: number[]): StepInfo => ({
    ...step(id, name, inputs),
    name,
    op,
  });
  const steps = [
    named(0, "conv1", "convolution", []),
    named(1, "bn1", "native_batch_norm", [0]),
    named(2, "relu1", "relu", [1]),
    named(3, "conv2", "convolution", [2]),
    named(4, "tanh2", "tanh", [3]),
    named(5, "conv3", "convolution", [4]),
    named(6, "bn3", "native_batch_norm", [5]),
    named(7, "relu3", "relu", [6]),
    named(8, "add", "add", [5, 7]),
  ];
  const names = (open: string[]): string[][] =>
    cards(nodes(trace(steps), open)).map((card) => card.steps.map((each) => each.name));

  test("is one card, unless another step reads what is inside it", () => {
    expect(names([])).toEqual([
      ["conv1", "bn1", "relu1"],
      ["conv2"],
      ["tanh2"],
      ["conv3"],
      ["bn3"],
      ["relu3"],
      ["add"],
    ]);
  });
  test("is unfolded by its name", () => {
    expect(names(["+conv1"]).slice(0, 3)).toEqual([["conv1"], ["bn1"], ["relu1"]]);
  });
});

test("modules and chains that a network does not have are named", () => {
  const trace = {
    steps: [
      { name: "stem.conv", module: "stem.conv", op: "convolution" },
      { name: "stem.relu", module: "stem.relu", op: "relu" },
    ] as TraceInfo["steps"],
  };
  expect(unknownModules(trace, ["stem", "stem.conv", "+stem.conv"])).toEqual([]);
  expect(unknownModules(trace, ["ste", "+stem.relu", "stem.conv.x"])).toEqual(["ste", "+stem.relu", "stem.conv.x"]);
});
