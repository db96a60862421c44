/**
 * The layout of the network in the strip: steps folded by module, and the edges between their cards. Independent of DOM
 * and server.
 */
import { bare, layout } from "./planes";
import { IMAGE, SOFTMAX, type State } from "./state.svelte";
import type { Cell, ModelInfo, StepInfo, TraceInfo } from "./types";

/** One step, or several steps of a module, which is folded or unfolded. */
export type Node =
  | (Named & Readonly<{ kind: "step"; step: StepInfo }>)
  | (Named & Readonly<{ kind: "folded"; path: string; type: string; steps: readonly StepInfo[] }>)
  | (Named & Readonly<{ kind: "open"; path: string; type: string; nodes: readonly Node[] }>);

/** A unique key, and the name relative to the modules drawn around it. */
type Named = Readonly<{ key: string; label: string }>;

/** A card of the strip: the steps it represents, and the one whose maps it shows. */
export type Card = Readonly<{ key: string; steps: readonly StepInfo[]; shown: StepInfo }>;

/** An edge between two cards, by position; −1 is the image. */
export type Edge = Readonly<{ from: number; to: number }>;

const SMALL = 26; // networks of at most this many steps are never folded

function below(path: string, parent: string): string | null {
  if (parent !== "" && !path.startsWith(`${parent}.`)) return null;
  const rest = parent === "" ? path : path.slice(parent.length + 1);
  const child = rest.split(".")[0];
  if (child === undefined || child === "") return null;
  return parent === "" ? child : `${parent}.${child}`;
}

type Run = Readonly<{ path: string | null; steps: StepInfo[] }>;

/** Consecutive steps grouped by child module of `parent`. */
function runs(steps: readonly StepInfo[], parent: string): Run[] {
  const grouped: Run[] = [];
  for (const step of steps) {
    const path = below(step.module, parent);
    const last = grouped.at(-1);
    if (path !== null && last !== undefined && last.path === path) last.steps.push(step);
    else grouped.push({ path, steps: [step] });
  }
  return grouped;
}

/** The modules that are unfolded at first: mere wrappers, which contain most of the network. */
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

/** A name relative to the module drawn around it. */
function inner(name: string, around: string): string {
  return around !== "" && name.startsWith(`${around}.`) ? name.slice(around.length + 1) : name;
}

const NORM = /(batch|group|layer|instance)_norm/;
const ACTIVATION = /^(relu6?|leaky_relu|elu|gelu|silu|hardswish|hardtanh|tanh|sigmoid)$/;

/** What a step does, roughly: for the colours of an overview. */
export function kindOf(step: StepInfo): "weights" | "norm" | "activation" | "pool" | "other" {
  if (NORM.test(step.op)) return "norm";
  if (ACTIVATION.test(step.op)) return "activation";
  if (/pool/.test(step.op)) return "pool";
  return Object.keys(step.parameters).length > 0 ? "weights" : "other";
}

type StepNode = Extract<Node, { kind: "step" }>;

/** A convolution, its normalization and its activation, where each alone reads the one before; else empty. */
function chainAt(list: readonly Node[], at: number, readers: ReadonlyMap<number, number>): StepNode[] {
  const chain: StepNode[] = [];
  for (const fits of [/^convolution$/, NORM, ACTIVATION]) {
    const [next, last] = [list[at + chain.length], chain.at(-1)];
    if (next?.kind !== "step" || !fits.test(next.step.op)) break;
    const follows =
      last === undefined || (next.step.inputs.join() === String(last.step.id) && readers.get(last.step.id) === 1);
    if (!follows) break;
    chain.push(next);
  }
  return chain.length > 1 ? chain : [];
}

/** Nodes whose chains of convolution, normalization and activation are one card each, unless they are unfolded. */
function chained(list: readonly Node[], readers: ReadonlyMap<number, number>, open: ReadonlySet<string>): Node[] {
  const result: Node[] = [];
  for (let at = 0; at < list.length; at++) {
    const chain = chainAt(list, at, readers);
    const [first, ...rest] = chain;
    if (first === undefined) {
      result.push(list[at] as Node);
      continue;
    }
    const path = `+${first.step.name}`;
    const names = rest.map((node) => node.label).join(" · ");
    const folded = { key: `+${first.key}`, path, steps: chain.map((node) => node.step) };
    result.push(
      open.has(path)
        ? { kind: "open", key: folded.key, path, label: `${first.label} · ${names}`, type: "", nodes: chain }
        : { kind: "folded", ...folded, label: first.label, type: names },
    );
    at += chain.length - 1;
  }
  return result;
}

/** Whether a folded card is such a chain, rather than a module. */
export const isChain = (path: string): boolean => path.startsWith("+");

/** How many steps read each step. */
function readersOf(steps: readonly StepInfo[]): ReadonlyMap<number, number> {
  const readers = new Map<number, number>();
  for (const id of steps.flatMap((step) => step.inputs)) readers.set(id, (readers.get(id) ?? 0) + 1);
  return readers;
}

