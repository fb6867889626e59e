// A group of buttons that the Tab key passes in one step: the arrow keys move between its buttons.

/** @type {Record<string, 1 | -1>} */
const STEPS = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 };

export class RovingFocus {
  #container;

  /** @param {HTMLElement} container */
  constructor(container) {
    this.#container = container;
    container.addEventListener("keydown", (event) => this.#handleKey(event));
    container.addEventListener("focusin", (event) => this.#setCurrent(event.target));
  }

  /** Choose the button that the Tab key reaches. Call it after buttons were added, shown or hidden. */
  update() {
    const buttons = this.#findButtons();
    this.#setCurrent(buttons.find((button) => button.tabIndex === 0) ?? buttons[0]);
  }

  #findButtons() {
    const isShown = (/** @type {HTMLElement} */ button) => {
      const hidden = button.closest("[hidden]");
      return hidden === null || hidden.contains(this.#container); // the container itself may be hidden for a while
    };
    return [...this.#container.querySelectorAll("button")].filter(isShown);
  }

  /** @param {EventTarget | null | undefined} current */
  #setCurrent(current) {
    for (const button of this.#findButtons()) button.tabIndex = button === current ? 0 : -1;
  }

  /** @param {KeyboardEvent} event */
  #handleKey(event) {
    const buttons = this.#findButtons();
    const place = buttons.findIndex((button) => button === document.activeElement);
    const next = buttons[place + STEPS[event.key]];
    if (place < 0 || !next) return;
    next.focus();
    event.preventDefault();
  }
}
