/**
 * The HTTP client, the only file that accesses the network, unless a `Source` answers in the place of the server. The token arrives once in the URL's fragment, is stored for
 * this origin and sent in a header. Requests wait while the server is unreachable; evicted traces are requested again.
 */
import { writable, type Readable } from "svelte/store";
import { pictures, floats, toBase64, unpack, type Picture, type Tensor } from "./pack";
import type {
  BackwardInfo,
  BackwardRequest,
  Cell,
  ContributionsInfo,
  DifferenceInfo,
  Explained,
  NoPaths,
  PathsInfo,
  FieldInfo,
  Fit,
  LessonInfo,
  LessonScreen,
  LessonVerdict,
  Metrics,
  ProbeAnswer,
  ProbeInfo,
  ProbeRequest,
  Problem,
  Proof,
  QuestionInfo,
  Session,
  StepEffectInfo,
  Stored,
  TraceInfo,
  TraceRequest,
  TrainCommand,
  TrainingEvent,
  TrainingInfo,
  TrainingStepInfo,
  TrainOptions,
  TrainRequest,
  WalkInfo,
} from "./types";

const KEY = "convscope-token";
const TAB = "convscope-tab";
const PATIENCE = 1000; // milliseconds between two attempts to reach the server
const WATCH = 4000; // milliseconds without a response after which a visible page asks whether the server is there
const HANGS = 6000; // milliseconds after which an attempt counts as failed: a port can accept connections and never answer
const BUSY = 6; // retries while the server is busy

/** An error response: its message says what was requested, what exists and what to do. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
    /** Ways to fit the image, if the error is an image of the wrong size. */
    readonly fit: readonly Fit[] = [],
  ) {
    super(message);
  }
}

/** State of the connection: "open", "gone" (retrying), or "locked" (no token, or one of a former server). */
export type Connection = "open" | "gone" | "locked";
const connectionStore = writable<Connection>("open");
export const connection: Readable<Connection> = connectionStore;

const token = readToken();
const tab = readTab();
let reconnecting: Promise<void> | undefined;
/** By trace: the path and the body of the request that made it. */
const requests = new Map<string, readonly [string, unknown]>();

