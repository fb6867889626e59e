// The form that starts a training, and asks for its forecast.

import { createElement, find } from "./dom.js";
import { formatDuration } from "./duration.js";
import { formatBytes, formatNumber } from "./format.js";
import { LatestRequest } from "./latest_request.js";
import { showError, showMessage } from "./messages.js";
import { SettingsFields } from "./settings_fields.js";
import { TextChoice } from "./text_choice.js";

/**
 * @typedef {import("./server_backend.js").ServerBackend} ServerBackend
 * @typedef {import("./training_types.js").Preset} Preset
 */

export class TrainingForm {
  #backend;
  #runs;
  #onStart;
  #name = find("#train-name", HTMLInputElement);
  #preset = find("#train-preset", HTMLSelectElement);
  #buttons = ["#train-start", "#train-forecast"].map((id) => find(id, HTMLButtonElement));
  #message = find("#train-form-message", HTMLElement);
  #details = find("#train-new", HTMLDetailsElement);
  #text;
  #request = new LatestRequest();
  /** @type {Preset[]} */
  #presets = [];
  /** @type {SettingsFields | null} */
  #fields = null;
  #suggested = "";

  /**
   * @param {ServerBackend} backend
   * @param {import("./run_list.js").RunList} runs
   * @param {(name: string) => void} onStart A training was started.
   */
  constructor(backend, runs, onStart) {
    this.#backend = backend;
    this.#runs = runs;
    this.#onStart = onStart;
    this.#text = new TextChoice(backend);
    runs.onChange(() => this.#suggestName());
    this.#preset.addEventListener("change", () => this.#showPreset());
    find("#train-forecast", HTMLButtonElement).addEventListener("click", () => this.#do(() => this.#forecast()));
    find("#train-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      this.#do(() => this.#start());
    });
  }

  /**
   * Fill the form when it is first shown. Throws a BackendError.
   * @param {boolean} isOpen Whether the reader sees the form at first.
   */
  async load(isOpen) {
    if (this.#fields !== null) return;
    this.#details.open = isOpen;
    const { presets, settings } = await this.#backend.settings();
    await this.#text.refresh();
    this.#presets = presets;
    this.#fields = new SettingsFields(settings);
    this.#preset.replaceChildren(...presets.map(({ name }) => createElement("option", {}, name)));
    this.#showPreset();
  }

  #showPreset() {
    const preset = this.#presets.find(({ name }) => name === this.#preset.value);
    if (!preset) return;
    find("#train-about", HTMLElement).textContent = preset.about;
    this.#fields?.showDefaults(preset.settings);
    this.#suggestName();
  }

  /** Fill in a name that is free, unless the reader has typed another one. */
  #suggestName() {
    if (this.#name.value !== this.#suggested) return;
    const taken = new Set(this.#runs.runs.map((run) => run.name));
    let [name, number] = [this.#preset.value, 1];
    while (taken.has(name)) name = `${this.#preset.value}-${++number}`;
    this.#name.value = this.#suggested = name;
  }

  /**
   * Do what a button asks for; both buttons wait for its end.
   * @param {() => Promise<void>} action
   */
  async #do(action) {
    for (const button of this.#buttons) button.disabled = true;
    try {
      await action();
    } catch (error) {
      showError(this.#message, error);
    }
    for (const button of this.#buttons) button.disabled = false;
  }

  async #readTask() {
    showMessage(this.#message, "Sending…");
    const settings = this.#fields?.read() ?? {};
    return { preset: this.#preset.value, text: await this.#text.store(), settings };
  }

  async #forecast() {
    const task = await this.#readTask();
    showMessage(this.#message, "Timing a few steps…");
    const forecast = await this.#backend.forecast(task, this.#request.start());
    const { seconds, memory_bytes: memory, validation_loss_from: from, validation_loss_to: to } = forecast;
    const parts = [`about ${formatDuration(seconds)}`];
    if (memory !== null) parts.push(`${formatBytes(memory)} of memory`);
    if (from !== null) parts.push(`a validation loss of ${formatNumber(from, 2)} to ${formatNumber(to, 2)}`);
    showMessage(this.#message, `Forecast: ${parts.join(", ")}.`);
  }

  async #start() {
    const name = this.#name.value;
    await this.#backend.startTraining({ name, ...(await this.#readTask()) });
    showMessage(this.#message, `${name} has started.`);
    this.#suggested = this.#name.value;
    this.#details.open = false;
    this.#onStart(name);
  }
}
