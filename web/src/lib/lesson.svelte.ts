/** The lesson beside the page: where the reader is, what was answered. Kept for this tab, so that reloading loses nothing. */
import { getLesson, getLessonScreen, postLessonReply } from "./api";
import { Refused } from "./http";
import { refresh } from "./session.svelte";
import { follow } from "./state.svelte";
import type { LessonInfo, LessonScreen, LessonVerdict } from "./types";

const KEY = "convscope-lesson";

let info = $state.raw<LessonInfo | null>(null);
let screen = $state.raw<LessonScreen | null>(null);
let wanted = $state(0);
let problem = $state<string | null>(null);
let verdicts = $state.raw<Readonly<Record<string, LessonVerdict>>>({});

/** The open lesson; null if there is none. */
export const lesson = (): LessonInfo | null => info;
/** The screen that is shown; null until the first has arrived. */
export const lessonScreen = (): LessonScreen | null => screen;
/** The number of the screen that was asked for: the code of a screen may take a while. */
export const wantedScreen = (): number => wanted;
/** Why the screen could not be shown. */
export const lessonProblem = (): string | null => problem;
/** What the last answer to a question got. */
export const verdictOf = (question: string): LessonVerdict | null => verdicts[question] ?? null;

/** Ask whether there is a lesson, and show the screen where this tab left it. */
export async function beginLesson(): Promise<void> {
  try {
    info = await getLesson();
  } catch {
    return; // the page says by itself that the server refuses
  }
  if (info === null) return;
  await turnTo(kept(info));
}

function kept(of: LessonInfo): number {
  try {
    const [name, number] = (sessionStorage.getItem(KEY) ?? "").split(":");
    return name === of.name ? Math.min(Number(number) || 0, of.screens - 1) : 0;
  } catch {
    return 0;
  }
}

/** Show another screen; numbers beyond the ends are ignored. */
export async function turnTo(number: number): Promise<void> {
  if (info === null || number < 0 || number >= info.screens) return;
  wanted = number;
  problem = null;
  try {
    const next = await getLessonScreen(number);
    if (wanted !== number) return; // turned on meanwhile
    screen = next;
    sessionStorage.setItem(KEY, `${info.name}:${number}`);
  } catch (error) {
    if (wanted === number && error instanceof Refused) problem = error.message;
    else if (error instanceof Refused) return;
    else throw error;
  }
}

/** Let the server judge an answer. */
export async function answer(question: string, reply: string): Promise<void> {
  const verdict = await postLessonReply(question, reply);
  verdicts = { ...verdicts, [question]: verdict };
}

/** Lead the page to a place of the lesson. */
export async function visit(query: string): Promise<void> {
  await refresh(); // the lesson may have opened a network since
  follow(query);
}
