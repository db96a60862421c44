/** What is chosen for a question, beside model, image and second model; null: as the server chooses. */
import type { Cell } from "./types";

export const SPLITS = ["train", "test", "all"] as const;
export const KINDS = ["translation", "rotation", "scale", "noise", "erase"] as const;

export type Wish = Readonly<{
  source: string | null;
  split: (typeof SPLITS)[number] | null;
  images: number | null;
  /** A step by its name. */
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

/** What each is called in an address. */
const CALLED = {
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

/** A cell as it is typed: 3,10,12; null where this is none. */
export function cellOf(text: string): Cell | null {
  const plain = text.replaceAll(/[()\s]/g, "");
  return /^\d{1,7}([.,]\d{1,7}){0,5}$/.test(plain) ? plain.split(/[.,]/).map(Number) : null;
}

/** The wish that an address's query stands for; what cannot be read is left out. */
export function wishFrom(has: URLSearchParams): Wish {
  const get = (key: keyof Wish): string | null => has.get(CALLED[key]);
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

/** A wish as parts of an address's query. */
export function wishParts(wish: Wish): [string, string | null][] {
  return (Object.keys(CALLED) as (keyof Wish)[]).map((key) => {
    const value = wish[key] ?? null;
    return [CALLED[key], value === null ? null : typeof value === "object" ? value.join(".") : String(value)];
  });
}
