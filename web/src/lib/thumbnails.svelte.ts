/** Thumbnails of the steps that are on screen, requested together. */
import { SvelteMap } from "svelte/reactivity";
import { getThumbnails } from "./api";
import type { Picture } from "./pack";
import { Staleness } from "./staleness.svelte";

const MOST = 24; // maximum steps per request

/** The thumbnails of the current trace; those of the previous one stay until they are replaced. */
export class Thumbnails {
  readonly pictures = new SvelteMap<number, Picture>();
  readonly staleness = new Staleness();

  #trace: string | null = null;
  #visible = new Set<number>();
  #asked = new Set<number>();
  #waiting = false;
  #running = false;
  #models = 0;

  /** Show this trace from now on. Pending thumbnails of the previous one are still shown, as they are newer. */
  follow(trace: string | null, sameModel: boolean): void {
    if (trace === this.#trace) return;
    this.#trace = trace;
    this.#asked.clear();
    if (trace !== null && this.pictures.size > 0) this.staleness.expect();
    if (!sameModel) {
      this.pictures.clear();
      this.#models += 1;
    }
    if (!this.#running) void this.#run();
  }

  /** Report whether a step is on screen; simultaneous reports lead to a single request. */
  see(step: number, visible: boolean): void {
    if (visible) this.#visible.add(step);
    else this.#visible.delete(step);
    if (visible && !this.#asked.has(step)) this.#later();
  }

  #later(): void {
    if (this.#waiting) return;
    this.#waiting = true;
    queueMicrotask(() => {
      this.#waiting = false;
      if (!this.#running) void this.#run();
    });
  }

  /** Send one request at a time, each for the steps that are visible then. */
  async #run(): Promise<void> {
    this.#running = true;
    for (let failed = false; !failed;) {
      const trace = this.#trace;
      const steps = [...this.#visible].filter((step) => !this.#asked.has(step)).slice(0, MOST);
      if (trace === null || steps.length === 0) break;
      for (const step of steps) this.#asked.add(step);
      const model = this.#models;
      try {
        const pictures = await getThumbnails(trace, steps);
        if (model === this.#models) for (const picture of pictures) this.pictures.set(picture.id, picture);
        this.staleness.arrive(trace === this.#trace);
      } catch {
        failed = trace === this.#trace;
        if (failed) for (const step of steps) this.#asked.delete(step); // requested again when they come into view
      }
    }
    this.#running = false;
  }
}
