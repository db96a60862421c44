/** Reads the parts of an address's query, and keeps those that mean nothing, so that the page can say so. */

/** A part of an address that cannot be read, and what would be readable in its place. */
export type Unread = Readonly<{ name: string; text: string; expected: string }>;

const LONGEST = 40; // characters of a part that a message repeats

/** How a part is read: what it means, or null where it means nothing; and what is readable, for the message. */
type Form<T> = Readonly<{ from: (text: string) => T | null; expected: string }>;

export class AddressReader {
  readonly #has: URLSearchParams;
  readonly #unread: Unread[] = [];
  readonly #names = new Set<string>();

  constructor(query: string) {
    this.#has = new URLSearchParams(query);
  }

  /** The parts that could not be read so far. */
  get unread(): readonly Unread[] {
    return this.#unread;
  }

  /** A part, or the fallback where the address has none or one that cannot be read. */
  part<T, F>(name: string, { from, expected }: Form<T>, fallback: F): T | F {
    this.#names.add(name);
    const text = this.#has.get(name);
    if (text === null) return fallback;
    const value = from(text);
    if (value === null) this.#unread.push({ name, text, expected });
    return value ?? fallback;
  }

  /** A part that is any text. */
  text(name: string): string | null {
    return this.part(name, { from: (text) => text, expected: "" }, null);
  }

  /** The items of a part that can be read; an empty part has none. */
  list<T>(name: string, separator: string, { from, expected }: Form<T>): T[] {
    this.#names.add(name);
    return (this.#has.get(name)?.split(separator) ?? []).flatMap((text) => {
      const value = text === "" ? null : from(text);
      if (value === null && text !== "") this.#unread.push({ name, text, expected });
      return value === null ? [] : [value];
    });
  }

  /** Everything that was not asked for by name. */
  rest(): [string, string][] {
    return [...this.#has].filter(([name]) => !this.#names.has(name));
  }

  /** Keep a part as one that cannot be read. */
  refuse(part: Unread): void {
    this.#unread.push(part);
  }
}

/** A part that is one of a few words. */
export const oneOf = <T extends string>(words: readonly T[]): Form<T> => ({
  from: (text) => words.find((word) => word === text) ?? null,
  expected: listed(words, "or"),
});

/** A whole number from 0, of at most nine digits. */
export const WHOLE: Form<number> = {
  from: (text) => (/^\d{1,9}$/.test(text) ? Number(text) : null),
  expected: "a whole number such as 3",
};

/** 1 for what is on. */
export const SWITCH: Form<boolean> = {
  from: (text) => (text === "1" ? true : text === "0" ? false : null),
  expected: "1 or 0",
};

function listed(words: readonly string[], joint: "and" | "or"): string {
  const [last, ...before] = words.toReversed();
  return before.length === 0 ? String(last) : `${before.toReversed().join(", ")} ${joint} ${last}`;
}

const shortened = (text: string): string => (text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);

/** One sentence about the parts of an address that cannot be read; null if there are none. */
export function unreadSentence(unread: readonly Unread[]): string | null {
  if (unread.length === 0) return null;
  const asked = unread.map(({ name, text }) => `“${shortened(`${name}=${text}`)}”`);
  const forms = new Map(unread.map(({ name, expected }) => [name, expected]));
  const readable = [...forms].map(([name, expected]) => (expected === "" ? "" : `${name} is ${expected}`));
  const known = readable.filter((each) => each !== "").join("; ");
  const leftOut = asked.length === 1 ? "is left out" : "are left out";
  return `This address has ${listed(asked, "and")}, which cannot be read and ${leftOut}${known === "" ? "" : `: ${known}`}.`;
}
