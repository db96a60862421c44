/** Which cell of a map a pointer is on, and where an arrow key goes from one. */

/** Rows down and columns to the right, by arrow key. */
export const ARROWS: Readonly<Record<string, readonly [down: number, right: number]>> = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
};

/** The cell of a map of height x width cells under a pointer; beside the map, the nearest one. */
export function cellUnder(
  event: Readonly<{ clientX: number; clientY: number }>,
  box: Readonly<{ left: number; top: number; width: number; height: number }>,
  height: number,
  width: number,
): Readonly<{ row: number; column: number }> {
  const at = (offset: number, length: number, count: number): number =>
    Math.max(0, Math.min(count - 1, Math.floor((offset / length) * count)));
  return {
    row: at(event.clientY - box.top, box.height, height),
    column: at(event.clientX - box.left, box.width, width),
  };
}
