/**
 * The only file that talks to the network. The token comes in the address's fragment once, is kept for this origin, and
 * goes into a header. What fails because the server is gone waits until it is back; a forgotten trace is asked for again.
 */
import { writable, type Readable } from "svelte/store";
import { pictures, floats, toBase64, unpack, type Picture, type Tensor } from "./pack";
import type {
  Cell,
  ContributionsInfo,
  DifferenceInfo,
  Explained,
  Fit,
  ProbeAnswer,
  ProbeInfo,
  ProbeRequest,
  Problem,
  Proof,
  QuestionInfo,
  Session,
  Stored,
  TraceInfo,
  TraceRequest,
  TrainCommand,
  TrainingEvent,
  TrainingInfo,
  TrainOptions,
  TrainRequest,
} from "./types";

const KEY = "convscope-token";
const TAB = "convscope-tab";
const PATIENCE = 1000; // milliseconds between two knocks on a server that is gone
const BUSY = 6; // how often a busy server is asked again

/** An answer that is a sentence: what was asked, what there is, what to do. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
    /** Where an image has another size than the model takes: how it can be made to fit. */
    readonly fit: readonly Fit[] = [],
  ) {
    super(message);
  }
}

/** How the connection is: "open", "gone" (knocking), or "locked" (no token, or another server's). */
export type Connection = "open" | "gone" | "locked";
const connectionStore = writable<Connection>("open");
export const connection: Readable<Connection> = connectionStore;

const token = readToken();
const tab = readTab();
let back: Promise<void> | undefined;
const requests = new Map<string, TraceRequest>();

function readToken(): string {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given !== null) {
    history.replaceState(null, "", location.pathname + location.search);
    try {
      localStorage.setItem(KEY, given);
    } catch {
      // a browser that keeps nothing: the token lives as long as the page
    }
    return given;
  }
  try {
    return localStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** A name of this tab, at random: the server lets tabs take turns, and keeps what each of them looks at. */
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
    if (event.key === KEY && event.newValue !== null && event.newValue !== token) location.reload(); // of a new server
  });
}

/** Whether an error only says that nobody waits for the answer any more. */
export function aborted(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

const pause = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

function heard(answer: Response): void {
  connectionStore.set(answer.status === 401 ? "locked" : "open");
}

function knock(): Promise<void> {
  back ??= (async () => {
    connectionStore.set("gone");
    for (;;) {
      await pause(PATIENCE);
      try {
        heard(await fetch("api/session", { headers: headers(), cache: "no-store" }));
        back = undefined;
        return;
      } catch {
        continue;
      }
    }
  })();
  return back;
}

function headers(extra: Record<string, string> = {}): Record<string, string> {
  return { Authorization: `Bearer ${token}`, "X-Client": tab, ...extra };
}

type Ask = Readonly<{ method?: "GET" | "POST"; body?: BodyInit; type?: string; signal?: AbortSignal | undefined }>;

async function send(path: string, ask: Ask): Promise<Response> {
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
      if (back === undefined) heard(answer); // while it knocks, only an answer to a knock counts: this one may be older
      return answer;
    } catch (error) {
      if (aborted(error) || ask.signal?.aborted) throw error;
      await knock();
      ask.signal?.throwIfAborted();
    }
  }
}

async function refusal(answer: Response): Promise<Refused> {
  try {
    const said = (await answer.json()) as Partial<Problem>;
    if (typeof said.message === "string") return new Refused(answer.status, said.message, said.fit);
  } catch {
    // no JSON: the status is all there is
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
    const forgotten = answer.status === 404 && attempt === 0 ? await remembered(path, ask.signal) : false;
    if (!forgotten) throw await refusal(answer);
  }
}

/** Ask again for every trace of a path that the server may have forgotten; ids are digests, so they stay the same. */
async function remembered(path: string, signal: AbortSignal | undefined): Promise<boolean> {
  let any = false;
  for (const [id, request] of requests) {
    if (!path.includes(id)) continue;
    const again = await send("traces", { ...posting(request), signal });
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
  return { data: new Float32Array(await answer.arrayBuffer()), shape, low: end("X-Low"), high: end("X-High") };
}

const at = (cell: Cell): string => cell.join(",");
const name = encodeURIComponent;

export const getSession = (): Promise<Session> => json("session");

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
  requests.delete(info.id);
  requests.set(info.id, request);
  if (requests.size > 64) requests.delete(requests.keys().next().value as string);
  return info;
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

/** The input from 0 to 1, before it was normalized, in its full size. */
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

/** A number as contributions of the input's pixels, and the weight of each. */
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

/** A parameter's numbers: all, or so many kernels along its first axis. */
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
export const postTraining = (request: TrainRequest): Promise<TrainingInfo> => json("trainings", posting(request));
export const commandTraining = (id: string, command: TrainCommand["command"]): Promise<TrainingInfo> =>
  json(`trainings/${id}`, posting({ command }));

/** Follow a training: one value for each event, until it ends or nobody listens any more. */
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

/** The picture of an answer, or the result itself, as a file. */
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
