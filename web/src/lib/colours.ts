/**
 * Colours of data: one diverging colour map centred at zero. Its centre is the page's background, so that numbers near
 * zero are inconspicuous in both themes. Blue is negative, red positive: ColorBrewer's RdBu, safe for colour-blind eyes.
 */
export type Theme = "light" | "dark";
export type Rgb = readonly [number, number, number];

const STOPS: Record<Theme, readonly string[]> = {
  light: ["#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#fbfaf7", "#fddbc7", "#f4a582", "#d6604d", "#b2182b"],
  dark: ["#7cc0ff", "#4f97e0", "#356aa8", "#243f61", "#1c1c1e", "#58291d", "#994229", "#d56a45", "#ff9d78"],
};
const STRANGE: Record<Theme, string> = { light: "#b9a44c", dark: "#8f7f35" }; // for NaN and infinity
const HALF = 255;

/** Packed little-endian RGBA of 511 levels, zero in the middle, and the colour of numbers that are not finite. */
export type ColourMap = Readonly<{ theme: Theme; levels: Uint32Array; strange: number }>;

function rgb(hex: string): Rgb {
  const value = Number.parseInt(hex.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

function pack([r, g, b]: Rgb): number {
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

function build(theme: Theme): ColourMap {
  const stops = STOPS[theme].map(rgb);
  const levels = new Uint32Array(2 * HALF + 1);
  for (let i = 0; i < levels.length; i++) {
    const at = (i / (levels.length - 1)) * (stops.length - 1);
    const k = Math.min(Math.floor(at), stops.length - 2);
    const [from, to] = [stops[k] as Rgb, stops[k + 1] as Rgb];
    const mix = (c: 0 | 1 | 2): number => Math.round(from[c] + (to[c] - from[c]) * (at - k));
    levels[i] = pack([mix(0), mix(1), mix(2)]);
  }
  return { theme, levels, strange: pack(rgb(STRANGE[theme])) };
}

export const DIVERGING: Record<Theme, ColourMap> = { light: build("light"), dark: build("dark") };

const BLOCKED: Record<Theme, number> = { light: pack(rgb("#000000")), dark: pack(rgb("#6f6d68")) };

/** The packed colour of zeros behind an activation that did not pass: black; on a dark page, a grey that is seen. */
export const blockedColour = (map: ColourMap): number => BLOCKED[map.theme];

/** The packed colour of a number on a scale from −limit to limit. */
export function colour(map: ColourMap, value: number, limit: number): number {
  if (!Number.isFinite(value)) return map.strange;
  const part = limit > 0 ? Math.max(-1, Math.min(1, value / limit)) : 0;
  return map.levels[HALF + Math.round(part * HALF)] as number;
}

/** The packed colour of a brightness from 0 to 1. */
export function grey(map: ColourMap, level: number): number {
  if (!Number.isFinite(level)) return map.strange;
  const byte = Math.round(Math.max(0, Math.min(1, level)) * 255);
  return pack([byte, byte, byte]);
}

/** The packed colour of red, green and blue from 0 to 1. */
export function mixed(r: number, g: number, b: number): number {
  const byte = (level: number): number => Math.round(Math.max(0, Math.min(1, level)) * 255);
  return pack([byte(r), byte(g), byte(b)]);
}

/** A colour between two packed ones: `a` at 0, `b` at 1. */
export function between(a: number, b: number, part: number): number {
  const mix = (shift: number): number => {
    const [from, to] = [(a >> shift) & 255, (b >> shift) & 255];
    return Math.round(from + (to - from) * part);
  };
  return pack([mix(0), mix(8), mix(16)]);
}

/** A packed colour as CSS. */
export function css(packed: number): string {
  return `rgb(${packed & 255} ${(packed >> 8) & 255} ${(packed >> 16) & 255})`;
}

/** Black or white, whichever is more legible on a packed colour, by the relative luminance of WCAG 2. */
export function inkOn(packed: number): string {
  const part = (byte: number): number => {
    const c = byte / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  };
  const light = 0.2126 * part(packed & 255) + 0.7152 * part((packed >> 8) & 255) + 0.0722 * part((packed >> 16) & 255);
  return light > 0.179 ? "#000000" : "#ffffff";
}

/** The colour scale of a step: from −limit to limit, zero in the middle. */
export type Scale = Readonly<{ low: number; high: number; limit: number }>;

/** The scale that covers the range from low to high. */
export function scaleOf(low: number, high: number): Scale {
  const lowest = Number.isFinite(low) ? Math.min(low, 0) : 0;
  const highest = Number.isFinite(high) ? Math.max(high, 0) : 0;
  return { low: lowest, high: highest, limit: Math.max(-lowest, highest) || 1 };
}

/** The scale that covers all of these numbers. */
export function scaleOver(values: Iterable<number>): Scale {
  let [low, high] = [0, 0];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return scaleOf(low, high);
}

/** The scale that covers several scales. */
export function sharedScale(scales: Iterable<Scale>): Scale {
  let [low, high] = [0, 0];
  for (const scale of scales) {
    low = Math.min(low, scale.low);
    high = Math.max(high, scale.high);
  }
  return scaleOf(low, high);
}

/** How the colours of maps are scaled: to all numbers of a step, to 99 % of them, or each map to its own. */
export const CONTRASTS = ["full", "typical", "each"] as const;
export type Contrast = (typeof CONTRASTS)[number];

/** A scale as the contrast has it: numbers beyond the limit have the colour of its end. */
export function contrasted(scale: Scale, contrast: Contrast, typical: number, own: Iterable<number>): Scale {
  if (contrast === "full") return scale;
  const limit = contrast === "each" ? scaleOver(own).limit : typical;
  return limit > 0 && limit < scale.limit ? { ...scale, limit } : scale;
}

/** The magnitude that 99 % of these numbers do not exceed. */
export function typicalOf(values: Float32Array): number {
  const sizes = values.map(Math.abs).sort();
  return sizes[Math.min(sizes.length - 1, Math.floor(0.99 * sizes.length))] ?? 0;
}

/** The limit of the colours of a small map, of bytes that encode numbers between the ends of its step. */
export function mapLimit(
  of: Readonly<{ low: number; high: number; typical: number }>,
  contrast: Contrast,
  bytes: Uint8Array,
): number {
  const own = contrast === "each" ? Array.from(bytes, (byte) => of.low + (byte * (of.high - of.low)) / 255) : [];
  return contrasted(scaleOf(of.low, of.high), contrast, of.typical, own).limit;
}
