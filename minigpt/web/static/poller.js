// Ask again and again, but only while a reader can see the answer.

/** Calls a function now and then while an element is shown and the browser tab is not hidden. */
export class Poller {
  #element;
  #action;
  #timer = 0;
  #isBusy = false;
  #isWoken = false;

  /**
   * @param {HTMLElement} element Shows the answers.
   * @param {() => Promise<number>} action Returns the milliseconds until the next call. It must not throw.
   */
  constructor(element, action) {
    this.#element = element;
    this.#action = action;
    document.addEventListener("visibilitychange", () => this.wake());
  }

  /** Call the function at once if the element is shown; after the call that is under way, if there is one. */
  async wake() {
    clearTimeout(this.#timer);
    this.#isWoken = this.#isBusy;
    if (this.#isBusy || document.hidden || this.#element.closest("[hidden]")) return;
    this.#isBusy = true;
    const wait = await this.#action();
    this.#isBusy = false;
    this.#timer = setTimeout(() => this.wake(), this.#isWoken ? 0 : wait);
  }
}
