// The view "Compare": runs in a table, their losses on the same text, and their loss curves over one another.

import { createElement, find } from "./dom.js";
import { formatNumber } from "./format.js";
import { LatestRequest } from "./latest_request.js";
import { drawCurves } from "./line_chart.js";
import { showError, showMessage, toSentence } from "./messages.js";
import { showName } from "./run_list.js";
import { showInText } from "./visible_text.js";

/**
 * @typedef {import("./backend.js").Run} Run
 * @typedef {import("./backend.js").Evaluation} Evaluation
 * @typedef {"step" | "characters" | "seconds"} Axis
 */

const COLUMNS = ["", "kind", "tokens", "parameters", "steps", "bits per byte, own text"];
const SAME_TEXT = "on the same text";
const AXES = { step: "step", characters: "characters read", seconds: "seconds of training" };
const WIDEST = 1000; // CSS pixels of the curves
const AT_FIRST = 2; // runs that are chosen at first

export class CompareView {
  #backend;
  #runs;
  #body = find("#compare-table tbody", HTMLElement);
  #message = find("#compare-message", HTMLElement);
  #curves = find("#compare-curves", HTMLElement);
  #curvesMessage = find("#compare-curves-message", HTMLElement);
  #start = find("#compare-start", HTMLButtonElement);
  #own = find("#compare-own", HTMLInputElement);
  #text = find("#compare-text", HTMLTextAreaElement);
  #measuring = new LatestRequest();
  /** @type {Set<string> | null} Null until there are runs to choose from. */
  #chosen = null;
  /** @type {Map<string, string>} What was measured, by the run's name. */
  #measured = new Map();
  #drawing = 0;

  /**
   * @param {import("./server_backend.js").ServerBackend} backend
   * @param {import("./run_list.js").RunList} runs
   * @param {import("./tabs.js").Tabs} tabs
   */
  constructor(backend, runs, tabs) {
    this.#backend = backend;
    this.#runs = runs;
    runs.onChange(() => this.#fill());
    tabs.onShow((name) => {
      if (name === "compare") this.#draw();
    });
    find("#compare-axis", HTMLElement).addEventListener("change", () => this.#draw());
    for (const id of ["#compare-own", "#compare-validation"]) {
      find(id, HTMLInputElement).addEventListener("change", () => this.#showTextField());
    }
    find("#compare-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      this.#measure();
    });
  }

  #showTextField() {
    find("#compare-text-field", HTMLElement).hidden = !this.#own.checked;
  }

  #fill() {
    const offered = this.#runs.runs.filter((run) => run.error === null);
    if (this.#chosen === null && offered.length > 0) {
      const trained = offered.filter((run) => run.kind !== "ngram");
      this.#chosen = new Set(trained.slice(0, AT_FIRST).map((run) => run.name));
    }
    this.#body.replaceChildren(...offered.map((run) => this.#makeRow(run)));
    if (!find("#panel-compare", HTMLElement).hidden) this.#draw();
  }

  /** @param {Run} run */
  #makeRow(run) {
    const box = createElement("input", {
      type: "checkbox",
      checked: this.#chosen?.has(run.name) ?? false,
      onchange: () => {
        if (box.checked) this.#chosen?.add(run.name);
        else this.#chosen?.delete(run.name);
        this.#draw();
      },
    });
    const label = createElement("label", {}, box, " ", createElement("bdi", {}, showName(run.name)));
    const counted = run.kind === "ngram";
    const cells = [
      run.kind,
      run.tokenizer,
      formatNumber(counted ? null : run.parameters),
      formatNumber(counted ? null : run.steps),
      formatNumber(run.bits_per_byte, 4),
    ];
    const measured = this.#measured.get(run.name) ?? "–";
    return createElement(
      "tr",
      { role: "row" },
      createElement("th", { scope: "row", role: "rowheader" }, label),
      ...cells.map((text, n) => createElement("td", { role: "cell", "data-label": COLUMNS[n + 1] }, text)),
      createElement("td", { role: "cell", "data-label": SAME_TEXT, class: "measured" }, measured),
    );
  }

  #listChosen() {
    return this.#runs.runs.filter((run) => run.error === null && this.#chosen?.has(run.name));
  }

  async #measure() {
    const models = this.#listChosen().map((run) => run.name);
    if (models.length === 0) {
      showError(this.#message, new Error("Choose at least one run in the table."));
      return;
    }
    const signal = this.#measuring.start();
    this.#start.disabled = true;
    this.#measured.clear();
    this.#fill();
    showMessage(this.#message, "Measuring…");
    try {
      const request = this.#own.checked ? { models, text: this.#text.value } : { models };
      let characters = 0;
      for await (const event of this.#backend.losses(request, signal)) {
        if (event.model === undefined) {
          characters = event.characters;
        } else {
          const { reason, bits_per_byte: bits, loss } = event;
          const nats = `${formatNumber(loss, 4)} nats per token`;
          const result = reason !== null ? toSentence(showInText(reason)) : bits === null ? nats : formatNumber(bits, 4);
          this.#measured.set(event.model, result);
          this.#fill();
        }
      }
      showMessage(this.#message, `Measured in bits per byte on ${formatNumber(characters)} characters.`);
    } catch (error) {
      showError(this.#message, error);
    }
    this.#start.disabled = false;
  }

  async #draw() {
    const number = ++this.#drawing;
    const runs = this.#listChosen().filter((run) => run.kind !== "ngram");
    try {
      const found = await Promise.all(runs.map(async (run) => (await this.#backend.metrics(run.name)).metrics));
      if (number !== this.#drawing) return;
      const drawn = runs.map((run, n) => ({ run, metrics: found[n].filter(({ step }) => step > 0) }));
      this.#show(drawn.filter(({ metrics }) => metrics.length > 0));
    } catch (error) {
      this.#curves.replaceChildren();
      showError(this.#curvesMessage, error);
    }
  }

  /** @param {{run: Run, metrics: Evaluation[]}[]} drawn Without the untrained models, whose losses are all alike. */
  #show(drawn) {
    if (drawn.length === 0) {
      this.#curves.replaceChildren();
      showMessage(this.#curvesMessage, "Choose runs in the table that were trained here.");
      return;
    }
    const unmeasured = drawn.find(({ run }) => bitsPerNat(run) === null);
    const axis = /** @type {Axis} */ (find("#compare-axis :checked", HTMLInputElement).value);
    const curves = drawn.map(({ run, metrics }) => ({
      name: showName(run.name),
      points: metrics.map((each) => ({
        x: each[axis],
        y: each.validation_loss * (unmeasured ? 1 : (bitsPerNat(run) ?? 1)),
      })),
    }));
    const y = `Validation loss in ${unmeasured ? "nats per token" : "bits per byte"}`;
    const width = Math.min(WIDEST, this.#curves.clientWidth);
    const figure = drawCurves(curves, { x: AXES[axis], y }, width, []);
    figure.classList.add("compared");
    this.#curves.replaceChildren(figure);
    const reason =
      unmeasured &&
      `${showName(unmeasured.run.name)} has no loss in bits per byte yet. Nats per token compare runs of the same tokens only.`;
    showMessage(this.#curvesMessage, reason);
  }
}

/**
 * Return the bits per byte of a nat per token, which depends on the run's tokens; null before it is known.
 * @param {Run} run
 */
function bitsPerNat({ bits_per_byte: bits, validation_loss: nats }) {
  return bits && nats ? bits / nats : null;
}

