/** Light or dark: as the system says, or as the switch says; and whether the system asks for no motion. */
import { DIVERGING, type ColourMap, type Theme } from "./colours";

const KEY = "convscope-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function kept(): Theme | null {
  try {
    const said = localStorage.getItem(KEY);
    return said === "light" || said === "dark" ? said : null;
  } catch {
    return null;
  }
}

/** Whether the person asked for no motion. */
export const still = (): boolean => matchMedia("(prefers-reduced-motion: reduce)").matches;

let chosen = $state<Theme | null>(kept());
let dark = $state(system.matches);
system.addEventListener("change", (event) => (dark = event.matches));

/** The theme that is shown. */
export function theme(): Theme {
  return chosen ?? (dark ? "dark" : "light");
}

/** The colours of data in that theme. */
export function palette(): ColourMap {
  return DIVERGING[theme()];
}

/** The other theme from now on; back to the system's where that is the same. */
export function switchTheme(): void {
  const next: Theme = theme() === "dark" ? "light" : "dark";
  chosen = next === (dark ? "dark" : "light") ? null : next;
  try {
    if (chosen === null) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, chosen);
  } catch {
    // a browser that keeps nothing
  }
}
