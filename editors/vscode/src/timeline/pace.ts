/**
 * How often a view that follows the hits is loaded by itself: no more than a share of the time goes to it, so that on a
 * busy machine the person's own doings come first. Imports neither vscode nor the DOM; times are milliseconds of any clock.
 */

/** What is rested after a load, in times of what it took: a fifth of the time is for loading. */
const REST = 4;

export class Pace {
  private restUntil = 0;

  /** How long the next load has to wait. */
  wait(now: number): number {
    return Math.max(0, this.restUntil - now);
  }

  /** A load has ended. */
  loaded(began: number, ended: number): void {
    this.restUntil = ended + REST * Math.max(0, ended - began);
  }
}
