// The backend of a page that has a model inside: it computes everything here, by the same definitions as the server.

import { BackendError } from "../backend.js";
import { ContextWindow } from "./context_window.js";
import { encodeConversation } from "./conversation.js";
import { filterLogits, sampleToken } from "./sampling.js";
import { entropyBits, probabilities, rankOf, topIndices } from "./probabilities.js";
import { RandomNumbers } from "./random.js";

/**
 * @typedef {import("../backend.js").Backend} Backend
 * @typedef {import("../backend.js").TextRequest} TextRequest
 * @typedef {import("../backend.js").GeneratedEvent} GeneratedEvent
 * @typedef {import("./model_file.js").ModelFile} ModelFile
 * @typedef {import("./model.js").Model} Model
 */

const SLICE = 12; // milliseconds of computing, after which the page may draw
const MAX_VIEWED = 128; // the last tokens that an attention map and the logit lens show
const DEFAULT_TOKENS = 500;
const DEFAULT_TOP = 20;

/** @implements {Backend} */
export class OfflineBackend {
  #file;
  #model;
  #tokenizer;

  /**
   * @param {ModelFile} file
   * @param {Model} model
   * @param {{encode: (text: string) => number[], text: (id: number) => string}} tokenizer
   */
  constructor(file, model, tokenizer) {
    this.#file = file;
    this.#model = model;
    this.#tokenizer = tokenizer;
  }

