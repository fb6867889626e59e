// A text whose tokens can be reached one by one, by the pointer and by the keyboard. It is a listbox: the list has the
// focus, the arrow keys move between the tokens, Enter selects.

import { createElement } from "./dom.js";
import { showInText } from "./visible_text.js";

/**
 * @typedef {object} ListedToken
 * @property {string} text
 * @property {string} title What the tooltip says, and a screen reader after the token.
 * @property {number | null} shade From 0 to 1; null for no shade.
 */

let lists = 0;

export class TokenList {
  /** @type {HTMLElement} */
  element;
  #number = lists++;
  /** @type {HTMLElement[]} */
  #options = [];
  /** @type {number | null} */
  #active = null;
  /** @type {number | null} */
  #selected = null;
  #onActivate;
  #onSelect;
  #end;

  /**
   * @param {string} label The list's name for a screen reader.
   * @param {object} events
   * @param {(place: number) => void} [events.onActivate] The pointer or the keyboard has come to a token.
   * @param {(place: number) => void} [events.onSelect] A token was clicked, or Enter was pressed on it.
   * @param {string} [endTitle] With it, the place after the last token can be reached, too.
   */
  constructor(label, { onActivate, onSelect }, endTitle) {
    this.#onActivate = onActivate;
    this.#onSelect = onSelect;
    this.#end = endTitle ? this.#createOption({ text: "", title: endTitle, shade: null }) : null;
    if (this.#end) {
      this.#end.id = `token-${this.#number}-end`;
      this.#end.classList.add("end");
    }
    this.element = createElement("div", {
      class: "tokens",
      role: "listbox",
      tabindex: 0,
      "aria-label": label,
      onkeydown: (event) => this.#handleKey(/** @type {KeyboardEvent} */ (event)),
      onfocus: () => this.#handleFocus(),
      onpointerover: (event) => this.#withPlace(event, (place) => this.#onActivate && this.activate(place)),
      onclick: (event) => this.#withPlace(event, (place) => this.#choose(place)),
    });
    this.set([]);
  }

  /** @returns {number | null} The token that the keyboard or the pointer has reached. */
  get active() {
    return this.#active;
  }

  /**
   * Show other tokens.
   * @param {ListedToken[]} tokens
   */
  set(tokens) {
    this.#active = this.#selected = null;
    this.element.removeAttribute("aria-activedescendant");
    this.#options = this.#end ? [this.#end] : [];
    for (const name of ["active", "selected"]) this.#end?.classList.remove(name);
    this.element.replaceChildren(...this.#options);
    this.append(tokens);
  }

  /**
   * Add tokens after the last one. A list that shows its end goes on showing it.
   * @param {ListedToken[]} tokens
   */
  append(tokens) {
    const first = this.#options.length - (this.#end ? 1 : 0);
    const options = tokens.map((token) => this.#createOption(token));
    options.forEach((option, number) => (option.id = `token-${this.#number}-${first + number}`));
    this.#options.splice(first, 0, ...options);
    const { scrollTop, clientHeight, scrollHeight } = this.element;
    if (this.#end) this.#end.before(...options);
    else this.element.append(...options);
    const showedEnd = scrollTop + clientHeight >= scrollHeight - 1;
    if (showedEnd) this.element.scrollTop = this.element.scrollHeight;
  }

  /**
   * Change the shades of all tokens.
   * @param {(number | null)[]} shades
   */
  shade(shades) {
    this.#options.forEach((option, place) => setShade(option, shades[place] ?? null));
  }

  /**
   * Move to a token.
   * @param {number} place
   */
  activate(place) {
    this.#mark("active", this.#active, place);
    this.#active = place;
    this.element.setAttribute("aria-activedescendant", this.#options[place].id);
    this.#onActivate?.(place);
  }

  /**
   * Mark a token as selected, without telling the listener.
   * @param {number | null} place
   */
  select(place) {
    this.#mark("selected", this.#selected, place);
    if (this.#selected !== null) this.#options[this.#selected]?.setAttribute("aria-selected", "false");
    if (place !== null) this.#options[place].setAttribute("aria-selected", "true");
    this.#selected = place;
  }

  /** @param {number} place */
  #choose(place) {
    this.activate(place);
    if (!this.#onSelect) return;
    this.select(place);
    this.#onSelect(place);
  }

  #handleFocus() {
    if (this.#active === null && this.#options.length > 0) this.activate(this.#selected ?? 0);
  }

  /** @param {KeyboardEvent} event */
  #handleKey(event) {
    const place = this.#active;
    if (place === null || event.ctrlKey || event.altKey || event.metaKey) return;
    const last = this.#options.length - 1;
    /** @type {Record<string, () => number>} */
    const moves = {
      ArrowLeft: () => Math.max(0, place - 1),
      ArrowRight: () => Math.min(last, place + 1),
      ArrowUp: () => this.#findInNextLine(place, -1),
      ArrowDown: () => this.#findInNextLine(place, 1),
      Home: () => 0,
      End: () => last,
    };
    if (event.key in moves) {
      this.activate(moves[event.key]());
      this.#options[/** @type {number} */ (this.#active)].scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter" || event.key === " ") {
      this.#choose(place);
    } else {
      return;
    }
    event.preventDefault();
  }

  /**
   * Return the token in the line above or below that is nearest to the left edge of a token.
   * @param {number} place
   * @param {1 | -1} step
   */
  #findInNextLine(place, step) {
    const box = (/** @type {number} */ at) => this.#options[at].getClientRects()[0];
    const from = box(place);
    let best = place;
    let line = null;
    for (let next = place + step; next >= 0 && next < this.#options.length; next += step) {
      const { top, left, height } = box(next);
      if (Math.abs(top - from.top) < height / 2) continue;
      line ??= top;
      if (Math.abs(top - line) > height / 2) break;
      if (best === place || Math.abs(left - from.left) < Math.abs(box(best).left - from.left)) best = next;
    }
    return best;
  }

  /**
   * @param {Event} event
   * @param {(place: number) => void} action
   */
  #withPlace(event, action) {
    const option = event.target instanceof Element ? event.target.closest("[role=option]") : null;
    const place = this.#options.indexOf(/** @type {HTMLElement} */ (option));
    if (place >= 0) action(place);
  }

  /**
   * @param {string} name A class.
   * @param {number | null} from
   * @param {number | null} to
   */
  #mark(name, from, to) {
    if (from !== null) this.#options[from]?.classList.remove(name);
    if (to !== null) this.#options[to].classList.add(name);
  }

  /** @param {ListedToken} token */
  #createOption({ text, title, shade }) {
    const shown = showInText(text);
    const option = createElement("span", { role: "option", class: "token", "aria-selected": "false", title }, shown);
    option.setAttribute("aria-label", `${shown.trim() || "space"}, ${title}`);
    option.classList.toggle("replaced", shown !== text);
    setShade(option, shade);
    return option;
  }
}

/**
 * @param {HTMLElement} option
 * @param {number | null} shade
 */
function setShade(option, shade) {
  option.classList.toggle("unshaded", shade === null);
  if (shade === null) option.style.removeProperty("--shade");
  else option.style.setProperty("--shade", shade.toFixed(3));
}
