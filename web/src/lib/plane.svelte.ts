/** The plane of numbers in the large viewer: one channel of a step or of the image, shown until the next one arrives. */
import { getInput, getOutput } from "./api";
import { aborted, Refused } from "./http";
import { colour, grey, mixed, scaleOf, type ColourMap, type Scale } from "./colours";
import { layout, type Layout } from "./planes";
import { fromBase64, type Tensor } from "./pack";
import { Staleness } from "./staleness.svelte";
import { IMAGE } from "./state.svelte";
import { real, type StepInfo, type TraceInfo } from "./types";

/** A channel's numbers with everything needed to draw them. */
export type Shown = Readonly<{
  trace: string;
  step: number;
  channel: number;
  layout: Layout;
  values: Float32Array;
  scale: Scale;
  /** The magnitude that 99 % of the step's numbers do not exceed. */
  typical: number;
  /** Whether these are pixels, drawn in grey or in their own colours. */
  pixels: boolean;
  colours: (map: ColourMap, limit?: number) => (index: number) => number;
}>;

const KEPT = 24;

/** Loads the requested plane, with a cache of recent ones. */
export class PlaneFeed {
  shown = $state.raw<Shown | null>(null);
  problem = $state<string | null>(null);
  readonly staleness = new Staleness();

  #abort = new AbortController();
  #kept = new Map<string, Shown>();

  /** Show this channel from now on. */
  async want(trace: TraceInfo, step: StepInfo | null, channel: number): Promise<void> {
    this.#abort.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    const key = `${trace.id} ${step?.id ?? IMAGE} ${channel}`;
    const kept = this.#kept.get(key);
    if (kept !== undefined) return this.#arrive(kept, null);
    this.staleness.expect();
    try {
      const loaded = step === null ? await image(trace, channel, signal) : await output(trace, step, channel, signal);
      if (signal.aborted) return;
      this.#kept.set(key, loaded);
      if (this.#kept.size > KEPT) this.#kept.delete(this.#kept.keys().next().value as string);
      this.#arrive(loaded, null);
    } catch (error) {
      if (aborted(error) || signal.aborted) return;
      this.#arrive(null, error instanceof Refused ? error.message : String(error));
    }
  }

  #arrive(shown: Shown | null, problem: string | null): void {
    this.shown = shown;
    this.problem = problem;
    this.staleness.arrive(true);
  }
}

async function output(trace: TraceInfo, step: StepInfo, channel: number, signal: AbortSignal): Promise<Shown> {
  const at = layout(step.shape);
  const one = at.lead.length === 1;
  const tensor = await getOutput(trace.id, step.id, one ? channel : null, signal);
  const values = one ? tensor.data : part(tensor, channel, at.length);
  const scale = scaleOf(tensor.low, tensor.high);
  const colours =
    (map: ColourMap, limit = scale.limit) =>
    (i: number) =>
      colour(map, values[i] ?? NaN, limit);
  const { typical } = tensor;
  return { trace: trace.id, step: step.id, channel, layout: at, values, scale, typical, pixels: false, colours };
}

function part(tensor: Tensor, channel: number, length: number): Float32Array {
  return tensor.data.subarray(channel * length, (channel + 1) * length);
}

async function image(trace: TraceInfo, channel: number, signal: AbortSignal): Promise<Shown> {
  const tensor = await getInput(trace.id, signal);
  const at = layout([1, ...tensor.shape]);
  const values = part(tensor, channel, at.length);
  const [low, high] = [real(trace.input.low), real(trace.input.high)];
  const [channels, height, width] = trace.input.picture_shape;
  const picture = fromBase64(trace.input.picture);
  const whole = trace.input.form === "picture" && height === at.height && width === at.width;
  const level = (i: number): number => (picture[i] ?? 0) / 255;
  const colours = (map: ColourMap) => (i: number) => {
    if (!whole) return grey(map, ((values[i] ?? NaN) - low) / (high - low || 1));
    const area = height * width;
    return channels === 3 ? mixed(level(i), level(i + area), level(i + 2 * area)) : mixed(level(i), level(i), level(i));
  };
  const scale: Scale = { low, high, limit: Math.max(Math.abs(low), Math.abs(high)) || 1 };
  return {
    trace: trace.id,
    step: IMAGE,
    channel,
    layout: at,
    values,
    scale,
    typical: scale.limit,
    pixels: true,
    colours,
  };
}
