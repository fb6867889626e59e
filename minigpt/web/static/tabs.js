// Tabs, after the pattern of the ARIA Authoring Practices: the arrow keys move between them.

import { find } from "./dom.js";

export class Tabs {
  /** @type {HTMLElement[]} */
  #tabs;
  /** @type {((name: string) => void)[]} */
  #listeners = [];

  /**
   * @param {HTMLElement} list Has the role "tablist"; each tab names its panel in aria-controls.
   */
  constructor(list) {
    this.#tabs = [...list.querySelectorAll("[role=tab]")].filter((tab) => tab instanceof HTMLElement);
    list.addEventListener("keydown", (event) => this.#handleKey(event));
    for (const tab of this.#tabs) tab.addEventListener("click", () => this.show(nameOf(tab)));
  }

  /**
   * Open a tab; an unknown name opens the first one.
   * @param {string} name
   */
  show(name) {
    const shown = this.#tabs.find((tab) => nameOf(tab) === name) ?? this.#tabs[0];
    for (const tab of this.#tabs) {
      tab.setAttribute("aria-selected", String(tab === shown));
      tab.tabIndex = tab === shown ? 0 : -1;
      find(`#${tab.getAttribute("aria-controls")}`, HTMLElement).hidden = tab !== shown;
    }
    for (const listener of this.#listeners) listener(nameOf(shown));
  }

  /**
   * Call a function with the name of each tab that is opened: `write` for `tab-write`.
   * @param {(name: string) => void} listener
   */
  onShow(listener) {
    this.#listeners.push(listener);
  }

  /** @param {KeyboardEvent} event */
  #handleKey(event) {
    const place = this.#tabs.findIndex((tab) => tab === document.activeElement);
    const last = this.#tabs.length - 1;
    const next = {
      ArrowLeft: place === 0 ? last : place - 1,
      ArrowRight: place === last ? 0 : place + 1,
      Home: 0,
      End: last,
    }[event.key];
    if (place < 0 || next === undefined) return;
    event.preventDefault();
    this.#tabs[next].focus();
    this.show(nameOf(this.#tabs[next]));
  }
}

/** @param {HTMLElement} tab */
function nameOf(tab) {
  return tab.id.replace("tab-", "");
}
