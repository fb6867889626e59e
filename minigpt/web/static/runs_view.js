// The view "Runs": a table of all runs, and the loss curve of one of them.

import { createElement, find } from "./dom.js";
import { NONE, formatBytes, formatDate, formatNumber } from "./format.js";
import { drawCurves } from "./line_chart.js";
import { showError, showMessage, toSentence } from "./messages.js";
import { showName } from "./run_list.js";
import { showInText } from "./visible_text.js";

/**
 * @typedef {import("./backend.js").Backend} Backend
 * @typedef {import("./backend.js").Run} Run
 * @typedef {import("./run_list.js").RunList} RunList
 */

const COLUMNS = ["name", "kind", "bits per byte", "loss", "size", "steps", "started", "status"];
const COUNTED =
  "An n-gram model counts sequences of tokens in the training text. It has no training steps and no curve.";
/** @type {{metrics: [], snapshots: []}} */
const NO_METRICS = { metrics: [], snapshots: [] };
const WIDEST = 760; // CSS pixels of a curve

export class RunsView {
  #backend;
  #runs;
  #onWrite;
  #body = find("#runs-table tbody", HTMLElement);
  #message = find("#runs-message", HTMLElement);
  #metrics = find("#runs-metrics", HTMLElement);
  #snapshots = find("#runs-snapshots", HTMLElement);
  /** @type {string | null} The run whose curve is shown. */
  #shown = null;

  /**
   * @param {Backend} backend
   * @param {RunList} runs
   * @param {(name: string) => void} onWrite The reader wants to write with a run.
   */
  constructor(backend, runs, onWrite) {
    this.#backend = backend;
    this.#runs = runs;
    this.#onWrite = onWrite;
    runs.onChange(() => this.#fill());
    find("#runs-refresh", HTMLButtonElement).addEventListener("click", () => this.#refresh());
  }

  async #refresh() {
    try {
      await this.#runs.refresh();
      showMessage(this.#message);
    } catch (error) {
      showError(this.#message, error);
    }
  }

  #fill() {
    const { runs } = this.#runs;
    this.#body.replaceChildren(...runs.map((run) => this.#makeRow(run)));
    showMessage(this.#message, runs.length === 0 ? "There are no runs yet: minigpt train makes one." : "");
  }

  /** @param {Run} run */
  #makeRow(run) {
    const name = createElement(
      "button",
      { type: "button", class: "link", onclick: () => this.#showMetrics(run) },
      createElement("bdi", {}, showName(run.name)),
    );
    const head = createElement("th", { scope: "row", role: "rowheader" }, name);
    if (run.error !== null) {
      name.disabled = true;
      const error = createElement(
        "td",
        { role: "cell", colspan: COLUMNS.length, class: "error" },
        toSentence(run.error),
      );
      return createElement("tr", { role: "row" }, head, error);
    }
    const cells = describeRun(run).map((text, column) =>
      createElement("td", { role: "cell", "data-label": COLUMNS[column + 1] }, text),
    );
    const write = createElement(
      "button",
      { type: "button", "aria-label": `Write with ${showName(run.name)}`, onclick: () => this.#onWrite(run.name) },
      "Write",
    );
    return createElement("tr", { role: "row" }, head, ...cells, createElement("td", { role: "cell" }, write));
  }

  /** @param {Run} run */
  async #showMetrics(run) {
    const { name } = run;
    this.#shown = name;
    const heading = find("#runs-metrics-name", HTMLElement);
    const curves = find("#runs-curves", HTMLElement);
    const message = find("#runs-metrics-message", HTMLElement);
    try {
      const { metrics, snapshots } = isCounted(run) ? NO_METRICS : await this.#backend.metrics(name);
      if (this.#shown !== name) return;
      heading.textContent = showName(name);
      this.#metrics.hidden = false; // before the curve is drawn, whose width is that of its frame
      showMessage(message, metrics.length === 0 ? (isCounted(run) ? COUNTED : "This run has no evaluations.") : "");
      curves.replaceChildren(
        ...(metrics.length === 0 ? [] : [drawLosses(metrics, Math.min(WIDEST, curves.clientWidth))]),
      );
      this.#showSnapshots(snapshots);
    } catch (error) {
      heading.textContent = showName(name);
      curves.replaceChildren();
      this.#showSnapshots([]);
      this.#metrics.hidden = false;
      showError(message, error);
    }
    this.#metrics.scrollIntoView({ block: "nearest" });
  }

  /** @param {import("./backend.js").Snapshot[]} snapshots */
  #showSnapshots(snapshots) {
    this.#snapshots.hidden = snapshots.length === 0;
    const items = snapshots.map(({ step, validation_loss: loss, text }) =>
      createElement(
        "li",
        {},
        createElement("h4", {}, `Step ${formatNumber(step)}, loss ${formatNumber(loss, 4)}`),
        createElement("div", { class: "text" }, showInText(text)),
      ),
    );
    find("ol", HTMLElement, this.#snapshots).replaceChildren(...items);
  }
}

/**
 * Return the cells of a run's row, without its name.
 * @param {Run} run
 * @returns {string[]}
 */
function describeRun(run) {
  return [
    run.kind,
    formatNumber(run.bits_per_byte, 4),
    formatNumber(run.validation_loss, 4),
    isCounted(run) ? NONE : formatBytes(run.bytes),
    isCounted(run) ? NONE : formatNumber(run.steps),
    formatDate(run.started),
    run.status || NONE,
  ];
}

/**
 * Return true for an n-gram model: it counts sequences of tokens, and has no training steps.
 * @param {Run} run
 */
function isCounted(run) {
  return run.kind === "ngram";
}

/**
 * @param {import("./backend.js").Evaluation[]} metrics
 * @param {number} width CSS pixels.
 */
function drawLosses(metrics, width) {
  const curves = [
    { name: "validation", points: metrics.map(({ step, validation_loss: loss }) => ({ x: step, y: loss })) },
    { name: "training", points: metrics.map(({ step, train_loss: loss }) => ({ x: step, y: loss })) },
  ];
  return drawCurves(curves, { x: "step", y: "Loss in nats per token" }, width);
}
