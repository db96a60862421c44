/** Contributions as text, with their sign, and with equal decimals within one sum or list. */
import { fixed, like, short } from "../../../lib/format";

const withSign = (value: number, text: string): string => (value > 0 ? `+${text}` : text);

/** A formatter for several contributions: +0.4451. */
export function plusLike(values: readonly number[]): (value: number) => string {
  const write = like(values);
  return (value) => withSign(value, write(value));
}

/** A formatter for few small contributions and their sum: four digits of the largest. */
export function plusSmall(values: readonly number[]): (value: number) => string {
  const most = Math.max(0, ...values.map(Math.abs));
  const decimals = 3 - Math.floor(Math.log10(most));
  const write = (value: number): string =>
    decimals >= 0 && decimals <= 9 && Number.isFinite(value) ? fixed(value, decimals) : short(value);
  return (value) => withSign(value, write(value));
}
