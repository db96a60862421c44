/** How the cells of a step or an input are arranged on planes: channels, rows, columns. Independent of DOM and server. */
import type { InputInfo } from "./types";

/** The shape of a step's output without the batch axis. */
export function bare(shape: readonly number[]): readonly number[] {
  return shape.length > 1 && shape[0] === 1 ? shape.slice(1) : shape;
}

/** How a step's numbers are arranged on planes: leading axes are flattened to channels; a vector is wrapped into rows. */
export type Layout = Readonly<{
  lead: readonly number[];
  channels: number;
  height: number;
  width: number;
  /** Count of numbers on a plane; the last row of a wrapped vector may be short. */
  length: number;
  wrapped: boolean;
  /** Number of trailing axes of length one of a wrapped vector, as in 2,048×1×1. */
  ones: number;
}>;

/** Thumbnails unless a view asks for others: the number of channels at most, and of rows and columns of each. */
export const THUMBNAILS = { channels: 16, side: 32 } as const;

/** Vectors up to this length are drawn as a column; longer ones are wrapped into a square. */
export const COLUMN = 16;

/** The layout of a step's output. */
export function layout(shape: readonly number[]): Layout {
  const full = bare(shape);
  const rank = full.length;
  const ones = rank > 2 && full.slice(1).every((n) => n === 1) ? rank - 1 : 0;
  if (rank < 2 || ones > 0) {
    const length = full[0] ?? 1;
    const width = length <= COLUMN ? 1 : Math.ceil(Math.sqrt(length));
    return { lead: [], channels: 1, height: Math.ceil(length / width), width, length, wrapped: true, ones };
  }
  const lead = full.slice(0, -2);
  const [height, width] = full.slice(-2) as [number, number];
  const channels = lead.reduce((a, b) => a * b, 1);
  return { lead, channels, height, width, length: height * width, wrapped: false, ones };
}

/** A step's output as planes: their number, rows and columns; a vector is one row. As the server's `planes_of`. */
export function planeShape(shape: readonly number[]): readonly [number, number, number] {
  const one = bare(shape);
  const size = one.reduce((n, m) => n * m, 1);
  if (one.length < 2 || one.slice(1).every((n) => n === 1)) return [1, 1, size];
  const [height, width] = one.slice(-2) as [number, number];
  return [size / (height * width) || 0, height, width];
}

/** Rows and columns of a plane reduced to at most `side` each; a single row keeps up to `side` squared columns. */
export function shrunkSize(height: number, width: number, side: number): readonly [number, number] {
  const scale = Math.min(1, (height === 1 ? side * side : side) / Math.max(height, width));
  return [Math.max(1, Math.round(height * scale)), Math.max(1, Math.round(width * scale))];
}

/** The cell at a row and column of a channel's plane; null outside of it. */
export function cellAt(
  of: Layout,
  shape: readonly number[],
  channel: number,
  row: number,
  column: number,
): readonly number[] | null {
  if (row < 0 || column < 0 || row >= of.height || column >= of.width) return null;
  if (of.wrapped) {
    const index = row * of.width + column;
    return index < of.length ? (bare(shape).length ? [index, ...new Array<number>(of.ones).fill(0)] : []) : null;
  }
  const lead: number[] = [];
  let rest = channel;
  for (const size of [...of.lead].reverse()) {
    lead.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return [...lead, row, column];
}

/** The position of a cell on the planes: channel, row, column. */
export function placeOf(
  of: Layout,
  cell: readonly number[],
): Readonly<{ channel: number; row: number; column: number }> {
  if (of.wrapped) {
    const index = cell.at(-1 - of.ones) ?? 0;
    return { channel: 0, row: Math.floor(index / of.width), column: index % of.width };
  }
  const channel = of.lead.reduce((sum, size, i) => sum * size + (cell[i] ?? 0), 0);
  return { channel, row: cell[of.lead.length] ?? 0, column: cell[of.lead.length + 1] ?? 0 };
}

/** The position of a recorded cell of an input among the displayed planes, where several inputs follow each other. */
export function inputCell(input: InputInfo, name: string, cell: readonly number[]): readonly number[] {
  const part = input.parts.find((each) => each.name === name);
  if (part === undefined) return bareCell([1, ...input.shape], cell);
  const bare = cell.slice(Math.max(0, cell.length - part.shape.length));
  const [row, column] = bare.length > 1 ? bare.slice(-2) : [0, bare[0] ?? 0];
  const lead = part.shape.slice(0, -2);
  const plane = lead.reduce((sum, size, i) => sum * size + (bare[i] ?? 0), 0);
  return [part.first + plane, row ?? 0, column ?? 0];
}

/** The name of a plane of the input, including the name of the input it belongs to if there are several. */
export function planeName(input: InputInfo, plane: number): string {
  const part = input.parts.findLast((each) => each.first <= plane);
  if (part === undefined) return `channel ${plane}`;
  return part.shape.length > 2 ? `${part.name}, channel ${plane - part.first}` : part.name;
}

/** A recorded cell without its batch axis, as cells are on the page. */
export function bareCell(shape: readonly number[], cell: readonly number[]): readonly number[] {
  return shape.length > 1 && shape[0] === 1 && cell.length === shape.length ? cell.slice(1) : cell;
}
