/** How long something outdated may stay on screen unmarked. Knows no DOM and no server. */

const MOMENT = 150; // milliseconds

/** Marks what is shown once it has been outdated for a moment; anything newer that arrives starts the moment anew. */
export class Staleness {
  /** Whether to mark what is shown as outdated. */
  late = $state(false);

  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Something newer was requested. */
  expect(): void {
    this.#timer ??= setTimeout(() => (this.late = true), MOMENT);
  }

  /** An answer arrived; `current` tells whether it is the newest one that was requested. */
  arrive(current: boolean): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.late = false;
    if (!current) this.expect();
  }
}
