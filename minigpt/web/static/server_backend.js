// The backend that asks `minigpt serve`. docs/web_api.md describes the requests and answers.

import { BackendError } from "./backend.js";
import { readEvents } from "./event_stream.js";

/**
 * @typedef {import("./backend.js").Backend} Backend
 * @typedef {import("./training_types.js").Task} Task
 */

/** @implements {Backend} */
export class ServerBackend {
  #token;

  /** @param {string} token The server's token. */
  constructor(token) {
    this.#token = token;
  }

  /** @type {Backend["listRuns"]} */
  async listRuns() {
    return (await this.#read("runs")).runs;
  }

  /** @type {Backend["metrics"]} */
  metrics(name) {
    return this.#read(`runs/${encodeURIComponent(name)}/metrics`);
  }

  /** @type {Backend["tokenize"]} */
  async tokenize(request, signal) {
    return (await this.#read("tokenize", request, signal)).tokens;
  }

  /** @type {Backend["generate"]} */
  generate(request, signal) {
    return this.#stream("generate", request, signal);
  }

  /** @type {Backend["nextTokens"]} */
  nextTokens(request, signal) {
    return this.#read("next", request, signal);
  }

  /** @type {Backend["positions"]} */
  positions(request, signal) {
    return this.#read("positions", request, signal);
  }

  /** @type {Backend["attention"]} */
  attention(request, signal) {
    return this.#read("attention", request, signal);
  }

  /** @type {Backend["lens"]} */
  lens(request, signal) {
    return this.#read("lens", request, signal);
  }

  /** @type {Backend["memorization"]} */
  memorization(request, signal) {
    return this.#read("memorization", request, signal);
  }

  /** @type {Backend["chat"]} */
  chat(request, signal) {
    return this.#stream("chat", request, signal);
  }

  /** @returns {Promise<import("./training_types.js").Trainings>} */
  listTrainings() {
    return this.#read("trainings");
  }

  /**
   * @param {string} name
   * @param {number} after Only evaluations of later steps are returned.
   * @param {number} afterSample Only samples of later steps are returned.
   * @returns {Promise<import("./training_types.js").Training>}
   */
  training(name, after, afterSample) {
    return this.#read(`trainings/${encodeURIComponent(name)}?after=${after}&after_sample=${afterSample}`);
  }

  /** @returns {Promise<{presets: import("./training_types.js").Preset[], settings: import("./training_types.js").Setting[]}>} */
  settings() {
    return this.#read("settings");
  }

  /** @returns {Promise<{name: string, bytes: number}[]>} */
  async texts() {
    return (await this.#read("texts")).texts;
  }

  /**
   * Store a text on the server.
   * @param {string} name
   * @param {Blob} text
   * @returns {Promise<{name: string, bytes: number}>} The name may have got a number.
   */
  uploadText(name, text) {
    return this.#read(`texts?name=${encodeURIComponent(name)}`, text);
  }

  /**
   * @param {Task} task
   * @param {AbortSignal} signal
   * @returns {Promise<import("./training_types.js").Forecast>}
   */
  forecast(task, signal) {
    return this.#read("forecast", task, signal);
  }

  /**
   * @param {Task & {name: string}} request
   * @returns {Promise<{command: string}>}
   */
  startTraining(request) {
    return this.#read("trainings", request);
  }

  /** @param {string} name */
  stopTraining(name) {
    return this.#read(`trainings/${encodeURIComponent(name)}/stop`, {});
  }

  /**
   * @param {string} name
   * @param {number | null} maxIters
   */
  resumeTraining(name, maxIters) {
    return this.#read(`trainings/${encodeURIComponent(name)}/resume`, { max_iters: maxIters });
  }

  /**
   * @param {{models: string[], text?: string}} request Without a text, the runs' validation text.
   * @param {AbortSignal} [signal]
   * @returns {AsyncGenerator<import("./training_types.js").TextEvent | import("./training_types.js").LossEvent>}
   */
  losses(request, signal) {
    return this.#stream("losses", request, signal);
  }

  /**
   * @param {string} path
   * @param {object} [content] Without it the request is a GET. A Blob is sent as it is, another object as JSON.
   * @param {AbortSignal} [signal]
   * @returns {Promise<any>}
   */
  async #read(path, content, signal) {
    const response = await this.#fetch(path, content, signal);
    return response.json();
  }

  /**
   * @param {string} path
   * @param {object} content
   * @param {AbortSignal} [signal]
   * @returns {AsyncGenerator<any>}
   */
  async *#stream(path, content, signal) {
    const response = await this.#fetch(path, content, signal);
    if (!response.body) throw new BackendError("The server sent an empty answer.");
    for await (const data of readEvents(response.body)) {
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new BackendError(event.error.message);
      yield event;
    }
    throw new BackendError("The connection ended before the text was complete.");
  }

  /**
   * @param {string} path
   * @param {object} [content]
   * @param {AbortSignal} [signal]
   */
  async #fetch(path, content, signal) {
    /** @type {Record<string, string>} */
    const headers = { Authorization: `Bearer ${this.#token}` };
    const isText = content instanceof Blob;
    if (content) headers["Content-Type"] = isText ? "text/plain" : "application/json";
    const body = isText ? content : JSON.stringify(content);
    const options = content ? { method: "POST", body, headers, signal } : { headers, signal };
    let response;
    try {
      response = await fetch(`api/v1/${path}`, options);
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new BackendError("The server does not answer. Start it again: minigpt serve");
    }
    if (!response.ok) {
      const answer = await response.json().catch(() => null);
      const message = answer?.error?.message ?? `the server answered with status ${response.status}`;
      throw new BackendError(message, response.status === 401);
    }
    return response;
  }
}
