// The view "Look": how a run reads a text. It shows surprise, attention, heads, the logit lens, and passages that stand
// in the training text.

import { Ablation } from "./ablation.js";
import { find } from "./dom.js";
import { formatNumber, formatPercent } from "./format.js";
import { HeadGrid } from "./head_grid.js";
import { shadeOf } from "./heat_map.js";
import { LatestRequest, debounce } from "./latest_request.js";
import { LensTable } from "./lens_table.js";
import { describeShares, markPassages } from "./memorization_text.js";
import { isAbort, showError, showMessage, toSentence } from "./messages.js";
import { STRONGEST, shadeOfProbability, toBits } from "./surprise.js";
import { TokenList } from "./token_list.js";
import { quote } from "./visible_text.js";

/**
 * @typedef {import("./backend.js").Backend} Backend
 * @typedef {import("./backend.js").Run} Run
 * @typedef {import("./backend.js").Positions} Positions
 * @typedef {import("./run_list.js").RunList} RunList
 */

const WAIT = 60; // milliseconds: several heads can be switched off in one request
const LENS_TOP = 3;

export class LookView {
  #backend;
  #runs;
  #run = find("#look-run", HTMLSelectElement);
  #input = find("#look-text", HTMLTextAreaElement);
  #start = find("#look-start", HTMLButtonElement);
  #message = find("#look-message", HTMLElement);
  #results = find("#look-results", HTMLElement);
  #details = find("#look-details", HTMLElement);
  #byAttention = find("#look-by-attention", HTMLInputElement);
  #bySurprise = find("#look-by-surprise", HTMLInputElement);
  #list = new TokenList("The text, token by token", { onActivate: (place) => this.#showToken(place) });
  #lens = new LensTable();
  #ablation;
  #heads;
  #request = new LatestRequest();
  /** @type {{model: string, text: string} | null} The text that is shown. */
  #text = null;
  /** @type {Positions | null} */
  #positions = null;
  /** @type {Positions | null} */
  #positionsWithout = null;
  #attentionLength = 0;

