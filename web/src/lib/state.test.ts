import { expect, test } from "vitest";
import { painted } from "./address";
import { unreadSentence } from "./address-reader";
import { readAddress } from "./page-state";
import { IMAGE, nameSteps, parse, query, resolved, SOFTMAX, type State } from "./state.svelte";

const START = parse("");

test("the start has an empty address", () => {
  expect(query(START)).toBe("");
});

const FULL: State = {
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

test("every part of the state survives the address", () => {
  expect(resolved(parse(query(FULL)))).toEqual(FULL);
  expect(readAddress(query(FULL)).unread).toEqual([]);
  expect(readAddress("").unread).toEqual([]);
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
  "?input=p~1x1x1~A",
  "?edits=:::",
  "?edits=fc.bias:0:1,,2",
  "?edits=fc.bias:0:1e39",
  "?trail=~",
  "?channel=-5",
  "?change=r25,q1",
  "?change=r",
  "?change=r999",
  "?change=d1.5",
  "?change=n-1",
  "?chanel=3",
])("what cannot be read is left out and reported: %s", (text) => {
  const { state, unread } = readAddress(text);
  expect(state).toEqual(START);
  const [name, value] = text.slice(1).split("=");
  expect(unread).toMatchObject([{ name, text: value }]);
});

/** Any text is a name; whether there is something of this name is known later. */
const FREE = new Set([
  "model",
  "step",
  "open",
  "other",
  "training",
  "layer",
  "kernel",
  "question",
  "data",
  "of",
  "place",
]);
const SETTINGS = new Set(["class", "kind", "reach", "channels"]);

test("no part of an address is left out in silence", () => {
  const strict = [...new URLSearchParams(query(FULL)).keys()].filter((name) => !FREE.has(name) && !SETTINGS.has(name));
  expect(strict.length).toBeGreaterThan(20);
  for (const name of strict)
    expect(
      readAddress(`?${name}=~nonsense`).unread.map((each) => each.name),
      name,
    ).toEqual([name]);
});

test("what can be read of a list is kept, and the rest reported", () => {
  const { state, unread } = readAddress("?edits=fc.bias:0:1;x&hide=train,trains&trail=fc~1_conv1");
  expect(state.edits).toEqual([{ parameter: "fc.bias", cell: [0], values: [1] }]);
  expect(state.hide).toEqual(["train"]);
  expect(unread.map(({ name, text }) => `${name}=${text}`)).toEqual(["trail=conv1", "edits=x", "hide=trains"]);
});

test("one sentence says what was asked, what is readable, and what happens", () => {
  const sentence = (text: string): string | null => unreadSentence(readAddress(text).unread);
  expect(sentence("?view=look")).toBeNull();
  expect(sentence("?view=lok&at=x")).toBe(
    "This address has “view=lok” and “at=x”, which cannot be read and are left out: " +
      "view is look, change, train, compare, probe or kernels; at is a whole number such as 3.",
  );
  expect(sentence("?modle=a")).toBe("This address has “modle=a”, which cannot be read and is left out.");
  expect(sentence(`?cell=${"x".repeat(90)}`)).toContain(`“cell=${"x".repeat(35)}…”`);
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
