// What one run writes from a prompt: the text, its branches, and the alternatives to a token.

import { BarChart } from "./bar_chart.js";
import { BranchList } from "./branch_list.js";
import { BranchTree } from "./branch_tree.js";
import { find } from "./dom.js";
import { formatCount, formatNumber, formatPercent } from "./format.js";
import { LatestRequest } from "./latest_request.js";
import { isAbort, showError, showMessage } from "./messages.js";
import { showName } from "./run_list.js";
import { shadeOfProbability } from "./surprise.js";
import { TokenList } from "./token_list.js";
import { quote } from "./visible_text.js";

/**
 * @typedef {import("./backend.js").Backend} Backend
 * @typedef {import("./backend.js").Run} Run
 * @typedef {import("./branch_tree.js").BranchToken} BranchToken
 * @typedef {import("./sampling_controls.js").SamplingControls} SamplingControls
 */

const ALTERNATIVES = 20;
const HINT = "Select a token of the text to see the likeliest tokens at its place.";
const NOTHING_BEFORE = "The model needs at least one token before a place to predict what stands there.";

export class Writer {
  /** @type {HTMLElement} */
  element;
  /** @type {Run | null} */
  run = null;
  #backend;
  #controls;
  #onBusy;
  #text;
  #branches;
  #bars;
  #message;
  #placeMessage;
  #continueButton;
  #stream = new LatestRequest();
  #barsRequest = new LatestRequest();
  /** @type {BranchTree | null} */
  #tree = null;
  #shown = 0;
  /** @type {number | null} The selected place of the text. */
  #place = null;
  /** @type {string | null} The ids before the place that the bars are for. */
  #barsContext = null;
  isBusy = false;