  /** @type {Backend["listRuns"]} */
  async listRuns() {
    return [this.#file.run];
  }

  /** @type {Backend["metrics"]} */
  async metrics() {
    return { metrics: this.#file.metrics, snapshots: this.#file.snapshots };
  }

  /** @type {Backend["tokenize"]} */
  async tokenize({ text }) {
    return this.#describe(this.#tokenizer.encode(text));
  }

  /** @type {Backend["generate"]} */
  async *generate(request, signal) {
    const { max_tokens = DEFAULT_TOKENS, seed = randomSeed(), heads_off: headsOff, ...sampling } = request;
    const random = new RandomNumbers(seed);
    const window = new ContextWindow(this.#model, { headsOff });
    let logits = window.read(this.#readIds(request));
    let tokens = [];
    const pause = startPauses(signal);
    for (let count = 0; count < max_tokens; count++) {
      const id = sampleToken(filterLogits(logits, sampling), random.uniform());
      if (this.#file.ends.includes(id)) {
        if (tokens.length > 0) yield { tokens };
        yield { finish_reason: "stop" };
        return;
      }
      const likely = probabilities(logits);
      tokens.push({ id, text: this.#tokenizer.text(id), probability: likely[id], rank: rankOf(logits, id) });
      if (pause.isDue()) {
        yield { tokens };
        tokens = [];
        await pause.take();
      }
      if (count + 1 < max_tokens) logits = window.read([id]);
    }
    yield { tokens };
    yield { finish_reason: "length" };
  }

  /** @type {Backend["nextTokens"]} */
  async nextTokens({ top = DEFAULT_TOP, ...request }) {
    const logits = new ContextWindow(this.#model).read(this.#readIds(request));
    const [before, after] = [probabilities(logits), probabilities(filterLogits(logits, request))];
    const candidates = topIndices(before, top).map((id) => ({
      ...this.#describe([id])[0],
      probability: before[id],
      filtered_probability: after[id],
    }));
    return { candidates, entropy: entropyBits(before), filtered_entropy: entropyBits(after) };
  }

  /** @type {Backend["positions"]} */
  async positions(request, signal) {
    const ids = request.ids ?? this.#tokenizer.encode(request.text ?? "");
    /** @type {(number | null)[][]} */
    const [losses, likely, ranks] = ids.length > 0 ? [[null], [null], [null]] : [[], [], []];
    for await (const { target, logits } of this.#predict(ids, request.heads_off, signal)) {
      const probability = probabilities(logits)[target];
      losses.push(-Math.log(probability));
      likely.push(probability);
      ranks.push(rankOf(logits, target));
    }
    const sum = losses.reduce((/** @type {number} */ total, loss) => total + (loss ?? 0), 0);
    const mean_loss = ids.length > 1 ? sum / (ids.length - 1) : null;
    return { tokens: this.#describe(ids), losses, probabilities: likely, ranks, mean_loss };
  }

  /** @type {Backend["attention"]} */
  async attention(request) {
    const ids = this.#cut(this.#readIds(request));
    const { n_layer, n_head } = this.#model.config;
    /** @type {number[][][][]} */
    const weights = Array.from({ length: n_layer }, () => Array.from({ length: n_head }, () => []));
    this.#model.forward(ids, this.#model.createCache(), {
      onWeights: (block, head, t, row) => (weights[block][head][t] = Array.from(row)),
    });
    return { tokens: this.#describe(ids), weights };
  }

  /** @type {Backend["lens"]} */
  async lens({ top = DEFAULT_TOP, ...request }) {
    const ids = this.#cut(this.#readIds(request));
    const V = this.#model.config.vocab_size;
    /** @type {Awaited<ReturnType<Backend["lens"]>>["layers"]} */
    const layers = [];
    this.#model.forward(ids, this.#model.createCache(), {
      onLayer: (layer, predict) => {
        const logits = predict();
        const positions = ids.map((_, t) => this.#describePosition(logits.subarray(t * V, (t + 1) * V), top, ids[t + 1]));
        layers.push({ name: layer === 0 ? "embedding" : `block ${layer - 1}`, positions });
      },
    });
    return { tokens: this.#describe(ids), layers };
  }

  /** @type {Backend["memorization"]} */
  async memorization() {
    throw new BackendError("This file does not have the training text.");
  }

  /** @type {Backend["chat"]} */
  chat({ messages, ...request }, signal) {
    const { chat_tokens: chatTokens, exchanges } = this.#file;
    if (chatTokens === null) throw new BackendError("This model has learned no instructions.");
    const encode = (/** @type {string} */ text) => this.#tokenizer.encode(text);
    const { block_size: blockSize } = this.#model.config;
    const ids = encodeConversation(messages, { encode, chatTokens, blockSize, exchanges });
    return this.generate({ ...request, ids }, signal);
  }

  /**
   * Yield how each token after the first is predicted, from at most block_size tokens before it.
   * @param {number[]} ids
   * @param {[number, number][]} [headsOff]
   * @param {AbortSignal} [signal]
   */
  async *#predict(ids, headsOff, signal) {
    const { block_size: T, vocab_size: V } = this.#model.config;
    const first = ids.slice(0, Math.min(T, ids.length - 1));
    if (first.length === 0) return;
    const logits = this.#model.forward(first, this.#model.createCache(), { headsOff });
    for (let t = 0; t < first.length; t++) yield { target: ids[t + 1], logits: logits.subarray(t * V, (t + 1) * V) };
    const pause = startPauses(signal);
    for (let place = T + 1; place < ids.length; place++) {
      if (pause.isDue()) await pause.take();
      const window = new ContextWindow(this.#model, { headsOff });
      yield { target: ids[place], logits: window.read(ids.slice(place - T, place)) };
    }
  }

  /**
   * @param {Float32Array} logits
   * @param {number} top
   * @param {number | undefined} target
   */
  #describePosition(logits, top, target) {
    const likely = probabilities(logits);
    const best = topIndices(likely, top).map((id) => ({ ...this.#describe([id])[0], probability: likely[id] }));
    return {
      top: best,
      target: target === undefined ? null : { probability: likely[target], rank: rankOf(logits, target) },
    };
  }

  /** @param {TextRequest} request */
  #readIds({ ids, text = "" }) {
    if (ids) return ids;
    return text === "" ? this.#file.run.start.map((token) => token.id) : this.#tokenizer.encode(text);
  }

  /** @param {number[]} ids */
  #cut(ids) {
    return ids.slice(-Math.min(this.#model.config.block_size, MAX_VIEWED));
  }

  /** @param {number[]} ids */
  #describe(ids) {
    return ids.map((id) => ({ id, text: this.#tokenizer.text(id) }));
  }
}

/** Return a random seed. */
function randomSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

/**
 * Divide a long computation, so that the page can draw and the reader can stop it.
 * @param {AbortSignal} [signal]
 */
function startPauses(signal) {
  let start = performance.now();
  return {
    isDue: () => performance.now() - start > SLICE,
    take: async () => {
      await letPageDraw();
      signal?.throwIfAborted();
      start = performance.now();
    },
  };
}

/** Wait until the page has drawn and has taken what the reader did. A timer would wait at least 4 milliseconds. */
function letPageDraw() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve(undefined);
    };
    port2.postMessage(null);
  });
}
