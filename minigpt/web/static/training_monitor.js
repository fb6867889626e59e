// Watch a training: its progress, its losses, its samples, and the loss that counting alone reaches.

import { createElement, find } from "./dom.js";
import { formatDuration } from "./duration.js";
import { formatNumber } from "./format.js";
import { drawCurves } from "./line_chart.js";
import { showError, showMessage, toSentence } from "./messages.js";
import { showName } from "./run_list.js";
import { ACTIVE } from "./training_types.js";
import { showInText } from "./visible_text.js";

/**
 * @typedef {import("./server_backend.js").ServerBackend} ServerBackend
 * @typedef {import("./training_types.js").Training} Training
 * @typedef {import("./training_types.js").ListedTraining} ListedTraining
 */

const WIDEST = 760; // CSS pixels of the curves
const STATES = {
  starting: "The training is starting: it reads its text.",
  running: "The training runs.",
  stopping: "The training ends: it evaluates and saves.",
  finished: "The training is finished.",
  interrupted: "The training was stopped, and is saved.",
  diverged: "The training stopped because its loss diverged.",
  killed: "The training ended without saving. Resume it from its last checkpoint.",
  failed: "The training failed before its first step.",
};

export class TrainingMonitor {
  #backend;
  #runs;
  #section = find("#train-watch", HTMLElement);
  #select = find("#train-select", HTMLSelectElement);
  #curves = find("#train-curves", HTMLElement);
  #stop = find("#train-stop", HTMLButtonElement);
  #resume = find("#train-resume", HTMLButtonElement);
  #resumeSteps = find("#train-resume-steps", HTMLInputElement);
  #message = find("#train-message", HTMLElement);
  /** @type {Training | null} The training that is shown, with all its evaluations and samples. */
  #training = null;
  /** @type {number | null} Loss of the n-gram model of the training text, in nats per token. */
  #ngramLoss = null;
  #ngramOf = "";
  #version = "";