/** The strip's nodes: modules are folded unless they are unfolded by default or by the user. */
export function nodes(trace: TraceInfo, toggled: readonly string[]): Node[] {
  const open = new Set(unfolded(trace.steps));
  for (const path of toggled) {
    if (open.has(path)) open.delete(path);
    else open.add(path);
  }
  const quiet = trace.steps.length <= SMALL;
  const [readers, unchained] = [readersOf(trace.steps), new Set(toggled)];
  const build = (steps: readonly StepInfo[], parent: string, around: string): Node[] =>
    chained(listed(steps, parent, around), readers, unchained);
  const listed = (steps: readonly StepInfo[], parent: string, around: string): Node[] =>
    runs(steps, parent).flatMap((run): Node[] => {
      const [first] = run.steps;
      if (first === undefined) return [];
      if (run.path === null || (run.steps.length === 1 && !toggled.includes(run.path))) {
        return run.steps.map((step) => ({ kind: "step", key: `s${step.id}`, label: inner(step.name, around), step }));
      }
      const { path } = run;
      const alone = parent !== "" && run.steps.length === steps.length; // the only child of an open module
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

/** Steps of one folded module; without a path, steps that are not in a folded module. */
export type Group = Readonly<{ path: string; steps: readonly StepInfo[] }>;

/** Group steps by the modules that the strip folds them into; the others are grouped without a path. */
export function groups(trace: TraceInfo, steps: readonly StepInfo[]): Group[] {
  const wanted = new Set(steps);
  const grouped: { path: string; steps: StepInfo[] }[] = [];
  const walk = (all: readonly Node[]): void => {
    for (const node of all) {
      if (node.kind === "open") {
        walk(node.nodes);
        continue;
      }
      const path = node.kind === "folded" ? node.path : "";
      const inside = (node.kind === "folded" ? node.steps : [node.step]).filter((step) => wanted.has(step));
      const last = grouped.at(-1);
      if (last?.path === path) last.steps.push(...inside);
      else if (inside.length > 0) grouped.push({ path, steps: inside });
    }
  };
  walk(nodes(trace, []));
  return grouped;
}

/** The edges between cards, without duplicates: which card reads the results of which. */
export function edges(of: readonly Card[]): Edge[] {
  const home = new Map<number, number>([[IMAGE, -1]]);
  of.forEach((card, i) => card.steps.forEach((step) => home.set(step.id, i)));
  const seen = new Set<string>();
  const unique: Edge[] = [];
  of.forEach((card, to) => {
    for (const step of card.steps) {
      for (const input of step.inputs.length ? step.inputs : [IMAGE]) {
        const from = home.get(input);
        if (from === undefined || from === to || seen.has(`${from}>${to}`)) continue;
        seen.add(`${from}>${to}`);
        unique.push({ from, to });
      }
    }
  });
  return unique;
}

/** Assign a lane to each edge that skips cards, so that none overlap. Lane 0 is next to the cards. */
export function lanes(skips: readonly Edge[]): number[] {
  const taken: number[] = []; // lane -> the position from which it is free again
  const order = skips.map((_, i) => i).sort((a, b) => (skips[a] as Edge).from - (skips[b] as Edge).from);
  const assigned = new Array<number>(skips.length).fill(0);
  for (const i of order) {
    const { from, to } = skips[i] as Edge;
    let lane = taken.findIndex((free) => free <= from);
    if (lane < 0) lane = taken.length;
    taken[lane] = to;
    assigned[i] = lane;
  }
  return assigned;
}

/** Whether a step reads the image: it reads no other step (and may also be a constant or noise). */
export function readsImage(step: StepInfo): boolean {
  return step.inputs.length === 0;
}

/** The correction of a state that names a step, channel or cell the network does not have; null if it is valid. */
export function mended(
  trace: Pick<TraceInfo, "steps" | "input" | "output">,
  state: Pick<State, "step" | "channel" | "cell">,
): Partial<State> | null {
  const { step, channel, cell } = state;
  if (step === null) return channel === 0 ? null : { channel: 0 };
  const shape = cellsOf(trace, step);
  if (shape === null) return { step: null, channel: 0, cell: null, window: null, trail: [] };
  if (cell !== null && !isCell(shape, cell)) return { channel: 0, cell: null, window: null };
  const { channels } = layout([1, ...shape]);
  return channel < channels ? null : { channel: channels - 1 };
}

/** The names among these that are neither a module of the network nor a chain of steps that is one card. */
export function unknownModules(trace: Pick<TraceInfo, "steps">, paths: readonly string[]): string[] {
  const known = new Set(
    trace.steps.flatMap(({ module, name, op }) => {
      const parts = module.split(".");
      const around = parts.map((_, i) => parts.slice(0, i + 1).join("."));
      return op === "convolution" ? [...around, `+${name}`] : around;
    }),
  );
  return paths.filter((path) => !known.has(path));
}

/** The shape of the cells that a step has on the page; null if the network has no such step. */
export function cellsOf(trace: Pick<TraceInfo, "steps" | "input" | "output">, step: number): readonly number[] | null {
  if (step === IMAGE) return trace.input.shape;
  const named = trace.steps.find(({ id }) => id === (step === SOFTMAX ? trace.output : step));
  return named === undefined ? null : bare(named.shape);
}

const isCell = (shape: readonly number[], cell: Cell): boolean =>
  cell.length === shape.length && cell.every((index, axis) => index < (shape[axis] ?? 0));

/** Whether two networks have the same classes (by name, if they have names), so that their answers can be paired. */
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
