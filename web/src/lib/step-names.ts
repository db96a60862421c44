/**
 * Steps in the URL: by their names, which become ids once the trace is known. Independent of the DOM.
 */
import { cellFrom, escaped, numberFrom, unescaped } from "./address";
import type { Cell } from "./types";

/** Pseudo-steps: the image before the first step, and the probabilities after the last. */
export const IMAGE = -1;
export const SOFTMAX = -2;

/** A previously shown number, which a breadcrumb leads back to. */
export type Crumb = Readonly<{ step: number; cell: Cell }>;

/** Steps as the URL names them. */
export type Named = Readonly<{ step: string | null; trail: string | null }>;

const STEP_WORDS: ReadonlyMap<string, number> = new Map([
  ["image", IMAGE],
  ["probabilities", SOFTMAX],
]);
const LAST = "softmax"; // the probabilities too, unless a step of the network is called so
const MARK = ":"; // in front of a name that would be read as a word or a number: a layer called "0"

/** The names of the steps on screen, by id. */
let names: ReadonlyMap<number, string> = new Map();

/** Take over the names of a trace's steps. */
export function keepNames(steps: readonly Readonly<{ id: number; name: string }>[]): void {
  names = new Map(steps.map(({ id, name }): [number, string] => [id, name]));
}

/** A step's text in the URL: its name, or its id while no trace is known. */
export function stepText(step: number): string {
  if (step === IMAGE) return "image";
  if (step === SOFTMAX) return [...names.values()].includes(LAST) ? "probabilities" : LAST;
  const name = names.get(step);
  if (name === undefined) return String(step);
  return STEP_WORDS.has(name) || numberFrom(name) !== null || name.startsWith(MARK) ? MARK + name : name;
}

/** The step of a text other than a name: a word, or an id. */
const fixedStep = (text: string): number | null => STEP_WORDS.get(text) ?? numberFrom(text);

/** The step of such a text; null if the network on screen has none of this name. */
export function stepFrom(text: string): number | null {
  const fixed = fixedStep(text);
  if (fixed !== null) return fixed;
  const name = text.startsWith(MARK) ? text.slice(MARK.length) : text;
  for (const [id, each] of names) if (each === name) return id;
  return text === LAST ? SOFTMAX : null;
}

export function trailFrom(text: string | null): Crumb[] {
  return (text ?? "").split("_").flatMap((part) => {
    const [step = "", cell] = part.split("~");
    const [id, at] = [step === "" ? null : stepFrom(unescaped(step)), cellFrom(cell ?? null)];
    return id === null || at === null ? [] : [{ step: id, cell: at }];
  });
}

/** A crumb's text in the URL, if its form is right: which steps there are, the network says. */
export function crumbIsReadable(text: string): string | null {
  const [step = "", cell, ...more] = text.split("~");
  return step !== "" && more.length === 0 && cellFrom(cell ?? null) !== null ? text : null;
}

/** The names of such steps that the network on screen does not have. */
export function unknownSteps(trail: string): string[] {
  const called = trail.split("_").filter((text) => crumbIsReadable(text) !== null);
  return called.map((text) => unescaped(text.split("~")[0] ?? "")).filter((name) => stepFrom(name) === null);
}

/** A trail's text in the URL. */
export const trailText = (trail: readonly Crumb[]): string =>
  trail.map((crumb) => `${escaped(stepText(crumb.step))}~${crumb.cell.join(".")}`).join("_");

/** The step and trail of a URL, as far as they can be read without knowing the network; the rest waits in `named`. */
export function stepsFrom(
  step: string | null,
  trail: string | null,
): Readonly<{ step: number | null; trail: readonly Crumb[]; named: Named | null }> {
  const firsts = (trail ?? "").split("_").map((part) => part.split("~")[0] ?? "");
  const known = firsts.every((text) => text === "" || fixedStep(text) !== null);
  const fixed = step === null ? null : fixedStep(step);
  const waiting = { step: fixed === null ? step : null, trail: known ? null : trail };
  return {
    step: fixed,
    trail: known ? trailFrom(trail) : [],
    named: waiting.step === null && waiting.trail === null ? null : waiting,
  };
}
