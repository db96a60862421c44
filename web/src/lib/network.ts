/**
 * The network as the strip shows it: steps, folded by module, and which card reads which. Knows no DOM and no server.
 */
import { IMAGE, type State } from "./state.svelte";
import type { InputInfo, ModelInfo, StepInfo, TraceInfo } from "./types";

/** One step, or several of one module that are folded or unfolded. */
export type Node =
  | (Named & Readonly<{ kind: "step"; step: StepInfo }>)
  | (Named & Readonly<{ kind: "folded"; path: string; type: string; steps: readonly StepInfo[] }>)
  | (Named & Readonly<{ kind: "open"; path: string; type: string; nodes: readonly Node[] }>);

/** A key of its own, and what it is called inside of the modules that are drawn around it. */
type Named = Readonly<{ key: string; label: string }>;

/** A card of the strip: what it stands for, and what it shows. */
export type Card = Readonly<{ key: string; steps: readonly StepInfo[]; shown: StepInfo }>;

/** One card reads another: by position, −1 is the image. */
export type Edge = Readonly<{ from: number; to: number }>;

const SMALL = 26; // networks up to so many steps are never folded

/** The shape of a step's output without the batch axis. */
export function bare(shape: readonly number[]): readonly number[] {
  return shape.length > 1 && shape[0] === 1 ? shape.slice(1) : shape;
}

function below(path: string, parent: string): string | null {
  if (parent !== "" && !path.startsWith(`${parent}.`)) return null;
  const rest = parent === "" ? path : path.slice(parent.length + 1);
  const child = rest.split(".")[0];
  if (child === undefined || child === "") return null;
  return parent === "" ? child : `${parent}.${child}`;
}

type Run = Readonly<{ path: string | null; steps: StepInfo[] }>;

/** Neighbouring steps of the same child module of `parent`. */
function runs(steps: readonly StepInfo[], parent: string): Run[] {
  const found: Run[] = [];
  for (const step of steps) {
    const path = below(step.module, parent);
    const last = found.at(-1);
    if (path !== null && last !== undefined && last.path === path) last.steps.push(step);
    else found.push({ path, steps: [step] });
  }
  return found;
}

/** Which modules are unfolded before anybody touched one: those that are mere wrappers, holding most of the network. */
export function unfolded(steps: readonly StepInfo[]): ReadonlySet<string> {
  const open = new Set<string>();
  if (steps.length <= SMALL) {
    for (const step of steps) {
      const parts = step.module.split(".");
      parts.forEach((_, i) => open.add(parts.slice(0, i + 1).join(".")));
    }
    return open;
  }
  let inside: readonly StepInfo[] = steps;
  for (let parent = ""; ;) {
    const wrapper = runs(inside, parent).find((run) => run.steps.length > steps.length / 2);
    if (wrapper === undefined || wrapper.path === null) return open;
    open.add(wrapper.path);
    [parent, inside] = [wrapper.path, wrapper.steps];
  }
}

/** A name as it is read inside of a module that is drawn around it. */
function inner(name: string, around: string): string {
  return around !== "" && name.startsWith(`${around}.`) ? name.slice(around.length + 1) : name;
}

/** The strip's nodes: modules that are neither unfolded by themselves nor by hand stay folded. */
export function nodes(trace: TraceInfo, toggled: readonly string[]): Node[] {
  const open = new Set(unfolded(trace.steps));
  for (const path of toggled) {
    if (open.has(path)) open.delete(path);
    else open.add(path);
  }
  const quiet = trace.steps.length <= SMALL;
  const build = (steps: readonly StepInfo[], parent: string, around: string): Node[] =>
    runs(steps, parent).flatMap((run): Node[] => {
      const [first] = run.steps;
      if (first === undefined) return [];
      if (run.path === null || (run.steps.length === 1 && !toggled.includes(run.path))) {
        return run.steps.map((step) => ({ kind: "step", key: `s${step.id}`, label: inner(step.name, around), step }));
      }
      const { path } = run;
      const alone = parent !== "" && run.steps.length === steps.length; // all that is in a module which is open
      const [key, label, type] = [`${path}@${first.id}`, inner(path, around), trace.modules[path] ?? ""];
      if (alone ? toggled.includes(path) : !open.has(path))
        return [{ kind: "folded", key, label, path, type, steps: run.steps }];
      if (quiet || runs(run.steps, path).length < 2) return build(run.steps, path, around);
      return [{ kind: "open", key, label, path, type, nodes: build(run.steps, path, path) }];
    });
  return build(trace.steps, "", "");
}

