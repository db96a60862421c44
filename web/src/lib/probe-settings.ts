/** The settings of a probe besides model, image and second model; null leaves the choice to the server. */
import type { Cell } from "./types";

export const SPLITS = ["train", "test", "all"] as const;
export const KINDS = ["translation", "rotation", "scale", "noise", "erase"] as const;

export type Wish = Readonly<{
  source: string | null;
  split: (typeof SPLITS)[number] | null;
  images: number | null;
  /** Name of a step. */
  step: string | null;
  cell: Cell | null;
  output: number | null;
  kind: (typeof KINDS)[number] | null;
  reach: number | null;
  channels: number | null;
}>;

export const WISH: Wish = {
  source: null,
  split: null,
  images: null,
  step: null,
  cell: null,
  output: null,
  kind: null,
  reach: null,
  channels: null,
};

/** The names of the settings in the URL. */
const PARAMETERS = {
  source: "data",
  split: "split",
  images: "images",
  step: "of",
  cell: "place",
  output: "class",
  kind: "kind",
  reach: "reach",
  channels: "channels",
} as const;

const whole = (text: string | null): number | null => (text !== null && /^\d{1,9}$/.test(text) ? Number(text) : null);

/** Parse a typed cell: 3,10,12; null if it is invalid. */
export function cellOf(text: string): Cell | null {
  const plain = text.replaceAll(/[()\s]/g, "");
  return /^\d{1,7}([.,]\d{1,7}){0,5}$/.test(plain) ? plain.split(/[.,]/).map(Number) : null;
}

/** The settings encoded in a URL's query; invalid ones are ignored. */
export function wishFrom(has: URLSearchParams): Wish {
  const get = (key: keyof Wish): string | null => has.get(PARAMETERS[key]);
  return {
    source: get("source"),
    split: SPLITS.find((split) => split === get("split")) ?? null,
    images: whole(get("images")),
    step: get("step"),
    cell: cellOf(get("cell") ?? ""),
    output: whole(get("output")),
    kind: KINDS.find((kind) => kind === get("kind")) ?? null,
    reach: whole(get("reach")),
    channels: whole(get("channels")),
  };
}

/** The settings as parameters of a URL's query. */
export function wishParts(wish: Wish): [string, string | null][] {
  return (Object.keys(PARAMETERS) as (keyof Wish)[]).map((key) => {
    const value = wish[key] ?? null;
    return [PARAMETERS[key], value === null ? null : typeof value === "object" ? value.join(".") : String(value)];
  });
}
