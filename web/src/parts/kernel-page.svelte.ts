/** The kernels of a layer that are on a page: which, their numbers, their biases, and the scale of their colours. */
import { getParameter } from "../lib/api";
import { scaleOf } from "../lib/colours";
import { parameterOf, planeOf, weightOf, type Weight } from "../lib/edits";
import { Latest } from "../lib/latest-request.svelte";
import type { StepInfo, TraceInfo } from "../lib/types";

/** Kernels, and input channels of each, that a page shows at most. */
export const ROWS = 16;
export const COLUMNS = 16;

type Read = Readonly<{
  name: string;
  first: number;
  data: Float32Array;
  low: number;
  high: number;
  bias: Float32Array | null;
}>;

/** `most` is the number of kernels per page; `range` is that of the colours, where it is wider than the layer's own. */
type Of = Readonly<{
  trace: TraceInfo;
  step: StepInfo;
  chosen: number;
  most: number;
  range: Readonly<{ low: number; high: number }> | null;
}>;

/** How many numbers the kernel of one input channel has. */
export const areaOf = (weight: Weight): number =>
  weight.shape.slice(weight.shape.length === 2 ? 1 : 2).reduce((a, b) => a * b, 1);

const sumOf = (numbers: Iterable<number>): number => [...numbers].reduce((a, b) => a + b, 0);

export class KernelPage {
  readonly #of: () => Of;
  readonly #latest = new Latest<Read>();
  readonly weight: Weight | null = $derived.by(() => weightOf(this.#of().step, this.#of().trace));
  /** The first kernel and the first input channel of the page. */
  first = $state(0);
  left = $state(0);
  readonly kernels = $derived.by(() => counted(this.first, this.#of().most, this.weight?.kernels ?? 0));
  readonly inputs = $derived.by(() => counted(this.left, COLUMNS, this.weight?.inputs ?? 0));

  readonly #read = $derived.by(() => {
    const read = this.#latest.value;
    return read !== null && read.name === this.weight?.name && read.first === this.first ? read : null;
  });
  /** Whether the numbers of this page have come. */
  readonly ready = $derived.by(() => this.#read !== null);
  readonly biased = $derived.by(() => this.#read?.bias != null);
  readonly scale = $derived.by(() => {
    const { range } = this.#of();
    return scaleOf(
      Math.min(this.#read?.low ?? 0, range?.low ?? Infinity),
      Math.max(this.#read?.high ?? 0, range?.high ?? -Infinity),
    );
  });

  constructor(of: () => Of) {
    this.#of = of;
    $effect(() => {
      void this.weight?.name;
      this.first = Math.floor(of().chosen / of().most) * of().most;
      this.left = 0;
    });
    $effect(() => {
      const [{ trace, step, most }, weight, first] = [of(), this.weight, this.first];
      if (weight === null) return this.#latest.want("", null);
      this.#latest.want(`${trace.id} ${weight.name} ${first} ${most}`, () => read(trace, step, weight, first, most));
    });
  }

  /** Why the numbers could not be read. */
  get problem(): string | null {
    return this.#latest.problem;
  }

  /** The numbers of a kernel for one of its input channels. */
  values(kernel: number, input: number): Float32Array {
    const [weight, numbers] = [this.weight, this.#read];
    if (numbers === null || weight === null) return new Float32Array();
    const [row = 0, column = 0] = planeOf(weight, kernel, input).lead;
    const across = weight.shape.length === 2 ? 1 : (weight.shape[1] ?? 1);
    const at = (row - (weight.transposed ? 0 : this.first)) * across + column;
    return numbers.data.subarray(at * areaOf(weight), (at + 1) * areaOf(weight));
  }

  /** The sum of these, or of all numbers of a kernel. */
  sum(kernel: number, input: number | null = null): number {
    if (input !== null) return sumOf(this.values(kernel, input));
    return sumOf(Array.from({ length: this.weight?.inputs ?? 0 }, (_, each) => this.sum(kernel, each)));
  }

  bias(kernel: number): number {
    return this.#read?.bias?.[kernel - this.first] ?? NaN;
  }
}

/** Up to `most` numbers from `first` on, below `end`. */
const counted = (first: number, most: number, end: number): number[] =>
  Array.from({ length: Math.max(0, Math.min(most, end - first)) }, (_, i) => first + i);

async function read(trace: TraceInfo, step: StepInfo, weight: Weight, first: number, count: number): Promise<Read> {
  const bias = parameterOf(step, "bias");
  const [kernels, biases] = await Promise.all([
    getParameter(trace.id, weight.name, weight.transposed ? null : { first, count }),
    bias === undefined ? null : getParameter(trace.id, bias, { first, count }),
  ]);
  const { data, low, high } = kernels;
  return { name: weight.name, first, data, low, high, bias: biases?.data ?? null };
}
