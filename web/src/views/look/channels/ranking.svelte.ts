/** How much each channel of a step adds to the score of a class: known from a backward pass, which the server records. */
import { getChannels, postBackward } from "../../../lib/api";
import { Latest } from "../../../lib/latest-request.svelte";
import type { StepInfo, TraceInfo, TraceRequest } from "../../../lib/types";
import { ranked, type Ranked } from "./order";

export class Ranking {
  readonly #latest = new Latest<Ranked>();
  #key = $state("");

  /** Rank the channels of this step of this pass from now on; null: none. `request` is what the pass was made from. */
  want(trace: TraceInfo, request: TraceRequest, step: StepInfo | null, of: number): void {
    const key = step === null ? "" : `${trace.id} ${step.id} ${of}`;
    this.#key = key;
    if (step === null) return this.#latest.want("", null);
    this.#latest.want(key, async () => {
      const { trace: backward } = await postBackward({ forward: request, of: "class", index: of });
      const names = [`${step.name}.grad`, `${step.name}.grad#sum`];
      const gradient = backward.steps.find(({ name }) => names.includes(name));
      const added = gradient === undefined ? [] : (await getChannels(backward.id, gradient.id)).data;
      return ranked(key, Float32Array.from(added));
    });
  }

  /** The ranking that is wanted; null while it is not known, or if the step passes nothing on to the answer. */
  get shown(): Ranked | null {
    const { value } = this.#latest;
    return value?.key === this.#key && value.order.length > 0 ? value : null;
  }

  get problem(): string | null {
    return this.#latest.problem;
  }

  get busy(): boolean {
    return this.#key !== "" && this.problem === null && this.#latest.value?.key !== this.#key;
  }
}
