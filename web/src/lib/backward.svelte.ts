/** The backward pass of the image on screen: the gradients of the loss, or of the score of a class. */
import { getBlocked, postBackward } from "./api";
import { aborted, Refused } from "./http";
import { Staleness } from "./staleness.svelte";
import type { BackwardInfo, BackwardRequest, TraceRequest } from "./types";

/** What is differentiated, as the address has it: loss, loss-1 (with this label), class-0. */
export type Of = Readonly<Pick<BackwardRequest, "of" | "index">>;

export function ofFrom(text: string): Of {
  const [, of, index] = /^(loss|class)(?:-(\d{1,7}))?$/.exec(text) ?? [];
  return { of: of === "class" ? "class" : "loss", index: index === undefined ? null : Number(index) };
}

export const ofText = ({ of = "loss", index = null }: Of): string => (index === null ? of : `${of}-${index}`);

export class BackwardFeed {
  info = $state.raw<BackwardInfo | null>(null);
  problem = $state<string | null>(null);
  /** The cells of a gradient at which an activation did not pass. */
  blocked = $state.raw<Readonly<{ trace: string; step: number; channel: number; cells: Float32Array }> | null>(null);
  readonly staleness = new Staleness();

  async want(forward: TraceRequest, of: Of, signal: AbortSignal): Promise<void> {
    this.staleness.expect();
    try {
      const info = await postBackward({ forward, ...of }, signal);
      if (signal.aborted) return;
      this.info = info;
      this.problem = null;
    } catch (error) {
      if (aborted(error) || signal.aborted) return;
      this.info = null;
      this.problem = error instanceof Refused ? error.message : String(error);
    }
    this.staleness.arrive(true);
  }

  /** Load the blocked cells of one channel, where the gradient has any. */
  async block(info: BackwardInfo, step: number, channel: number, signal: AbortSignal): Promise<void> {
    this.blocked = null;
    if (!info.blocked.includes(step)) return;
    try {
      const cells = (await getBlocked(info.trace.id, step, channel, signal)).data;
      if (!signal.aborted) this.blocked = { trace: info.trace.id, step, channel, cells };
    } catch (error) {
      if (!aborted(error) && !signal.aborted) this.problem = error instanceof Refused ? error.message : String(error);
    }
  }
}
