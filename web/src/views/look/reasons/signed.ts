/** Contributions as text, with their sign, and with equal decimals within one sum or list. */
import { like, short } from "../../../lib/format";

const withSign = (value: number, text: string): string => (value > 0 ? `+${text}` : text);

/** One contribution: +0.4451. */
export const plus = (value: number): string => withSign(value, short(value));

/** A formatter for several contributions. */
export function plusLike(values: readonly number[]): (value: number) => string {
  const write = like(values);
  return (value) => withSign(value, write(value));
}
