/** Turn a training's metrics into curves over its steps. Independent of DOM and server. */
import type { TrainingEvent } from "./types";

/** Curves over training steps; a point that was not measured is null. */
export type Curves = Readonly<{
  steps: readonly number[];
  loss: readonly (number | null)[];
  accuracy: readonly (number | null)[];
  testLoss: readonly (number | null)[];
  testAccuracy: readonly (number | null)[];
}>;

/** One line of the metrics. */
export type Point = TrainingEvent["points"][number];

/**
 * The curves of a training's metrics; those of a batch and those of an epoch may share a step. An epoch's mean training
 * loss is drawn only if there are no batch metrics: next to them, it would look like a jump of the loss. A step that was
 * taken alone has its own loss, rather than the mean since the last point.
 */
export function curves(points: readonly Point[]): Curves {
  const at = new Map<number, Point>();
  const fine = points.some((point) => point["event"] !== "epoch");
  for (const point of points) {
    const step = Number(point["step"]);
    const epoch = point["event"] === "epoch";
    const before = at.get(step);
    const first = point["event"] === "step" ? { ...before, ...point } : { ...(fine && epoch ? {} : point), ...before };
    at.set(step, { ...first, ...(epoch ? tests(point) : {}) });
  }
  const all = [...at].sort((a, b) => a[0] - b[0]);
  const one = (name: string): (number | null)[] =>
    all.map(([, point]) => (typeof point[name] === "number" ? point[name] : null));
  return {
    steps: all.map(([step]) => step),
    loss: one("loss"),
    accuracy: one("accuracy"),
    testLoss: one("test_loss"),
    testAccuracy: one("test_accuracy"),
  };
}

const tests = (point: Point): Point => ({
  test_loss: point["test_loss"] ?? null,
  test_accuracy: point["test_accuracy"] ?? null,
});