  /**
   * @param {Backend} backend
   * @param {SamplingControls} controls
   * @param {() => void} onBusy Called when the writer starts or stops writing.
   */
  constructor(backend, controls, onBusy) {
    this.#backend = backend;
    this.#controls = controls;
    this.#onBusy = onBusy;
    const copy = document.importNode(find("#writer-template", HTMLTemplateElement).content, true);
    this.element = find("article", HTMLElement, copy);
    const part = (/** @type {string} */ name) => find(`.${name}`, HTMLElement, this.element);
    this.#message = part("writer-message");
    this.#placeMessage = part("writer-place");
    this.#continueButton = find(".writer-continue", HTMLButtonElement, this.element);
    this.#continueButton.addEventListener("click", () => this.#continue());
    this.#text = new TokenList("Text, token by token", { onSelect: (place) => this.#select(place) }, "end of the text");
    this.#branches = new BranchList((id) => this.#show(id));
    this.#bars = new BarChart("Likeliest tokens at this place", (token, rank) => this.#choose({ ...token, rank }));
    part("writer-text").append(this.#text.element);
    part("writer-branches").append(this.#branches.element);
    part("writer-bars").append(this.#bars.element);
    this.#clear();
  }

  /**
   * Choose the run. Another run begins with an empty text.
   * @param {Run | null} run
   */
  setRun(run) {
    if (run?.name !== this.run?.name) this.#clear();
    this.run = run;
    find(".writer-name", HTMLElement, this.element).textContent = run ? showName(run.name) : "";
    find(".writer-kind", HTMLElement, this.element).textContent = run?.kind ?? "";
  }

  /**
   * Write from a prompt, or without one from the run's start. The old text and its branches are dropped.
   * @param {string} prompt
   */
  async write(prompt) {
    const run = this.run;
    if (!run) return;
    this.#clear();
    const request = { model: run.name, text: prompt };
    await this.#work(async (signal) => {
      const tokens = prompt === "" ? run.start : await this.#backend.tokenize(request, signal);
      this.#tree = new BranchTree(tokens);
      this.#show(0);
      await this.#generate(0, signal);
    });
  }

  /** Stop writing. The text stays. */
  stop() {
    this.#stream.abort();
  }

  /** Show the alternatives again, after the sampling has changed. */
  refreshBars() {
    if (this.#place !== null) this.#showBars(this.#place);
  }

  #clear() {
    this.stop();
    this.#tree = null;
    this.#shown = 0;
    this.#text.set([]);
    this.element.classList.add("empty");
    this.#deselect();
    showMessage(this.#message);
  }

  /** Continue the shown branch at its end. */
  #continue() {
    const id = this.#shown;
    return this.#work((signal) => this.#generate(id, signal));
  }

  /**
   * Do something that can be stopped, and say how it ended. A piece of work that began earlier is stopped.
   * @param {(signal: AbortSignal) => Promise<void>} action
   */
  async #work(action) {
    const signal = this.#stream.start();
    this.#setBusy(true);
    showMessage(this.#message, "Writing…");
    try {
      await action(signal);
    } catch (error) {
      if (!isAbort(error)) showError(this.#message, error);
      else if (this.#stream.isLatest(signal)) showMessage(this.#message, this.#tree ? "Stopped." : "");
    }
    if (this.#stream.isLatest(signal)) this.#setBusy(false);
  }

  /** @param {boolean} isBusy */
  #setBusy(isBusy) {
    this.isBusy = isBusy;
    this.#continueButton.disabled = isBusy;
    this.#text.element.setAttribute("aria-busy", String(isBusy));
    this.#onBusy();
  }

  /**
   * Let the run continue a branch.
   * @param {number} id
   * @param {AbortSignal} signal
   */
  async #generate(id, signal) {
    const tree = /** @type {BranchTree} */ (this.#tree);
    const request = {
      model: /** @type {Run} */ (this.run).name,
      ids: tree.path(id).map((token) => token.id),
      ...this.#controls.readSampling(),
      ...this.#controls.readGeneration(),
    };
    let written = 0;
    for await (const event of this.#backend.generate(request, signal)) {
      if (event.tokens) {
        tree.append(id, event.tokens);
        written += event.tokens.length;
        this.#branches.updateLength(id);
        if (id === this.#shown) this.#text.append(event.tokens.map(listToken));
      } else {
        const end = event.finish_reason === "stop" ? " The model ended the text." : "";
        showMessage(this.#message, `${formatCount(written, "token")} written.${end}`);
      }
    }
  }

  /**
   * Show a branch's text.
   * @param {number} id
   */
  #show(id) {
    const tree = /** @type {BranchTree} */ (this.#tree);
    this.element.classList.remove("empty");
    this.#shown = id;
    this.#text.set(tree.path(id).map(listToken));
    this.#branches.show(tree, id);
    if (this.#place !== null && this.#place <= tree.length(id)) {
      this.#text.select(this.#place);
      this.#showBars(this.#place);
    } else {
      this.#deselect();
    }
  }

  #deselect() {
    this.#barsRequest.abort();
    this.#place = null;
    this.#bars.element.hidden = true;
    showMessage(this.#placeMessage, HINT);
  }

  /** @param {number} place */
  #select(place) {
    this.#place = place;
    this.#showBars(place);
  }

  /**
   * Put a token at the selected place, and go on from there.
   * @param {BranchToken} token
   */
  #choose(token) {
    const place = this.#place;
    if (!this.#tree || place === null || this.#readContext(place).join() !== this.#barsContext) return;
    this.stop();
    const { id, isNew } = this.#tree.choose(this.#shown, place, token);
    this.#show(id);
    if (isNew) this.#continue();
  }

  /**
   * Return the ids before a place of the shown text.
   * @param {number} place
   */
  #readContext(place) {
    const path = this.#tree?.path(this.#shown) ?? [];
    return path.slice(0, place).map((token) => token.id);
  }

  /**
   * Show the likeliest tokens at a place. Until they are there, the bars of another place cannot be chosen.
   * @param {number} place
   */
  async #showBars(place) {
    const signal = this.#barsRequest.start();
    const ids = this.#readContext(place);
    const context = ids.join();
    this.#bars.element.setAttribute("aria-busy", String(context !== this.#barsContext));
    this.#bars.element.hidden = ids.length === 0;
    if (ids.length === 0) {
      showMessage(this.#placeMessage, NOTHING_BEFORE);
      return;
    }
    const request = {
      model: /** @type {Run} */ (this.run).name,
      ids,
      top: ALTERNATIVES,
      ...this.#controls.readSampling(),
    };
    try {
      const next = await this.#backend.nextTokens(request, signal);
      const path = /** @type {BranchTree} */ (this.#tree).path(this.#shown);
      this.#barsContext = context;
      this.#bars.element.setAttribute("aria-busy", "false");
      this.#bars.show(next.candidates, path[place]?.id ?? null);
      const entropies = [next.entropy, next.filtered_entropy].map((bits) => formatNumber(bits, 2));
      const entropy = `Entropy: ${entropies[0]} bits, after the filters ${entropies[1]}.`;
      showMessage(this.#placeMessage, `${describePlace(path, place)} ${entropy}`);
    } catch (error) {
      showError(this.#placeMessage, error);
    }
  }
}

/** @param {BranchToken} token */
function listToken({ text, probability, rank }) {
  const title = probability === undefined ? "a token of the prompt" : `${formatPercent(probability)}, rank ${rank}`;
  return { text, title, shade: probability === undefined ? null : shadeOfProbability(probability) };
}

/**
 * @param {BranchToken[]} path
 * @param {number} place
 */
function describePlace(path, place) {
  if (place === path.length) return "After the last token.";
  const { text, probability, rank } = path[place];
  const token = `Token ${formatNumber(place + 1)} is ${quote(text)}`;
  return probability === undefined
    ? `${token}, of the prompt.`
    : `${token}: ${formatPercent(probability)}, rank ${rank}.`;
}
