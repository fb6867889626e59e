// The interface between the views and whatever runs the models. `ServerBackend` asks the server.

/**
 * @typedef {{id: number, text: string}} Token U+FFFD stands for a token that is a part of a character.
 * @typedef {Token & {probability: number, rank: number}} GeneratedToken The probability is that of temperature 1.
 * @typedef {Token & {probability: number}} LikelyToken
 * @typedef {LikelyToken & {filtered_probability: number}} Candidate
 * @typedef {[number, number][]} Heads Pairs of a block and a head, both from 0.
 */

/**
 * Null where a view works for a run, else the reason why it does not.
 * @typedef {Record<"attention" | "lens" | "ablation" | "memorization", string | null>} Views
 *
 * A run. A run that cannot be read has only `name`, `status` and `error`.
 * @typedef {object} Run
 * @property {string} name
 * @property {string} kind "gpt", "lecture", "modern", "bigram" or "ngram".
 * @property {string} tokenizer
 * @property {number | null} parameters
 * @property {number | null} bytes
 * @property {string | null} status Null for an n-gram model.
 * @property {string | null} started A date in ISO 8601.
 * @property {number | null} steps
 * @property {number | null} validation_loss Nats per token.
 * @property {number | null} bits_per_byte
 * @property {number | null} block_size
 * @property {number | null} n_layer
 * @property {number | null} n_head
 * @property {Token[]} start The tokens from which the run generates without a prompt.
 * @property {boolean} is_chat
 * @property {Views} views
 * @property {string | null} error
 */

/**
 * What the requests have in common: a run, and a text or token ids.
 * @typedef {object} TextRequest
 * @property {string} model
 * @property {string} [text]
 * @property {number[]} [ids]
 *
 * @typedef {object} Sampling
 * @property {number} [temperature]
 * @property {number} [top_k]
 * @property {number} [top_p]
 *
 * @typedef {{max_tokens?: number, seed?: number, heads_off?: Heads}} Generation
 * @typedef {TextRequest & Sampling & Generation} GenerateRequest
 * @typedef {TextRequest & Sampling & {top?: number}} NextRequest
 *
 * @typedef {{role: "user" | "assistant", content: string}} Message
 * @typedef {{model: string, messages: Message[]} & Sampling & Generation} ChatRequest
 */

/**
 * @typedef {{tokens: GeneratedToken[], finish_reason?: undefined}} TokensEvent
 * @typedef {{finish_reason: string, tokens?: undefined}} EndEvent "length", or "stop" after a token that ends the text.
 * @typedef {TokensEvent | EndEvent} GeneratedEvent
 * @typedef {{candidates: Candidate[], entropy: number, filtered_entropy: number}} NextTokens Entropies in bits.
 *
 * @typedef {object} Positions How the model predicts each token; null for the first one.
 * @property {Token[]} tokens
 * @property {(number | null)[]} losses Nats.
 * @property {(number | null)[]} probabilities
 * @property {(number | null)[]} ranks From 1.
 * @property {number | null} mean_loss Null for a text of one token.
 *
 * @typedef {{tokens: Token[], weights: number[][][][]}} Attention `weights[block][head][t]` has t + 1 weights.
 * @typedef {{top: LikelyToken[], target: {probability: number, rank: number} | null}} LensPosition
 * @typedef {{tokens: Token[], layers: {name: string, positions: LensPosition[]}[]}} Lens
 * @typedef {{tokens: Token[], lengths: number[], shares: Record<string, number>}} Memorization `lengths` has an entry
 *   for each character (code point) of the text; `shares` has the keys "10", "20" and "40".
 *
 * @typedef {{step: number, train_loss: number, validation_loss: number, seconds: number, characters: number}} Evaluation
 * @typedef {{step: number, validation_loss: number, text: string}} Snapshot
 */

/**
 * Runs the models. Each method may throw a BackendError, whose message is for the reader. An aborted call
 * throws the signal's reason.
 * @typedef {object} Backend
 * @property {() => Promise<Run[]>} listRuns The newest first.
 * @property {(name: string) => Promise<{metrics: Evaluation[], snapshots: Snapshot[]}>} metrics
 * @property {(request: {model: string, text: string}, signal?: AbortSignal) => Promise<Token[]>} tokenize
 * @property {(request: GenerateRequest, signal?: AbortSignal) => AsyncIterable<GeneratedEvent>} generate
 * @property {(request: NextRequest, signal?: AbortSignal) => Promise<NextTokens>} nextTokens
 * @property {(request: TextRequest & {heads_off?: Heads}, signal?: AbortSignal) => Promise<Positions>} positions
 * @property {(request: TextRequest, signal?: AbortSignal) => Promise<Attention>} attention
 * @property {(request: TextRequest & {top?: number}, signal?: AbortSignal) => Promise<Lens>} lens
 * @property {(request: {model: string, text: string}, signal?: AbortSignal) => Promise<Memorization>} memorization
 * @property {(request: ChatRequest, signal?: AbortSignal) => AsyncIterable<GeneratedEvent>} chat
 */

/** An error that the reader of the page can understand. */
export class BackendError extends Error {
  /**
   * @param {string} message What is wrong, and what the reader can do.
   * @param {boolean} [isTokenRefused] True if the server does not accept the page's token.
   */
  constructor(message, isTokenRefused = false) {
    super(message);
    this.isTokenRefused = isTokenRefused;
  }
}
