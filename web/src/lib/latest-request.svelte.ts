/**
 * Requests for something that changes quickly: one at a time, always for the newest wish. The current value stays until
 * the next response arrives.
 */
import { onDestroy } from "svelte";
import { aborted, Refused } from "./http";
import { Staleness } from "./staleness.svelte";

export class Latest<T> {
  value = $state.raw<T | null>(null);
  /** Why the newest request failed. */
  problem = $state<string | null>(null);
  readonly staleness = new Staleness();

  #key = "";
  #ask: (() => Promise<T>) | null = null;
  #running = false;

  /** Created in a component; after it is destroyed nothing is requested, as `ask` may read its state. */
  constructor() {
    onDestroy(() => this.want("", null));
  }

  /** Request this from now on; `key` identifies the request. Null: nothing is needed. */
  want(key: string, ask: (() => Promise<T>) | null): void {
    if (key === this.#key) return;
    this.#key = key;
    this.#ask = ask;
    if (ask === null) {
      this.value = this.problem = null;
      this.staleness.arrive(true);
    } else this.staleness.expect();
    if (!this.#running) void this.#run();
  }

  async #run(): Promise<void> {
    this.#running = true;
    await new Promise((done) => setTimeout(done)); // let the strip request its thumbnails first
    for (let done: string | null = null; done !== this.#key;) {
      done = this.#key;
      const ask = this.#ask;
      if (ask === null) continue;
      try {
        const value = await ask();
        if (this.#ask !== null) this.value = value;
        if (done === this.#key) this.problem = null;
        this.staleness.arrive(done === this.#key);
      } catch (error) {
        if (done !== this.#key || aborted(error)) continue;
        this.problem = error instanceof Refused ? error.message : String(error);
        this.value = null;
        this.staleness.arrive(true);
      }
    }
    this.#running = false;
  }
}
