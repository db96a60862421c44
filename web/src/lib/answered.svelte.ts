/**
 * The explanation of the selected number. A value, its calculation and its badge are one record with the address that
 * the server put on the answer, so that none of them can be shown for another cell, image or network.
 */
import {
  getContributions,
  getExplained,
  getField,
  getInput,
  getPaths,
  getProbability,
  getProof,
  getWalk,
  type Contributions,
} from "./api";
import { aborted, Refused } from "./http";
import { cellText } from "./format";
import { IMAGE, SOFTMAX, type Crumb } from "./state.svelte";
import { Staleness } from "./staleness.svelte";
import {
  real,
  type Address,
  type Cell,
  type Explained,
  type FieldInfo,
  type PathsInfo,
  type Proof,
  type TraceInfo,
  type WalkInfo,
} from "./types";

/** Which number is asked for: a cell of a step of a pass, or the difference of two classes. */
export type Place = Readonly<{ trace: TraceInfo; step: number; cell: Cell; minus?: number | null }>;

/** One answer: the number, its calculation, and what is known about it; null while its step is being recomputed. */
export type Answered = Readonly<{ place: Place; explained: Explained; proof: Proof | null }>;

export type Detail = Readonly<{ all: boolean; channel: number | null }>;

/** A text that identifies a place. */
export function keyOf({ trace, step, cell, minus = null }: Place): string {
  return `${trace.id} ${step} ${cell.join(".")}${minus === null ? "" : ` ${minus}`}`;
}

/** Whether an answer's address is this place; leading zeros of a cell may be left out. */
export function isAt(address: Address, { trace, step, cell }: Place): boolean {
  const extra = address.cell.length - cell.length;
  return (
    address.trace === trace.id &&
    address.step === (step === SOFTMAX ? null : step) &&
    extra >= 0 &&
    address.cell.every((n, axis) => n === (axis < extra ? 0 : cell[axis - extra]))
  );
}

/** An answer, if it is about this place. */
export function checked<T extends Readonly<{ of: Address }>>(answer: T, place: Place): T {
  if (!isAt(answer.of, place)) throw new Refused(502, "The server answered for another number; reload the page.");
  return answer;
}

/** A place in words, as it is written with its number: conv1 (0, 18, 9), fc (1) circle, or probability of circle. */
export function nameOf({ trace, step, cell }: Place): string {
  if (step === IMAGE) return `image ${cellText(cell)}`;
  const id = step === SOFTMAX ? trace.output : step;
  const name = trace.steps.find((each) => each.id === id)?.name ?? "";
  const index = cell.at(-1) ?? 0;
  const answer = id === trace.output ? trace.answers.find((each) => each.index === index)?.name : undefined;
  if (step === SOFTMAX) return `probability of ${answer ?? index}`;
  return answer === undefined ? `${name} ${cellText(cell)}` : `${name} ${cellText(cell)} ${answer}`;
}

/** Keeps what was answered for the newest place. The former stays, with its own place, until the next one arrives. */
class PlaceFeed<T extends Readonly<{ place: Place }>> {
  shown = $state.raw<T | null>(null);
  /** Why the newest request failed. */
  problem = $state<string | null>(null);
  /** Whether a request is under way. */
  busy = $state(false);
  readonly staleness = new Staleness();

  /** Ask for a place; `ask` may show a first, incomplete answer. */
  protected async want(
    place: Place,
    ask: (show: (answer: T) => void) => Promise<T>,
    signal: AbortSignal,
  ): Promise<void> {
    if (this.shown === null || keyOf(this.shown.place) !== keyOf(place)) this.staleness.expect();
    this.busy = true;
    const arrive = (answer: T | null, problem: string | null): void => {
      if (signal.aborted) return;
      this.shown = answer;
      this.problem = problem;
      this.staleness.arrive(true);
    };
    try {
      arrive(await ask((answer) => arrive(answer, null)), null);
    } catch (error) {
      if (!aborted(error)) arrive(null, error instanceof Refused ? error.message : String(error));
    }
    if (!signal.aborted) this.busy = false;
  }
}

/** The explanation of a number. */
export class AnswerFeed extends PlaceFeed<Answered> {
  async explain(place: Place, { all, channel }: Detail, signal: AbortSignal): Promise<void> {
    const { trace, step, cell } = place;
    await this.want(
      place,
      async (show) => {
        const explained = checked(
          step === SOFTMAX
            ? await getProbability(trace.id, cell.at(-1) ?? 0, signal)
            : await getExplained(trace.id, step, cell, { all, channel }, signal),
          place,
        );
        const proof = explained.proof === null ? null : checked(explained.proof, place);
        if (proof !== null || step === SOFTMAX) return { place, explained, proof };
        show({ place, explained, proof });
        return { place, explained, proof: checked(await getProof(trace.id, step, cell, signal), place) };
      },
      signal,
    );
  }
}

/** What each pixel adds to a number. */
export type Traced = Readonly<{ place: Place; contributions: Contributions }>;

