/** Plays a walk over the cells of a map at a chosen pace, and the products within each cell if there is time for them. */

/** What is played: where it is, how it goes on, and how many products a cell has. */
export type Score = Readonly<{
  /** The cell that is shown, and how many there are. */
  index: () => number;
  count: () => number;
  products: () => number;
  /** Resolves once a cell can be shown. */
  ready: (index: number) => Promise<unknown>;
  show: (index: number) => void;
}>;

export const FASTEST = 60; // milliseconds for a cell
export const SLOWEST = 1000;
const SLOW = 400; // from here on the products appear one by one
const AHEAD = 8; // cells that are asked for ahead

export class Player {
  playing = $state(false);
  /** Milliseconds for a cell. */
  pace = $state(300);
  /** Products of the cell that are there already, while they are played one by one; null: all. */
  grown = $state<number | null>(null);

  #timer: ReturnType<typeof setTimeout> | undefined;
  #goOn: (() => void) | null = null;
  /** The current playback: one that was stopped does nothing more, even while a later one is on its way. */
  #playback = 0;

  constructor(readonly score: Score) {}

  stop(): void {
    this.#playback += 1;
    this.playing = false;
    this.grown = null;
    clearTimeout(this.#timer);
    this.#goOn?.();
  }

  /** Play from the shown cell to the last one; from the first one if the last is shown. */
  async play(): Promise<void> {
    const { index, count, ready, show } = this.score;
    const playback = (this.#playback += 1);
    const stopped = (): boolean => this.#playback !== playback; // then the score may be of a view that is gone
    this.playing = true;
    if (index() + 1 >= count()) show(0);
    while (index() + 1 < count()) {
      const [began, next] = [performance.now(), index() + 1];
      for (let i = next + 1; i < Math.min(next + AHEAD, count()); i++) ready(i).catch(() => {});
      try {
        await ready(next);
      } catch {
        if (!stopped()) this.stop(); // the cell says why when it is chosen
      }
      if (stopped()) return;
      const slow = this.pace >= SLOW;
      await this.#pause(Math.max(0, this.pace * (slow ? 0.3 : 1) - (performance.now() - began)));
      if (stopped()) return;
      show(next);
      await this.#pause(0);
      if (stopped()) return;
      if (slow) await this.#grow(stopped);
      if (stopped()) return;
    }
    this.stop();
  }

  /** One cell on; after the last one the first. */
  advance(): void {
    const { index, count, show } = this.score;
    show((index() + 1) % count());
  }

  async #grow(stopped: () => boolean): Promise<void> {
    const most = this.score.products();
    for (let k = 1; k < most; k++) {
      this.grown = k;
      await this.#pause((this.pace * 0.7) / most);
      if (stopped()) return;
    }
    this.grown = null;
  }

  #pause(ms: number): Promise<void> {
    return new Promise((done) => {
      this.#goOn = done;
      this.#timer = setTimeout(done, ms);
    });
  }
}
