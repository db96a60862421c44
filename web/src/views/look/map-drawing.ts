/** A large map on a canvas: its colours, the numbers in cells that are large enough, and the frame of the chosen cell. */
import { inkOn } from "../../lib/colours";

export type Spot = Readonly<{ row: number; column: number }>;

const FONT = { least: 9, most: 13, width: 0.61 }; // pixels; a digit's width per pixel of its height

/** The size in pixels from which on a cell can hold a number with this number of characters. */
export const legibleAt = (longest: number): number => longest * FONT.width * FONT.least + 6;

type Colouring = Readonly<{
  height: number;
  width: number;
  values: ArrayLike<number>;
  /** The packed colour of each cell. */
  colours: (index: number) => number;
}>;

/** A map, and which part of it is drawn. Sizes are in pixels of the page, `left` and `top` in cells. */
export type Drawing = Colouring &
  Readonly<{
    /** A number as it is written in its cell, and how many characters the longest one has. */
    write: (value: number) => string;
    longest: number;
    selected: Spot | null;
    cell: number;
    left: number;
    top: number;
    shownWidth: number;
    shownHeight: number;
  }>;

/** The map with one pixel per cell. */
export function bitmapOf({ height, width, values, colours }: Colouring): HTMLCanvasElement {
  const small = document.createElement("canvas");
  small.width = Math.max(1, width);
  small.height = Math.max(1, height);
  const context = small.getContext("2d");
  if (context === null) return small;
  const image = context.createImageData(small.width, small.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < Math.min(pixels.length, values.length); i++) pixels[i] = colours(i);
  context.putImageData(image, 0, 0);
  return small;
}

/** Draw the visible part of a map; `bitmap` is the map with one pixel per cell. */
export function draw(canvas: HTMLCanvasElement, bitmap: HTMLCanvasElement, map: Drawing): void {
  const { cell, left, top, shownWidth, shownHeight, longest, selected } = map;
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(shownWidth * ratio);
  canvas.height = Math.round(shownHeight * ratio);
  const context = canvas.getContext("2d");
  if (context === null) return;
  context.imageSmoothingEnabled = false;
  context.setTransform(ratio * cell, 0, 0, ratio * cell, -left * cell * ratio, -top * cell * ratio);
  context.drawImage(bitmap, 0, 0);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (cell >= legibleAt(longest)) numbers(context, map);
  if (selected !== null) frame(context, selected, map);
}

function numbers(context: CanvasRenderingContext2D, map: Drawing): void {
  const { height, width, values, colours, write, longest, cell, left, top, shownWidth, shownHeight } = map;
  const style = getComputedStyle(context.canvas);
  context.strokeStyle = style.getPropertyValue("--line");
  context.lineWidth = 1;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.font = `${Math.min(FONT.most, (cell - 6) / (longest * FONT.width))}px ${style.getPropertyValue("--mono")}`;
  for (let row = Math.floor(top); row < Math.min(height, top + shownHeight / cell); row++) {
    for (let column = Math.floor(left); column < Math.min(width, left + shownWidth / cell); column++) {
      const index = row * width + column;
      const value = values[index];
      if (value === undefined) continue;
      const [x, y] = [(column - left) * cell, (row - top) * cell];
      context.strokeRect(x, y, cell, cell);
      context.fillStyle = inkOn(colours(index));
      context.fillText(write(value), x + cell / 2, y + cell / 2);
    }
  }
}

function frame(context: CanvasRenderingContext2D, spot: Spot, { cell, left, top }: Drawing): void {
  const style = getComputedStyle(context.canvas);
  const [x, y] = [(spot.column - left) * cell, (spot.row - top) * cell];
  const side = Math.max(cell, 5);
  const at = (side - cell) / 2;
  context.lineWidth = 4;
  context.strokeStyle = style.getPropertyValue("--page");
  context.strokeRect(x - at, y - at, side, side);
  context.lineWidth = 2;
  context.strokeStyle = style.getPropertyValue("--ink");
  context.strokeRect(x - at, y - at, side, side);
}
