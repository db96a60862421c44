/** What a report says beside its numbers: convscope/standalone/report.py. */
import type { Point } from "../lib/curves";

/** A title, and text in lines of equal letters. */
export type Passage = Readonly<{ title: string; text: string }>;

export type Confusion = Readonly<{
  dataset: string;
  classes: readonly string[];
  counts: readonly (readonly number[])[];
  accuracy: number;
  images: number;
}>;

export type Facts = Readonly<{
  title: string;
  parameters: number;
  training: Readonly<{ points: readonly Point[]; lines: readonly string[] }> | null;
  confusion: Confusion | null;
  probes: readonly Passage[];
  left_out: readonly string[];
}>;
