/**
 * The state of the page: one readonly value, mirrored in the URL, so that reloading, the back button and shared links
 * restore it. Within the page steps are identified by id; the URL has their names, which become ids with the trace.
 */
import { untrack } from "svelte";
import { inputText } from "./address";
import { unreadSentence, type Unread } from "./address-reader";
import { shortBlocks } from "./blocks";
import { query, readAddress, START, type State } from "./page-state";
import { keepNames, stepFrom, trailFrom, unknownSteps } from "./step-names";

export { CALM, parse, query, VIEWS, type Hidable, type State, type View } from "./page-state";
export { IMAGE, SOFTMAX, type Crumb, type Named } from "./step-names";

/** State that the browser's history keeps besides the URL, in this tab only: what is too large for it. */
type Beside = Partial<Pick<State, "input" | "blocks">> | null;

function beside(state: State): Beside {
  const input = state.input?.kind === "pixels" && inputText(state.input) === null ? { input: state.input } : {};
  const blocks = state.blocks !== null && shortBlocks(state.blocks) === null ? { blocks: state.blocks } : {};
  return { ...input, ...blocks };
}

/** What an address says, and the sentence about its parts that cannot be read. */
type Said = Readonly<{ state: State; unread: readonly string[] }>;

const sentences = (unread: readonly Unread[]): string[] => [unreadSentence(unread)].filter((text) => text !== null);

function said(query: string, kept: Beside): Said {
  const { state, unread } = readAddress(query);
  return { state: { ...state, ...kept }, unread: sentences(unread.filter(({ name }) => !(name in (kept ?? {})))) };
}

const read = (): Said => said(location.search, history.state as Beside);

/** Whether the page has an address of its own: not in a report or a widget, whose URL belongs to others. */
const ADDRESSED = import.meta.env.MODE !== "report" && import.meta.env.MODE !== "widget";
const ANEW: Said = { state: START, unread: [] };

const first = ADDRESSED && typeof location !== "undefined" ? read() : ANEW;
let current = $state.raw<State>(first.state);
let unread = $state.raw(first.unread);
let followed = true; // whether nothing was chosen since the address was read
const forgotten = new Set<string>();
let waiting: ReturnType<typeof setTimeout> | undefined;

function take(from: Said): void {
  ({ state: current, unread } = from);
  followed = true;
  forgotten.clear();
}

/** What the address has that means nothing, a sentence each; none once something was chosen. */
export const unreadParts = (): readonly string[] => unread;

/** Put one of these sentences away. */
export function forget(text: string): void {
  forgotten.add(text);
  unread = unread.filter((each) => each !== text);
}

/** Add a sentence about a name in the address that means nothing here; not where it was chosen on the page. */
export function report(text: string): void {
  const shown = untrack(unreadParts);
  if (followed && !forgotten.has(text) && !shown.includes(text)) unread = [...shown, text];
}

/** Lead the page to the place of a link. */
export function follow(link: string): void {
  const to = said(link, null);
  go(to.state);
  take({ ...to, state: current });
}

/** Return to the initial state, for a second widget of a notebook. */
export const startAnew = (): void => take(ANEW);

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
 *   The names that the network does not have: of the step, null if there is none such; and of steps of the trail.
 */
export function nameSteps(
  steps: readonly Readonly<{ id: number; name: string }>[],
): Readonly<{ step: string | null; trail: readonly string[] }> {
  keepNames(steps);
  if (current.named === null) return { step: null, trail: [] };
  const { step, trail } = current.named;
  current = resolved(current);
  return { step: step !== null && current.step === null ? step : null, trail: unknownSteps(trail ?? "") };
}

/** The current state. */
export function here(): State {
  return current;
}

function write(): void {
  clearTimeout(waiting);
  waiting = undefined;
  if (ADDRESSED) history.replaceState(beside(current), "", `${location.pathname}${query(current)}`);
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
    if (changed) [unread, followed] = [[], false];
    if (changed && ADDRESSED) history.pushState(beside(next), "", `${location.pathname}${query(next)}`);
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

if (ADDRESSED && typeof addEventListener !== "undefined") {
  addEventListener("popstate", () => {
    clearTimeout(waiting);
    waiting = undefined;
    take(read());
  });
  addEventListener("pagehide", () => {
    if (waiting !== undefined) write();
  });
}
