/** What is chosen for a question, beside model, image and second model. Which settings there are, the server says. */
import type { Cell, SettingInfo } from "./types";

export const SPLITS = ["train", "test", "all"] as const;

/** By name, as they are typed; those that are left out are as the server chooses. */
export type Settings = Readonly<Record<string, string>>;

/** null: as the server chooses. */
export type Wish = Readonly<{
  source: string | null;
  split: (typeof SPLITS)[number] | null;
  images: number | null;
  settings: Settings;
}>;

export const WISH: Wish = { source: null, split: null, images: null, settings: {} };

/** What a setting is called in an address, where its own name means something else there. */
const CALLED: ReadonlyMap<string, string> = new Map([
  ["step", "of"],
  ["cell", "place"],
  ["output", "class"],
]);
const NAMES: ReadonlyMap<string, string> = new Map([...CALLED].map(([name, called]) => [called, name]));

const whole = (text: string | null): number | null => (text !== null && /^\d{1,9}$/.test(text) ? Number(text) : null);

/** Parse a typed cell: 3,10,12; null if it is invalid. */
export function cellOf(text: string): Cell | null {
  const plain = text.replaceAll(/[()\s]/g, "");
  return /^\d{1,7}([.,]\d{1,7}){0,5}$/.test(plain) ? plain.split(/[.,]/).map(Number) : null;
}

/** Whether a setting means anything beside the others. */
export function applies(setting: SettingInfo, all: readonly SettingInfo[], values: Settings): boolean {
  if (setting.only === null) return true;
  const { name, value } = setting.only;
  const other = values[name] ?? "";
  const chosen = other === "" ? String(all.find((each) => each.name === name)?.default ?? "") : other;
  return value === null ? chosen !== "" : chosen === value;
}

/** The fields of a request; what cannot be read is left to the server. */
export function fieldsOf(all: readonly SettingInfo[], values: Settings): Record<string, string | number | Cell | null> {
  const read = (setting: SettingInfo): string | number | Cell | null => {
    const text = values[setting.name] ?? "";
    if (text === "" || !applies(setting, all, values)) return null;
    if (setting.kind === "cell") return cellOf(text);
    if (setting.kind === "number" || setting.kind === "class") return whole(text);
    return setting.kind === "step" || setting.choices.includes(text) ? text : null;
  };
  return Object.fromEntries(all.map((setting) => [setting.name, read(setting)]));
}

/** The wish that an address's query stands for: every name in it that is not one of `others` is a setting. */
export function wishFrom(has: URLSearchParams, others: ReadonlySet<string>): Wish {
  const own = new Set(["data", "split", "images"]);
  const settings = [...has].filter(([name, text]) => !others.has(name) && !own.has(name) && text !== "");
  return {
    source: has.get("data"),
    split: SPLITS.find((split) => split === has.get("split")) ?? null,
    images: whole(has.get("images")),
    settings: has.has("question")
      ? Object.fromEntries(settings.map(([name, text]) => [NAMES.get(name) ?? name, text]))
      : {},
  };
}

/** The settings as parameters of a URL's query. */
export function wishParts(wish: Wish): [string, string | null][] {
  return [
    ["data", wish.source],
    ["split", wish.split],
    ["images", wish.images === null ? null : String(wish.images)],
    ...Object.entries(wish.settings).map(([name, text]): [string, string] => [CALLED.get(name) ?? name, text]),
  ];
}
