/** A walk through the network, from an answer to a pixel, and the number that is pointed at. Independent of the DOM. */
import type { Crumb } from "./state.svelte";
import type { Cell } from "./types";

/** A number that is pointed at, and what it adds to the chosen one, from −1 to 1 of the largest. */
export type Pointed = Readonly<{ step: number; cell: Cell; share: number }>;

/** Both ends of a line. */
export type Ends = Readonly<{ from: Crumb; to: Crumb; share: number | null }>;

/** The lines of a walk, and that from the number pointed at to the chosen one, the last of the walk. */
export function linesOf(walk: readonly Crumb[], pointed: Pointed | null): Ends[] {
  const lines: Ends[] = walk.slice(1).map((to, i) => ({ from: walk[i] as Crumb, to, share: null }));
  const last = walk.at(-1);
  if (pointed !== null && last !== undefined) lines.push({ from: last, to: pointed, share: pointed.share });
  return lines;
}

/** How wide a line is that stands for a share. */
export const widthOf = (share: number | null): number => (share === null ? 2 : 1 + 5 * Math.min(1, Math.abs(share)));
