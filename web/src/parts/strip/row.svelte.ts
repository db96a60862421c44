/** The row of cards: where each card is, and which of them are out of view. */
import type { Card } from "../../lib/network";
import { still } from "../../lib/theme.svelte";
import type { StepInfo } from "../../lib/types";

/** Steps with their places in the row, and the part of the row that is in view, as shares of its width. */
type Whole = Readonly<{ steps: readonly Readonly<{ step: StepInfo; at: number }>[]; from: number; to: number }>;

const CUT = 6; // pixels of a card that may be out of view

export class Row {
  /** The middle of each card, in pixels of the row; that of the image, −1, is left of it. */
  middles = $state.raw<ReadonlyMap<number, number>>(new Map());
  /** Cards out of view on either side. */
  more = $state.raw<Readonly<{ left: number; right: number }>>({ left: 0, right: 0 });
  /** The width of the part that is in view. */
  width = $state(0);
  /** Counts scrolls and changes of size, after which numbers are elsewhere. */
  moved = $state(0);
  /** The element of each card, −1 is the image. */
  readonly places = new Map<number, HTMLElement>();

  /** Where each card ends, in pixels of the row. */
  #ends: ReadonlyMap<number, number> = new Map();
  #band: HTMLElement | null = null;
  #scroller: HTMLElement | null = null;
  #sized = new ResizeObserver(() => this.measure());
  #seen: IntersectionObserver;

  constructor(readonly onsee: (step: number, visible: boolean) => void) {
    this.#seen = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries)
          onsee(Number((target as HTMLElement).dataset["step"]), isIntersecting);
      },
      { rootMargin: "0px 300px" },
    );
  }

  /** Follow the cards of this element as it scrolls in another; returns how to stop. */
  watch(band: HTMLElement, scroller: HTMLElement): () => void {
    [this.#band, this.#scroller] = [band, scroller];
    this.#sized.observe(scroller); // a narrower window hides cards without changing their size
    return () => {
      this.#seen.disconnect();
      this.#sized.disconnect();
    };
  }

  /** The attachment of a card's element; `step` is the step whose thumbnails it needs while it is in view. */
  place(at: number, step: number | null): (element: HTMLElement) => () => void {
    return (element) => {
      this.places.set(at, element);
      this.#sized.observe(element);
      if (step !== null) {
        element.dataset["step"] = String(step);
        this.#seen.observe(element);
      }
      return () => {
        if (this.places.get(at) === element) this.places.delete(at);
        this.#sized.unobserve(element);
        this.#seen.unobserve(element);
        // it is attached again with every trace; only an element that was removed is out of sight
        if (step !== null) queueMicrotask(() => element.isConnected || this.onsee(step, false));
      };
    };
  }

  measure(): void {
    if (this.#band === null) return;
    const { left: start, width } = this.#band.getBoundingClientRect();
    const enlarged = width / (this.#band.offsetWidth || 1); // the page may be enlarged, as on a projector
    this.middles = new Map(
      [...this.places].map(([at, element]) => {
        const box = element.getBoundingClientRect();
        return [at, at < 0 ? -12 : (box.left - start) / enlarged + Math.min(40, box.width / enlarged / 2)];
      }),
    );
    this.#ends = new Map(
      [...this.places].map(([at, element]) => [at, (element.getBoundingClientRect().right - start) / enlarged]),
    );
    this.look();
  }

  /** Count the cards of which something is out of view on either side. */
  look(): void {
    if (this.#scroller === null) return;
    this.width = this.#scroller.clientWidth;
    const [from, to] = [this.#scroller.scrollLeft, this.#scroller.scrollLeft + this.#scroller.clientWidth];
    const count = (of: ReadonlyMap<number, number>, out: (x: number) => boolean): number =>
      [...of].filter(([card, x]) => card >= 0 && out(x)).length;
    this.more = { left: count(this.middles, (x) => x < from), right: count(this.#ends, (x) => x > to + CUT) };
    this.moved += 1;
  }

  /** The whole row, drawn small; null if all of it is in view. */
  overviewOf(cards: readonly Card[]): Whole | null {
    const scroller = this.#scroller;
    if (this.moved === 0 || scroller === null || this.more.left + this.more.right === 0) return null;
    const whole = scroller.scrollWidth || 1;
    const steps = cards.flatMap((card, i) => {
      const [here, next] = [this.middles.get(i) ?? 0, this.middles.get(i + 1) ?? whole];
      const apart = Math.min(next - here, 100) / card.steps.length;
      return card.steps.map((step, k) => ({ step, at: Math.min(0.995, (here - 30 + k * apart) / whole) }));
    });
    return { steps, from: scroller.scrollLeft / whole, to: (scroller.scrollLeft + scroller.clientWidth) / whole };
  }

  /** Scroll by most of what is in view. */
  scroll(by: number): void {
    const view = this.#scroller;
    view?.scrollBy({ left: by * view.clientWidth * 0.8, behavior: still() ? "auto" : "smooth" });
  }
}
