/** Tokens that are patches of the image, and what one of them attends to. Independent of DOM and server. */
import type { Expr, Frame } from "../../../lib/explanation";
import { readsImage } from "../../../lib/network";
import { real, type Cell, type StepInfo, type TraceInfo } from "../../../lib/types";

/** How tokens are patches of the image: `prefix` of them, such as the class token, come first and are not. */
export type Patches = Readonly<{ rows: number; columns: number; prefix: number; height: number; width: number }>;

const PREFIX = 16; // tokens before the patches: for the class, registers

/**
 * The patches that the tokens of a step are; null where that is not certain.
 *
 * A step (1, tokens, features) or (1, heads, tokens, features) of a network whose first convolution cuts the image into
 * patches that neither overlap nor leave anything out, as a vision transformer's does.
 */
export function patchesOf(trace: TraceInfo, step: StepInfo): Patches | null {
  const tokens = step.shape.at(-2) ?? 0;
  const cut = trace.steps.find((each) => each.op === "convolution" && readsImage(each));
  const kernel = trace.parameters.find(({ name }) => name === cut?.parameters["weight"])?.shape.slice(-2);
  if (cut === undefined || kernel === undefined || cut.shape.length !== 4 || step.shape[0] !== 1) return null;
  if (step.shape.length !== 3 && !(step.shape.length === 4 && (isAttention(step) || isShares(step)))) return null;
  const [rows = 0, columns = 0] = cut.shape.slice(-2);
  const [height = 0, width = 0] = trace.input.shape.slice(-2);
  const prefix = tokens - rows * columns;
  const whole = kernel[0] === height / rows && kernel[1] === width / columns;
  return whole && prefix >= 0 && prefix <= PREFIX ? { rows, columns, prefix, height, width } : null;
}

/** Whether a step mixes the values of all tokens by their shares of attention. */
export const isAttention = (step: StepInfo): boolean => step.op.includes("scaled_dot_product");

/** Whether a step's own numbers are shares: (1, heads, from, to), the softmax of attention that is written out. */
export function isShares({ op, shape }: StepInfo): boolean {
  return op.includes("softmax") && shape.length === 4 && shape[2] === shape[3];
}

/** The pixels of a token's patch; null if it is not a patch. */
export function frameOfToken({ rows, columns, prefix, height, width }: Patches, token: number): Frame | null {
  if (token < prefix || token >= prefix + rows * columns) return null;
  const [row, column] = [Math.floor((token - prefix) / columns), (token - prefix) % columns];
  const [down, right] = [height / rows, width / columns];
  const [top, left] = [row * down, column * right];
  return { name: "", kind: "input", channel: 0, top, left, bottom: top + down - 1, right: left + right - 1 };
}

/** A token in words. */
export function tokenName({ columns, prefix }: Patches, token: number): string {
  if (token < prefix) return prefix === 1 ? "the class token" : `token ${token}`;
  return `patch row ${Math.floor((token - prefix) / columns)}, column ${(token - prefix) % columns}`;
}

/** By token, its share of the attention in a number that attention made; null if attention did not make it. */
export function sharesIn(expr: Expr | null): ReadonlyMap<number, number> | null {
  if (expr?.type !== "dot" || expr.right?.kind !== "computed" || expr.right.name !== "share") return null;
  const { right, left } = expr;
  return new Map(
    left.cells.map((cell: Cell, i): [number, number] => [cell.at(-2) ?? 0, real(right.values[i] ?? "nan")]),
  );
}
