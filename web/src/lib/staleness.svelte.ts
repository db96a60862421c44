/** Marks outdated content after a moment. Independent of DOM and server. */

const MOMENT = 150; // milliseconds

/** Marks the content once it has been outdated for a moment; newer content restarts the timer. */
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
