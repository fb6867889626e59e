// The view "Write": a prompt, how to sample, and what one run or two runs write from it.

import { find } from "./dom.js";
import { debounce } from "./latest_request.js";
import { SamplingControls } from "./sampling_controls.js";
import { Writer } from "./writer.js";

/**
 * @typedef {import("./backend.js").Backend} Backend
 * @typedef {import("./run_list.js").RunList} RunList
 */

const WAIT = 120; // milliseconds after the last movement of a slider

export class WriteView {
  #runs;
  #run = find("#write-run", HTMLSelectElement);
  #secondRun = find("#write-second-run", HTMLSelectElement);
  #prompt = find("#write-prompt", HTMLTextAreaElement);
  #start = find("#write-start", HTMLButtonElement);
  #stop = find("#write-stop", HTMLButtonElement);
  #writers;

  /**
   * @param {Backend} backend
   * @param {RunList} runs
   */
  constructor(backend, runs) {
    this.#runs = runs;
    const refreshBars = debounce(() => this.#writers.forEach((writer) => writer.refreshBars()), WAIT);
    const form = find("#write-form", HTMLFormElement);
    const controls = new SamplingControls(form, refreshBars);
    const showBusy = () => (this.#stop.disabled = !this.#writers.some((writer) => writer.isBusy));
    this.#writers = [0, 1].map(() => new Writer(backend, controls, showBusy));
    find("#writers", HTMLElement).append(...this.#writers.map((writer) => writer.element));
    runs.onChange(() => this.#fillRuns());
    for (const select of [this.#run, this.#secondRun]) select.addEventListener("change", () => this.#setRuns());
    this.#stop.addEventListener("click", () => this.#writers.forEach((writer) => writer.stop()));
    this.#prompt.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      for (const writer of this.#writers) writer.write(this.#prompt.value);
    });
  }

  /**
   * Choose the run that writes.
   * @param {string} name
   */
  chooseRun(name) {
    this.#run.value = name;
    this.#setRuns();
  }

  #fillRuns() {
    this.#runs.fill(this.#run);
    this.#runs.fill(this.#secondRun, { none: "no second run" });
    this.#setRuns();
  }

  #setRuns() {
    const [first, second] = [this.#run, this.#secondRun].map((select) => this.#runs.selected(select));
    this.#writers[0].setRun(first);
    this.#writers[1].setRun(second);
    this.#writers[1].element.hidden = second === null;
    find("#writers", HTMLElement).classList.toggle("pair", second !== null);
    this.#start.disabled = first === null;
  }
}
