/** Small pictures of the steps that are on screen: asked for together, and only those. */
import { SvelteMap } from "svelte/reactivity";
import { aborted, getThumbnails } from "./api";
import type { Picture } from "./pack";

const MOST = 24; // steps of one request

/** The small pictures of one trace after another; the former stay until the next are there. */
export class Thumbnails {
  readonly pictures = new SvelteMap<number, Picture>();

  #trace: string | null = null;
  #visible = new Set<number>();
  #asked = new Set<number>();
  #abort = new AbortController();
  #waiting = false;

  /** Show this trace from now on. */
  follow(trace: string | null, sameModel: boolean): void {
    if (trace === this.#trace) return;
    this.#trace = trace;
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#asked.clear();
    if (!sameModel) this.pictures.clear();
    this.#later();
  }

  /** Say whether a step is on screen. */
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
      void this.#ask();
    });
  }

  async #ask(): Promise<void> {
    const trace = this.#trace;
    const steps = [...this.#visible].filter((step) => !this.#asked.has(step));
    if (trace === null || steps.length === 0) return;
    for (const step of steps) this.#asked.add(step);
    const { signal } = this.#abort;
    for (let i = 0; i < steps.length; i += MOST) {
      try {
        const found = await getThumbnails(trace, steps.slice(i, i + MOST), {}, signal);
        if (signal.aborted) return;
        for (const picture of found) this.pictures.set(picture.id, picture);
      } catch (error) {
        if (aborted(error)) return;
        for (const step of steps.slice(i)) this.#asked.delete(step); // asked again when it comes into view
        return;
      }
    }
  }
}
