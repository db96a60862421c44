/** What is chosen for a question, beside model, image and second model. Which settings there are, the server says. */
import { oneOf, WHOLE, type AddressReader, type Unread } from "./address-reader";
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

const whole = WHOLE.from;

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

/** The settings in an address that a question does not have, or that have no meaning for it. Steps the server knows. */
export function unreadSettings(all: readonly SettingInfo[], values: Settings): Unread[] {
  const readable = (setting: SettingInfo, text: string): string | null => {
    if (setting.kind === "cell") return cellOf(text) === null ? "whole numbers such as 3.10.12" : null;
    if (setting.kind === "number" || setting.kind === "class") return whole(text) === null ? WHOLE.expected : null;
    return setting.kind === "step" || setting.choices.includes(text) ? null : oneOf(setting.choices).expected;
  };
  return Object.entries(values).flatMap(([name, text]) => {
    const setting = all.find((each) => each.name === name);
    const expected = setting === undefined ? "" : readable(setting, text);
    return expected === null ? [] : [{ name: CALLED.get(name) ?? name, text, expected }];
  });
}

/** The wish of an address whose other parts were read before: what remains in it are settings of its question. */
export function wishFrom(has: AddressReader): Wish {
  const source = has.text("data");
  const split = has.part("split", oneOf(SPLITS), null);
  const images = has.part("images", WHOLE, null);
  const asks = has.text("question") !== null;
  const rest = has.rest();
  if (!asks) for (const [name, text] of rest) has.refuse({ name, text, expected: "" });
  const settings = asks ? rest.filter(([, text]) => text !== "") : [];
  return {
    source,
    split,
    images,
    settings: Object.fromEntries(settings.map(([name, text]) => [NAMES.get(name) ?? name, text])),
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