function readToken(): string {
  const fromFragment = new URLSearchParams(location.hash.slice(1)).get("token");
  if (fromFragment !== null) {
    history.replaceState(null, "", location.pathname + location.search);
    try {
      localStorage.setItem(KEY, fromFragment);
    } catch {
      // without storage, the token is kept as long as the page is open
    }
    return fromFragment;
  }
  try {
    return localStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** A random name for this tab: the server schedules tabs fairly, and keeps the traces that each of them shows. */
function readTab(): string {
  const fresh = toBase64(crypto.getRandomValues(new Uint8Array(12)));
  try {
    const kept = sessionStorage.getItem(TAB) ?? fresh;
    sessionStorage.setItem(TAB, kept);
    return kept;
  } catch {
    return fresh;
  }
}

if (typeof addEventListener !== "undefined") {
  addEventListener("hashchange", () => {
    if (new URLSearchParams(location.hash.slice(1)).has("token")) location.reload();
  });
  addEventListener("storage", (event) => {
    if (event.key === KEY && event.newValue !== null && event.newValue !== token) location.reload(); // the token of a new server
  });
}

/** Whether an error only means that the request was aborted. */
export function aborted(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

const pause = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

let heard = 0; // when the server last responded

function noteConnection(answer: Response): void {
  heard = Date.now();
  connectionStore.set(answer.status === 401 ? "locked" : "open");
}

/** The cheapest request: is the server there, and does it take this token? */
function knock(with_: string): Promise<Response> {
  return fetch("api/probes", {
    headers: { ...headers(), Authorization: `Bearer ${with_}` },
    cache: "no-store",
    signal: AbortSignal.timeout(HANGS),
  });
}

/** Notice a server that has stopped or restarted, also while the page requests nothing. */
async function watch(): Promise<void> {
  if (source !== null || document.hidden || reconnecting !== undefined || Date.now() - heard < WATCH) return;
  try {
    const answer = await knock(token);
    if (reconnecting === undefined) noteConnection(answer);
  } catch {
    await reconnect();
  }
}

if (typeof document !== "undefined") {
  setInterval(() => void watch(), WATCH);
  document.addEventListener("visibilitychange", () => void watch());
}

/**
 * Continue with the token of a restarted server: pasted text that contains it, such as the address that convscope printed.
 * The page is loaded again in its present state.
 *
 * Returns:
 *   Why it could not be used; null while the page loads again.
 */
export async function goOnWith(pasted: string): Promise<string | null> {
  const wanted = /(?:#token=|^)([\w-]{16,})$/.exec(pasted.trim())?.[1];
  if (wanted === undefined) return "This does not end with a token; copy the whole address that convscope printed.";
  try {
    if ((await knock(wanted)).status === 401) return "This is not the token of the server that answers here.";
  } catch {
    return "The server does not respond.";
  }
  try {
    localStorage.setItem(KEY, wanted);
  } catch {
    // without storage, the fragment carries it
  }
  location.hash = `token=${wanted}`; // loads the page again: see hashchange
  return null;
}

/** Wait until the server responds again; all requests share one loop of attempts. */
function reconnect(): Promise<void> {
  reconnecting ??= (async () => {
    connectionStore.set("gone");
    for (;;) {
      await pause(PATIENCE);
      try {
        noteConnection(await knock(token));
        reconnecting = undefined;
        return;
      } catch {
        continue;
      }
    }
  })();
  return reconnecting;
}

function headers(extra: Record<string, string> = {}): Record<string, string> {
  return { Authorization: `Bearer ${token}`, "X-Client": tab, ...extra };
}

/** A request: what is sent to a path of the API. */
export type Ask = Readonly<{
  method?: "GET" | "POST";
  body?: BodyInit;
  type?: string;
  signal?: AbortSignal | undefined;
}>;

/** Answers in the place of the server: from numbers in the page itself, or over a notebook's channel. */
export type Source = (path: string, ask: Ask) => Promise<Response>;

let source: Source | null = null;
let recorded = false;

/** Ask this source from now on, and no server; one that is recorded runs no network, and so has no backward pass. */
export function answerFrom(other: Source, { isRecorded = false } = {}): void {
  source = other;
  recorded = isRecorded;
}

/** Whether the source of answers can run the network again. */
export const runs = (): boolean => !recorded;

async function send(path: string, ask: Ask): Promise<Response> {
  if (source !== null) return source(path, ask);
  const init: RequestInit = {
    method: ask.method ?? "GET",
    headers: headers(ask.type === undefined ? {} : { "Content-Type": ask.type }),
    cache: "no-store",
    ...(ask.body === undefined ? {} : { body: ask.body }),
    ...(ask.signal === undefined ? {} : { signal: ask.signal }),
  };
  for (;;) {
    try {
      const answer = await fetch(`api/${path}`, init);
      if (reconnecting === undefined) noteConnection(answer); // while reconnecting, this response may be an older one
      if (answer.status !== 401) return answer;
    } catch (error) {
      if (aborted(error) || ask.signal?.aborted) throw error;
      await reconnect();
      ask.signal?.throwIfAborted();
      continue;
    }
    await unlocked(ask.signal);
  }
}

/** Wait until the server accepts the token: meanwhile the page keeps its content, and the banner says what to do. */
function unlocked(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((done, fail) => {
    const stop = connectionStore.subscribe((state) => {
      if (state === "open") queueMicrotask(() => (stop(), done()));
    });
    signal?.addEventListener("abort", () => (stop(), fail(signal.reason)), { once: true });
  });
}

async function refusal(answer: Response): Promise<Refused> {
  try {
    const problem = (await answer.json()) as Partial<Problem>;
    if (typeof problem.message === "string") return new Refused(answer.status, problem.message, problem.fit);
  } catch {
    // not JSON: only the status is known
  }
  return new Refused(answer.status, `The server answered ${answer.status} ${answer.statusText}.`);
}

async function call(path: string, ask: Ask = {}): Promise<Response> {
  for (let attempt = 0; ; attempt++) {
    const answer = await send(path, ask);
    if (answer.ok) return answer;
    if (answer.status === 503 && attempt < BUSY) {
      await pause(150 * 2 ** attempt);
      ask.signal?.throwIfAborted();
      continue;
    }
    const restored = answer.status === 404 && attempt === 0 ? await restoreTraces(path, ask.signal) : false;
    if (!restored) throw await refusal(answer);
  }
}

/** Request again the traces in a path, which the server may have evicted; ids are digests, so they stay the same. */
async function restoreTraces(path: string, signal: AbortSignal | undefined): Promise<boolean> {
  let any = false;
  for (const [id, [route, request]] of requests) {
    if (!path.includes(id)) continue;
    const again = await send(route, { ...posting(request), signal });
    any ||= again.ok;
  }
  return any;
}

const posting = (body: unknown): Ask => ({ method: "POST", body: JSON.stringify(body), type: "application/json" });

async function json<T>(path: string, ask?: Ask): Promise<T> {
  return (await (await call(path, ask)).json()) as T;
}

async function buffer(path: string, signal?: AbortSignal): Promise<ArrayBuffer> {
  return (await call(path, { signal })).arrayBuffer();
}

async function tensor(path: string, signal?: AbortSignal): Promise<Tensor> {
  const answer = await call(path, { signal });
  const shape = (answer.headers.get("X-Shape") ?? "")
    .split(",")
    .filter((n) => n !== "")
    .map(Number);
  const end = (name: string): number => Number(answer.headers.get(name) ?? NaN);
  return {
    data: new Float32Array(await answer.arrayBuffer()),
    shape,
    low: end("X-Low"),
    high: end("X-High"),
    typical: end("X-Typical"),
  };
}

const at = (cell: Cell): string => cell.join(",");
const name = encodeURIComponent;

export const getSession = (): Promise<Session> => json("session");

export const getLesson = (): Promise<LessonInfo | null> => json("lesson");
export const getLessonScreen = (number: number): Promise<LessonScreen> => json(`lesson/screens/${number}`);
export const postLessonReply = (question: string, reply: string): Promise<LessonVerdict> =>
  json(`lesson/questions/${name(question)}`, posting({ reply }));

export async function getSamples(
  source: string,
  split: string,
  offset: number,
  limit: number,
  signal?: AbortSignal,
): Promise<Picture[]> {
  return pictures(
    await buffer(`samples?source=${name(source)}&split=${name(split)}&offset=${offset}&limit=${limit}`, signal),
  );
}

export function upload(file: Blob, called: string): Promise<Stored> {
  return json(`inputs?name=${name(called)}`, { method: "POST", body: file, type: file.type });
}

export async function postTrace(request: TraceRequest, signal?: AbortSignal): Promise<TraceInfo> {
  const info = await json<TraceInfo>("traces", { ...posting(request), signal });
  remember(info.id, "traces", request);
  return info;
}

function remember(id: string, route: string, request: unknown): void {
  requests.delete(id);
  requests.set(id, [route, request]);
  if (requests.size > 64) requests.delete(requests.keys().next().value as string);
}

/** Repeat a step of a run, counted from 1, and record it. */
export async function postTrainingStep(model: string, step: number, signal?: AbortSignal): Promise<TrainingStepInfo> {
  const info = await json<TrainingStepInfo>("training-steps", { ...posting({ model, step }), signal });
  remember(info.trace.id, "training-steps", { model, step });
  return info;
}

/** The loss after the same update with a multiple of its learning rate. */
export function getStepEffect(trace: string, times: number, signal?: AbortSignal): Promise<StepEffectInfo> {
  return json(`training-steps/${trace}/effect?times=${times}`, { signal });
}

export function getDirection(trace: string, parameter: string, signal?: AbortSignal): Promise<Tensor> {
  return tensor(`training-steps/${trace}/directions/${name(parameter)}`, signal);
}

/** The gradients of an image. */
export async function postBackward(request: BackwardRequest, signal?: AbortSignal): Promise<BackwardInfo> {
  const info = await json<BackwardInfo>("gradients", { ...posting(request), signal });
  remember(info.trace.id, "gradients", request);
  return info;
}

/** The cells of a gradient that are 0 because an activation did not pass: 1 there, 0 elsewhere. */
export function getBlocked(trace: string, step: number, channel: number, signal?: AbortSignal): Promise<Tensor> {
  return tensor(`gradients/${trace}/steps/${step}/blocked?channel=${channel}`, signal);
}

export type ThumbnailsAsk = Readonly<{ channels?: number; side?: number; first?: number }>;

export async function getThumbnails(
  trace: string,
  steps: readonly number[],
  ask: ThumbnailsAsk = {},
  signal?: AbortSignal,
): Promise<Picture[]> {
  const { channels = 16, side = 32, first = 0 } = ask;
  const which = `steps=${steps.join(",")}&channels=${channels}&side=${side}&first=${first}`;
  return pictures(await buffer(`traces/${trace}/thumbnails?${which}`, signal));
}

export function getInput(trace: string, signal?: AbortSignal): Promise<Tensor> {
  return tensor(`traces/${trace}/input`, signal);
}

/** The input from 0 to 1, before normalization, in full size. */
export function getPicture(trace: string, signal?: AbortSignal): Promise<Tensor> {
  return tensor(`traces/${trace}/input?shown=true`, signal);
}

export function getOutput(trace: string, step: number, channel: number | null, signal?: AbortSignal): Promise<Tensor> {
  return tensor(`traces/${trace}/steps/${step}/output${channel === null ? "" : `?channel=${channel}`}`, signal);
}

export type ExplainAsk = Readonly<{ all?: boolean; channel?: number | null }>;

export function getExplained(
  trace: string,
  step: number,
  cell: Cell,
  ask: ExplainAsk = {},
  signal?: AbortSignal,
): Promise<Explained> {
  const more = `${ask.all ? "&all=true" : ""}${ask.channel == null ? "" : `&channel=${ask.channel}`}`;
  return json(`traces/${trace}/steps/${step}/explain?cell=${at(cell)}${more}`, { signal });
}

export function getProbability(trace: string, index: number, signal?: AbortSignal): Promise<Explained> {
  return json(`traces/${trace}/probability/explain?cell=${index}`, { signal });
}

export function getProof(trace: string, step: number, cell: Cell, signal?: AbortSignal): Promise<Proof> {
  return json(`traces/${trace}/steps/${step}/proof?cell=${at(cell)}`, { signal });
}

/** Contributions of the input's pixels to a number, and their weights. */
export type Contributions = Readonly<{ info: ContributionsInfo; pixels: Float32Array; weights: Float32Array }>;

export async function getContributions(
  trace: string,
  step: number,
  cell: Cell,
  signal?: AbortSignal,
): Promise<Contributions> {
  const path = `traces/${trace}/steps/${step}/contributions?cell=${at(cell)}`;
  const { header, body } = unpack<{ info: ContributionsInfo }>(await buffer(path, signal));
  const numbers = floats(body);
  return {
    info: header.info,
    pixels: numbers.subarray(0, numbers.length / 2),
    weights: numbers.subarray(numbers.length / 2),
  };
}

/** A number, or its difference from that of another class, as paths through the channels of convolutions. */
export function getPaths(
  trace: string,
  step: number,
  cell: Cell,
  minus: number | null,
  signal?: AbortSignal,
): Promise<PathsInfo | NoPaths> {
  const less = minus === null ? "" : `&minus=${minus}`;
  return json(`traces/${trace}/steps/${step}/paths?cell=${at(cell)}${less}`, { signal });
}

/** What a pixel adds to a number by way of the numbers of a walk; the step null is the image. */
export function getWalk(
  trace: string,
  through: readonly Readonly<{ step: number | null; cell: Cell }>[],
  signal?: AbortSignal,
): Promise<WalkInfo> {
  const places = through.map((place) => `${place.step ?? "image"}:${at(place.cell)}`).join(";");
  return json(`traces/${trace}/walk?through=${name(places)}`, { signal });
}

/** The pixels that a number can depend on. */
export function getField(trace: string, step: number, cell: Cell, signal?: AbortSignal): Promise<FieldInfo> {
  return json(`traces/${trace}/steps/${step}/field?cell=${at(cell)}`, { signal });
}

export function getDifference(trace: string, base: string, signal?: AbortSignal): Promise<DifferenceInfo> {
  return json(`traces/${trace}/difference?base=${base}`, { signal });
}

export function getStepDifference(
  trace: string,
  base: string,
  step: number,
  channel: number | null,
  signal?: AbortSignal,
): Promise<Tensor> {
  const which = channel === null ? "" : `&channel=${channel}`;
  return tensor(`traces/${trace}/steps/${step}/difference?base=${base}${which}`, signal);
}

/** A parameter's numbers: all, or a range of kernels along its first axis. */
export function getParameter(
  trace: string,
  parameter: string,
  part: Readonly<{ first: number; count: number }> | null = null,
  signal?: AbortSignal,
): Promise<Tensor> {
  const which = part === null ? "" : `?first=${part.first}&count=${part.count}`;
  return tensor(`traces/${trace}/parameters/${name(parameter)}${which}`, signal);
}

export function getFiltered(trace: string, kernel: string, signal?: AbortSignal): Promise<Tensor> {
  return tensor(`filtered?trace=${trace}&kernel=${name(kernel)}`, signal);
}

export const getTrainOptions = (): Promise<TrainOptions> => json("training");
export const getTrainings = (): Promise<TrainingInfo[]> => json("trainings");
/** What a model's run measured while it was trained. */
export const getMetrics = (model: string, signal?: AbortSignal): Promise<Metrics> =>
  json(`models/${model}/metrics`, { signal });
/** One kernel at some training steps; the range is that of all kernels at these steps. */
export type Moments = Readonly<{ steps: readonly number[]; tensor: Tensor }>;

export async function getMoments(
  model: string,
  parameter: string,
  kernel: number,
  steps: readonly number[],
): Promise<Moments> {
  const which = `parameter=${name(parameter)}&kernel=${kernel}&steps=${steps.join(",")}`;
  return { steps, tensor: await tensor(`models/${model}/moments?${which}`) };
}
export const postTraining = (request: TrainRequest): Promise<TrainingInfo> => json("trainings", posting(request));
export const commandTraining = (id: string, command: TrainCommand["command"]): Promise<TrainingInfo> =>
  json(`trainings/${id}`, posting({ command }));

/** Follow a training: yields its events until it ends or the signal aborts. */
export const followTraining = (id: string, signal: AbortSignal): AsyncGenerator<TrainingEvent> =>
  follow(`trainings/${id}/events`, signal);

export const getQuestions = (): Promise<QuestionInfo[]> => json("questions");
export const getProbes = (): Promise<ProbeInfo[]> => json("probes");
export const postProbe = (request: ProbeRequest, signal?: AbortSignal): Promise<ProbeInfo> =>
  json("probes", { ...posting(request), signal });
export const cancelProbe = (id: string): Promise<ProbeInfo> => json(`probes/${id}`, posting({ command: "cancel" }));
export const followProbe = (id: string, signal: AbortSignal): AsyncGenerator<ProbeInfo> =>
  follow(`probes/${id}/events`, signal);
export const getProbeAnswer = (id: string, signal?: AbortSignal): Promise<ProbeAnswer> =>
  json(`probes/${id}/answer`, { signal });

/** The picture of an answer, or its result as JSON, as a file. */
export async function getProbeFile(id: string, which: "picture" | "json", signal?: AbortSignal): Promise<Blob> {
  return (await call(`probes/${id}/${which}`, { signal })).blob();
}

async function* follow<T>(path: string, signal: AbortSignal): AsyncGenerator<T> {
  const answer = await call(path, { signal });
  const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
  if (reader === undefined) return;
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value.replaceAll("\r", "");
    const events = text.split("\n\n");
    text = events.pop() ?? "";
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:"));
      if (data.length) yield JSON.parse(data.map((line) => line.slice(5).trim()).join("\n")) as T;
    }
  }
}
