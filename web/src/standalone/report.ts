/** Where a report begins: a page that carries all its numbers and asks no server for any. */
import { mount } from "svelte";
import { answerFrom } from "../lib/http";
import "../style.css";
import { embedded, type Data } from "./embedded";
import Report from "./Report.svelte";
import { Tensors } from "./tensors";
import type { Facts } from "./facts";

declare global {
  interface Window {
    /** For the browser's console: what the page answers at a path of convscope's API. */
    convscope: (path: string) => Promise<unknown>;
  }
}

/** Everything counts as visible: all numbers are here, and a print shows what was never scrolled into view. */
class AllVisible extends IntersectionObserver {
  readonly #report: (of: Element) => void;

  constructor(callback: IntersectionObserverCallback) {
    super(() => undefined);
    this.#report = (target) => callback([{ target, isIntersecting: true } as IntersectionObserverEntry], this);
  }

  override observe(of: Element): void {
    queueMicrotask(() => this.#report(of));
  }
}
window.IntersectionObserver = AllVisible;

const target = document.getElementById("app");
const text = document.getElementById("data")?.textContent;
if (target === null || text == null) throw new Error("this report is incomplete: it has no data");
const data = await Tensors.open<Data & Readonly<{ page: Facts }>>(text);
const source = embedded(data);
answerFrom(source, { isRecorded: true });
window.convscope = async (path) => (await source(path, {})).json() as Promise<unknown>;
const passes = new Map(Object.entries(data.header.passes));
const { page: facts, step } = data.header;
mount(Report, { target, props: { facts, passes, step } });
