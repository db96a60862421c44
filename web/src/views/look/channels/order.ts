/** Channels in the order of their contributions. Independent of DOM and server. */

/** Channels of a step, the one that contributes most first. */
export type Ranked = Readonly<{
  key: string;
  /** What each channel contributes, by channel. */
  added: Float32Array;
  order: readonly number[];
}>;

/** What is taken away counts as what is added; NaN counts as nothing. */
export function ranked(key: string, added: Float32Array): Ranked {
  const size = (channel: number): number => Math.abs(added[channel] ?? 0) || 0;
  return { key, added, order: Array.from(added.keys()).sort((a, b) => size(b) - size(a) || a - b) };
}
