/** Contributions as text, with their sign, and with equal decimals within one sum or list. */
import { like } from "../../../lib/format";

/** A formatter for several contributions: +0.4451. */
export function plusLike(values: readonly number[]): (value: number) => string {
  const write = like(values);
  return (value) => (value > 0 ? `+${write(value)}` : write(value));
}
