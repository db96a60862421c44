import { expect, test, vi } from "vitest";
import { commandTraining, followTraining } from "./api";
import { Followed } from "./training.svelte";
import type { TrainingEvent, TrainingInfo } from "./types";

vi.mock("./api", () => ({ commandTraining: vi.fn(), followTraining: vi.fn() }));
vi.mock("./http", () => ({ aborted: () => false, Refused: class extends Error {} }));
vi.mock("./session.svelte", () => ({ refresh: vi.fn() }));

const PATIENT = { timeout: 20_000 };
const at = (step: number): TrainingInfo => ({ id: "a", state: "paused", step }) as TrainingInfo;
const event = (step: number): TrainingEvent => ({ info: at(step), points: [], history: [] });

test("a response that arrives after the event that it caused does not take the step back", async () => {
  let step: () => void = () => undefined;
  const stepped = new Promise<void>((done) => (step = done));
  vi.mocked(followTraining).mockImplementation(async function* () {
    yield event(0);
    await stepped;
    yield event(1);
    await new Promise(() => undefined); // the training waits
  });
  const followed = new Followed();
  void followed.follow("a", new AbortController().signal);
  await vi.waitFor(() => expect(followed.info?.step).toBe(0), PATIENT);
  vi.mocked(commandTraining).mockImplementation(async () => {
    step();
    await vi.waitFor(() => expect(followed.info?.step).toBe(1), PATIENT);
    return at(0); // the server answered before the training made its step
  });
  await followed.say("step");
  expect(followed.info?.step).toBe(1);
}, 60_000);
