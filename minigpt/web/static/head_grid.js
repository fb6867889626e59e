// All heads of a run: a heat map of each, which chooses the head whose weights shade the text, and a switch.

import { createElement } from "./dom.js";
import { drawMap, drawStrip } from "./heat_map.js";
import { RovingFocus } from "./roving_focus.js";

/**
 * @typedef {import("./backend.js").Heads} Heads
 * @typedef {{item: HTMLElement, map: HTMLCanvasElement, strip: HTMLCanvasElement, choose: HTMLButtonElement,
 *   power: HTMLButtonElement}} HeadCard
 */

export class HeadGrid {
  /** @type {HTMLElement} */
  element = createElement("div", { class: "heads", role: "toolbar", "aria-label": "Attention heads" });
  #focus = new RovingFocus(this.element);
  /** The head that shades the text: its block and its number. */
  chosen = [0, 0];
  /** @type {Set<string>} */
  #off = new Set();
  /** @type {Map<string, HeadCard>} */
  #cards = new Map();
  /** @type {number[][][][]} */
  #weights = [];
  #position = 0;
  #onChoose;
  #onSwitch;

  /**
   * @param {object} events
   * @param {() => void} events.onChoose A head was chosen to shade the text.
   * @param {() => void} events.onSwitch A head was switched off or on.
   */
  constructor({ onChoose, onSwitch }) {
    this.#onChoose = onChoose;
    this.#onSwitch = onSwitch;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  /** @returns {Heads} The heads that are switched off. */
  get off() {
    return [...this.#off].map((key) => /** @type {[number, number]} */ (key.split(".").map(Number)));
  }

  /**
   * Make a card for each head of a run, all switched on.
   * @param {number} blocks
   * @param {number} heads Heads of each block.
   * @param {{hasMaps: boolean, canSwitch: boolean}} abilities What works for the run.
   */
  build(blocks, heads, { hasMaps, canSwitch }) {
    this.#off.clear();
    this.#cards.clear();
    this.#weights = [];
    this.chosen = [0, 0];
    const rows = Array.from({ length: blocks }, (_, block) => {
      const cards = Array.from({ length: heads }, (_, head) => this.#createCard(block, head, hasMaps, canSwitch).item);
      const label = `Block ${block}`;
      return createElement(
        "div",
        { class: "head-row", role: "group", "aria-label": label },
        makeLabel(label),
        ...cards,
      );
    });
    this.element.replaceChildren(...rows);
    this.#focus.update();
    this.#showState();
  }

  /** Switch all heads on. */
  switchAllOn() {
    this.#off.clear();
    this.#showState();
    this.#onSwitch();
  }

  /**
   * Draw the maps of a text.
   * @param {number[][][][]} weights
   */
  showWeights(weights) {
    this.#weights = weights;
    this.#position = Math.max(0, (weights[0]?.[0]?.length ?? 0) - 1);
    this.#draw();
  }

  /**
   * Draw, under each map, where one position looks.
   * @param {number} position
   */
  showPosition(position) {
    this.#position = position;
    for (const [key, { strip }] of this.#cards) {
      const rows = this.#rowsOf(key);
      if (rows?.[position]) drawStrip(strip, rows[position], rows.length);
    }
  }

  /**
   * Return where a position of the chosen head looks.
   * @param {number} position
   * @returns {number[]}
   */
  weightsAt(position) {
    return this.#rowsOf(this.chosen.join("."))?.[position] ?? [];
  }

  /** @param {string} key */
  #rowsOf(key) {
    const [block, head] = key.split(".").map(Number);
    return this.#weights[block]?.[head];
  }

  #draw() {
    for (const [key, { map }] of this.#cards) {
      const rows = this.#rowsOf(key);
      if (rows) drawMap(map, rows);
    }
    this.showPosition(this.#position);
  }

  /**
   * @param {number} block
   * @param {number} head
   * @param {boolean} hasMaps
   * @param {boolean} canSwitch
   */
  #createCard(block, head, hasMaps, canSwitch) {
    const key = `${block}.${head}`;
    const name = `Block ${block}, head ${head}`;
    const map = createElement("canvas", { class: "map", "aria-hidden": "true" });
    const strip = createElement("canvas", { class: "strip", "aria-hidden": "true" });
    const choose = createElement(
      "button",
      {
        type: "button",
        tabindex: -1,
        class: "head-choose",
        "aria-label": `${name}: shade the text`,
        onclick: () => this.#choose(block, head),
      },
      map,
      strip,
    );
    const power = createElement("button", {
      type: "button",
      tabindex: -1,
      class: "head-power",
      role: "switch",
      "aria-label": name,
      onclick: () => this.#switch(key),
    });
    choose.hidden = !hasMaps;
    power.hidden = !canSwitch;
    const item = createElement("div", { class: "head" }, choose, power);
    const card = { item, map, strip, choose, power };
    this.#cards.set(key, card);
    return card;
  }

  /**
   * @param {number} block
   * @param {number} head
   */
  #choose(block, head) {
    this.chosen = [block, head];
    this.#showState();
    this.#onChoose();
  }

  /** @param {string} key */
  #switch(key) {
    if (!this.#off.delete(key)) this.#off.add(key);
    this.#showState();
    this.#onSwitch();
  }

  #showState() {
    const chosen = this.chosen.join(".");
    for (const [key, { item, choose, power }] of this.#cards) {
      const isOn = !this.#off.has(key);
      item.classList.toggle("off", !isOn);
      choose.setAttribute("aria-pressed", String(key === chosen));
      power.setAttribute("aria-checked", String(isOn));
      power.textContent = `${key} ${isOn ? "on" : "off"}`;
    }
  }
}

/** @param {string} text */
function makeLabel(text) {
  return createElement("span", { class: "head-row-label", "aria-hidden": "true" }, text);
}
