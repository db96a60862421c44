/** Explanations of the cells that a sliding kernel comes to, asked for ahead, so that a walk does not wait for each. */
import { getExplained } from "../../../lib/api";
import { checked, keyOf, type Place } from "../../../lib/answered.svelte";
import type { Explained } from "../../../lib/types";

const KEPT = 64;

export class Walk {
  #kept = new Map<string, Promise<Explained>>();
  #abort = new AbortController();

  /** The explanation of a cell, with the window of one input channel. */
  ask(place: Place, channel: number | null): Promise<Explained> {
    const key = `${keyOf(place)} ${channel ?? ""}`;
    const kept = this.#kept.get(key);
    if (kept !== undefined) return kept;
    const { trace, step, cell } = place;
    const asked = getExplained(trace.id, step, cell, { channel }, this.#abort.signal).then((e) => checked(e, place));
    asked.catch(() => this.#kept.delete(key)); // asked for again when it is needed
    this.#kept.set(key, asked);
    if (this.#kept.size > KEPT) this.#kept.delete(this.#kept.keys().next().value as string);
    return asked;
  }

  close(): void {
    this.#abort.abort();
  }
}
