/** The client side of a training: its progress, its metrics, and the steps whose weights were kept. */
import { commandTraining, followTraining } from "./api";
import { aborted, Refused } from "./http";
import { refresh } from "./session.svelte";
import type { Point } from "./curves";
import type { TrainCommand, TrainingEvent, TrainingInfo } from "./types";

const AGAIN = 500; // milliseconds before reopening a broken stream

export const OVER: readonly TrainingInfo["state"][] = ["done", "stopped", "failed"];

/** Follows one training at a time, and reconnects after the server was unreachable. */
export class Followed {
  info = $state.raw<TrainingInfo | null>(null);
  points = $state.raw<readonly Point[]>([]);
  history = $state.raw<readonly number[]>([]);
  problem = $state<string | null>(null);

  /** Follow a training until it ends or the signal aborts. */
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
    // the session has a new model, or new weights of one
    if ((!started && this.history.length > 0) || (before !== event.info.state && OVER.includes(event.info.state)))
      void refresh();
  }

  /**
   * Send a command to the training, and show the error if it is refused. What the command changes arrives as an event,
   * often before this response, which holds the state from before the command.
   */
  async say(command: TrainCommand["command"]): Promise<void> {
    if (this.info === null) return;
    try {
      await commandTraining(this.info.id, command);
      this.problem = null;
    } catch (error) {
      this.problem = error instanceof Refused ? error.message : String(error);
    }
  }
}
