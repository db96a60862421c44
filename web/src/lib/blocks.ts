/** Lists of blocks: as text for the URL, moved, repaired, and with weights by hand. Independent of DOM and server. */
import type { BlockSpec, BlockKind, RepairInfo, BlockSetting } from "./types";

/** The settings of a block that have a value; the others are as its kind says. */
type Settings = Readonly<Record<string, number | boolean | undefined>>;

const LETTERS = /^[a-z]+(-[a-z]+)*$/;
const PART = /^([a-z]+)(-?\d.*)$/;
const NUMBER = /^-?\d{1,21}(\.\d{1,24})?(e[+-]?\d{1,3})?$/; // as long as JavaScript writes a number
const HAND = { weight: "weight", offset: "bias" } as const;
const MOST = 64; // the server takes no more blocks

const settingsOf = (block: BlockSpec): Settings => {
  const { block: _kind, values: _values, ...settings } = block;
  return settings as Settings;
};

/** conv~kernels8~padding1_tanh_flatten_linear; weights by hand as ~weight0,1,0~offset-4. */
export function blocksText(blocks: readonly BlockSpec[]): string {
  return blocks
    .map((block) => {
      const settings = Object.entries(settingsOf(block))
        .filter(([, value]) => value !== undefined && value !== null)
        .map(([name, value]) => `${name}${Number(value)}`);
      const hand = Object.entries(HAND).flatMap(([word, name]) => {
        const numbers = block.values?.[name];
        return numbers == null ? [] : [`${word}${numbers.join(",")}`];
      });
      return [block.block, ...settings, ...hand].join("~");
    })
    .join("_");
}

const LONGEST = 4_000; // characters of a list in the URL

/** The text for the URL; null for a list whose weights by hand make it too long. */
export function shortBlocks(blocks: readonly BlockSpec[]): string | null {
  const text = blocksText(blocks);
  return text.length > LONGEST ? null : text;
}

/** The blocks of such a text; null if it is not one. What the settings mean is left to the server. */
export function blocksFrom(text: string): BlockSpec[] | null {
  const parts = text === "" ? [] : text.split("_");
  const blocks = parts.map(blockFrom);
  return blocks.length > MOST || blocks.includes(null) ? null : (blocks as BlockSpec[]);
}

function blockFrom(text: string): BlockSpec | null {
  const [block = "", ...parts] = text.split("~");
  if (!LETTERS.test(block) || block.length > 20) return null;
  const settings: Record<string, number | boolean> = {};
  const values: Record<string, number[]> = {};
  for (const part of parts) {
    const [, name = "", value = ""] = PART.exec(part) ?? [];
    const numbers = value.split(",");
    if (!numbers.every((each) => NUMBER.test(each))) return null;
    if (Object.hasOwn(HAND, name)) values[HAND[name as keyof typeof HAND]] = numbers.map(Number);
    else if (!NAMES.has(name) || numbers.length !== 1) return null;
    else settings[name] = name === "bias" ? value !== "0" : Number(value);
  }
  return { block, ...settings, ...(Object.keys(values).length > 0 ? { values } : {}) };
}

const NAMES: ReadonlySet<string> = new Set(["kernels", "size", "stride", "padding", "units", "slope", "p", "bias"]);

/** The list with one block at another place. */
export function moved<T>(list: readonly T[], from: number, to: number): T[] {
  const rest = list.toSpliced(from, 1);
  return rest.toSpliced(Math.max(0, Math.min(to, rest.length)), 0, ...list.slice(from, from + 1));
}

/** The list after a repair that the server proposed. */
export const repaired = (blocks: readonly BlockSpec[], repair: RepairInfo): BlockSpec[] =>
  blocks.toSpliced(repair.at, repair.removed, ...repair.added);

/** A setting's value, or its default where it has none. */
export function valueOf(block: BlockSpec, setting: BlockSetting): number | boolean | null {
  return settingsOf(block)[setting.name] ?? setting.default ?? null;
}

/** What an empty field of a setting stands for. */
export function placeholder(block: BlockSpec, kind: BlockKind, setting: BlockSetting, classes: number): string {
  if (setting.unset === "") return String(setting.default ?? "");
  if (setting.unset === "classes") return String(classes);
  const other = kind.settings.find((each) => each.name === setting.unset);
  return other === undefined ? "" : String(valueOf(block, other));
}

/** A block with another value of a setting; null restores the default of its kind. Weights by hand follow the size. */
export function withSetting(
  block: BlockSpec,
  name: string,
  value: number | boolean | null,
  weight: readonly number[] | null,
): BlockSpec {
  const { [name as "size"]: _former, ...rest } = block;
  const next: BlockSpec = value === null ? rest : { ...rest, [name]: value };
  if (block.values == null || weight === null) return next;
  const [kernels = 1, channels = 1, size = 1] = weight;
  const whole = typeof value === "number" && Number.isInteger(value) && value > 0 && value <= 64;
  const to =
    name === "kernels" && whole
      ? [value, ...weight.slice(1)]
      : name === "size" && whole
        ? [kernels, channels, value, value]
        : name === "units" && whole
          ? [value, ...weight.slice(1)]
          : null;
  if (name === "bias" && value === false) return { ...next, values: { weight: block.values.weight ?? null } };
  if (to === null || (name === "size" && size === value)) return next;
  return { ...next, values: resized(block.values, weight, to) };
}

type Values = NonNullable<BlockSpec["values"]>;

/** Weights and bias of another shape: the numbers that both have, and 0 elsewhere. */
function resized(values: Values, from: readonly number[], to: readonly number[]): Values {
  const part = (numbers: readonly number[] | null | undefined, a: readonly number[], b: readonly number[]) =>
    numbers == null ? null : Array.from({ length: product(b) }, (_, i) => numbers[translated(i, a, b)] ?? 0);
  return { weight: part(values.weight, from, to), bias: part(values.bias, from.slice(0, 1), to.slice(0, 1)) };
}

const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** The flat index in `from` of the flat index `i` in `to`; -1 outside. */
function translated(i: number, from: readonly number[], to: readonly number[]): number {
  let [rest, index, factor] = [i, 0, 1];
  for (let axis = to.length - 1; axis >= 0; axis--) {
    const at = rest % (to[axis] ?? 1);
    rest = Math.floor(rest / (to[axis] ?? 1));
    if (at >= (from[axis] ?? 1)) return -1;
    index += at * factor;
    factor *= from[axis] ?? 1;
  }
  return index;
}

/** A block whose weights are given by hand from now on, all 0 at first. */
export function byHand(block: BlockSpec, weight: readonly number[]): BlockSpec {
  const zeros = (length: number): number[] => new Array<number>(length).fill(0);
  const bias = block.bias === false ? {} : { bias: zeros(weight[0] ?? 1) };
  return { ...block, values: { weight: zeros(product(weight)), ...bias } };
}

/** A block with one of its weights, or a row of them from `at` on, replaced. */
export function withWeights(
  block: BlockSpec,
  which: "weight" | "bias",
  at: number,
  numbers: readonly number[],
): BlockSpec {
  const former = block.values?.[which];
  if (former == null) return block;
  return { ...block, values: { ...block.values, [which]: former.toSpliced(at, numbers.length, ...numbers) } };
}

/** A block without weights by hand. */
export function random(block: BlockSpec): BlockSpec {
  const { values: _values, ...rest } = block;
  return rest;
}

/** net.json: the file that `convscope train DATA --model net.json` takes. */
export function fileOf(blocks: readonly BlockSpec[], shape: readonly number[], classes: number): string {
  return `${JSON.stringify({ shape, classes, blocks }, null, 1)}\n`;
}
