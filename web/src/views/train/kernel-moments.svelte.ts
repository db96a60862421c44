/** A kernel at a dozen moments of its training, from the first to the last. */
import { getMoments, type Moments } from "../../lib/api";
import type { Weight } from "../../lib/edits";
import { Latest } from "../../lib/latest-request.svelte";

const DOZEN = 12;

/** `model` is the run or the training; null if there is none. */
type Of = Readonly<{ model: string | null; weight: Weight | null; kernel: number; history: readonly number[] }>;

/** Evenly spaced steps of a history. */
export function dozenOf(history: readonly number[]): number[] {
  const places = Array.from({ length: DOZEN }, (_, i) => Math.round((i * (history.length - 1)) / (DOZEN - 1)));
  return [...new Set(places)].map((place) => history[place] ?? 0);
}

export class KernelMoments {
  readonly #latest = new Latest<Moments>();

  constructor(of: () => Of) {
    $effect(() => {
      const { model, weight, kernel, history } = of();
      const kept = weight !== null && !weight.transposed && history.length > 1 && kernel < weight.kernels;
      if (model === null || !kept) return this.#latest.want("", null);
      const steps = dozenOf(history);
      this.#latest.want(`${model} ${weight.name} ${kernel} ${steps.join()}`, () =>
        getMoments(model, weight.name, kernel, steps),
      );
    });
  }

  /** The kernels; null while they are not known, or if the layer has none. */
  get shown(): Moments | null {
    return this.#latest.value;
  }
}
