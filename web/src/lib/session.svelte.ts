/** The server's session (open models and data), loaded once and refreshed when it may have changed. */
import { getSession } from "./api";
import { Refused } from "./http";
import { CALM, here, type State } from "./state.svelte";
import type { InputRef, ModelInfo, Session, SourceInfo, TraceRequest } from "./types";

let session = $state.raw<Session | null>(null);
let problem = $state<string | null>(null);

/** The session; null until it is loaded. */
export function opened(): Session | null {
  return session;
}

/** Why the session could not be loaded. */
export function sessionProblem(): string | null {
  return problem;
}

/** Load the session from the server. */
export async function refresh(): Promise<void> {
  try {
    session = await getSession();
    problem = null;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    problem = error.message;
  }
}

/** A model by id, or the first one if the id is null or unknown. */
export function modelOf(id: string | null): ModelInfo | null {
  return session?.models.find((m) => m.id === id) ?? session?.models[0] ?? null;
}

/** A model's name in menus; runs without kept weights are marked. */
export function listed(model: ModelInfo): string {
  return model.run && model.history.length === 0 ? `${model.name} (nothing kept)` : model.name;
}

/** A data source by id. */
export function sourceOf(id: string | null): SourceInfo | null {
  return session?.sources.find((s) => s.id === id) ?? null;
}

/** The input shown for a model: the chosen one, or its own, or the first sample of its data source. */
export function inputOf(chosen: InputRef | null, model: ModelInfo): InputRef | null {
  if (chosen !== null) return chosen;
  if (model.start !== null) return model.start;
  const source = sourceOf(model.source);
  const split = source === null ? undefined : ["test", "train", "all"].find((s) => (source.splits[s] ?? 0) > 0);
  if (source === null || split === undefined) return null;
  return { kind: "sample", source: source.id, split: split as "test" | "train" | "all", index: 0 };
}

/**
 * The state with a newly chosen image. One that may have another size than the model takes is resized, which its notes
 * say, as `convscope predict` does.
 */
export function picked(input: InputRef, model: ModelInfo | null): Partial<State> {
  const fits = input.kind === "pixels" || (input.kind === "sample" && input.source === model?.source);
  return { input, origin: null, change: CALM, fit: fits ? null : "resize" };
}

/** The trace request for a state; null if model or input are missing. */
export function requestOf(state: State = here()): TraceRequest | null {
  const model = modelOf(state.model);
  const input = model === null ? null : inputOf(state.input, model);
  if (model === null || input === null) return null;
  return { model: model.id, input, change: state.change, edits: [...state.edits], at: state.at, fit: state.fit };
}
