/**
 * The API answered from the page itself: recorded answers, and everything that follows from the embedded tensors, which
 * is most of it. What was left out to keep the page small is refused with a sentence.
 */
import type { Ask, Source } from "../lib/http";
import type { Kind } from "../lib/explanation";
import {
  real,
  type InputRef,
  type Num,
  type Session,
  type StepInfo,
  type TraceInfo,
  type TraceRequest,
  type TrainingStepInfo,
} from "../lib/types";
import { explain, type Arithmetic, type StatusText } from "./arithmetic/explain";
import type { Operand } from "./arithmetic/expressions";
import type { Rule } from "./arithmetic/rules";
import { planeShape } from "../lib/planes";
import { packed, Tensors, thumbnail, type Numbers, type Stored } from "./tensors";

/** One pass of the page: what the server says of it, and where its numbers are; a missing number was left out. */
export type Pass = Readonly<{
  ref: InputRef;
  info: TraceInfo;
  /** The input as the model received it, and as it is shown. */
  input: number | null;
  shown: number | null;
  /** By the id of each step. */
  outputs: Readonly<Record<string, number>>;
  ranges: Readonly<Record<string, readonly [Num, Num]>>;
  arithmetic: Readonly<Record<string, Arithmetic>>;
  /** Small pictures of the steps whose numbers were left out. */
  thumbnails: Readonly<Record<string, Readonly<{ about: Record<string, unknown>; tensor: number }>>>;
}>;

/** One training step: what the server says of it, where its numbers are, and recorded answers. */
export type TrainingStep = Readonly<{
  info: TrainingStepInfo;
  outputs: Readonly<Record<string, number>>;
  ranges: Readonly<Record<string, readonly [Num, Num]>>;
  /** What the optimizer multiplies by the learning rate, by parameter. */
  directions: Readonly<Record<string, number>>;
  answers: Readonly<Record<string, unknown>>;
}>;

/** What a page carries. */
export type Data = Readonly<{
  tensors: readonly Stored[];
  session: Session;
  /** The pass of each input: see `keyOf`. */
  passes: Readonly<Record<string, Pass>>;
  parameters: Readonly<Record<string, Readonly<{ tensor: number; low: Num; high: Num }>>>;
  /** Recorded answers by their path. */
  answers: Readonly<Record<string, unknown>>;
  /** Recorded contributions by their path: the header, and the tensor of contributions and slopes. */
  contributions: Readonly<Record<string, Readonly<{ header: unknown; tensor: number }>>>;
  /** Sentences on what cannot be answered, by its path. */
  refusals: Readonly<Record<string, string>>;
  step: TrainingStep | null;
  statuses: Readonly<Record<string, StatusText>>;
  /** What to do where something was left out. */
  missing: string;
}>;

/** A source that answers from these data. */
export function embedded(data: Tensors<Data>): Source {
  const page = new Page(data);
  return async (path, ask) => {
    try {
      return await page.answer(path, ask);
    } catch (error) {
      if (error instanceof Missing || error instanceof RangeError) return refused(error.message);
      throw error;
    }
  };
}

/** An input as the page's data name it. */
export const keyOf = (input: InputRef): string =>
  input.kind === "sample" ? `${input.source}/${input.split}/${input.index}` : input.kind === "stored" ? input.id : "";

class Missing extends Error {}

const refused = (message: string): Response => json({ message }, 404);
const json = (value: unknown, status = 200): Response =>
  new Response(JSON.stringify(value), { status, headers: { "Content-Type": "application/json" } });

function tensor(numbers: Float32Array, shape: readonly number[], low: Num, high: Num): Response {
  const headers = { "X-Shape": shape.join(","), "X-Low": String(low), "X-High": String(high) };
  return new Response(numbers.slice().buffer, { headers });
}

const single = (numbers: Numbers): Float32Array =>
  numbers instanceof Float32Array ? numbers : Float32Array.from(numbers);

class Page {
  readonly #data: Data;

  constructor(readonly tensors: Tensors<Data>) {
    this.#data = tensors.header;
  }

