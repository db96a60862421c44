/** What the server is asked for, resource by resource. */
import { call, json, buffer, tensor, posting, remember } from "./http";
import { THUMBNAILS } from "./planes";
import { pictures, floats, unpack, type Picture, type Tensor } from "./pack";
import type {
  BackwardInfo,
  BlockOptions,
  BlockSpec,
  BackwardRequest,
  Cell,
  ContributionsInfo,
  DifferenceInfo,
  Explained,
  NoPaths,
  PathsInfo,
  PlanInfo,
  FieldInfo,
  LessonInfo,
  LessonScreen,
  LessonVerdict,
  Metrics,
  ProbeAnswer,
  ProbeInfo,
  ProbeRequest,
  Proof,
  QuestionInfo,
  Session,
  StatisticNumbers,
  StepEffectInfo,
  Stored,
  TraceInfo,
  TraceRequest,
  TrainCommand,
  TrainingEvent,
  TrainingInfo,
  TrainingStepInfo,
  TrainOptions,
  TrainRequest,
  WalkInfo,
} from "./types";

const at = (cell: Cell): string => cell.join(",");
const name = encodeURIComponent;

export const getSession = (): Promise<Session> => json("session");

export const getLesson = (): Promise<LessonInfo | null> => json("lesson");
export const getLessonScreen = (number: number): Promise<LessonScreen> => json(`lesson/screens/${number}`);
export const postLessonReply = (question: string, reply: string): Promise<LessonVerdict> =>
  json(`lesson/questions/${name(question)}`, posting({ reply }));

export async function getSamples(
  source: string,
  split: string,
  offset: number,
  limit: number,
  signal?: AbortSignal,
): Promise<Picture[]> {
  return pictures(
    await buffer(`samples?source=${name(source)}&split=${name(split)}&offset=${offset}&limit=${limit}`, signal),
  );
}

export function upload(file: Blob, called: string): Promise<Stored> {
  return json(`inputs?name=${name(called)}`, { method: "POST", body: file, type: file.type });
}

export async function postTrace(request: TraceRequest, signal?: AbortSignal): Promise<TraceInfo> {
  const info = await json<TraceInfo>("traces", { ...posting(request), signal });
  remember(info.id, "traces", request);
  return info;
}

/** Repeat a step of a run, counted from 1, and record it. */
export async function postTrainingStep(model: string, step: number, signal?: AbortSignal): Promise<TrainingStepInfo> {
  const info = await json<TrainingStepInfo>("training-steps", { ...posting({ model, step }), signal });
  remember(info.trace.id, "training-steps", { model, step });
  return info;
}

/** The loss after the same update with a multiple of its learning rate. */
export function getStepEffect(trace: string, times: number, signal?: AbortSignal): Promise<StepEffectInfo> {
  return json(`training-steps/${trace}/effect?times=${times}`, { signal });
}

export function getDirection(trace: string, parameter: string, signal?: AbortSignal): Promise<Tensor> {
  return tensor(`training-steps/${trace}/directions/${name(parameter)}`, signal);
}

/** A running statistic of batch norm before and after a step, and the batch's own. */
export function getStatistic(trace: string, statistic: string, signal?: AbortSignal): Promise<StatisticNumbers> {
  return json(`training-steps/${trace}/statistics/${name(statistic)}`, { signal });
}

/** The gradients of an image. */
export async function postBackward(request: BackwardRequest, signal?: AbortSignal): Promise<BackwardInfo> {
  const info = await json<BackwardInfo>("gradients", { ...posting(request), signal });
  remember(info.trace.id, "gradients", request);
  return info;
}

/** The cells of a gradient that are 0 because an activation did not pass: 1 there, 0 elsewhere. */
export function getBlocked(trace: string, step: number, channel: number, signal?: AbortSignal): Promise<Tensor> {
  return tensor(`gradients/${trace}/steps/${step}/blocked?channel=${channel}`, signal);
}

/** What each channel of a forward step adds to the number that a backward pass differentiates; `step` is its gradient. */
export function getChannels(trace: string, step: number, signal?: AbortSignal): Promise<Tensor> {
  return tensor(`gradients/${trace}/steps/${step}/channels`, signal);
}

export type ThumbnailsAsk = Readonly<{ channels?: number; side?: number; first?: number }>;

