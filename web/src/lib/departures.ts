/**
 * How the network and image on screen differ from the plain ones: other weights, edited numbers, a changed image. Each
 * with its way back. The header, the title of the tab and every dead end are made from this list.
 */
import { count, fixed, plural } from "./format";
import type { State } from "./state.svelte";
import type { Change, Edit, ModelInfo } from "./types";

/** One difference: what it is, what undoing it is called, and the change of the state that undoes it. */
export type Departure = Readonly<{ key: string; label: string; undo: string; back: Partial<State> }>;

type Part = Readonly<{ key: keyof Change; label: (value: number) => string; undo: string }>;

const towards = (value: number, plus: string, minus: string): string =>
  `moved ${Math.abs(value)} ${value > 0 ? plus : minus}`;

const CHANGES: readonly Part[] = [
  { key: "rotate", label: (value) => `turned ${fixed(value, Number.isInteger(value) ? 0 : 1)}°`, undo: "Turn back" },
  { key: "right", label: (value) => towards(value, "right", "left"), undo: "Move back" },
  { key: "down", label: (value) => towards(value, "down", "up"), undo: "Move back" },
  { key: "noise", label: (value) => `noise ${fixed(value, 2)}`, undo: "Remove the noise" },
];

/** Edits in words: 1 kernel edited; 1 kernel and 2 numbers edited. */
function edited(edits: readonly Edit[]): string {
  const single = edits.filter((edit) => edit.values.length === 1).length;
  const whole = edits.length - single;
  const parts = [whole > 0 ? plural(whole, "kernel") : "", single > 0 ? plural(single, "number") : ""];
  return `${parts.filter((part) => part !== "").join(" and ")} edited`;
}

/** How the model and the image differ from the unchanged ones, in the view of this state. */
export function departures(state: State, model: ModelInfo | null): Departure[] {
  const all: Departure[] = [];
  if (state.at !== null) {
    const last = model?.history.at(-1);
    const label = `step ${count(state.at)}${last === undefined ? "" : ` of ${count(last)}`}`;
    all.push({ key: "at", label, undo: "Use the current weights", back: { at: null } });
  }
  if (state.view === "train") return all; // the Train view uses the chosen step alone
  if (state.edits.length > 0) {
    const undo = state.edits.length === 1 ? "Undo the edit" : "Undo the edits";
    all.push({ key: "edits", label: edited(state.edits), undo, back: { edits: [] } });
  }
  if (state.input?.kind === "pixels") {
    all.push({
      key: "painted",
      label: "painted image",
      undo: "Use the original image",
      back: { input: state.origin, origin: null },
    });
  }
  for (const { key, label, undo } of CHANGES) {
    const value = state.change[key];
    if (value !== 0) all.push({ key, label: label(value), undo, back: { change: { ...state.change, [key]: 0 } } });
  }
  return all;
}
