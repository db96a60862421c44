import { expect, test } from "vitest";
import { curves } from "./curves";

test("points of batches and of epochs become curves over the steps", () => {
  const found = curves([
    { event: "train", step: 10, epoch: 1, loss: 0.7, accuracy: 0.5 },
    { event: "train", step: 20, epoch: 1, loss: 0.5, accuracy: 0.6 },
    { event: "epoch", step: 20, epoch: 1, loss: 0.61, accuracy: 0.55, test_loss: 0.4, test_accuracy: 0.9 },
    { event: "epoch", step: 25, epoch: 2, loss: 0.3, accuracy: 0.8, test_loss: 0.2, test_accuracy: 1 },
  ]);
  expect(found.steps).toEqual([10, 20, 25]);
  expect(found.loss).toEqual([0.7, 0.5, null]);
  expect(found.testLoss).toEqual([null, 0.4, 0.2]);
  expect(found.testAccuracy).toEqual([null, 0.9, 1]);
});

test("a step that was taken alone has its own loss", () => {
  const found = curves([
    { event: "train", step: 10, epoch: 1, loss: 0.7, accuracy: 0.5 },
    { event: "step", step: 10, epoch: 1, loss: 0.9, accuracy: 0.4 },
    { event: "step", step: 11, epoch: 1, loss: 0.6, accuracy: 0.6 },
  ]);
  expect([found.steps, found.loss]).toEqual([
    [10, 11],
    [0.9, 0.6],
  ]);
});

test("where there are only epochs, their means are the curve", () => {
  const found = curves(
    [1, 2].map((epoch) => ({
      event: "epoch",
      step: 10 * epoch,
      epoch,
      loss: 1 / epoch,
      accuracy: 0.5,
      test_loss: 0.4,
      test_accuracy: 1,
    })),
  );
  expect([found.steps, found.loss]).toEqual([
    [10, 20],
    [1, 0.5],
  ]);
});

test("values that are not numbers are left out", () => {
  expect(curves([{ event: "train", step: 1, loss: "nan", accuracy: null }]).loss).toEqual([null]);
});
