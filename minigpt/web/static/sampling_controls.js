// The controls that say how tokens are sampled.

import { find } from "./dom.js";

/** @typedef {Required<import("./backend.js").Generation>} Generation */

export class SamplingControls {
  #temperature;
  #topK;
  #topP;
  #seed;
  #length;

  /**
   * @param {HTMLElement} element Has a place with the class "sampling", which gets the inputs of the page's template.
   * @param {() => void} onChange Temperature, top-k or top-p have changed.
   */
  constructor(element, onChange) {
    const place = find(".sampling", HTMLElement, element);
    place.append(find("#sampling-template", HTMLTemplateElement).content.cloneNode(true));
    const input = (/** @type {string} */ name) => find(`input[name=${name}]`, HTMLInputElement, element);
    this.#temperature = input("temperature");
    this.#topK = input("top_k");
    this.#topP = input("top_p");
    this.#temperature.value = place.dataset.temperature ?? "1";
    this.#seed = input("seed");
    this.#length = input("max_tokens");
    for (const slider of [this.#temperature, this.#topK, this.#topP]) {
      slider.addEventListener("input", () => {
        this.#showValues();
        onChange();
      });
    }
    this.#showValues();
  }

  /**
   * Return temperature, top-k and top-p. A filter that is off is left out.
   * @returns {import("./backend.js").Sampling}
   */
  readSampling() {
    const [topK, topP] = [this.#topK.valueAsNumber, this.#topP.valueAsNumber];
    return {
      temperature: this.#temperature.valueAsNumber,
      ...(topK > 0 && { top_k: topK }),
      ...(topP < 1 && { top_p: topP }),
    };
  }

  /**
   * Return the seed and the number of tokens. An empty or impossible number is replaced by the nearest possible one.
   * @returns {{seed: number, max_tokens: number}}
   */
  readGeneration() {
    return { seed: readInteger(this.#seed), max_tokens: readInteger(this.#length) };
  }

  #showValues() {
    const { temperature, top_k: topK, top_p: topP } = this.readSampling();
    showValue(this.#temperature, temperature?.toFixed(2));
    showValue(this.#topK, topK?.toString());
    showValue(this.#topP, topP?.toFixed(2));
  }
}

/**
 * @param {HTMLInputElement} slider
 * @param {string | undefined} value Undefined if the filter is off.
 */
function showValue(slider, value = "off") {
  slider.setAttribute("aria-valuetext", value);
  for (const label of slider.labels ?? []) find(".value", HTMLElement, label).textContent = value;
}

/** @param {HTMLInputElement} input */
function readInteger(input) {
  const value = Number.isNaN(input.valueAsNumber) ? Number(input.defaultValue) : Math.round(input.valueAsNumber);
  input.valueAsNumber = Math.min(Number(input.max), Math.max(Number(input.min), value));
  return input.valueAsNumber;
}