/** The cards of the strip from left to right. */
export function cards(all: readonly Node[]): Card[] {
  return all.flatMap((node): Card[] => {
    if (node.kind === "open") return cards(node.nodes);
    if (node.kind === "step") return [{ key: node.key, steps: [node.step], shown: node.step }];
    const shown = node.steps.at(-1);
    return shown === undefined ? [] : [{ key: node.key, steps: node.steps, shown }];
  });
}

/** Steps of one folded module, or of none that is worth a name. */
export type Group = Readonly<{ path: string; steps: readonly StepInfo[] }>;

/** Some steps by the modules that the strip folds them into; those of no such module are together under no name. */
export function groups(trace: TraceInfo, steps: readonly StepInfo[]): Group[] {
  const wanted = new Set(steps);
  const found: { path: string; steps: StepInfo[] }[] = [];
  const walk = (all: readonly Node[]): void => {
    for (const node of all) {
      if (node.kind === "open") {
        walk(node.nodes);
        continue;
      }
      const path = node.kind === "folded" ? node.path : "";
      const inside = (node.kind === "folded" ? node.steps : [node.step]).filter((step) => wanted.has(step));
      const last = found.at(-1);
      if (last?.path === path) last.steps.push(...inside);
      else if (inside.length > 0) found.push({ path, steps: inside });
    }
  };
  walk(nodes(trace, []));
  return found;
}

/** What a step is called inside of its group. */
export function within(group: Group, step: StepInfo): string {
  return inner(step.name, group.path);
}

/** Which card reads which, each pair once. */
export function edges(of: readonly Card[]): Edge[] {
  const home = new Map<number, number>([[IMAGE, -1]]);
  of.forEach((card, i) => card.steps.forEach((step) => home.set(step.id, i)));
  const seen = new Set<string>();
  const found: Edge[] = [];
  of.forEach((card, to) => {
    for (const step of card.steps) {
      for (const input of step.inputs.length ? step.inputs : [IMAGE]) {
        const from = home.get(input);
        if (from === undefined || from === to || seen.has(`${from}>${to}`)) continue;
        seen.add(`${from}>${to}`);
        found.push({ from, to });
      }
    }
  });
  return found;
}

/** Of edges that skip cards: a lane each, so that none lies on another. Lane 0 is next to the cards. */
export function lanes(skips: readonly Edge[]): number[] {
  const taken: number[] = []; // where each lane is free again
  const order = skips.map((_, i) => i).sort((a, b) => (skips[a] as Edge).from - (skips[b] as Edge).from);
  const found = new Array<number>(skips.length).fill(0);
  for (const i of order) {
    const { from, to } = skips[i] as Edge;
    let lane = taken.findIndex((free) => free <= from);
    if (lane < 0) lane = taken.length;
    taken[lane] = to;
    found[i] = lane;
  }
  return found;
}

/** A step that reads no other reads the image, unless it only makes numbers (a constant, noise). */
export function readsImage(step: StepInfo): boolean {
  return step.inputs.length === 0;
}

/** What an address has to become where it names a step or a channel that the network has not; null: it is right. */
export function mended(steps: readonly StepInfo[], state: Pick<State, "step" | "channel">): Partial<State> | null {
  const { step, channel } = state;
  if (step === null) return channel === 0 ? null : { channel: 0 };
  const found = steps.find(({ id }) => id === step);
  if (found === undefined) return step < 0 ? null : { step: null, channel: 0, cell: null, window: null, trail: [] };
  const { channels } = layout(found.shape);
  return channel < channels ? null : { channel: channels - 1 };
}

/** Whether two networks answer with the same classes, so that their answers can be paired: by name, where they have names. */
export function sameClasses(
  model: Pick<ModelInfo, "id" | "classes"> | null,
  a: Pick<TraceInfo, "output" | "steps">,
  other: Pick<ModelInfo, "id" | "classes"> | null,
  b: Pick<TraceInfo, "output" | "steps">,
): boolean {
  if (model?.id === other?.id) return true;
  const size = (of: Pick<TraceInfo, "output" | "steps">): number =>
    bare(of.steps.find((step) => step.id === of.output)?.shape ?? []).reduce((n, m) => n * m, 1);
  const [mine, yours] = [model?.classes ?? [], other?.classes ?? []];
  return mine.length === yours.length && mine.every((name, i) => name === yours[i]) && size(a) === size(b);
}

