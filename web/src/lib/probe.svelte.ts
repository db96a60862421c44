/** The client side of a probe: start it, follow its progress, load its answer; repeat it if the server has lost it. */
import { cancelProbe, followProbe, getProbeAnswer, getProbeFile, postProbe } from "./api";
import { aborted, Refused } from "./http";
import type { Fit, ProbeAnswer, ProbeInfo, ProbeRequest } from "./types";

const AGAIN = 500; // milliseconds before reopening a broken stream
const OVER: readonly ProbeInfo["state"][] = ["done", "stopped", "failed"];

export const isOver = (info: ProbeInfo): boolean => OVER.includes(info.state);

/** Follows one probe at a time. */
export class Asked {
  info = $state.raw<ProbeInfo | null>(null);
  answer = $state.raw<ProbeAnswer | null>(null);
  /** Blob URL of the answer's picture. */
  picture = $state<string | null>(null);
  /** Why the probe failed. */
  problem = $state<string | null>(null);
  /** Ways to fit the image, if it failed because of the image's size. */
  fit = $state.raw<readonly Fit[]>([]);

  /** Start a probe and follow it until it is answered or the signal aborts. */
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
          this.problem = error.message; // the model or data that it names does not exist
          return;
        }
      }
      await new Promise((done) => setTimeout(done, AGAIN)); // the server was restarted, or has evicted the probe
    }
  }

  /** Cancel the probe. */
  async cancel(): Promise<void> {
    if (this.info === null) return;
    try {
      this.info = await cancelProbe(this.info.id);
    } catch (error) {
      this.problem = error instanceof Refused ? error.message : String(error);
    }
  }

  /** Forget the probe and its answer. */
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