  async answer(path: string, ask: Ask): Promise<Response> {
    const data = this.#data;
    if (path === "session") return json(data.session);
    if (path === "traces" && ask.method !== "POST") return json(Object.values(data.passes).map(({ info }) => info.id));
    if (path === "traces" && ask.method === "POST") return json(this.#asked(ask).info);
    if (path === "training-steps" && data.step !== null) return json(data.step.info);
    const plain = path.replace(/&(all|channel)=\w+/g, ""); // a recorded calculation has no other details
    for (const answers of [data.answers, data.step?.answers ?? {}])
      if (Object.hasOwn(answers, plain)) return json(answers[plain]);
    if (Object.hasOwn(data.refusals, path)) return refused(String(data.refusals[path]));
    const recorded = Object.hasOwn(data.contributions, path) ? data.contributions[path] : undefined;
    if (recorded !== undefined) {
      const numbers = single(await this.tensors.read(recorded.tensor));
      return new Response(packed(recorded.header, [new Uint8Array(numbers.slice().buffer)]));
    }
    const [, direction] = /^training-steps\/[^/]+\/directions\/(.+)$/.exec(path) ?? [];
    if (direction !== undefined) return this.#direction(decodeURIComponent(direction));
    const [, id = "", rest = ""] = /^traces\/([^/]+)\/(.+)$/.exec(path) ?? [];
    const pass = [...Object.values(data.passes), ...stepPass(data.step)].find((each) => each.info.id === id);
    if (pass === undefined) throw this.#missing("This");
    const [what = "", query = ""] = rest.split("?");
    return this.#of(pass, what, new URLSearchParams(query));
  }

  #missing(what: string): Missing {
    return new Missing(`${what} is not in this file. ${this.#data.missing}`);
  }

