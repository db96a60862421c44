/** The server's message types under short names. The types themselves are generated: see schema.d.ts. */
import type { components } from "./schema";

type Schemas = components["schemas"];

export type Session = Schemas["Session"];
export type ModelInfo = Schemas["ModelInfo"];
export type SourceInfo = Schemas["SourceInfo"];
export type KernelInfo = Schemas["KernelInfo"];
export type SampleRef = Schemas["SampleRef"];
export type StoredRef = Schemas["StoredRef"];
export type PixelsRef = Schemas["PixelsRef"];
export type InputRef = SampleRef | StoredRef | PixelsRef;
export type InputInfo = Schemas["InputInfo"];
export type Change = Schemas["Change"];
export type Edit = Schemas["Edit"];
export type Stored = Schemas["Stored"];
export type TraceRequest = Schemas["TraceRequest"];
export type TraceInfo = Schemas["TraceInfo"];
export type StepInfo = Schemas["StepInfo"];
export type ParameterInfo = Schemas["ParameterInfo"];
export type Answer = Schemas["Answer"];
export type DifferenceInfo = Schemas["DifferenceInfo"];
export type StepChange = Schemas["StepChange"];
export type Address = Schemas["Address"];
export type Proof = Schemas["Proof"];
export type Explained = Schemas["Explained"];
export type PathsInfo = Schemas["PathsInfo"];
export type NoPaths = Schemas["NoPaths"];
export type PathInfo = Schemas["PathInfo"];
export type WalkInfo = Schemas["WalkInfo"];
export type FieldInfo = Schemas["FieldInfo"];
export type Paper = Schemas["Paper"];
export type Line = Schemas["Line"];
export type Problem = Schemas["Problem"];
export type Fit = NonNullable<Problem["fit"]>[number];
export type LessonInfo = Schemas["LessonInfo"];
export type LessonScreen = Schemas["LessonScreen"];
export type LessonBlock = LessonScreen["blocks"][number];
export type LessonOutput = Schemas["LessonOutput"];
export type LessonQuestion = Schemas["LessonQuestion"];
export type LessonVerdict = Schemas["LessonVerdict"];
export type QuestionInfo = Schemas["QuestionInfo"];
export type SettingInfo = Schemas["SettingInfo"];
export type QuestionName = QuestionInfo["name"];
export type ProbeRequest = Schemas["ProbeRequest"];
export type ProbeInfo = Schemas["ProbeInfo"];
export type ProbeAnswer = Schemas["ProbeAnswer"];
export type TablePart = Schemas["TablePart"];
export type Metrics = Schemas["Metrics"];
export type BlockSpec = Schemas["BlockSpec"];
export type BlockOptions = Schemas["BlockOptions"];
export type BlockKind = Schemas["BlockKind"];
export type BlockSetting = Schemas["BlockSetting"];
export type BlockProblem = Schemas["BlockProblem"];
export type PlanInfo = Schemas["PlanInfo"];
export type PlannedInfo = Schemas["PlannedInfo"];
export type RepairInfo = Schemas["RepairInfo"];
export type TrainRequest = Schemas["TrainRequest"];
export type TrainOptions = Schemas["TrainOptions"];
export type TrainingInfo = Schemas["TrainingInfo"];
export type TrainCommand = Schemas["TrainCommand"];
export type TrainingEvent = Schemas["TrainingEvent"];
export type TrainingStepInfo = Schemas["TrainingStepInfo"];
export type BatchImage = Schemas["BatchImage"];
export type StatisticNumbers = Schemas["StatisticNumbers"];
export type StatisticUpdate = Schemas["StatisticUpdate"];
export type ParameterUpdate = Schemas["ParameterUpdate"];
export type StepEffectInfo = Schemas["StepEffectInfo"];
export type BackwardRequest = Schemas["BackwardRequest"];
export type BackwardInfo = Schemas["BackwardInfo"];

/** The header of a pack of contributions. It is part of a binary response, so the OpenAPI document does not include it. */
export type ContributionsInfo = Readonly<{
  of: Address;
  value: Num;
  constant: Num;
  total: Num;
  residual: Num;
  bound: Num;
  linear: boolean;
  bent: readonly string[];
  broken: readonly string[];
  checks: boolean;
  shape: readonly number[];
}>;

/** A number in JSON; NaN and infinities are strings. */
export type Num = number | "nan" | "inf" | "-inf";

/** A full index of a step's output, without the batch axis. */
export type Cell = readonly number[];

/** Convert a JSON number to a JavaScript number. */
export function real(value: Num): number {
  if (typeof value === "number") return value;
  return value === "nan" ? NaN : value === "inf" ? Infinity : -Infinity;
}
