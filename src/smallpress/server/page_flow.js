// Text that grows, shown without drawing again what has settled.

import { blocks, elements } from "./page_markdown.js";

/** Blocks at the end that the next words may change: the last, and the one that it may turn out to be part of. */
const LIVE = 2;

export class Flow {
  #element;
  #settled = 0; // characters of the text whose blocks are drawn for good
  #kept = 0; // their nodes in the element

  constructor(element) {
    this.#element = element;
  }

  /** Show `text`, which begins with all that was shown before. */
  show(text) {
    const rest = text.slice(this.#settled);
    const lines = rest.split("\n");
    const starts = [];
    const tree = blocks(lines.map((line) => line.replace(/\r$/, "")), 0, starts);
    const drawn = elements(tree, document);
    while (this.#element.childNodes.length > this.#kept) this.#element.lastChild.remove();
    this.#element.append(...drawn);
    const settling = tree.length - LIVE;
    if (settling > 0) {
      this.#settled += lines.slice(0, starts[settling]).reduce((sum, line) => sum + line.length + 1, 0);
      this.#kept += settling;
    }
  }
}

/** Calls `draw` at most once a frame, and so seldom that drawing takes a small part of the time. */
export function paced(draw) {
  let due = false;
  let free = 0;
  return () => {
    if (due) return;
    due = true;
    const wait = free - performance.now();
    const run = () => requestAnimationFrame(() => {
      due = false;
      const began = performance.now();
      draw();
      const now = performance.now();
      free = now + 6 * (now - began);
    });
    if (wait > 0) setTimeout(run, wait);
    else run();
  };
}
