/** The API over a notebook's channel: each request is a message to the kernel, which answers when no cell is running. */
import type { Ask, Source } from "../lib/http";

/** What anywidget gives to a view. */
export type Model = Readonly<{
  get: (name: string) => unknown;
  send: (content: unknown) => void;
  on: (event: "msg:custom", listener: (content: unknown, buffers: readonly DataView[]) => void) => void;
  off: (event: "msg:custom", listener: (content: unknown, buffers: readonly DataView[]) => void) => void;
}>;

type Head = Readonly<{ id: number; status: number; headers: Record<string, string> }>;

/** The answers that come with the view: to GET session, and to one POST traces, `request`. */
type First = Readonly<{ session: string; request: string; traces: string }>;

/** A JSON value, its keys in order. */
const sorted = (text: string): string =>
  JSON.stringify(JSON.parse(text), (_, value: unknown) =>
    value !== null && typeof value === "object" && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );

const PATIENCE = 1500; // milliseconds without an answer after which the view says that it waits

/** A channel to the kernel. */
export class Channel {
  /** Whether the kernel has not answered for more than a moment. */
  waiting = $state(false);

  readonly #pending = new Map<number, (answer: Response) => void>();
  readonly #heard = (content: unknown, buffers: readonly DataView[]): void => this.#take(content as Head, buffers);
  readonly #first: Map<string, string>;
  #count = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(readonly model: Model) {
    model.on("msg:custom", this.#heard);
    const { session, request, traces } = model.get("first") as First;
    this.#first = new Map([
      ["GET session", session],
      [`POST traces ${sorted(request)}`, traces],
    ]);
  }

  /** The answer that came with the view, once. */
  #known(path: string, ask: Ask): Response | null {
    const method = ask.method ?? "GET";
    const key =
      method === "GET" || typeof ask.body !== "string" ? `${method} ${path}` : `${method} ${path} ${sorted(ask.body)}`;
    const answer = this.#first.get(key);
    this.#first.delete(key);
    return answer === undefined ? null : new Response(answer, { headers: { "Content-Type": "application/json" } });
  }

  /** The source that asks over this channel. */
  readonly source: Source = (path: string, ask: Ask) =>
    new Promise((done, fail) => {
      const known = this.#known(path, ask);
      if (known !== null) return done(known);
      const id = this.#count++;
      this.#pending.set(id, done);
      ask.signal?.addEventListener("abort", () => {
        this.#pending.delete(id);
        this.#watch();
        fail(ask.signal?.reason);
      });
      this.model.send({ id, method: ask.method ?? "GET", path, body: ask.body ?? "" });
      this.#watch();
    });

  #take({ id, status, headers }: Head, buffers: readonly DataView[]): void {
    const done = this.#pending.get(id);
    this.#pending.delete(id);
    this.#watch();
    const body = buffers[0];
    done?.(
      new Response(
        body === undefined
          ? null
          : new Uint8Array(body.buffer as ArrayBuffer, body.byteOffset, body.byteLength).slice(),
        { status, headers },
      ),
    );
  }

  #watch(): void {
    clearTimeout(this.#timer);
    this.waiting = false;
    if (this.#pending.size > 0) this.#timer = setTimeout(() => (this.waiting = true), PATIENCE);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.model.off("msg:custom", this.#heard);
  }
}
