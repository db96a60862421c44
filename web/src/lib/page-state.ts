/**
 * The state of the page as a value, and as the query of an address: written, and read back. Independent of the DOM.
 */
import { cellFrom, changeFrom, changeText, editFrom, editsText, inputFrom, inputText, whyFrom } from "./address";
import { AddressReader, oneOf, SWITCH, WHOLE, type Unread } from "./address-reader";
import { blocksFrom, shortBlocks } from "./blocks";
import { CONTRASTS, type Contrast } from "./colours";
import { WISH, wishFrom, wishParts, type Wish } from "./probe-settings";
import { crumbIsReadable, stepsFrom, stepText, trailText, type Crumb, type Named } from "./step-names";
import type { BlockSpec, Cell, Change, Edit, InputRef } from "./types";

export const VIEWS = ["look", "change", "train", "compare", "probe", "kernels"] as const;
export type View = (typeof VIEWS)[number];

/** What an address can leave out of the page, so that a class sees only what a lesson is about. */
const HIDABLE = [...VIEWS, "image", "find", "tools"] as const;
export type Hidable = (typeof HIDABLE)[number];

export type State = Readonly<{
  view: View;
  model: string | null;
  input: InputRef | null;
  /** The input before it was painted on. */
  origin: InputRef | null;
  change: Change;
  edits: readonly Edit[];
  /** The training step whose weights are used; null for the current weights. */
  at: number | null;
  fit: "resize" | "pad" | null;
  step: number | null;
  /** Names of the URL that wait for the trace to become ids; null if there are none. */
  named: Named | null;
  channel: number;
  /** The selected cell, without the batch axis. */
  cell: Cell | null;
  /** The input channel whose window is shown; null for the one with the largest sum. */
  window: number | null;
  trail: readonly Crumb[];
  /** Whose class is asked for in "Why …?", and the class it is compared with; null: the answer itself. */
  why: readonly [number, number | null] | null;
  /** In Look, what is differentiated where the network is read backward: loss, loss-1, class-0; null: forward. */
  back: string | null;
  /** Whether the kernel slides over the chosen map. */
  slide: boolean;
  /** Whether contributions are shown over the input. */
  pixels: boolean;
  /** Whether all steps share one colour scale, and how the colours of maps are scaled. */
  shared: boolean;
  contrast: Contrast;
  /** Whether channels are shown in the order of what they add to the answer. */
  sorted: boolean;
  /** Views and controls that are left out. */
  hide: readonly Hidable[];
  /** Module paths that are unfolded. */
  open: readonly string[];
  /** The second model of a comparison, and the training step of its weights. */
  other: string | null;
  otherAt: number | null;
  training: string | null;
  /** In Train, the network that is built there; null while none is. */
  blocks: readonly BlockSpec[] | null;
  /** The parameter whose kernels are shown, and the named kernel. */
  layer: string | null;
  kernel: string | null;
  /** The question of the Probe view, its settings, and whether it was started. */
  question: string | null;
  wish: Wish;
  asked: boolean;
}>;

export const CALM: Change = { rotate: 0, down: 0, right: 0, noise: 0, seed: 0 };

export const START: State = {
  view: "look",
  model: null,
  input: null,
  origin: null,
  change: CALM,
  edits: [],
  at: null,
  fit: null,
  step: null,
  named: null,
  channel: 0,
  cell: null,
  window: null,
  trail: [],
  why: null,
  back: null,
  slide: false,
  pixels: false,
  shared: false,
  contrast: "full",
  sorted: false,
  hide: [],
  open: [],
  other: null,
  otherAt: null,
  training: null,
  blocks: null,
  layer: null,
  kernel: null,
  question: null,
  wish: WISH,
  asked: false,
};