export async function getThumbnails(
  trace: string,
  steps: readonly number[],
  ask: ThumbnailsAsk = {},
  signal?: AbortSignal,
): Promise<Picture[]> {
  const { channels, side, first } = { ...THUMBNAILS, first: 0, ...ask };
  const which = `steps=${steps.join(",")}&channels=${channels}&side=${side}&first=${first}`;
  return pictures(await buffer(`traces/${trace}/thumbnails?${which}`, signal));
}

export function getInput(trace: string, signal?: AbortSignal): Promise<Tensor> {
  return tensor(`traces/${trace}/input`, signal);
}

/** The input from 0 to 1, before normalization, in full size. */
export function getPicture(trace: string, signal?: AbortSignal): Promise<Tensor> {
  return tensor(`traces/${trace}/input?shown=true`, signal);
}

export function getOutput(trace: string, step: number, channel: number | null, signal?: AbortSignal): Promise<Tensor> {
  return tensor(`traces/${trace}/steps/${step}/output${channel === null ? "" : `?channel=${channel}`}`, signal);
}

export type ExplainAsk = Readonly<{ all?: boolean; channel?: number | null }>;

export function getExplained(
  trace: string,
  step: number,
  cell: Cell,
  ask: ExplainAsk = {},
  signal?: AbortSignal,
): Promise<Explained> {
  const more = `${ask.all ? "&all=true" : ""}${ask.channel == null ? "" : `&channel=${ask.channel}`}`;
  return json(`traces/${trace}/steps/${step}/explain?cell=${at(cell)}${more}`, { signal });
}

export function getProbability(trace: string, index: number, signal?: AbortSignal): Promise<Explained> {
  return json(`traces/${trace}/probability/explain?cell=${index}`, { signal });
}

export function getProof(trace: string, step: number, cell: Cell, signal?: AbortSignal): Promise<Proof> {
  return json(`traces/${trace}/steps/${step}/proof?cell=${at(cell)}`, { signal });
}

/** Contributions of the input's pixels to a number, and their weights. */
export type Contributions = Readonly<{ info: ContributionsInfo; pixels: Float32Array; weights: Float32Array }>;

export async function getContributions(
  trace: string,
  step: number,
  cell: Cell,
  signal?: AbortSignal,
): Promise<Contributions> {
  const path = `traces/${trace}/steps/${step}/contributions?cell=${at(cell)}`;
  const { header, body } = unpack<{ info: ContributionsInfo }>(await buffer(path, signal));
  const numbers = floats(body);
  return {
    info: header.info,
    pixels: numbers.subarray(0, numbers.length / 2),
    weights: numbers.subarray(numbers.length / 2),
  };
}

/** A number, or its difference from that of another class, as paths through the channels of convolutions. */
export function getPaths(
  trace: string,
  step: number,
  cell: Cell,
  minus: number | null,
  signal?: AbortSignal,
): Promise<PathsInfo | NoPaths> {
  const less = minus === null ? "" : `&minus=${minus}`;
  return json(`traces/${trace}/steps/${step}/paths?cell=${at(cell)}${less}`, { signal });
}

/** What a pixel adds to a number by way of the numbers of a walk; the step null is the image. */
export function getWalk(
  trace: string,
  through: readonly Readonly<{ step: number | null; cell: Cell }>[],
  signal?: AbortSignal,
): Promise<WalkInfo> {
  const places = through.map((place) => `${place.step ?? "image"}:${at(place.cell)}`).join(";");
  return json(`traces/${trace}/walk?through=${name(places)}`, { signal });
}

/** The pixels that a number can depend on. */
export function getField(trace: string, step: number, cell: Cell, signal?: AbortSignal): Promise<FieldInfo> {
  return json(`traces/${trace}/steps/${step}/field?cell=${at(cell)}`, { signal });
}

export function getDifference(trace: string, base: string, signal?: AbortSignal): Promise<DifferenceInfo> {
  return json(`traces/${trace}/difference?base=${base}`, { signal });
}

export function getStepDifference(
  trace: string,
  base: string,
  step: number,
  channel: number | null,
  signal?: AbortSignal,
): Promise<Tensor> {
  const which = channel === null ? "" : `&channel=${channel}`;
  return tensor(`traces/${trace}/steps/${step}/difference?base=${base}${which}`, signal);
}