/** How a step's numbers lie on a plane: leading axes are counted through as channels; a vector is wrapped. */
export type Layout = Readonly<{
  lead: readonly number[];
  channels: number;
  height: number;
  width: number;
  /** How many numbers there are on a plane; of a wrapped vector the last row may be short. */
  length: number;
  wrapped: boolean;
  /** Of a wrapped vector: how many axes of one number follow, as in 2,048×1×1. */
  ones: number;
}>;

/** A vector of at most so many numbers is a column; a longer one is wrapped into a square. */
export const COLUMN = 16;

/** The layout of a step's output. */
export function layout(shape: readonly number[]): Layout {
  const full = bare(shape);
  const rank = full.length;
  const ones = rank > 2 && full.slice(1).every((n) => n === 1) ? rank - 1 : 0;
  if (rank < 2 || ones > 0) {
    const length = full[0] ?? 1;
    const width = length <= COLUMN ? 1 : Math.ceil(Math.sqrt(length));
    return { lead: [], channels: 1, height: Math.ceil(length / width), width, length, wrapped: true, ones };
  }
  const lead = full.slice(0, -2);
  const [height, width] = full.slice(-2) as [number, number];
  const channels = lead.reduce((a, b) => a * b, 1);
  return { lead, channels, height, width, length: height * width, wrapped: false, ones };
}

/** The cell at a row and column of a channel's plane; null outside. */
export function cellAt(
  of: Layout,
  shape: readonly number[],
  channel: number,
  row: number,
  column: number,
): readonly number[] | null {
  if (row < 0 || column < 0 || row >= of.height || column >= of.width) return null;
  if (of.wrapped) {
    const index = row * of.width + column;
    return index < of.length ? (bare(shape).length ? [index, ...new Array<number>(of.ones).fill(0)] : []) : null;
  }
  const lead: number[] = [];
  let rest = channel;
  for (const size of [...of.lead].reverse()) {
    lead.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return [...lead, row, column];
}

/** Where a cell lies: channel, row, column. */
export function placeOf(
  of: Layout,
  cell: readonly number[],
): Readonly<{ channel: number; row: number; column: number }> {
  if (of.wrapped) {
    const index = cell.at(-1 - of.ones) ?? 0;
    return { channel: 0, row: Math.floor(index / of.width), column: index % of.width };
  }
  const channel = of.lead.reduce((sum, size, i) => sum * size + (cell[i] ?? 0), 0);
  return { channel, row: cell[of.lead.length] ?? 0, column: cell[of.lead.length + 1] ?? 0 };
}

/** Where a recorded cell of an input is among the planes that are shown: of several inputs, after those before it. */
export function inputCell(input: InputInfo, name: string, cell: readonly number[]): readonly number[] {
  const part = input.parts.find((each) => each.name === name);
  if (part === undefined) return bareCell([1, ...input.shape], cell);
  const bare = cell.slice(Math.max(0, cell.length - part.shape.length));
  const [row, column] = bare.length > 1 ? bare.slice(-2) : [0, bare[0] ?? 0];
  const lead = part.shape.slice(0, -2);
  const plane = lead.reduce((sum, size, i) => sum * size + (bare[i] ?? 0), 0);
  return [part.first + plane, row ?? 0, column ?? 0];
}

/** The name of a plane of the input: of several inputs, the one that it belongs to. */
export function planeName(input: InputInfo, plane: number): string {
  const part = input.parts.findLast((each) => each.first <= plane);
  if (part === undefined) return `channel ${plane}`;
  return part.shape.length > 2 ? `${part.name}, channel ${plane - part.first}` : part.name;
}

/** A recorded cell without its batch axis, as the page's cells are. */
export function bareCell(shape: readonly number[], cell: readonly number[]): readonly number[] {
  return shape.length > 1 && shape[0] === 1 && cell.length === shape.length ? cell.slice(1) : cell;
}
