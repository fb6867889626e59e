// What happens without some heads: the mean loss, the loss of each token and a short continuation, beside those of the
// whole model.

import { find } from "./dom.js";
import { formatNumber } from "./format.js";
import { LatestRequest } from "./latest_request.js";
import { showError, showMessage } from "./messages.js";
import { toBits } from "./surprise.js";
import { showInText } from "./visible_text.js";

/**
 * @typedef {import("./backend.js").Backend} Backend
 * @typedef {import("./backend.js").Heads} Heads
 * @typedef {import("./backend.js").Positions} Positions
 * @typedef {{model: string, text: string}} LookedText
 */

const CONTINUATION = { max_tokens: 60, temperature: 0.8, seed: 1 };

export class Ablation {
  #backend;
  #request = new LatestRequest();
  #whole = find("#look-whole", HTMLElement);
  #without = find("#look-without", HTMLElement);
  #reset = find("#look-all-heads", HTMLButtonElement);

  /**
   * @param {Backend} backend
   * @param {() => void} onReset The reader wants all heads back.
   */
  constructor(backend, onReset) {
    this.#backend = backend;
    this.#reset.addEventListener("click", onReset);
  }

  /**
   * Show the loss of the whole model, and a continuation by it.
   * @param {LookedText} text
   * @param {Positions} positions
   * @param {AbortSignal} signal
   */
  async showWhole(text, positions, signal) {
    this.hideWithout();
    part(this.#whole, "loss").textContent = describeLoss(positions.mean_loss);
    await this.#continue(this.#whole, text, [], signal);
  }

  /**
   * Show the loss and a continuation without some heads, and return how the model without them predicts each token.
   * @param {LookedText} text
   * @param {Heads} heads At least one.
   * @param {number | null} wholeLoss The mean loss of the whole model.
   * @returns {Promise<Positions | null>} Null if another request came in between.
   */
  async showWithout(text, heads, wholeLoss) {
    const signal = this.#request.start();
    this.#without.hidden = this.#reset.disabled = false;
    part(this.#without, "heading").textContent = `Without ${heads.map((pair) => pair.join(".")).join(", ")}`;
    part(this.#without, "continuation").setAttribute("aria-busy", "true");
    try {
      const positions = await this.#backend.positions({ ...text, heads_off: heads }, signal);
      part(this.#without, "loss").textContent = describeLoss(positions.mean_loss, wholeLoss);
      this.#continue(this.#without, text, heads, signal);
      return positions;
    } catch (error) {
      showError(part(this.#without, "message"), error);
      return null;
    }
  }

  /** Show the whole model only. */
  hideWithout() {
    this.#request.abort();
    this.#without.hidden = this.#reset.disabled = true;
  }

  /**
   * @param {HTMLElement} card
   * @param {LookedText} text
   * @param {Heads} heads
   * @param {AbortSignal} signal
   */
  async #continue(card, text, heads, signal) {
    const output = part(card, "continuation");
    showMessage(part(card, "message"));
    output.setAttribute("aria-busy", "true");
    try {
      let continuation = "";
      for await (const { tokens } of this.#backend.generate({ ...text, ...CONTINUATION, heads_off: heads }, signal)) {
        continuation += tokens?.map((token) => token.text).join("") ?? "";
        output.textContent = showInText(continuation);
      }
    } catch (error) {
      showError(part(card, "message"), error);
    }
    if (!signal.aborted) output.setAttribute("aria-busy", "false");
  }
}

/**
 * @param {HTMLElement} card
 * @param {string} name
 */
function part(card, name) {
  return find(`.compare-${name}`, HTMLElement, card);
}

/**
 * @param {number | null} loss Nats.
 * @param {number | null} [wholeLoss]
 */
function describeLoss(loss, wholeLoss = null) {
  if (loss === null) return "The text needs two tokens to have a loss.";
  const change =
    wholeLoss === null ? "" : `, ${loss < wholeLoss ? "−" : "+"}${formatNumber(Math.abs(loss - wholeLoss), 4)}`;
  return `Mean loss ${formatNumber(loss, 4)} nats per token (${formatNumber(toBits(loss), 2)} bits)${change}`;
}
