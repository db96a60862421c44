import { expect, test } from "vitest";
import { AddressReader } from "./address-reader";
import { applies, fieldsOf, unreadSettings, wishFrom, wishParts, WISH } from "./probe-settings";
import type { SettingInfo } from "./types";

const setting = (patch: Partial<SettingInfo> & Pick<SettingInfo, "name" | "kind">): SettingInfo => ({
  label: "",
  choices: [],
  minimum: null,
  maximum: null,
  default: null,
  empty: "",
  only: null,
  ...patch,
});
const ALL = [
  setting({ name: "kind", kind: "choice", choices: ["translation", "noise"], default: "translation" }),
  setting({ name: "reach", kind: "number", default: 10, only: { name: "kind", value: "translation" } }),
  setting({ name: "step", kind: "step" }),
  setting({ name: "cell", kind: "cell", only: { name: "step", value: null } }),
  setting({ name: "output", kind: "class" }),
];

test("a setting that depends on another one applies by its value or default", () => {
  const [, reach, , cell] = ALL as [SettingInfo, SettingInfo, SettingInfo, SettingInfo, SettingInfo];
  expect(applies(reach, ALL, {})).toBe(true);
  expect(applies(reach, ALL, { kind: "noise" })).toBe(false);
  expect(applies(cell, ALL, {})).toBe(false);
  expect(applies(cell, ALL, { step: "conv1" })).toBe(true);
});

test("settings as typed become fields of a request; what cannot be read is left to the server", () => {
  const none = { kind: null, reach: null, step: null, cell: null, output: null };
  expect(fieldsOf(ALL, {})).toEqual(none);
  expect(fieldsOf(ALL, { kind: "louder", reach: "x", cell: "1.2", output: "-1" })).toEqual(none);
  const typed = { kind: "noise", reach: "3", step: "conv1", cell: "0.3.4", output: "1" };
  expect(fieldsOf(ALL, typed)).toEqual({ kind: "noise", reach: null, step: "conv1", cell: [0, 3, 4], output: 1 });
});

test("an address keeps what its other parts are not", () => {
  const has = new AddressReader("view=probe&question=dead&step=4&of=conv1&data=shapes&reach=3");
  for (const name of ["view", "step"]) has.text(name);
  const wish = wishFrom(has);
  expect(wish).toEqual({ ...WISH, source: "shapes", settings: { step: "conv1", reach: "3" } });
  expect(wishParts(wish)).toContainEqual(["of", "conv1"]);
  expect(has.unread).toEqual([]);
  const without = new AddressReader("reach=3");
  expect(wishFrom(without)).toEqual(WISH);
  expect(without.unread).toEqual([{ name: "reach", text: "3", expected: "" }]);
});

test("settings that a question does not have, or cannot take, are reported as the address calls them", () => {
  const names = (values: Record<string, string>): string[] => unreadSettings(ALL, values).map(({ name }) => name);
  expect(names({ kind: "noise", reach: "3", step: "conv1", cell: "0.3.4", output: "1" })).toEqual([]);
  expect(names({ kind: "noises", reach: "x", cell: "0.x", output: "circle", foo: "1" })).toEqual([
    "kind",
    "reach",
    "place",
    "class",
    "foo",
  ]);
});
