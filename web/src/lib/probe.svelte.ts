/** A question as the page follows it: asked, waited for, answered; asked again when the server has forgotten it. */
import { aborted, cancelProbe, followProbe, getProbeAnswer, getProbeFile, postProbe, Refused } from "./api";
import type { Fit, ProbeAnswer, ProbeInfo, ProbeRequest } from "./types";

const AGAIN = 500; // milliseconds until a stream that broke is opened again
const OVER: readonly ProbeInfo["state"][] = ["done", "stopped", "failed"];

export const isOver = (info: ProbeInfo): boolean => OVER.includes(info.state);

/** Follows one question at a time. */
export class Asked {
  info = $state.raw<ProbeInfo | null>(null);
  answer = $state.raw<ProbeAnswer | null>(null);
  /** The answer's picture, as the address of a blob. */
  picture = $state<string | null>(null);
  /** Why there is no answer. */
  problem = $state<string | null>(null);
  /** Where that is the image's size: how it can be made to fit. */
  fit = $state.raw<readonly Fit[]>([]);

  /** Ask, and follow until there is an answer or the signal says stop. */
  async ask(request: ProbeRequest, signal: AbortSignal): Promise<void> {
    this.info = this.answer = this.problem = null;
    this.fit = [];
    this.#show(null);
    while (!signal.aborted) {
      try {
        this.#take(await postProbe(request, signal), signal);
        if (this.info !== null && (await this.#followed(this.info, signal))) return;
      } catch (error) {
        if (aborted(error) || signal.aborted) return;
        if (error instanceof Refused && error.status !== 404) {
          this.problem = error.message;
          this.fit = error.fit;
          return;
        }
        if (error instanceof Refused && this.info === null) {
          this.problem = error.message; // what it is about is not there
          return;
        }
      }
      await new Promise((done) => setTimeout(done, AGAIN)); // the server is another one now, or has forgotten
    }
  }

  /** Nobody wants the answer any more. */
  async cancel(): Promise<void> {
    if (this.info === null) return;
    try {
      this.info = await cancelProbe(this.info.id);
    } catch (error) {
      this.problem = error instanceof Refused ? error.message : String(error);
    }
  }

  /** Nothing is asked. */
  clear(): void {
    this.info = this.answer = this.problem = null;
    this.fit = [];
    this.#show(null);
  }

  async #followed(asked: ProbeInfo, signal: AbortSignal): Promise<boolean> {
    let info = asked;
    if (!isOver(info)) {
      for await (const event of followProbe(info.id, signal)) {
        info = event;
        this.#take(event, signal);
      }
    }
    if (info.state === "done") {
      const answer = await getProbeAnswer(info.id, signal);
      const file = answer.picture ? await getProbeFile(info.id, "picture", signal) : null;
      if (signal.aborted) return true;
      this.#show(file);
      this.answer = answer;
    }
    if (info.state === "failed") this.problem = info.message;
    return isOver(info);
  }

  #take(info: ProbeInfo, signal: AbortSignal): void {
    if (!signal.aborted) this.info = info;
  }

  #show(file: Blob | null): void {
    if (this.picture !== null) URL.revokeObjectURL(this.picture);
    this.picture = file === null ? null : URL.createObjectURL(file);
  }
}
