// What the server says of trainings; docs/web_api.md describes it. Only a page with a server has this.

/**
 * @typedef {"starting" | "running" | "stopping" | "finished" | "interrupted" | "diverged" | "killed" | "failed"} State
 * @typedef {{name: string, state: State, started: string | null, error: string | null}} ListedTraining
 * @typedef {{trainings: ListedTraining[], reason: string | null, max_trainings: number, upload_bytes: number}} Trainings
 *   `reason` is null, or says why no training can be started.
 *
 * @typedef {object} Progress Evaluations and samples are those after a step that the page named.
 * @property {string | null} preset
 * @property {number | null} parameters
 * @property {string | null} text Where the text is from.
 * @property {number} step
 * @property {number | null} max_iters
 * @property {number | null} seconds_left
 * @property {number | null} validation_loss The exact one, at the end.
 * @property {number | null} bits_per_byte
 * @property {boolean} has_weights
 * @property {boolean} can_resume
 * @property {import("./backend.js").Evaluation[]} metrics
 * @property {import("./backend.js").Snapshot[]} snapshots
 * @property {string} output
 * @typedef {ListedTraining & Progress} Training
 *
 * @typedef {{name: string, help: string, type: "integer" | "number" | "flag" | "text" | "choice", choices: string[],
 *   is_main: boolean}} Setting
 * @typedef {string | number | boolean | null} SettingValue
 * @typedef {{name: string, about: string, settings: Record<string, SettingValue>}} Preset
 *
 * What to train on what. Without a text it is Tiny Shakespeare.
 * @typedef {{preset: string, text: string | null, settings: Record<string, SettingValue>}} Task
 * @typedef {{seconds: number, memory_bytes: number | null, validation_loss_from: number | null,
 *   validation_loss_to: number | null}} Forecast
 *
 * @typedef {{characters: number, model?: undefined}} TextEvent
 * @typedef {{model: string, bits_per_byte: number | null, loss: number | null, predictions: number | null,
 *   reason: string | null, characters?: undefined}} LossEvent `reason` says why a run was not measured.
 */

/** The list of the states in which a training works. */
export const ACTIVE = ["starting", "running", "stopping"];
