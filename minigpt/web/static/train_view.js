// The view "Train": start a training, and watch one.

import { find } from "./dom.js";
import { showError, showMessage, toSentence } from "./messages.js";
import { Poller } from "./poller.js";
import { TrainingForm } from "./training_form.js";
import { TrainingMonitor } from "./training_monitor.js";
import { ACTIVE } from "./training_types.js";

const [WHILE_ACTIVE, OTHERWISE] = [1000, 5000]; // milliseconds between two questions

export class TrainView {
  #backend;
  #form;
  #monitor;
  #reason = find("#train-reason", HTMLElement);
  /** @type {string | undefined} The training that was started last, until it is shown. */
  #wanted;

  /**
   * @param {import("./server_backend.js").ServerBackend} backend
   * @param {import("./run_list.js").RunList} runs
   * @param {import("./tabs.js").Tabs} tabs
   */
  constructor(backend, runs, tabs) {
    this.#backend = backend;
    const poller = new Poller(find("#panel-train", HTMLElement), () => this.#update());
    this.#monitor = new TrainingMonitor(backend, runs, () => poller.wake());
    this.#form = new TrainingForm(backend, runs, async (name) => {
      this.#wanted = name;
      await poller.wake();
      find("#train-heading", HTMLElement).focus();
    });
    tabs.onShow((name) => {
      if (name === "train") poller.wake();
    });
  }

  /** @returns {Promise<number>} */
  async #update() {
    try {
      const { trainings, reason } = await this.#backend.listTrainings();
      find("#train-new", HTMLElement).hidden = reason !== null;
      this.#reason.hidden = reason === null;
      showMessage(this.#reason, toSentence(reason ?? ""));
      const isActive = trainings.some(({ state }) => ACTIVE.includes(state));
      if (reason === null) await this.#form.load(!isActive);
      await this.#monitor.update(trainings, this.#wanted);
      this.#wanted = undefined;
      return isActive ? WHILE_ACTIVE : OTHERWISE;
    } catch (error) {
      this.#reason.hidden = false;
      showError(this.#reason, error);
      return OTHERWISE;
    }
  }
}
