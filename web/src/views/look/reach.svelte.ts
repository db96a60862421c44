/** The pixels that the chosen number can depend on, asked for once it has been looked at for a moment. */
import { untrack } from "svelte";
import { FieldFeed, keyOf, type Place } from "../../lib/answered.svelte";
import type { Frame } from "../../lib/explanation";

const SETTLED = 200; // milliseconds that a number is looked at before its receptive field is asked for

export class Reach {
  readonly #feed = new FieldFeed();
  /** Their frame on the image; null until it is known, or if they have none. */
  readonly frame = $derived.by((): Frame | null => {
    const [place, { shown }] = [this.placeOf(), this.#feed];
    if (place === null || shown === null || keyOf(shown.place) !== keyOf(place)) return null;
    const { rows, columns } = shown.field;
    if (rows === null || columns === null) return null;
    return { name: "", kind: "input", channel: 0, top: rows[0], bottom: rows[1], left: columns[0], right: columns[1] };
  });

  /** `placeOf` is the number whose pixels are wanted; null: none. Made while a component is made. */
  constructor(readonly placeOf: () => Place | null) {
    $effect(() => {
      const [place, abort] = [placeOf(), new AbortController()];
      if (place === null) return;
      const timer = setTimeout(() => void untrack(() => this.#feed.frame(place, abort.signal)), SETTLED);
      return () => {
        clearTimeout(timer);
        abort.abort();
      };
    });
  }
}