/** A parameter's numbers: all, or a range of kernels along its first axis. */
export function getParameter(
  trace: string,
  parameter: string,
  part: Readonly<{ first: number; count: number }> | null = null,
  signal?: AbortSignal,
): Promise<Tensor> {
  const which = part === null ? "" : `?first=${part.first}&count=${part.count}`;
  return tensor(`traces/${trace}/parameters/${name(parameter)}${which}`, signal);
}

export function getFiltered(trace: string, kernel: string, signal?: AbortSignal): Promise<Tensor> {
  return tensor(`filtered?trace=${trace}&kernel=${name(kernel)}`, signal);
}

export const getTrainOptions = (): Promise<TrainOptions> => json("training");
export const getTrainings = (): Promise<TrainingInfo[]> => json("trainings");
/** What a model's run measured while it was trained. */
export const getMetrics = (model: string, signal?: AbortSignal): Promise<Metrics> =>
  json(`models/${model}/metrics`, { signal });
/** One kernel at some training steps; the range is that of all kernels at these steps. */
export type Moments = Readonly<{ steps: readonly number[]; tensor: Tensor }>;

export async function getMoments(
  model: string,
  parameter: string,
  kernel: number,
  steps: readonly number[],
): Promise<Moments> {
  const which = `parameter=${name(parameter)}&kernel=${kernel}&steps=${steps.join(",")}`;
  return { steps, tensor: await tensor(`models/${model}/moments?${which}`) };
}
/** The kinds of blocks, and networks to start from. */
export const getBlockOptions = (): Promise<BlockOptions> => json("blocks");
type Built = Readonly<{ source: string; blocks: readonly BlockSpec[] }>;
const listed = ({ source, blocks }: Built): { source: string; blocks: BlockSpec[] } => ({
  source,
  blocks: [...blocks],
});
/** Sizes and counts of a list of blocks as arithmetic, or why it cannot be built. */
export const postPlan = (built: Built): Promise<PlanInfo> => json("blocks/plan", posting(listed(built)));
/** A network of blocks as Python code. */
export const postCode = async (built: Built): Promise<string> =>
  (await json<{ code: string }>("blocks/code", posting(listed(built)))).code;
/** Open a network of blocks without training it; gives the id of its model. */
export const openBlocks = async (built: Built): Promise<string> =>
  (await json<{ model: string }>("blocks/open", posting(listed(built)))).model;
/** The list that a run was trained with; null for another network. */
export const getBlocksOf = async (model: string): Promise<BlockSpec[] | null> =>
  (await json<{ blocks?: BlockSpec[] | null }>(`models/${model}/blocks`)).blocks ?? null;
export const postTraining = (request: TrainRequest): Promise<TrainingInfo> => json("trainings", posting(request));
export const commandTraining = (id: string, command: TrainCommand["command"]): Promise<TrainingInfo> =>
  json(`trainings/${id}`, posting({ command }));

/** Follow a training: yields its events until it ends or the signal aborts. */
export const followTraining = (id: string, signal: AbortSignal): AsyncGenerator<TrainingEvent> =>
  follow(`trainings/${id}/events`, signal);

export const getQuestions = (): Promise<QuestionInfo[]> => json("questions");
export const getProbes = (): Promise<ProbeInfo[]> => json("probes");
export const postProbe = (request: ProbeRequest, signal?: AbortSignal): Promise<ProbeInfo> =>
  json("probes", { ...posting(request), signal });
export const cancelProbe = (id: string): Promise<ProbeInfo> => json(`probes/${id}`, posting({ command: "cancel" }));
export const followProbe = (id: string, signal: AbortSignal): AsyncGenerator<ProbeInfo> =>
  follow(`probes/${id}/events`, signal);
export const getProbeAnswer = (id: string, signal?: AbortSignal): Promise<ProbeAnswer> =>
  json(`probes/${id}/answer`, { signal });

/** The picture of an answer, or its result as JSON, as a file. */
export async function getProbeFile(id: string, which: "picture" | "json", signal?: AbortSignal): Promise<Blob> {
  return (await call(`probes/${id}/${which}`, { signal })).blob();
}

async function* follow<T>(path: string, signal: AbortSignal): AsyncGenerator<T> {
  const answer = await call(path, { signal });
  const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
  if (reader === undefined) return;
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value.replaceAll("\r", "");
    const events = text.split("\n\n");
    text = events.pop() ?? "";
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:"));
      if (data.length) yield JSON.parse(data.map((line) => line.slice(5).trim()).join("\n")) as T;
    }
  }
}
