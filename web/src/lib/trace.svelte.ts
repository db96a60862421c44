/**
 * Traces as the page follows them. While a slider moves, one request is under way and only the newest one waits; what
 * is on screen stays until the next answer is there.
 */
import { aborted, postTrace, Refused } from "./api";
import type { Fit, TraceInfo, TraceRequest } from "./types";

/** One trace that follows what is wanted. */
export class Feed {
  info = $state.raw<TraceInfo | null>(null);
  /** Why the newest request has no trace. */
  problem = $state<string | null>(null);
  /** Where that is the image's size: how it can be made to fit. */
  fit = $state.raw<readonly Fit[]>([]);
  busy = $state(false);

  #wanted: TraceRequest | null = null;
  #key = "";
  #running = false;

  /** Follow this request from now on. */
  want(request: TraceRequest | null): void {
    const key = request === null ? "" : JSON.stringify(request);
    if (key === this.#key) return;
    if (request === null || this.#wanted?.model !== request.model) this.info = null;
    this.#key = key;
    this.#wanted = request;
    if (!this.#running) void this.#run();
  }

  async #run(): Promise<void> {
    this.#running = true;
    this.busy = true;
    for (let done = ""; done !== this.#key;) {
      done = this.#key;
      if (this.#wanted === null) continue;
      try {
        const info = await postTrace(this.#wanted);
        if (info.model === this.#wanted?.model) this.info = info;
        if (done === this.#key) this.problem = null;
      } catch (error) {
        if (done === this.#key && !aborted(error)) {
          this.problem = error instanceof Refused ? error.message : String(error);
          this.fit = error instanceof Refused ? error.fit : [];
          this.info = null;
        }
      }
    }
    this.#running = false;
    this.busy = false;
  }
}

/** The trace of the page's state: Look and Change show the same one. */
export const main = new Feed();
