// The view "Chat": a conversation with an instruction-tuned run.

import { createElement, find } from "./dom.js";
import { LatestRequest } from "./latest_request.js";
import { isAbort, showError, showMessage } from "./messages.js";
import { SamplingControls } from "./sampling_controls.js";
import { showInText } from "./visible_text.js";

/**
 * @typedef {import("./backend.js").Backend} Backend
 * @typedef {import("./backend.js").Message} Message
 * @typedef {import("./run_list.js").RunList} RunList
 */

export class ChatView {
  #backend;
  #runs;
  #run = find("#chat-run", HTMLSelectElement);
  #input = find("#chat-input", HTMLTextAreaElement);
  #send = find("#chat-send", HTMLButtonElement);
  #stop = find("#chat-stop", HTMLButtonElement);
  #log = find("#chat-log", HTMLElement);
  #message = find("#chat-message", HTMLElement);
  #controls = new SamplingControls(find("#chat-form", HTMLFormElement), () => {});
  #request = new LatestRequest();
  /** @type {Message[]} */
  #messages = [];

  /**
   * @param {Backend} backend
   * @param {RunList} runs
   */
  constructor(backend, runs) {
    this.#backend = backend;
    this.#runs = runs;
    runs.onChange(() => this.#fillRuns());
    this.#run.addEventListener("change", () => this.#clear());
    this.#stop.addEventListener("click", () => this.#request.abort());
    find("#chat-clear", HTMLButtonElement).addEventListener("click", () => this.#clear());
    const form = find("#chat-form", HTMLFormElement);
    this.#input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
  }

  #fillRuns() {
    this.#runs.fill(this.#run, { isOffered: (run) => run.is_chat });
    const hasRuns = this.#run.options.length > 0;
    find("#chat-part", HTMLElement).hidden = !hasRuns;
    find("#chat-reason", HTMLElement).hidden = hasRuns;
  }

  #clear() {
    this.#request.abort();
    this.#messages = [];
    this.#log.replaceChildren();
    showMessage(this.#message);
  }

  async #ask() {
    const question = this.#input.value.trim();
    if (question === "" || this.#send.disabled) return;
    this.#input.value = "";
    const messages = this.#messages;
    messages.push({ role: "user", content: question });
    this.#addEntry("You", question);
    const signal = this.#request.start();
    this.#setBusy(true);
    try {
      const answer = await this.#stream(messages, signal);
      messages.push({ role: "assistant", content: answer });
      showMessage(this.#message, "The answer is complete.");
    } catch (error) {
      if (isAbort(error)) showMessage(this.#message, "Stopped.");
      else showError(this.#message, error);
    }
    this.#setBusy(false);
  }

  /**
   * Show an answer while it comes. What was written before a stop stays in the conversation.
   * @param {Message[]} messages
   * @param {AbortSignal} signal
   * @returns {Promise<string>}
   */
  async #stream(messages, signal) {
    const entry = this.#addEntry("Model", "");
    const request = {
      model: this.#run.value,
      messages: [...messages],
      ...this.#controls.readSampling(),
      ...this.#controls.readGeneration(),
    };
    let answer = "";
    try {
      for await (const { tokens } of this.#backend.chat(request, signal)) {
        answer += tokens?.map((token) => token.text).join("") ?? "";
        entry.textContent = showInText(answer);
        entry.scrollIntoView({ block: "nearest" });
      }
    } catch (error) {
      if (isAbort(error)) {
        messages.push({ role: "assistant", content: answer });
      } else {
        messages.pop(); // the question can be asked again
        entry.parentElement?.remove();
      }
      throw error;
    }
    return answer;
  }

  /**
   * @param {string} speaker
   * @param {string} text
   * @returns {HTMLElement} The element with the text.
   */
  #addEntry(speaker, text) {
    const content = createElement("div", { class: "text" }, showInText(text));
    const entry = createElement("li", { class: `turn turn-${speaker.toLowerCase()}` });
    entry.append(createElement("span", { class: "speaker" }, speaker), content);
    this.#log.append(entry);
    entry.scrollIntoView({ block: "nearest" });
    return content;
  }

  /** @param {boolean} isBusy */
  #setBusy(isBusy) {
    this.#send.disabled = isBusy;
    this.#stop.disabled = !isBusy;
    this.#log.setAttribute("aria-busy", String(isBusy));
    if (isBusy) showMessage(this.#message, "Writing…");
    else this.#input.focus();
  }
}