  /**
   * @param {ServerBackend} backend
   * @param {import("./run_list.js").RunList} runs
   * @param {() => void} onChange The reader wants something that the next answer of the server will show.
   */
  constructor(backend, runs, onChange) {
    this.#backend = backend;
    this.#runs = runs;
    this.#select.addEventListener("change", onChange);
    const act = async (/** @type {(name: string) => Promise<unknown>} */ action) => {
      try {
        await action(this.#select.value);
        showMessage(this.#message);
      } catch (error) {
        showError(this.#message, error);
      }
      onChange();
    };
    this.#stop.addEventListener("click", () => act((name) => backend.stopTraining(name)));
    this.#resume.addEventListener("click", () => act((name) => backend.resumeTraining(name, this.#readSteps())));
  }

  /**
   * Show the newest state of the chosen training.
   * @param {ListedTraining[]} trainings All trainings, the active ones first.
   * @param {string} [wanted] The training to choose.
   */
  async update(trainings, wanted) {
    this.#section.hidden = trainings.length === 0;
    this.#fillSelect(trainings, wanted);
    if (trainings.length === 0) return;
    const name = this.#select.value;
    const before = this.#training?.name === name ? this.#training : null;
    const training = await this.#readOn(name, before);
    if (this.#select.value !== name) return;
    this.#training = training;
    this.#show(training, before);
    const version = [name, training.started, training.state, training.has_weights].join(" ");
    if (version !== this.#version) await this.#runs.refresh(); // the run can be used now, or has its final loss
    this.#version = version;
    this.#askForNgram(training);
  }

  /**
   * Return a training with all its evaluations and samples, of which only the new ones are asked for.
   * @param {string} name
   * @param {Training | null} before
   */
  async #readOn(name, before) {
    const training = await this.#backend.training(name, lastStep(before?.metrics), lastStep(before?.snapshots));
    if (before === null) return training;
    const isSame = before.started === training.started && before.step <= training.step;
    if (!isSame) return this.#backend.training(name, -1, -1); // it began anew, or at a checkpoint further back
    training.metrics.unshift(...before.metrics);
    training.snapshots.unshift(...before.snapshots);
    return training;
  }

  /**
   * @param {ListedTraining[]} trainings
   * @param {string} [wanted]
   */
  #fillSelect(trainings, wanted = this.#select.value) {
    const options = trainings.map(({ name, state }) =>
      createElement("option", { value: name }, `${showName(name)}: ${state}`),
    );
    const texts = (/** @type {Iterable<Element>} */ list) => [...list].map((option) => option.textContent).join("\n");
    if (texts(this.#select.options) !== texts(options)) this.#select.replaceChildren(...options);
    if (trainings.some(({ name }) => name === wanted)) this.#select.value = wanted;
  }

  /**
   * @param {Training} training
   * @param {Training | null} before What was shown; null for another training.
   */
  #show(training, before) {
    const { name, state, error, step, max_iters: most, seconds_left: left } = training;
    if (before === null) this.#forgetNgram();
    find("#train-heading", HTMLElement).textContent = showName(name);
    showMessage(find("#train-state", HTMLElement), describe(training));
    find("#train-error", HTMLElement).textContent = error === null ? "" : toSentence(showInText(error));
    const progress = find("#train-progress", HTMLProgressElement);
    progress.max = most ?? 1;
    progress.value = step;
    const time = left === null ? "" : `, about ${formatDuration(left)} left`;
    const steps = most === null ? "" : `Step ${formatNumber(step)} of ${formatNumber(most)}${time}`;
    find("#train-steps", HTMLElement).textContent = steps;
    this.#stop.disabled = state !== "running" && state !== "starting";
    this.#resume.disabled = !training.can_resume;
    this.#resumeSteps.disabled = !training.can_resume;
    this.#resumeSteps.placeholder = String(most ?? "");
    if (before === null) this.#resumeSteps.value = "";
    if (before === null || before.metrics.length !== training.metrics.length) this.#draw();
    if (before === null || before.snapshots.length !== training.snapshots.length) this.#showSamples(training);
    this.#showOutput(training.output);
  }

  #draw() {
    const metrics = this.#training?.metrics ?? [];
    const curves = [
      { name: "validation", points: metrics.map(({ step, validation_loss: loss }) => ({ x: step, y: loss })) },
      { name: "training", points: metrics.map(({ step, train_loss: loss }) => ({ x: step, y: loss })) },
    ];
    const levels = this.#ngramLoss === null ? [] : [{ name: "n-gram model", y: this.#ngramLoss }];
    const width = Math.min(WIDEST, this.#curves.clientWidth);
    const labels = { x: "step", y: "Loss in nats per token" };
    this.#curves.replaceChildren(...(metrics.length > 0 ? [drawCurves(curves, labels, width, levels)] : []));
  }

  /** @param {Training} training */
  #showSamples({ snapshots }) {
    const details = find("#train-samples", HTMLElement);
    details.hidden = snapshots.length === 0;
    const items = snapshots.map(({ step, validation_loss: loss, text }) =>
      createElement(
        "li",
        {},
        createElement("h4", {}, `Step ${formatNumber(step)}, loss ${formatNumber(loss, 4)}`),
        createElement("div", { class: "text" }, showInText(text)),
      ),
    );
    find("ol", HTMLElement, details).replaceChildren(...items.reverse());
  }

  /** @param {string} output */
  #showOutput(output) {
    find("#train-output", HTMLElement).hidden = output === "";
    const place = find("#train-output pre", HTMLElement);
    const shown = output.split("\n").map(showInText).join("\n");
    if (place.textContent !== shown) place.textContent = shown;
  }

  /**
   * Ask once for the loss of the n-gram model of the training text: what counting alone reaches.
   * @param {Training} training
   */
  async #askForNgram({ name, started, has_weights: hasWeights }) {
    const key = `${name} ${started}`;
    const run = this.#runs.runs.find((each) => each.name === name);
    const hasText = run?.error === null && run.views.memorization === null;
    if (this.#ngramOf === key || !hasWeights || !hasText) return;
    this.#ngramOf = key;
    const hint = find("#train-ngram", HTMLElement);
    try {
      for await (const event of this.#backend.losses({ models: [`ngram:${name}`] })) {
        if (event.model === undefined || event.loss === null || this.#ngramOf !== key) continue;
        this.#ngramLoss = event.loss;
        hint.textContent =
          `The n-gram model, which only counts sequences in the training text, reaches ${formatNumber(event.loss, 4)}.`;
        this.#draw();
      }
    } catch {
      hint.textContent = ""; // the text has changed since, or cannot be read
    }
  }

  #forgetNgram() {
    this.#ngramOf = "";
    this.#ngramLoss = null;
    find("#train-ngram", HTMLElement).textContent = "";
  }

  #readSteps() {
    const steps = this.#resumeSteps.valueAsNumber;
    return Number.isNaN(steps) ? null : steps;
  }
}

/** @param {{step: number}[]} [entries] */
function lastStep(entries) {
  return entries?.at(-1)?.step ?? -1;
}

/** @param {Training} training */
function describe({ state, validation_loss: loss, bits_per_byte: bits, preset, parameters }) {
  const model = preset && ` Preset ${preset}, ${formatNumber(parameters)} parameters.`;
  const measured = loss === null || ACTIVE.includes(state) ? "" : ` Validation loss ${formatNumber(loss, 4)}`;
  const exact = measured && (bits === null ? `${measured}.` : `${measured}, ${formatNumber(bits, 4)} bits per byte.`);
  return `${STATES[state]}${model ?? ""}${exact}`;
}
