/** The chosen cell of the map on screen, and how pointing, keys and pages of channels move it; in either direction. */
import { cellAt, layout, placeOf, type Layout } from "../../lib/planes";
import type { Shown } from "../../lib/plane.svelte";
import { go, here, type Crumb } from "../../lib/state.svelte";
import type { Cell } from "../../lib/types";

export type Spot = Readonly<{ row: number; column: number }>;

/** What a map shows: the step that the address names, its shape, and its numbers once they are here. */
type Source = Readonly<{
  step: () => number;
  shape: () => readonly number[];
  plane: () => Shown | null;
  /** The channel to begin with, where the address names no step. */
  begin?: () => number;
}>;

export class Choice {
  readonly at: Layout = $derived.by(() => layout(this.source.shape()));
  readonly #wanted = $derived.by(() => (here().step === null ? (this.source.begin?.() ?? 0) : here().channel));
  /** The initial cell if none was chosen: the largest magnitude, so that the page starts with a calculation. */
  readonly #first = $derived.by((): Cell | null => {
    const plane = this.source.plane();
    if (here().step !== null || plane === null || plane.channel !== this.#wanted) return null;
    let best = 0;
    plane.values.forEach((v, i) => (best = Math.abs(v) > Math.abs(plane.values[best] ?? 0) ? i : best));
    return this.cellAt({ row: Math.floor(best / this.at.width), column: best % this.at.width }, plane.channel);
  });
  readonly cell = $derived.by((): Cell | null => {
    const wanted = here().cell ?? this.#first;
    const shape = this.source.shape();
    const bare = shape.length > 1 && shape[0] === 1 ? shape.slice(1) : shape;
    return wanted?.length === bare.length && wanted.every((n, i) => n < (bare[i] ?? 0)) ? wanted : null;
  });
  readonly channel = $derived(
    Math.min(this.cell === null ? this.#wanted : placeOf(this.at, this.cell).channel, this.at.channels - 1),
  );
  readonly selected = $derived(this.cell === null ? null : placeOf(this.at, this.cell));
  /** The cell under the pointer. */
  hover = $state.raw<Spot | null>(null);
  readonly spot: Spot | null = $derived(this.hover ?? this.selected);

  constructor(readonly source: Source) {}

  cellAt({ row, column }: Spot, channel = this.channel): Cell | null {
    return cellAt(this.at, this.source.shape(), channel, row, column);
  }

  select(spot: Spot, how: "point" | "key"): void {
    const { channel } = this;
    const next = this.cellAt(spot);
    const replaced = how === "key" && this.cell !== null;
    if (next !== null) this.#go({ channel, cell: next, trail: [] }, replaced ? "replace" : "push");
  }

  /** Go to another channel, at the same place. */
  turn(by: number): void {
    const channel = Math.max(0, Math.min(this.at.channels - 1, this.channel + by));
    const cell = this.selected === null ? null : this.cellAt(this.selected, channel);
    this.#go({ channel, cell, trail: [] }, "replace");
  }

  leave(): void {
    this.#go({ cell: null, trail: [] });
  }

  #go(
    to: Partial<{ channel: number; cell: Cell | null; trail: readonly Crumb[] }>,
    how: "push" | "replace" = "push",
  ): void {
    go({ step: this.source.step(), window: null, ...to }, how);
  }
}

/** Go back to a number of the walk. */
export function backTo(index: number): void {
  const { trail } = here();
  const crumb = trail[index];
  if (crumb !== undefined) go({ step: crumb.step, cell: crumb.cell, window: null, trail: trail.slice(0, index) });
}