  #asked(ask: Ask): Pass {
    const { input } = JSON.parse(String(ask.body)) as TraceRequest;
    const pass = this.#data.passes[keyOf(input)];
    if (pass === undefined) throw this.#missing("This image");
    return pass;
  }

  async #of(pass: Omit<Pass, "ref">, what: string, ask: URLSearchParams): Promise<Response> {
    if (what === "input") return this.#input(pass, ask.has("shown"));
    if (what === "thumbnails") return this.#thumbnails(pass, ask);
    const [, id, action] = /^steps\/(\d+)\/(output|explain)$/.exec(what) ?? [];
    const step = pass.info.steps.find((each) => String(each.id) === id);
    if (step !== undefined)
      return action === "output" ? this.#output(pass, step, ask) : this.#explained(pass, step, ask);
    const [, name] = /^parameters\/(.+)$/.exec(what) ?? [];
    if (name !== undefined) return this.#parameter(decodeURIComponent(name), ask);
    throw this.#missing("This");
  }

  async #direction(name: string): Promise<Response> {
    const directions: Readonly<Record<string, number>> = this.#data.step?.directions ?? {};
    const at = Object.hasOwn(directions, name) ? directions[name] : undefined;
    if (at === undefined) throw this.#missing(`The direction of ${name}`);
    return tensor(single(await this.tensors.read(at)), this.#data.tensors[at]?.shape ?? [], "nan", "nan");
  }

  async #input(pass: Omit<Pass, "ref">, shown: boolean): Promise<Response> {
    const at = shown ? pass.shown : pass.input;
    if (at === null) throw this.#missing("The image in full size");
    const { low, high } = pass.info.input;
    return tensor(single(await this.tensors.read(at)), this.#data.tensors[at]?.shape ?? [], low, high);
  }

  async #output(pass: Omit<Pass, "ref">, step: StepInfo, ask: URLSearchParams): Promise<Response> {
    const at = pass.outputs[step.id];
    if (at === undefined) throw this.#missing(`The numbers of ${step.name}: they`);
    const numbers = single(await this.tensors.read(at));
    const [low, high] = pass.ranges[step.id] ?? ["nan", "nan"];
    const shape = step.shape.length > 1 && step.shape[0] === 1 ? step.shape.slice(1) : step.shape;
    const channel = ask.get("channel");
    if (channel === null) return tensor(numbers, shape, low, high);
    const size = shape.slice(1).reduce((n, m) => n * m, 1);
    return tensor(numbers.subarray(Number(channel) * size, (Number(channel) + 1) * size), shape.slice(1), low, high);
  }

  async #explained(pass: Omit<Pass, "ref">, step: StepInfo, ask: URLSearchParams): Promise<Response> {
    const how = pass.arithmetic[step.id];
    const cell = (ask.get("cell") ?? "").split(",").filter(Boolean).map(Number);
    const full = [...new Array<number>(Math.max(0, step.shape.length - cell.length)).fill(0), ...cell];
    if (how === undefined) throw this.#missing(`The calculation of ${step.name} (${cell.join(", ")})`);
    const channel = ask.get("channel");
    const read = await this.#loaded([how.output, ...operandsOf(how.rule).map((each) => each.tensor)]);
    const asked = { all: ask.get("all") === "true", channel: channel === null ? null : Number(channel) };
    return json(explain(pass.info.id, step, how, full, asked, read, this.#data.statuses));
  }

  async #loaded(wanted: readonly number[]): Promise<(tensor: number) => Numbers> {
    const numbers = new Map(await Promise.all(wanted.map(async (at) => [at, await this.tensors.read(at)] as const)));
    return (at) => numbers.get(at) ?? new Float32Array();
  }

  async #parameter(name: string, ask: URLSearchParams): Promise<Response> {
    const found = Object.hasOwn(this.#data.parameters, name) ? this.#data.parameters[name] : undefined;
    if (found === undefined) throw this.#missing(`The parameter ${name}`);
    const shape = this.#data.tensors[found.tensor]?.shape ?? [];
    const [kernels = 1, ...rest] = shape;
    const size = rest.reduce((n, m) => n * m, 1);
    const first = Number(ask.get("first") ?? 0);
    const last = ask.has("count") ? Math.min(kernels, first + Number(ask.get("count"))) : kernels;
    const numbers = single(await this.tensors.read(found.tensor));
    return tensor(numbers.subarray(first * size, last * size), [last - first, ...rest], found.low, found.high);
  }

  async #thumbnails(pass: Omit<Pass, "ref">, ask: URLSearchParams): Promise<Response> {
    const [most, side, first] = ["channels", "side", "first"].map((name) => Number(ask.get(name) ?? 0)) as [
      number,
      number,
      number,
    ];
    const items: Record<string, unknown>[] = [];
    const parts: Uint8Array[] = [];
    let offset = 0;
    const add = (about: Record<string, unknown>, bytes: Uint8Array): void => {
      items.push({ ...about, offset });
      parts.push(bytes);
      offset += bytes.length;
    };
    for (const id of (ask.get("steps") ?? "").split(",")) {
      const [step, at, small] = [
        pass.info.steps.find((s) => String(s.id) === id),
        pass.outputs[id],
        pass.thumbnails[id],
      ];
      if (step === undefined) continue;
      if (at === undefined) {
        if (small !== undefined) add(small.about, (await this.tensors.read(small.tensor)) as Uint8Array);
        continue;
      }
      const [total] = planeShape(step.shape);
      const [low, high] = pass.ranges[id] ?? ["nan", "nan"];
      const channels = Array.from({ length: total }, (_, k) => k).slice(...(total === 1 ? [0] : [first, first + most]));
      const made = thumbnail(await this.tensors.read(at), step.shape, [real(low), real(high)], channels, side);
      add({ id: step.id, channels, total, low, high, label: null, shape: made.shape }, made.bytes);
    }
    return new Response(packed({ items }, parts));
  }
}

/** A training step as a pass whose numbers are read like those of another. */
function stepPass(step: TrainingStep | null): Omit<Pass, "ref">[] {
  if (step === null) return [];
  const { info, outputs, ranges } = step;
  return [{ info: info.trace, input: null, shown: null, outputs, ranges, arithmetic: {}, thumbnails: {} }];
}

/** The tensors that a rule reads. */
function operandsOf(rule: Rule): Operand[] {
  const all = rule as unknown as Readonly<Record<string, unknown>>;
  return ["input", "weight", "left", "right", "bias", "x", "y", "mean", "var"].flatMap((name) => {
    const each = all[name];
    return each != null && typeof each === "object" ? [each as Operand & { kind: Kind }] : [];
  });
}
