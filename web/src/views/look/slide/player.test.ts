import { expect, test, vi } from "vitest";
import { Player, type Score } from "./player.svelte";

/** A map of ten cells with nine products each, and what a player asks of it. */
function score(over: Partial<Score> = {}): Score & { shown: number[]; asked: string[] } {
  const [shown, asked] = [[0], [] as string[]];
  return {
    shown,
    asked,
    index: () => (asked.push("index"), shown.at(-1) ?? 0),
    count: () => 10,
    products: () => (asked.push("products"), 9),
    ready: () => Promise.resolve(),
    show: (index) => void shown.push(index),
    ...over,
  };
}

test("plays every cell once", async () => {
  vi.useFakeTimers();
  const all = score();
  const player = new Player(all);
  void player.play();
  await vi.runAllTimersAsync();
  expect(all.shown).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  expect([player.playing, player.grown]).toEqual([false, null]);
});

test.each([60, 900])("asks nothing of a view that was left while it showed a cell (%i ms)", async (pace) => {
  vi.useFakeTimers();
  const all = score({ show: () => queueMicrotask(() => (player.stop(), (all.asked.length = 0))) });
  const player = new Player(all);
  player.pace = pace;
  void player.play();
  await vi.runAllTimersAsync();
  expect(all.asked).toEqual([]);
});

test("paused and played again while a cell is on its way, it goes at the same pace", async () => {
  vi.useFakeTimers();
  let arrive = (): void => {};
  const waiting = new Promise<void>((done) => (arrive = done));
  const all = score({ ready: () => waiting });
  const player = new Player(all);
  void player.play();
  await vi.advanceTimersByTimeAsync(10);
  player.stop();
  void player.play();
  arrive();
  await vi.advanceTimersByTimeAsync(player.pace * 2.5);
  expect(all.shown).toEqual([0, 1, 2]);
  player.stop();
});
