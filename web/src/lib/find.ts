/** Find steps and classes by words: names, operations, shapes. Independent of DOM and server. */
import { nodes, type Node } from "./network";
import { size } from "./format";
import type { StepInfo, TraceInfo } from "./types";

/** What was found: a step of the network, or a class by its index. */
export type Hit = Readonly<{ kind: "step"; step: StepInfo }> | Readonly<{ kind: "class"; index: number; name: string }>;

/** All words of a query, in lower case: "3x3 conv, 512" has three. */
const wordsOf = (query: string): string[] =>
  query
    .toLowerCase()
    .split(/[\s,]+/)
    .filter((word) => word !== "");

/** How well a name fits: 0 is best, 3 means that only the description has the words. */
function rank(name: string, words: readonly string[]): number {
  const [low, first = ""] = [name.toLowerCase(), words[0]];
  return low === first ? 0 : low.startsWith(first) ? 1 : low.includes(first) ? 2 : 3;
}

/** The steps and classes that have all words of a query, the best first. */
export function find(trace: TraceInfo, classes: readonly string[], query: string, most = 30): Hit[] {
  const words = wordsOf(query);
  if (words.length === 0) return [];
  const hits: { hit: Hit; rank: number }[] = [];
  for (const step of trace.steps) {
    const shape = size(step.shape.slice(step.shape.length > 1 ? 1 : 0)).replaceAll(",", "");
    const text = `${step.name} ${step.says} ${step.op} ${step.module_type} ${shape} ${shape.replaceAll("×", "x")}`;
    const low = text.toLowerCase();
    if (words.every((word) => low.includes(word)))
      hits.push({ hit: { kind: "step", step }, rank: rank(step.name, words) });
  }
  classes.forEach((name, index) => {
    const low = name.toLowerCase();
    if (words.every((word) => low.includes(word)))
      hits.push({ hit: { kind: "class", index, name }, rank: rank(name, words) });
  });
  return hits
    .sort((a, b) => a.rank - b.rank)
    .slice(0, most)
    .map(({ hit }) => hit);
}

/** The modules to unfold, besides those that are, so that a step has a card of its own. */
export function unfoldedTo(trace: TraceInfo, open: readonly string[], step: number): string[] {
  const toggled = [...open];
  const folded = (all: readonly Node[]): string | null => {
    for (const node of all) {
      if (node.kind === "folded" && node.steps.some(({ id }) => id === step)) return node.path;
      const inside = node.kind === "open" ? folded(node.nodes) : null;
      if (inside !== null) return inside;
    }
    return null;
  };
  for (let path = folded(nodes(trace, toggled)); path !== null && !toggled.includes(path);) {
    toggled.push(path);
    path = folded(nodes(trace, toggled));
  }
  return toggled;
}
