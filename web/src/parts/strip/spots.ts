/** Where a number of the strip is on screen. Reads where elements are; draws nothing. */
import { layout, placeOf } from "../../lib/planes";
import { IMAGE, SOFTMAX, type Crumb } from "../../lib/state.svelte";
import type { Cell, StepInfo, TraceInfo } from "../../lib/types";

/** A place in the strip, in its own pixels; `hidden` if it is scrolled out of view, and the place is at the edge. */
export type Spot = Readonly<{ x: number; y: number; hidden: boolean }>;

/** A place in the window, and whether it scrolls with the steps. */
type Point = Readonly<{ x: number; y: number; scrolls: boolean }>;

/** The card that shows a step, and its element. */
type CardOf = (step: number) => Readonly<{ shown: StepInfo; element: HTMLElement }> | null;

/** Where a number is in the strip; null if it has no picture there. */
export function spotOf(
  strip: HTMLElement,
  scroller: HTMLElement,
  cardOf: CardOf,
  trace: TraceInfo,
  { step, cell }: Crumb,
): Spot | null {
  const ends = strip.querySelector(".image")?.getBoundingClientRect().bottom ?? 0;
  const above = scroller.getBoundingClientRect().top >= ends; // in a narrow window image and answers are above the steps
  let point: Point | null;
  if (step === SOFTMAX) point = above ? null : answerPoint(strip, cell);
  else if (step === IMAGE) point = above ? null : pixelPoint(strip, trace.input.shape, cell);
  else point = stepPoint(cardOf, trace, step, cell);
  if (point === null) return null;

  const frame = strip.getBoundingClientRect();
  const enlarged = frame.width / (strip.offsetWidth || 1); // the page may be enlarged, as on a projector
  const [x, y] = [point.x - frame.left, point.y - frame.top].map((n) => n / enlarged) as [number, number];
  if (!point.scrolls) return { x, y, hidden: false };
  const view = scroller.getBoundingClientRect();
  const [low, high] = [view.left, view.right].map((edge) => (edge - frame.left) / enlarged) as [number, number];
  return { x: Math.max(low, Math.min(high, x)), y, hidden: x < low || x > high };
}

function answerPoint(strip: HTMLElement, cell: Cell): Point | null {
  const box = strip.querySelector(`[data-answer="${cell.at(-1) ?? 0}"]`)?.getBoundingClientRect();
  return box === undefined ? null : { x: box.left - 7, y: box.top + 11, scrolls: false };
}

function pixelPoint(strip: HTMLElement, shape: readonly number[], cell: Cell): Point | null {
  const box = strip.querySelector(".photo")?.getBoundingClientRect();
  if (box === undefined) return null;
  const [height, width] = [shape.at(-2) ?? 1, shape.at(-1) ?? 1];
  const side = box.width / Math.max(height, width);
  const at = (from: number, length: number, index: number, count: number): number =>
    from + (length - side * count) / 2 + side * (index + 0.5);
  return {
    x: at(box.left, box.width, cell.at(-1) ?? 0, width),
    y: at(box.top, box.height, cell.at(-2) ?? 0, height),
    scrolls: false,
  };
}

function stepPoint(cardOf: CardOf, trace: TraceInfo, step: number, cell: Cell): Point | null {
  const of = trace.steps.find((each) => each.id === step);
  const card = cardOf(step);
  if (of === undefined || card === null) return null;
  const [form, own] = [layout(card.shown.shape), layout(of.shape)];
  const { channel, row, column } = placeOf(own, cell);
  const map = card.element.querySelector(`[data-channel="${own.wrapped ? 0 : channel}"]`);
  const box = (map ?? card.element.querySelector(".maps"))?.getBoundingClientRect();
  if (box === undefined) return null;
  if (map === null) return { x: box.left + box.width / 2, y: box.bottom, scrolls: true }; // one of those that are not drawn
  const laid = form.wrapped && form.width === 1; // a short vector is drawn as a row
  const [rows, columns] = laid ? [1, form.height] : [own.height, own.width];
  const [down, right] = laid ? [0, row] : [row, column];
  return {
    x: box.left + (box.width * (right + 0.5)) / columns,
    y: box.top + (box.height * (down + 0.5)) / rows,
    scrolls: true,
  };
}
