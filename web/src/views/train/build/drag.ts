/** Dragging an item of a list: the pointer says where it goes, and the list is changed while it moves. */

/**
 * Follow the pointer until it is released.
 *
 * Args:
 *   list: The element whose children are the items.
 *   at: Where the dragged item is now.
 *   onmove: Called with the place it moves to; `first` tells the first move of a drag from those that follow.
 *   ondrop: Called when the pointer is released.
 */
export function drag(
  event: PointerEvent,
  list: HTMLElement,
  at: () => number,
  onmove: (to: number, first: boolean) => void,
  ondrop: () => void,
): void {
  let first = true;
  const follow = (moved: PointerEvent): void => {
    const to = target(list, at(), moved.clientY);
    if (to === at()) return;
    onmove(to, first);
    first = false;
  };
  const end = (): void => {
    removeEventListener("pointermove", follow);
    removeEventListener("pointerup", end);
    removeEventListener("pointercancel", end);
    ondrop();
  };
  event.preventDefault(); // no text is selected while dragging
  (event.currentTarget as HTMLElement).focus();
  addEventListener("pointermove", follow);
  addEventListener("pointerup", end);
  addEventListener("pointercancel", end);
}

/** The new place of an item when the pointer is at this height: past every item whose middle the pointer has passed. */
function target(list: HTMLElement, at: number, y: number): number {
  const middles = [...list.children].map((item) => {
    const { top, height } = item.getBoundingClientRect();
    return top + height / 2;
  });
  let to = at;
  while (to > 0 && y < (middles[to - 1] ?? -Infinity)) to--;
  while (to < middles.length - 1 && y > (middles[to + 1] ?? Infinity)) to++;
  return to;
}
