/** A training as the page follows it: where it is, its curves, and the steps whose weights were kept. */
import { aborted, commandTraining, followTraining, Refused } from "./api";
import { refresh } from "./session.svelte";
import type { Point } from "./curves";
import type { TrainCommand, TrainingEvent, TrainingInfo } from "./types";

const AGAIN = 500; // milliseconds until a stream that broke is opened again

export const OVER: readonly TrainingInfo["state"][] = ["done", "stopped", "failed"];

/** Follows one training at a time, also after the server was gone. */
export class Followed {
  info = $state.raw<TrainingInfo | null>(null);
  points = $state.raw<readonly Point[]>([]);
  history = $state.raw<readonly number[]>([]);
  problem = $state<string | null>(null);

  /** Follow this training until the signal says stop. */
  async follow(id: string, signal: AbortSignal): Promise<void> {
    this.info = null;
    this.points = this.history = [];
    this.problem = null;
    const ended = (): boolean => this.info !== null && OVER.includes(this.info.state);
    while (!signal.aborted && !ended()) {
      try {
        let first = true;
        for await (const event of followTraining(id, signal)) {
          if (signal.aborted) return;
          this.#take(event, first);
          first = false;
        }
      } catch (error) {
        if (aborted(error) || signal.aborted) return;
        if (error instanceof Refused) {
          this.problem = error.message;
          return;
        }
      }
      if (!ended()) await new Promise((done) => setTimeout(done, AGAIN));
    }
  }

  #take(event: TrainingEvent, first: boolean): void {
    const [before, started] = [this.info?.state, this.history.length > 0];
    this.points = first ? event.points : event.points.length > 0 ? [...this.points, ...event.points] : this.points;
    this.history = first
      ? event.history
      : event.history.length > 0
        ? [...this.history, ...event.history]
        : this.history;
    this.info = event.info;
    // the gallery has a new model, or knows more of it
    if ((!started && this.history.length > 0) || (before !== event.info.state && OVER.includes(event.info.state)))
      void refresh();
  }

  /** Say a word to it; what it answers is shown, also a refusal. */
  async say(command: TrainCommand["command"]): Promise<void> {
    if (this.info === null) return;
    try {
      const info = await commandTraining(this.info.id, command);
      if (!OVER.includes(this.info.state)) this.info = info;
      this.problem = null;
    } catch (error) {
      this.problem = error instanceof Refused ? error.message : String(error);
    }
  }
}
