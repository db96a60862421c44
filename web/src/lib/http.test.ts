import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

const LONGER_THAN_THE_WATCH = 30_000; // milliseconds

/** The module, loaded into a page without a document of its own; requests go to `fetch`. */
async function load(fetch: typeof globalThis.fetch): Promise<typeof import("./http")> {
  vi.stubGlobal("location", { hash: "", pathname: "/", search: "" });
  vi.stubGlobal("document", { hidden: false, addEventListener: () => undefined });
  vi.stubGlobal("fetch", fetch);
  vi.resetModules();
  return import("./http");
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.clearAllTimers();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("the watch over the server", { timeout: 60_000 }, () => {
  it("does not begin on a page that answers from its own numbers, however late they are read", async () => {
    const fetch = vi.fn(() => Promise.reject(new TypeError("refused")));
    const { answerFrom, json } = await load(fetch);
    await vi.advanceTimersByTimeAsync(LONGER_THAN_THE_WATCH);
    answerFrom(() => Promise.resolve(Response.json({ answer: 42 })));
    expect(await json("traces")).toEqual({ answer: 42 });
    await vi.advanceTimersByTimeAsync(LONGER_THAN_THE_WATCH);
    expect(fetch).not.toHaveBeenCalled();
  });

  it("begins with the first request, and asks again while the page is silent", async () => {
    const fetch = vi.fn(() => Promise.resolve(Response.json({})));
    const { json } = await load(fetch);
    await json("traces");
    await vi.advanceTimersByTimeAsync(LONGER_THAN_THE_WATCH);
    expect(fetch.mock.calls.length).toBeGreaterThan(2);
  });
});
