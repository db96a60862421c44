/** One step of a training as numbers: which weights of a kernel are shown, and what the update makes of them. */
import type { ParameterUpdate } from "./types";

/** Kernels of up to this many weights are shown whole; of others, the weights with the largest gradients. */
export const WHOLE = 25;
const LARGEST = 9;

/** One parameter's numbers in a step, in row-major order. */
export type UpdateNumbers = Readonly<{
  before: Float32Array;
  gradient: Float32Array;
  direction: Float32Array;
  after: Float32Array;
}>;

/** One kernel, of one input channel: its weights as positions in the parameter, in rows. */
export type KernelCells = Readonly<{ kernel: number; columns: number; whole: boolean; positions: readonly number[] }>;

const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);

/** Number of kernels, and of input channels of each; a bias is one kernel. */
export function sizeOf({ shape }: Pick<ParameterUpdate, "shape">): Readonly<{ kernels: number; inputs: number }> {
  if (shape.length < 2) return { kernels: 1, inputs: 1 };
  return { kernels: shape[0] ?? 1, inputs: shape.length > 2 ? (shape[1] ?? 1) : 1 };
}

/** The weights of a kernel that are shown. */
export function cellsOf(
  update: Pick<ParameterUpdate, "shape">,
  kernel: number,
  input: number,
  gradient: Float32Array,
): KernelCells {
  const { shape } = update;
  const { inputs } = sizeOf(update);
  const area = shape.length < 2 ? product(shape) : product(shape.slice(1)) / inputs;
  const start = shape.length < 2 ? 0 : (kernel * inputs + input) * area;
  const all = Array.from({ length: area }, (_, i) => start + i);
  if (area <= WHOLE) {
    const columns = shape.length > 2 ? (shape.at(-1) ?? 1) : Math.min(area, 5);
    return { kernel, columns, whole: true, positions: all };
  }
  const size = (at: number): number => Math.abs(gradient[at] ?? 0);
  const largest = [...all].sort((a, b) => size(b) - size(a) || a - b).slice(0, LARGEST);
  return { kernel, columns: 3, whole: false, positions: largest };
}

/** The input channel in which a kernel has the largest gradient. */
export function strongestInput(update: Pick<ParameterUpdate, "shape">, gradient: Float32Array): number {
  const { kernels, inputs } = sizeOf(update);
  const area = gradient.length / (kernels * inputs);
  let [best, most] = [0, -1];
  gradient.forEach((value, at) => {
    if (Math.abs(value) > most) [best, most] = [Math.floor(at / area) % inputs, Math.abs(value)];
  });
  return best;
}

/** The full index of a position. */
export function indexOf(shape: readonly number[], position: number): number[] {
  const index: number[] = [];
  for (const size of [...shape].reverse()) {
    index.unshift(position % size);
    position = Math.floor(position / size);
  }
  return index;
}

/** A weight after the update with `times` the learning rate; with its own, the recorded one. */
export function updated(numbers: UpdateNumbers, position: number, rate: number, times: number): number {
  if (times === 1) return numbers.after[position] ?? NaN;
  return (numbers.before[position] ?? NaN) - times * rate * (numbers.direction[position] ?? NaN);
}

/** Decimals that show the largest change of a parameter with two digits: four to seven, as in `cs.plot.training_step`. */
export function decimalsFor(change: number): number {
  if (!(change > 0 && Number.isFinite(change))) return 4;
  return Math.min(Math.max(4, 1 - Math.floor(Math.log10(change))), 7);
}

/** A learning rate at a slider's position: powers of ten of the own one, which is at 0. */
export const timesAt = (position: number): number => (position === 0 ? 1 : Number((10 ** position).toPrecision(3)));
