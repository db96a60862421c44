/** Small pictures of the steps that are on screen: asked for together, and only those. */
import { SvelteMap } from "svelte/reactivity";
import { getThumbnails } from "./api";
import type { Picture } from "./pack";

const MOST = 24; // steps of one request

/** The small pictures of one trace after another; the former stay until the next are there. */
export class Thumbnails {
  readonly pictures = new SvelteMap<number, Picture>();

  #trace: string | null = null;
  #visible = new Set<number>();
  #asked = new Set<number>();
  #waiting = false;
  #running = false;
  #models = 0;

  /** Show this trace from now on. What is under way for the former one is still shown: it is newer than what is there. */
  follow(trace: string | null, sameModel: boolean): void {
    if (trace === this.#trace) return;
    this.#trace = trace;
    this.#asked.clear();
    if (!sameModel) {
      this.pictures.clear();
      this.#models += 1;
    }
    if (!this.#running) void this.#run();
  }

  /** Say whether a step is on screen; what several say at once is asked for together. */
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

  /** One request at a time, each for what is wanted then. */
  async #run(): Promise<void> {
    this.#running = true;
    for (let failed = false; !failed;) {
      const trace = this.#trace;
      const steps = [...this.#visible].filter((step) => !this.#asked.has(step)).slice(0, MOST);
      if (trace === null || steps.length === 0) break;
      for (const step of steps) this.#asked.add(step);
      const model = this.#models;
      try {
        const found = await getThumbnails(trace, steps);
        if (model === this.#models) for (const picture of found) this.pictures.set(picture.id, picture);
      } catch {
        failed = trace === this.#trace;
        if (failed) for (const step of steps) this.#asked.delete(step); // asked again when it comes into view
      }
    }
    this.#running = false;
  }
}
