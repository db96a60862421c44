/** Light or dark theme, by the system's setting or the page's switch; and the system's setting for reduced motion. */
import { DIVERGING, type ColourMap, type Theme } from "./colours";

const KEY = "convscope-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function kept(): Theme | null {
  try {
    const stored = localStorage.getItem(KEY);
    return stored === "light" || stored === "dark" ? stored : null;
  } catch {
    return null;
  }
}

/** Whether the user prefers reduced motion. */
export const still = (): boolean => matchMedia("(prefers-reduced-motion: reduce)").matches;

let chosen = $state<Theme | null>(kept());
let dark = $state(system.matches);
system.addEventListener("change", (event) => (dark = event.matches));

let printing = $state(false);

/** The current theme; light while printing. */
export function theme(): Theme {
  if (printing) return "light";
  return chosen ?? (dark ? "dark" : "light");
}

/** The colour map of data in the current theme. */
export function palette(): ColourMap {
  return DIVERGING[theme()];
}

/** Begin or end printing, which uses the light theme. */
export function print(begun: boolean): void {
  printing = begun;
}

/** Switch to the other theme; follow the system again if that is the system's theme. */
export function switchTheme(): void {
  const next: Theme = theme() === "dark" ? "light" : "dark";
  chosen = next === (dark ? "dark" : "light") ? null : next;
  try {
    if (chosen === null) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, chosen);
  } catch {
    // storage is not available
  }
}
