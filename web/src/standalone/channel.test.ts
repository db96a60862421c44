import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Channel, type Model } from "./channel.svelte";

type Listener = (content: unknown, buffers: readonly DataView[]) => void;

function kernel(): { model: Model; sent: { id: number; path: string }[]; answer: Listener } {
  const sent: { id: number; path: string }[] = [];
  let listener: Listener = () => undefined;
  const model: Model = {
    get: () => ({
      session: "{}",
      request: '{"model":"a","input":{"index":1.0,"split":"test"},"at":null}',
      traces: "[7]",
    }),
    send: (content) => sent.push(content as { id: number; path: string }),
    on: (_, to) => (listener = to),
    off: () => undefined,
  };
  return { model, sent, answer: (content, buffers) => listener(content, buffers) };
}

const bytes = (text: string): DataView[] => [new DataView(new TextEncoder().encode(text).buffer)];

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("answers reach the requests that they belong to, in any order", async () => {
  const { model, sent, answer } = kernel();
  const channel = new Channel(model);
  const [first, second] = [channel.source("a", {}), channel.source("b", { method: "POST", body: "{}" })];
  expect(sent.map(({ path }) => path)).toEqual(["a", "b"]);
  answer({ id: sent[1]?.id, status: 404, headers: {} }, bytes("no"));
  answer({ id: sent[0]?.id, status: 200, headers: { "x-shape": "2" } }, bytes("yes"));
  expect([(await second).status, await (await second).text()]).toEqual([404, "no"]);
  expect([(await first).headers.get("X-Shape"), await (await first).text()]).toEqual(["2", "yes"]);
});

test("the first answers come with the view, each once, and only to their own request", async () => {
  const { model, sent } = kernel();
  const channel = new Channel(model);
  const post = (body: unknown) => channel.source("traces", { method: "POST", body: JSON.stringify(body) });
  const first = { at: null, input: { split: "test", index: 1 }, model: "a" };
  expect(await (await channel.source("session", {})).text()).toBe("{}");
  void post({ ...first, at: 3 });
  expect(await (await post(first)).json()).toEqual([7]);
  void post(first);
  void channel.source("session", {});
  expect(sent.map(({ path }) => path)).toEqual(["traces", "traces", "session"]);
});

test("it says that it waits only while the kernel is silent", async () => {
  const { model, sent, answer } = kernel();
  const channel = new Channel(model);
  const asked = channel.source("a", {});
  await vi.advanceTimersByTimeAsync(1000);
  expect(channel.waiting).toBe(false);
  await vi.advanceTimersByTimeAsync(1000);
  expect(channel.waiting).toBe(true);
  answer({ id: sent[0]?.id, status: 200, headers: {} }, bytes(""));
  await asked;
  expect(channel.waiting).toBe(false);
});

test("a request that is given up fails, and its answer is ignored", async () => {
  const { model, sent, answer } = kernel();
  const channel = new Channel(model);
  const abort = new AbortController();
  const asked = channel.source("a", { signal: abort.signal });
  abort.abort();
  await expect(asked).rejects.toThrow();
  answer({ id: sent[0]?.id, status: 200, headers: {} }, bytes(""));
  await vi.advanceTimersByTimeAsync(5000);
  expect(channel.waiting).toBe(false);
});
