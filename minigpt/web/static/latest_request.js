// Requests of which only the newest matters.

/** Gives each request a signal, and aborts the request before it. */
export class LatestRequest {
  #controller = new AbortController();

  /** @returns {AbortSignal} The signal of a new request. */
  start() {
    this.abort();
    this.#controller = new AbortController();
    return this.#controller.signal;
  }

  /** Abort the newest request. */
  abort() {
    this.#controller.abort();
  }

  /**
   * Return true for the newest request, aborted or not.
   * @param {AbortSignal} signal
   * @returns {boolean}
   */
  isLatest(signal) {
    return this.#controller.signal === signal;
  }
}

/**
 * Return a function that waits until it has not been called for a while, and then calls another one once.
 * @param {() => void} action
 * @param {number} milliseconds
 * @returns {() => void}
 */
export function debounce(action, milliseconds) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, milliseconds);
  };
}