  /**
   * @param {Backend} backend
   * @param {RunList} runs
   */
  constructor(backend, runs) {
    this.#backend = backend;
    this.#runs = runs;
    this.#heads = new HeadGrid({
      onChoose: () => this.#chooseHead(),
      onSwitch: debounce(() => this.#switchHeads(), WAIT),
    });
    this.#ablation = new Ablation(backend, () => this.#heads.switchAllOn());
    find("#look-tokens", HTMLElement).append(this.#list.element);
    find("#look-heads", HTMLElement).append(this.#heads.element);
    find("#look-lens", HTMLElement).append(this.#lens.element);
    find("#look-lens", HTMLElement).after(this.#lens.details);
    find("#look-shading", HTMLElement).addEventListener("change", () => this.#shade());
    runs.onChange(() => this.#fillRuns());
    this.#connectForm();
  }

  #connectForm() {
    const form = find("#look-form", HTMLFormElement);
    this.#run.addEventListener("change", () => this.#text && this.#look());
    this.#input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#look();
    });
  }

  #fillRuns() {
    this.#runs.fill(this.#run);
    this.#start.disabled = this.#runs.selected(this.#run) === null;
  }

  /** Ask for everything about the text, and show each answer when it comes. */
  async #look() {
    const run = this.#runs.selected(this.#run);
    if (!run) return;
    const signal = this.#request.start();
    const text = { model: run.name, text: this.#input.value };
    showMessage(this.#message, "Reading the text…");
    try {
      const positions = await this.#backend.positions(text, signal);
      this.#showText(run, text, positions);
      showMessage(this.#message);
      await Promise.all([
        this.#ablation.showWhole(text, positions, signal),
        this.#fill("attention", run.views.attention, async () => {
          const { tokens, weights } = await this.#backend.attention(text, signal);
          this.#attentionLength = tokens.length;
          this.#heads.showWeights(weights);
          this.#shade();
        }),
        this.#fill("lens", run.views.lens, async () => {
          this.#lens.show(await this.#backend.lens({ ...text, top: LENS_TOP }, signal));
        }),
        this.#fill("memorization", run.views.memorization, async () => {
          const memorization = await this.#backend.memorization(text, signal);
          find("#look-passages", HTMLElement).replaceChildren(...markPassages(text.text, memorization));
          find("#look-shares", HTMLElement).textContent = describeShares(memorization);
        }),
      ]);
    } catch (error) {
      if (!isAbort(error)) this.#results.hidden = true;
      showError(this.#message, error);
    }
  }

  /**
   * Show the tokens, and prepare the parts that follow.
   * @param {Run} run
   * @param {{model: string, text: string}} text
   * @param {Positions} positions
   */
  #showText(run, text, positions) {
    this.#text = text;
    this.#positions = positions;
    this.#positionsWithout = null;
    this.#attentionLength = 0;
    this.#results.hidden = false;
    this.#list.set(positions.tokens.map((token, place) => listToken(token.text, positions.losses[place])));
    this.#details.textContent =
      "Move to a token, with the pointer or with the arrow keys, to see how it was predicted.";
    const { attention, ablation } = run.views;
    this.#heads.build(run.n_layer ?? 0, run.n_head ?? 0, { hasMaps: attention === null, canSwitch: ablation === null });
    showMessage(find("#look-ablation-reason", HTMLElement), toSentence((ablation !== attention && ablation) || ""));
    this.#byAttention.disabled = attention !== null;
    if (this.#byAttention.disabled) this.#bySurprise.checked = true;
    this.#shade();
  }

  /**
   * Fill a part of the view, or say why it does not work for the run.
   * @param {string} name
   * @param {string | null} reason
   * @param {() => Promise<void>} action
   */
  async #fill(name, reason, action) {
    const message = find(`#look-${name}-reason`, HTMLElement);
    find(`#look-${name}-part`, HTMLElement).hidden = reason !== null;
    showMessage(message, toSentence(reason ?? ""));
    if (reason !== null) return;
    try {
      await action();
    } catch (error) {
      showError(message, error);
    }
  }

  /** Show the text without the heads that are switched off. */
  async #switchHeads() {
    if (!this.#text || !this.#positions) return;
    const { off } = this.#heads;
    if (off.length === 0) {
      this.#ablation.hideWithout();
      this.#positionsWithout = null;
    } else {
      const positions = await this.#ablation.showWithout(this.#text, off, this.#positions.mean_loss);
      if (!positions) return;
      this.#positionsWithout = positions;
    }
    this.#shade();
  }

  /** Shade the text by the head that the reader has chosen. */
  #chooseHead() {
    this.#byAttention.checked = true;
    this.#shade();
  }

  /** Shade the tokens by what the reader has chosen. */
  #shade() {
    const head = this.#heads.chosen.join(".");
    find("#look-legend", HTMLElement).textContent = this.#byAttention.checked
      ? `A stronger shade: from the token with the outline, head ${head} looks more at this one.`
      : `A stronger shade: the token surprised the model more. The strongest one is ${STRONGEST} bits or more.`;
    const positions = this.#positionsWithout ?? this.#positions;
    if (!positions) return;
    if (this.#byAttention.checked) this.#shadeByAttention(this.#list.active ?? positions.tokens.length - 1);
    else this.#list.shade(positions.probabilities.map((each) => (each === null ? null : shadeOfProbability(each))));
    if (this.#list.active !== null) this.#describe(this.#list.active);
  }

  /**
   * Shade by where the chosen head looks from a place.
   * @param {number} place
   */
  #shadeByAttention(place) {
    const first = this.#firstWithAttention();
    const weights = this.#heads.weightsAt(place - first);
    this.#list.shade([...Array(first).fill(null), ...weights.map(shadeOf)]);
  }

  /** The place of the first token that attention was computed for: the text's last tokens. */
  #firstWithAttention() {
    return (this.#positions?.tokens.length ?? 0) - this.#attentionLength;
  }

  /** @param {number} place */
  #showToken(place) {
    if (!this.#positions) return;
    if (this.#byAttention.checked) this.#shadeByAttention(place);
    this.#heads.showPosition(place - this.#firstWithAttention());
    this.#lens.showPosition(this.#positions.tokens.length - place);
    this.#describe(place);
  }

  /** @param {number} place */
  #describe(place) {
    const positions = /** @type {Positions} */ (this.#positions);
    const token = `Token ${place + 1}, ${quote(positions.tokens[place].text)}: `;
    const without = this.#positionsWithout;
    const parts = without
      ? [
          `${describePrediction(without, place)} without the heads`,
          `${describePrediction(positions, place)} with all heads`,
        ]
      : [describePrediction(positions, place)];
    const hasAttention = place >= this.#firstWithAttention() || this.#attentionLength === 0;
    const limit = hasAttention ? "" : ` Attention is shown for the last ${this.#attentionLength} tokens.`;
    this.#details.textContent = `${token}${parts.join("; ")}.${limit}`;
  }
}

/**
 * @param {string} text
 * @param {number | null} loss Nats.
 */
function listToken(text, loss) {
  const title = loss === null ? "the first token, which nothing predicts" : `${formatNumber(toBits(loss), 1)} bits`;
  return { text, title, shade: null };
}

/**
 * @param {Positions} positions
 * @param {number} place
 */
function describePrediction({ losses, probabilities, ranks }, place) {
  const [loss, probability] = [losses[place], probabilities[place]];
  if (loss === null || probability === null) return "nothing stands before it, so it was not predicted";
  const bits = formatNumber(toBits(loss), 2);
  return `${bits} bits of surprise, probability ${formatPercent(probability)}, rank ${ranks[place]}`;
}