export class ContributionFeed extends PlaceFeed<Traced> {
  async trace(place: Place, signal: AbortSignal): Promise<void> {
    await this.want(
      place,
      async () => {
        const contributions = await getContributions(place.trace.id, place.step, place.cell, signal);
        checked(contributions.info, place);
        return { place, contributions };
      },
      signal,
    );
  }
}

/** Why a class, or why rather this class than another: what the pixels add, and by which paths. */
export type Reason = Readonly<{
  place: Place;
  /** Of each pixel: what it adds, its slope, and its number; channel by channel. */
  pixels: Float32Array;
  slopes: Float32Array;
  input: Float32Array;
  value: number;
  constant: number;
  /** What is left over, and how much may be. */
  residual: number;
  bound: number;
  checks: boolean;
  /** The steps whose slopes are valid at this image only. */
  bent: readonly string[];
  broken: readonly string[];
  /** Null until they are known; a text where there are none. */
  paths: PathsInfo | string | null;
}>;

export class ReasonFeed extends PlaceFeed<Reason> {
  async reason(place: Place, signal: AbortSignal): Promise<void> {
    await this.want(
      place,
      async (show) => {
        const { trace, step, cell, minus = null } = place;
        const [one, other, input] = await Promise.all([
          getContributions(trace.id, step, cell, signal),
          minus === null ? null : getContributions(trace.id, step, [minus], signal),
          getInput(trace.id, signal),
        ]);
        checked(one.info, place);
        if (other !== null && minus !== null) checked(other.info, { trace, step, cell: [minus] });
        const less = (of: (from: Contributions) => number): number => of(one) - (other === null ? 0 : of(other));
        const apart = (a: Float32Array, b: Float32Array | undefined): Float32Array =>
          b === undefined ? a : a.map((v, i) => v - (b[i] ?? 0));
        const reason: Reason = {
          place,
          pixels: apart(one.pixels, other?.pixels),
          slopes: apart(one.weights, other?.weights),
          input: input.data,
          value: less(({ info }) => real(info.value)),
          constant: less(({ info }) => real(info.constant)),
          residual: less(({ info }) => real(info.residual)),
          bound: real(one.info.bound) + real(other?.info.bound ?? 0),
          checks: one.info.checks && (other?.info.checks ?? true),
          bent: [...new Set([...one.info.bent, ...(other?.info.bent ?? [])])],
          broken: one.info.broken,
          paths: null,
        };
        show(reason);
        return { ...reason, paths: await pathsOf(place, signal) };
      },
      signal,
    );
  }
}

/** The paths of a number; the server's sentence where it has none. */
async function pathsOf(place: Place, signal: AbortSignal): Promise<PathsInfo | string> {
  const { trace, step, cell, minus = null } = place;
  try {
    const paths = checked(await getPaths(trace.id, step, cell, minus, signal), place);
    if ("message" in paths) return paths.message;
    return paths.minus === minus ? paths : "The server answered for another difference.";
  } catch (error) {
    if (error instanceof Refused) return error.message;
    throw error;
  }
}

/** The pixels that a number can depend on. */
export class FieldFeed extends PlaceFeed<Readonly<{ place: Place; field: FieldInfo }>> {
  async frame(place: Place, signal: AbortSignal): Promise<void> {
    const { trace, step, cell } = place;
    await this.want(
      place,
      async () => ({ place, field: checked(await getField(trace.id, step, cell, signal), place) }),
      signal,
    );
  }
}

/** What a pixel adds along a walk, and along all walks, to the number at its start. */
export type Walked = Readonly<{
  place: Place;
  walk: readonly Crumb[];
  info: WalkInfo;
  pixel: Cell;
  all: number | null;
}>;

export class WalkFeed extends PlaceFeed<Walked> {
  /** Multiply along a walk that ends at a pixel; numbers at its start that do not read the next one are left out. */
  async follow(trace: TraceInfo, walk: readonly Crumb[], signal: AbortSignal): Promise<void> {
    const [whole, pixel] = [walk.filter(({ step }) => step !== SOFTMAX), walk.at(-1)?.cell ?? []];
    const ends = { trace, step: IMAGE, cell: pixel };
    await this.want(
      ends,
      async (show) => {
        const through = whole.map(({ step, cell }) => ({ step: step === IMAGE ? null : step, cell }));
        const info = await getWalk(trace.id, through, signal);
        const linked = whole.slice(info.first);
        const { step, cell } = linked[0] ?? ends;
        const place = { trace, step, cell };
        checked(info, place);
        show({ place: ends, walk: linked, info, pixel, all: null });
        const contributions = await getContributions(trace.id, place.step, place.cell, signal);
        checked(contributions.info, place);
        const [height, width] = contributions.info.shape.slice(-2) as [number, number];
        const [channel = 0, row = 0, column = 0] = pixel.slice(-3);
        const all = contributions.pixels[(channel * height + row) * width + column] ?? null;
        return { place: ends, walk: linked, info, pixel, all };
      },
      signal,
    );
  }
}
