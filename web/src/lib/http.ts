/**
 * The HTTP client, the only file that accesses the network, unless a `Source` answers in the place of the server. The
 * token arrives once in the URL's fragment, is stored for this origin and sent in a header. Requests wait while the
 * server is unreachable; evicted traces are requested again.
 */
import { writable, type Readable } from "svelte/store";
import { toBase64, type Tensor } from "./pack";
import type { Fit, Problem } from "./types";

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
  if (document.hidden || reconnecting !== undefined || Date.now() - heard < WATCH) return;
  try {
    const answer = await knock(token);
    if (reconnecting === undefined) noteConnection(answer);
  } catch {
    await reconnect();
  }
}

let watching = false;

/** Watch the server from the first request on: a page that answers from its own numbers never asks one. */
function startWatching(): void {
  if (watching || typeof document === "undefined") return;
  watching = true;
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
  startWatching();
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

export async function call(path: string, ask: Ask = {}): Promise<Response> {
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

export const posting = (body: unknown): Ask => ({
  method: "POST",
  body: JSON.stringify(body),
  type: "application/json",
});

export async function json<T>(path: string, ask?: Ask): Promise<T> {
  return (await (await call(path, ask)).json()) as T;
}

export async function buffer(path: string, signal?: AbortSignal): Promise<ArrayBuffer> {
  return (await call(path, { signal })).arrayBuffer();
}

export async function tensor(path: string, signal?: AbortSignal): Promise<Tensor> {
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

/** Remember the request that made a trace, in case the server has to be asked for it again. */
export function remember(id: string, route: string, request: unknown): void {
  requests.delete(id);
  requests.set(id, [route, request]);
  if (requests.size > 64) requests.delete(requests.keys().next().value as string);
}