/** All but what is chosen for a question, as parts of an address's query. */
function partsOf(state: State): [string, string | null][] {
  return [
    ["view", state.view === START.view ? null : state.view],
    ["model", state.model],
    ["input", state.input === null ? null : inputText(state.input)],
    ["origin", state.origin === null ? null : inputText(state.origin)],
    ["change", changeText(state.change)],
    ["edits", editsText(state.edits)],
    ["at", state.at === null ? null : String(state.at)],
    ["fit", state.fit],
    ["step", state.named?.step ?? (state.step === null ? null : stepText(state.step))],
    ["channel", state.channel === 0 ? null : String(state.channel)],
    ["cell", state.cell === null ? null : state.cell.join(".")],
    ["window", state.window === null ? null : String(state.window)],
    ["trail", state.named?.trail ?? (trailText(state.trail) || null)],
    ["why", state.why === null ? null : state.why.filter((n) => n !== null).join("-")],
    ["back", state.back],
    ["slide", state.slide ? "1" : null],
    ["pixels", state.pixels ? "1" : null],
    ["shared", state.shared ? "1" : null],
    ["sort", state.sorted ? "contribution" : null],
    ["contrast", state.contrast === START.contrast ? null : state.contrast],
    ["hide", state.hide.join(",") || null],
    ["open", state.open.join(",") || null],
    ["other", state.other],
    ["otherat", state.otherAt === null ? null : String(state.otherAt)],
    ["training", state.training],
    ["blocks", state.blocks === null ? null : shortBlocks(state.blocks)],
    ["layer", state.layer],
    ["kernel", state.kernel],
    ["question", state.question],
    ["asked", state.asked ? "1" : null],
  ];
}

const INPUT = {
  from: inputFrom,
  expected: "s~shapes~test~3 for an image of a data set, u~ID for a file, or p~1x28x28~PIXELS for a drawing",
};
const STEPS = { from: crumbIsReadable, expected: "steps with cells such as fc~1_conv1~2.4.4" };
const NAMES = { from: (text: string): string | null => text, expected: "names with commas between them" };

/** The state encoded in a URL query, and the parts of it that cannot be read; these are as in the initial state. */
export function readAddress(query: string): Readonly<{ state: State; unread: readonly Unread[] }> {
  const has = new AddressReader(query);
  const trail = has.text("trail");
  has.list("trail", "_", STEPS);
  const state: State = {
    view: has.part("view", oneOf(VIEWS), START.view),
    model: has.text("model"),
    input: has.part("input", INPUT, null),
    origin: has.part("origin", INPUT, null),
    change: has.part(
      "change",
      { from: changeFrom, expected: "a rotation, shift and noise such as r15,d2,x-3,n0.1,s7" },
      CALM,
    ),
    edits: has.list("edits", ";", {
      from: editFrom,
      expected: "numbers of parameters such as conv1.weight:3.0.1.1:0.5",
    }),
    at: has.part("at", WHOLE, null),
    fit: has.part("fit", oneOf(["resize", "pad"]), null),
    ...stepsFrom(has.text("step"), trail),
    channel: has.part("channel", WHOLE, START.channel),
    cell: has.part("cell", { from: cellFrom, expected: "whole numbers such as 2.10.8" }, null),
    window: has.part("window", WHOLE, null),
    why: has.part("why", { from: whyFrom, expected: "a class such as 1, or two such as 1-0" }, null),
    back: has.part("back", { from: backFrom, expected: "loss, loss-1 or class-0" }, null),
    slide: has.part("slide", SWITCH, START.slide),
    pixels: has.part("pixels", SWITCH, START.pixels),
    shared: has.part("shared", SWITCH, START.shared),
    sorted: has.part("sort", oneOf(["contribution"]), null) !== null,
    contrast: has.part("contrast", oneOf(CONTRASTS), START.contrast),
    hide: has.list("hide", ",", oneOf(HIDABLE)),
    open: has.list("open", ",", NAMES),
    other: has.text("other"),
    otherAt: has.part("otherat", WHOLE, null),
    training: has.text("training"),
    blocks: has.part(
      "blocks",
      { from: blocksFrom, expected: "blocks such as conv~kernels8_relu_flatten_linear" },
      null,
    ),
    layer: has.text("layer"),
    kernel: has.text("kernel"),
    question: has.text("question"),
    asked: has.part("asked", SWITCH, START.asked),
    wish: wishFrom(has),
  };
  return { state, unread: has.unread };
}

/** The state encoded in a URL query. */
export const parse = (query: string): State => readAddress(query).state;

const backFrom = (text: string): string | null => /^(loss|class)(-\d{1,7})?$/.exec(text)?.[0] ?? null;

/** The URL query that encodes a state; default values are left out. */
export function query(state: State): string {
  const parts = [...partsOf(state), ...wishParts(state.wish)];
  const kept = parts.filter((part): part is [string, string] => part[1] !== null);
  const text = new URLSearchParams(kept).toString();
  return text === "" ? "" : `?${text.replaceAll("%7E", "~").replaceAll("%2C", ",")}`;
}
