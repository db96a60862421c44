/** Draw numbers onto canvases: one pixel per number, magnified by CSS without smoothing. Independent of the server. */
import { blockedColour, colour, grey, mixed, type ColourMap } from "./colours";

/** Numbers of one plane, or three planes of a colour picture. */
export type Plane = Readonly<{ data: ArrayLike<number>; height: number; width: number }>;

function put(canvas: HTMLCanvasElement, height: number, width: number, at: (i: number) => number): void {
  const context = canvas.getContext("2d");
  if (context === null || height < 1 || width < 1) return;
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = at(i);
  context.putImageData(image, 0, 0);
}

/** Draw numbers in signed colours. */
export function drawMap(canvas: HTMLCanvasElement, plane: Plane, limit: number, map: ColourMap): void {
  put(canvas, plane.height, plane.width, (i) => {
    const value = plane.data[i];
    return value === undefined ? 0 : colour(map, value, limit); // 0: the last row of a wrapped vector may be short
  });
}

/** Draw bytes that encode numbers from low to high, in signed colours; `blocked`: byte 0 stands for a blocked cell. */
export function drawBytes(
  canvas: HTMLCanvasElement,
  plane: Plane,
  low: number,
  high: number,
  limit: number,
  map: ColourMap,
  blocked = false,
): void {
  const step = (high - low) / 255;
  const table = new Uint32Array(256);
  for (let i = 0; i < 256; i++) table[i] = colour(map, low + i * step, limit);
  if (blocked) table[0] = blockedColour(map);
  put(canvas, plane.height, plane.width, (i) => {
    const byte = plane.data[i];
    return byte === undefined ? 0 : (table[byte] ?? 0);
  });
}

/** Draw a grey or colour picture: (C, H, W) bytes, C 1 or 3. */
export function drawPicture(canvas: HTMLCanvasElement, bytes: ArrayLike<number>, shape: readonly number[]): void {
  const [channels = 1, height = 1, width = 1] = shape;
  const area = height * width;
  const level = (i: number): number => (bytes[i] ?? 0) / 255;
  put(canvas, height, width, (i) =>
    channels === 3 ? mixed(level(i), level(i + area), level(i + 2 * area)) : mixed(level(i), level(i), level(i)),
  );
}

/** Draw numbers between low and high in greys. */
export function drawGrey(canvas: HTMLCanvasElement, plane: Plane, low: number, high: number, map: ColourMap): void {
  const range = high - low || 1;
  put(canvas, plane.height, plane.width, (i) => grey(map, ((plane.data[i] ?? NaN) - low) / range));
}
