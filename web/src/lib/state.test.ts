import { expect, test } from "vitest";
import { painted } from "./address";
import { IMAGE, nameSteps, parse, query, resolved, SOFTMAX, type State } from "./state.svelte";

const START = parse("");

test("the start has an empty address", () => {
  expect(query(START)).toBe("");
});

test("every part of the state survives the address", () => {
  const state: State = {
    view: "compare",
    back: "class-3",
    model: "shapes-cnn",
    input: painted(Uint8Array.from([0, 1, 128, 255, 7, 9]), [1, 2, 3]),
    origin: { kind: "sample", source: "shapes", split: "test", index: 12 },
    change: { rotate: -15, down: 2, right: -3, noise: 0.25, seed: 7 },
    edits: [
      { parameter: "conv1.weight", cell: [3, 0, 1, 1], values: [0.5] },
      { parameter: "odd: name; more", cell: [], values: [-1e-7, 2] },
    ],
    at: 300,
    fit: "pad",
    step: 4,
    named: null,
    channel: 2,
    cell: [2, 5, 6],
    window: 0,
    trail: [
      { step: SOFTMAX, cell: [1] },
      { step: 8, cell: [1] },
      { step: IMAGE, cell: [0, 0, 0] },
    ],
    why: [3, 1],
    slide: true,
    pixels: true,
    shared: true,
    contrast: "each",
    sorted: true,
    hide: ["train", "tools"],
    open: ["layer1", "layer1.0"],
    other: "mlp",
    otherAt: 0,
    training: "shapes-cnn.1",
    blocks: [{ block: "conv", kernels: 4, values: { weight: [0, -1.5], bias: [1] } }, { block: "relu" }],
    layer: "conv1.weight",
    kernel: "sobel-x",
    question: "patches",
    wish: {
      source: "shapes",
      split: "train",
      images: 200,
      settings: { step: "conv1", cell: "0.3.4", output: "1", kind: "scale", reach: "3", channels: "8" },
    },
    asked: true,
  };
  expect(resolved(parse(query(state)))).toEqual(state);
});

test("a painting that is too large for an address is left out of it", () => {
  const large = painted(new Uint8Array(3 * 224 * 224), [3, 224, 224]);
  expect(query({ ...START, input: large })).toBe("");
});

test.each([
  ["s~shapes~test~12", { kind: "sample", source: "shapes", split: "test", index: 12 }],
  ["u~abc", { kind: "stored", id: "abc" }],
])("input %s", (text, input) => {
  expect(parse(`?input=${text}`).input).toEqual(input);
});

test.each([
  "?input=s~../x~test~1",
  "?input=p~1x2x2~AA",
  "?input=q",
  "?cell=1.x",
  "?view=other",
  "?edits=:::",
  "?trail=~",
])("what cannot be read is left out: %s", (text) => {
  expect(parse(text)).toEqual(START);
});

test("steps are in the address by name, whatever they are called", () => {
  const called = ["conv1", "0", "softmax", "image", "a_b~c.d", ":x", "%5F", "relu#2"];
  nameSteps(called.map((name, id) => ({ id, name })));
  for (const step of called.keys()) {
    const trail = [...called.keys(), IMAGE, SOFTMAX].map((id) => ({ step: id, cell: [id + 3, 0] }));
    const state: State = { ...START, step, trail };
    const address = query(state);
    expect(new URLSearchParams(address).get("step")).toContain(called[step]);
    expect(resolved(parse(address))).toEqual(state);
  }
  nameSteps([]);
});

test("softmax is the step of this name, and the probabilities where there is none", () => {
  const steps = (...called: string[]): void => void nameSteps(called.map((name, id) => ({ id, name })));
  steps("conv1", "softmax");
  expect(resolved(parse("?step=softmax&cell=1"))).toMatchObject({ step: 1, cell: [1] });
  expect(resolved(parse("?step=probabilities")).step).toBe(SOFTMAX);
  expect(query({ ...START, step: 1 })).toBe("?step=softmax");
  expect(query({ ...START, step: SOFTMAX })).toBe("?step=probabilities");
  steps("conv1", "fc1");
  expect(resolved(parse("?step=softmax&cell=1"))).toMatchObject({ step: SOFTMAX, cell: [1] });
  expect(resolved(parse("?trail=softmax~1_conv1~2")).trail).toEqual([
    { step: SOFTMAX, cell: [1] },
    { step: 0, cell: [2] },
  ]);
  expect(query({ ...START, step: SOFTMAX })).toBe("?step=softmax");
  steps();
});

test("a name waits for the network, and one that it does not have leaves the step open", () => {
  const waiting = parse("?step=conv9&cell=1.2.3");
  expect(waiting.step).toBeNull();
  expect(query(waiting)).toBe("?step=conv9&cell=1.2.3");
  expect(resolved(waiting)).toMatchObject({ step: null, named: null, cell: [1, 2, 3] });
});
