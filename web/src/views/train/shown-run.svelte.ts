/** The run that Train shows: the current training or one that was trained before, its step, and the pinned image. */
import { getMetrics } from "../../lib/api";
import { Latest } from "../../lib/latest-request.svelte";
import { modelOf, opened, sourceOf } from "../../lib/session.svelte";
import { CALM, here } from "../../lib/state.svelte";
import { Feed } from "../../lib/trace.svelte";
import type { Followed } from "../../lib/training.svelte";
import type { InputRef, Metrics, ModelInfo } from "../../lib/types";

/** The data set of an image; undefined for one of a file. */
const sampleOf = (input: InputRef): string | undefined => (input.kind === "sample" ? input.source : undefined);

export class ShownRun {
  readonly #followed: Followed;
  readonly #training = $derived.by(() => here().training);
  /** The run among the models of the page; null until its first step is kept. */
  readonly model: ModelInfo | null = $derived.by(() => {
    const id = this.#training;
    const open = opened()?.models.find((m) => m.id === (id ?? here().model)) ?? null;
    const named = open ?? (id === null ? modelOf(here().model) : null);
    return named?.run === true ? named : null;
  });
  readonly id: string | null = $derived.by(() => this.#training ?? this.model?.id ?? null);
  /** The steps whose weights are kept. */
  readonly history: readonly number[] = $derived.by(() => {
    const { history } = this.#followed;
    return history.length > 0 && this.#training !== null ? history : (this.model?.history ?? []);
  });
  /** The step on screen: the chosen one, or the last. */
  readonly at: number | null = $derived.by(() => {
    const chosen = here().at;
    return chosen !== null && this.history.includes(chosen) ? chosen : (this.history.at(-1) ?? null);
  });
  readonly source: string | null = $derived.by(() => this.#followed.info?.source ?? this.model?.source ?? null);
  /** The image that stays the same while the weights change. */
  readonly pinned: InputRef | null = $derived.by((): InputRef | null => {
    const [chosen, source] = [here().input, this.source];
    if (chosen !== null) return chosen;
    const opening = modelOf(here().model)?.start ?? null; // the image that the other views show
    if (opening !== null && (this.model?.start === opening || sampleOf(opening) === source)) return opening;
    const splits = sourceOf(source)?.splits ?? {};
    const split = (["test", "train", "all"] as const).find((s) => (splits[s] ?? 0) > 0);
    return source === null || split === undefined
      ? (this.model?.start ?? null)
      : { kind: "sample", source, split, index: 0 };
  });

  /** What a run measured that was trained before. */
  readonly #former = new Latest<Metrics>();
  readonly measured = $derived.by(() =>
    this.#training === null ? (this.#former.value?.points ?? []) : this.#followed.points,
  );
  readonly total = $derived.by(
    () => this.#followed.info?.total ?? Math.max(this.#former.value?.total ?? 0, this.history.at(-1) ?? 0),
  );

  /** The pass of the pinned image with the weights of the step on screen. */
  readonly feed = new Feed();

  constructor(followed: Followed) {
    this.#followed = followed;
    $effect(() => {
      const of = this.#training === null ? (this.model?.id ?? null) : null;
      this.#former.want(of ?? "", of === null ? null : () => getMetrics(of));
    });
    $effect(() => {
      const { id, pinned, at } = this;
      const has = this.model !== null || (this.#training !== null && followed.history.length > 0);
      this.feed.want(
        id === null || !has || pinned === null || at === null
          ? null
          : { model: id, input: pinned, change: CALM, edits: [], at, fit: here().fit },
      );
    });
  }
}
