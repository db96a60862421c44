/**
 * The traces shown on the page. While a slider moves, one request is pending and only the newest one waits; the current
 * trace stays on screen until the next response arrives.
 */
import { postTrace } from "./api";
import { aborted, Refused } from "./http";
import { Staleness } from "./staleness.svelte";
import type { Fit, TraceInfo, TraceRequest } from "./types";

/** Keeps the trace of the newest request. */
export class Feed {
  info = $state.raw<TraceInfo | null>(null);
  /** Why the newest request failed. */
  problem = $state<string | null>(null);
  /** Ways to fit the image, if it failed because of the image's size. */
  fit = $state.raw<readonly Fit[]>([]);
  busy = $state(false);
  readonly staleness = new Staleness();

  #wanted: TraceRequest | null = null;
  #key = "";
  #running = false;

  /** Show the trace of this request from now on. */
  want(request: TraceRequest | null): void {
    const key = request === null ? "" : JSON.stringify(request);
    if (key === this.#key) return;
    if (request === null || this.#wanted?.model !== request.model) this.info = null;
    this.#key = key;
    this.#wanted = request;
    this.staleness.expect();
    if (!this.#running) void this.#run();
  }

  async #run(): Promise<void> {
    this.#running = true;
    this.busy = true;
    for (let done = ""; done !== this.#key;) {
      done = this.#key;
      if (this.#wanted === null) {
        this.staleness.arrive(true);
        continue;
      }
      try {
        const info = await postTrace(this.#wanted);
        if (info.model === this.#wanted?.model) this.info = info;
        if (done === this.#key) this.problem = null;
        this.staleness.arrive(done === this.#key);
      } catch (error) {
        if (done === this.#key && !aborted(error)) {
          this.problem = error instanceof Refused ? error.message : String(error);
          this.fit = error instanceof Refused ? error.fit : [];
          this.info = null;
          this.staleness.arrive(true);
        }
      }
    }
    this.#running = false;
    this.busy = false;
  }
}

/** The trace of the page's state, shared by all views but Train. */
export const main = new Feed();
