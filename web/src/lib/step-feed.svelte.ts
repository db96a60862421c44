/** Loads one step of a training, the numbers of one of its parameters, and what another learning rate would do. */
import { getDirection, getOutput, getParameter, getStepEffect, postTrainingStep } from "./api";
import { aborted, Refused } from "./http";
import type { UpdateNumbers } from "./training-step";
import { Staleness } from "./staleness.svelte";
import { real, type ParameterUpdate, type TrainingStepInfo } from "./types";

const PAUSE = 150; // milliseconds without another choice after which a step is repeated

const wait = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((done, fail) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), fail(signal.reason)), { once: true });
  });

/** A step with its model and number, so that none is shown for another. */
export type Recorded = Readonly<{ model: string; step: number; info: TrainingStepInfo }>;

export type Loaded = Readonly<{ trace: string; update: ParameterUpdate; numbers: UpdateNumbers }>;

export class StepFeed {
  recorded = $state.raw<Recorded | null>(null);
  loaded = $state.raw<Loaded | null>(null);
  /** The loss after the same update with `times` its learning rate. */
  effect = $state.raw<Readonly<{ trace: string; times: number; after: number }> | null>(null);
  problem = $state<string | null>(null);
  readonly staleness = new Staleness();

  #fail(error: unknown, signal: AbortSignal): void {
    if (aborted(error) || signal.aborted) return;
    this.problem = error instanceof Refused ? error.message : String(error);
  }

  /** Record a step, once nothing else has been chosen for a moment. */
  async record(model: string, step: number, signal: AbortSignal): Promise<void> {
    if (this.recorded?.model === model && this.recorded.step === step) return;
    this.staleness.expect();
    try {
      if (this.recorded !== null) await wait(PAUSE, signal);
      const info = await postTrainingStep(model, step, signal);
      if (signal.aborted) return;
      this.recorded = { model, step, info };
      this.problem = null;
    } catch (error) {
      this.#fail(error, signal);
      if (!signal.aborted && !aborted(error)) this.recorded = null;
    }
    if (!signal.aborted) this.staleness.arrive(true);
  }

  /** Load a parameter before and after, its gradient, and the direction in which the optimizer moved it. */
  async load(info: TrainingStepInfo, update: ParameterUpdate, signal: AbortSignal): Promise<void> {
    const { id } = info.trace;
    try {
      const [before, gradient, direction, after] = await Promise.all([
        getParameter(id, update.name, null, signal),
        getOutput(id, update.gradient, null, signal),
        getDirection(id, update.name, signal),
        getOutput(id, update.updated, null, signal),
      ]);
      if (signal.aborted) return;
      const numbers = { before: before.data, gradient: gradient.data, direction: direction.data, after: after.data };
      this.loaded = { trace: id, update, numbers };
    } catch (error) {
      this.#fail(error, signal);
    }
  }

  /** Ask for the loss after an update with another learning rate. */
  async weigh(info: TrainingStepInfo, times: number, signal: AbortSignal): Promise<void> {
    const { id } = info.trace;
    try {
      await wait(PAUSE, signal);
      const { after } = await getStepEffect(id, times, signal);
      if (!signal.aborted) this.effect = { trace: id, times, after: real(after) };
    } catch (error) {
      this.#fail(error, signal);
    }
  }
}
