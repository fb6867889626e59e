// The runs that the views offer, and the selects that show them.

import { createElement } from "./dom.js";
import { showAsLabel } from "./visible_text.js";

/** @typedef {import("./backend.js").Run} Run */

/** The list of runs, which all views share. */
export class RunList {
  /** @type {Run[]} */
  runs = [];
  #backend;
  /** @type {(() => void)[]} */
  #listeners = [];

  /** @param {import("./backend.js").Backend} backend */
  constructor(backend) {
    this.#backend = backend;
  }

  /** Ask the backend for the runs, and tell the listeners. */
  async refresh() {
    this.runs = await this.#backend.listRuns();
    for (const listener of this.#listeners) listener();
  }

  /**
   * Call a function after each refresh.
   * @param {() => void} listener
   */
  onChange(listener) {
    this.#listeners.push(listener);
  }

  /**
   * Return the run that a select shows.
   * @param {HTMLSelectElement} select
   * @returns {Run | null}
   */
  selected(select) {
    return this.runs.find((run) => run.name === select.value) ?? null;
  }

  /**
   * Put the runs that can be read into a select. The chosen run stays chosen while it exists.
   * @param {HTMLSelectElement} select
   * @param {{none?: string, isOffered?: (run: Run) => boolean}} [options] `none` is the text of a first entry that
   *   chooses no run.
   */
  fill(select, { none, isOffered = () => true } = {}) {
    const chosen = select.value;
    const offered = this.runs.filter((run) => run.error === null && isOffered(run));
    const names = offered.map(({ name }) => createElement("option", { value: name }, showName(name)));
    select.replaceChildren(...(none ? [createElement("option", { value: "" }, none)] : []), ...names);
    if (offered.some((run) => run.name === chosen)) select.value = chosen;
  }
}

/**
 * Return a run's name as it is shown. Spaces stay.
 * @param {string} name
 * @returns {string}
 */
export function showName(name) {
  return name
    .split(" ")
    .map((word) => (word ? showAsLabel(word) : ""))
    .join(" ");
}
