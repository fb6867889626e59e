// What a view says about its work: one sentence in an element with the role "status".

/**
 * Show a sentence, or nothing. A screen reader reads it when it changes.
 * @param {HTMLElement} element
 * @param {string} [sentence]
 */
export function showMessage(element, sentence = "") {
  element.classList.remove("error");
  if (element.textContent !== sentence) element.textContent = sentence;
}

/**
 * Show an error's message.
 * @param {HTMLElement} element
 * @param {unknown} error An error that says that a request was aborted is not shown.
 */
export function showError(element, error) {
  if (isAbort(error)) return;
  element.classList.add("error");
  element.textContent = toSentence(error instanceof Error ? error.message : String(error));
}

/**
 * Return a message as a sentence. The messages of minigpt begin with a small letter and have no full stop.
 * @param {string} message
 * @returns {string}
 */
export function toSentence(message) {
  const sentence = message.charAt(0).toUpperCase() + message.slice(1);
  return sentence === "" || /[.!?…]$/.test(sentence) ? sentence : `${sentence}.`;
}

/**
 * Return true for the error of a request that the page itself has aborted.
 * @param {unknown} error
 * @returns {boolean}
 */
export function isAbort(error) {
  return error instanceof DOMException && error.name === "AbortError";
}
