/** How large the cards of a strip are: a row that is a little too wide for the page gets smaller maps and arrows. */
import { COLUMN, layout, planeShape, THUMBNAILS } from "../../lib/planes";

const LEAST = 0.85; // maps are not made smaller than this part of their size
const GAP = 3; // pixels between maps
const SINGLE = 80; // pixels of a card with one map, and of narrow ones
/** Pixels of a card with one map and a line of words. */
export const WORDED = 112;

/** How the maps of a card are laid out: in how many columns, and how wide each is in pixels. */
export type Maps = Readonly<{ columns: number; edge: number }>;

export function mapsOf(count: number): Maps {
  return {
    columns: count <= 1 ? 1 : count <= 8 ? 2 : 4,
    edge: count <= 1 ? SINGLE : count <= 4 ? 73 : 35,
  };
}

/** The number of maps that a step's card shows. */
export function mapCount(shape: readonly number[]): number {
  const [n, , width] = planeShape(shape);
  return layout(shape).wrapped && width > COLUMN ? 1 : Math.min(n, THUMBNAILS.channels);
}

/** Pixels of an arrow between cards. */
export const arrowOf = (fit: number): number => (fit < 1 ? 16 : 24);

const widthAt = (counts: readonly number[], worded: boolean, fit: number): number =>
  counts.reduce((all, count) => {
    const { columns, edge } = mapsOf(count);
    const least = worded && count <= 1 ? WORDED : SINGLE * fit;
    return all + arrowOf(fit) + Math.max(least, columns * Math.floor(edge * fit) + (columns - 1) * GAP);
  }, 0);

/**
 * The size of cards, as a part of the usual one, with which all of them are in view; 1 if they are, or cannot be.
 *
 * @param counts - How many maps each card has.
 * @param worded - Whether cards have a line of words, which may be wider than a single map.
 * @param width - Pixels there are for the row.
 */
export function fitOf(counts: readonly number[], worded: boolean, width: number): number {
  if (width <= 0) return 1;
  for (let percent = 100; percent >= 100 * LEAST; percent--)
    if (widthAt(counts, worded, percent / 100) <= width) return percent / 100;
  return 1;
}
