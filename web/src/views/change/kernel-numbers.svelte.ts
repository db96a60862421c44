/** The numbers of one kernel and of its bias: as the network uses them, as they were before the edits, and edited at once. */
import { getParameter } from "../../lib/api";
import { scaleOver } from "../../lib/colours";
import { edited, parameterOf, planeOf, weightOf, type Plane, type Weight } from "../../lib/edits";
import { Latest } from "../../lib/latest-request.svelte";
import type { Tensor } from "../../lib/pack";
import { here } from "../../lib/state.svelte";
import type { StepInfo, TraceInfo } from "../../lib/types";

/** What the numbers are of. `base` is the pass without edits; null while it is not known. */
type Of = Readonly<{ trace: TraceInfo; base: TraceInfo | null; step: StepInfo; kernel: number; input: number }>;

/** Numbers of the server; `key` says of which kernel. */
type Read = Readonly<{ key: string; plane: Float32Array | null; singles: ReadonlyMap<string, number> }>;

/** A parameter with one number per output channel: the bias, or one of a normalization. */
export type Single = Readonly<{ argument: string; name: string }>;

export class KernelNumbers {
  readonly #of: () => Of;
  readonly weight: Weight | null = $derived.by(() => weightOf(this.#of().step, this.#of().trace));
  /** The kernel, within those that there are. */
  readonly kernel = $derived.by(() =>
    this.weight === null ? this.#of().kernel : Math.min(this.#of().kernel, this.weight.kernels - 1),
  );
  readonly input = $derived.by(() => (this.weight === null ? 0 : Math.min(this.#of().input, this.weight.inputs - 1)));
  readonly plane: Plane | null = $derived.by(() =>
    this.weight === null ? null : planeOf(this.weight, this.kernel, this.input),
  );
  readonly singles: readonly Single[] = $derived.by(() => {
    const { step } = this.#of();
    return Object.entries(step.parameters).flatMap(([argument, name]) => {
      const shape = this.#shapeOf(name);
      return shape?.length === 1 && this.kernel < (shape[0] ?? 0)
        ? [{ argument: name === parameterOf(step, "bias") ? "bias" : argument, name }]
        : [];
    });
  });

  readonly #now = new Latest<Read>();
  readonly #former = new Latest<Read>();
  readonly #key = $derived.by(() => `${this.#of().step.name} ${this.kernel} ${this.plane?.lead.join() ?? ""}`);
  readonly #shown = $derived.by(() => (this.#now.value?.key === this.#key ? this.#now.value : null));
  readonly #original = $derived.by(() => (this.#former.value?.key === this.#key ? this.#former.value : null));

  /** Whether the numbers of this kernel have come. */
  readonly ready = $derived.by(() => this.#shown !== null);
  /** The kernel's numbers before the edits; null while they are not known. */
  readonly original = $derived.by(() => this.#original?.plane ?? null);
  /** The numbers to show: edits appear at once, the server's values a moment later. */
  readonly values: Float32Array | null = $derived.by(() => {
    const [plane, weight, shown] = [this.plane, this.weight, this.#shown?.plane ?? null];
    if (plane === null || weight === null || shown === null) return null;
    return edited(this.original ?? shown, here().edits, plane.parameter, weight.shape, plane.lead);
  });
  /** The largest size of a number, for the colours. */
  readonly limit = $derived.by(() => scaleOver([...(this.values ?? []), ...(this.original ?? [])]).limit);

  constructor(of: () => Of) {
    this.#of = of;
    // the numbers depend on the weights and the edits, but not on the painting
    const weights = $derived.by(() => {
      const { base, trace } = of();
      return JSON.stringify([base?.id ?? trace.id, trace.parameters.map((p) => p.changed), here().edits]);
    });
    $effect(() => {
      const { id } = of().trace;
      this.#now.want(`${weights} ${this.#key}`, () => this.#read(id));
    });
    $effect(() => {
      const id = of().base?.id ?? null;
      this.#former.want(id === null ? "" : `${id} ${this.#key}`, id === null ? null : () => this.#read(id));
    });
  }

  /** Why the numbers could not be read. */
  get problem(): string | null {
    return this.#now.problem;
  }

  /** Whether a number of the kernel is another one than before the edits. */
  moved(index: number): boolean {
    return this.original !== null && this.values !== null && this.values[index] !== this.original[index];
  }

  /** The number of a parameter with one per output channel; NaN while it is not known. */
  single(name: string): number {
    const known = this.formerSingle(name) ?? this.#shown?.singles.get(name) ?? NaN;
    return edited([known], here().edits, name, this.#shapeOf(name) ?? [], [this.kernel])[0] ?? NaN;
  }

  /** The same before the edits; null while it is not known. */
  formerSingle(name: string): number | null {
    return this.#original?.singles.get(name) ?? null;
  }

  #shapeOf(name: string): readonly number[] | undefined {
    return this.#of().trace.parameters.find((each) => each.name === name)?.shape;
  }

  async #read(id: string): Promise<Read> {
    const [weight, plane, singles, at, key] = [this.weight, this.plane, this.singles, this.kernel, this.#key];
    const [numbers, ...rest] = await Promise.all([
      weight === null || plane === null
        ? null
        : getParameter(id, weight.name, { first: plane.lead[0] ?? 0, count: 1 }).then((rows) => partOf(rows, plane)),
      ...singles.map(
        async ({ name }) => [name, (await getParameter(id, name, { first: at, count: 1 })).data[0] ?? NaN] as const,
      ),
    ]);
    return { key, plane: numbers as Float32Array | null, singles: new Map(rest as (readonly [string, number])[]) };
  }
}

/** A plane's numbers out of the part of its weight that has the first number of its index. */
function partOf(rows: Tensor, plane: Plane): Float32Array {
  const length = rows.shape.slice(plane.lead.length).reduce((a, b) => a * b, 1);
  const skip = plane.lead.length < 2 ? 0 : (plane.lead[1] ?? 0) * length;
  return rows.data.subarray(skip, skip + length);
}
