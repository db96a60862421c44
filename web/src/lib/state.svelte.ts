/**
 * The state of the page: one readonly value, mirrored in the URL, so that reloading, the back button and shared links
 * restore it. Within the page steps are identified by id; the URL has their names, which become ids with the trace.
 */
import {
  cellFrom,
  changeFrom,
  changeText,
  editsFrom,
  editsText,
  inputFrom,
  inputText,
  numberFrom,
  whyFrom,
} from "./address";
import { blocksFrom, shortBlocks } from "./blocks";
import { CONTRASTS, type Contrast } from "./colours";
import { WISH, wishFrom, wishParts, type Wish } from "./probe-settings";
import { keepNames, stepFrom, stepsFrom, stepText, trailFrom, trailText, type Crumb, type Named } from "./step-names";
import type { BlockSpec, Cell, Change, Edit, InputRef } from "./types";

export const VIEWS = ["look", "change", "train", "compare", "probe", "kernels"] as const;
export type View = (typeof VIEWS)[number];

/** What an address can leave out of the page, so that a class sees only what a lesson is about. */
const HIDABLE = [...VIEWS, "image", "find", "tools"] as const;
export type Hidable = (typeof HIDABLE)[number];

export { IMAGE, SOFTMAX, type Crumb, type Named } from "./step-names";

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

const START: State = {
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

/** The names of these parts. */
const NAMES: ReadonlySet<string> = new Set(partsOf(START).map(([name]) => name));

/** The state encoded in a URL query; invalid parts are ignored. */
export function parse(query: string): State {
  const has = new URLSearchParams(query);
  const view = has.get("view") as View | null;
  const fit = has.get("fit");
  return {
    view: view !== null && VIEWS.includes(view) ? view : START.view,
    model: has.get("model"),
    input: inputFrom(has.get("input")),
    origin: inputFrom(has.get("origin")),
    change: changeFrom(has.get("change")) ?? CALM,
    edits: editsFrom(has.get("edits")),
    at: numberFrom(has.get("at")),
    fit: fit === "resize" || fit === "pad" ? fit : null,
    ...stepsFrom(has.get("step"), has.get("trail")),
    channel: numberFrom(has.get("channel")) ?? 0,
    cell: cellFrom(has.get("cell")),
    window: numberFrom(has.get("window")),
    why: whyFrom(has.get("why")),
    back: /^(loss|class)(-\d{1,7})?$/.exec(has.get("back") ?? "")?.[0] ?? null,
    slide: has.get("slide") === "1",
    pixels: has.get("pixels") === "1",
    shared: has.get("shared") === "1",
    sorted: has.get("sort") === "contribution",
    contrast: CONTRASTS.find((each) => each === has.get("contrast")) ?? START.contrast,
    hide: HIDABLE.filter((each) => (has.get("hide") ?? "").split(",").includes(each)),
    open: (has.get("open") ?? "").split(",").filter((path) => path !== ""),
    other: has.get("other"),
    otherAt: numberFrom(has.get("otherat")),
    training: has.get("training"),
    blocks: blocksFrom(has.get("blocks")),
    layer: has.get("layer"),
    kernel: has.get("kernel"),
    question: has.get("question"),
    wish: wishFrom(has, NAMES),
    asked: has.get("asked") === "1",
  };
}

/** The URL query that encodes a state; default values are left out. */
export function query(state: State): string {
  const parts = [...partsOf(state), ...wishParts(state.wish)];
  const kept = parts.filter((part): part is [string, string] => part[1] !== null);
  const text = new URLSearchParams(kept).toString();
  return text === "" ? "" : `?${text.replaceAll("%7E", "~").replaceAll("%2C", ",")}`;
}

/** State that the browser's history keeps besides the URL, in this tab only: what is too large for it. */
type Beside = Partial<Pick<State, "input" | "blocks">> | null;

function beside(state: State): Beside {
  const input = state.input?.kind === "pixels" && inputText(state.input) === null ? { input: state.input } : {};
  const blocks = state.blocks !== null && shortBlocks(state.blocks) === null ? { blocks: state.blocks } : {};
  return { ...input, ...blocks };
}

const read = (): State => ({ ...parse(location.search), ...(history.state as Beside) });

let current = $state.raw<State>(typeof location === "undefined" ? parse("") : read());
let waiting: ReturnType<typeof setTimeout> | undefined;
let addressed = true;

/** Start anew and leave the URL alone, which belongs to others: in a file, a sandboxed frame or a notebook. */
export function leaveAddress(): void {
  addressed = false;
  current = START;
}

/** A state whose step names have become ids, with the steps of its trace. An unknown name leaves the step open. */
export function resolved(state: State): State {
  if (state.named === null) return state;
  const { step, trail } = state.named;
  return {
    ...state,
    named: null,
    step: step === null ? state.step : stepFrom(step),
    trail: trail === null ? state.trail : trailFrom(trail),
  };
}

/**
 * Take over the names of a trace's steps, and turn those that the URL has into ids.
 *
 * Returns:
 *   The name of the step that the network does not have; null if there is none such.
 */
export function nameSteps(steps: readonly Readonly<{ id: number; name: string }>[]): string | null {
  keepNames(steps);
  if (current.named === null) return null;
  const { step } = current.named;
  current = resolved(current);
  return step !== null && current.step === null ? step : null;
}

/** The current state. */
export function here(): State {
  return current;
}

function write(): void {
  clearTimeout(waiting);
  waiting = undefined;
  if (addressed) history.replaceState(beside(current), "", `${location.pathname}${query(current)}`);
}

/**
 * Change the state. "push" adds a history entry, which the back button undoes. "replace", for changes that follow a
 * pointer or a held key, updates the current entry, and the URL is written with a delay.
 */
export function go(patch: Partial<State>, how: "push" | "replace" = "push"): void {
  const named = patch.step === undefined ? current.named : null; // another step was chosen meanwhile
  const why = patch.step == null ? current.why : null; // a step was chosen, to be looked at instead
  const next = { ...current, named, why, ...patch };
  if (how === "push") {
    if (waiting !== undefined) write();
    const changed = query(next) !== query(current) || next.input !== current.input || next.blocks !== current.blocks;
    current = next;
    if (changed && addressed) history.pushState(beside(next), "", `${location.pathname}${query(next)}`);
    return;
  }
  current = next;
  waiting ??= setTimeout(write, 250); // browsers limit how often the URL may be changed
}

/** Fold a module of the network, or open it. */
export function fold(path: string): void {
  const { open } = current;
  go({ open: open.includes(path) ? open.filter((each) => each !== path) : [...open, path] });
}

/** The initial state of a model, with nothing selected and nothing changed. */
export function fresh(model: string | null): Partial<State> {
  const { input, origin, edits, at, step, named, why, back, channel, cell, window, trail, open, layer, wish, asked } =
    START;
  return {
    model,
    input,
    origin,
    edits,
    at,
    step,
    named,
    why,
    back,
    channel,
    cell,
    window,
    trail,
    open,
    layer,
    wish,
    asked,
  };
}

/** The URL of the current state with some changes, for links. */
export function link(patch: Partial<State>): string {
  return `${location.pathname}${query({ ...current, ...patch })}`;
}

if (typeof addEventListener !== "undefined") {
  addEventListener("popstate", () => {
    clearTimeout(waiting);
    waiting = undefined;
    if (addressed) current = read();
  });
  addEventListener("pagehide", () => {
    if (waiting !== undefined) write();
  });
}
