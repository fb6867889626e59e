// A form field for each setting of a training, made from what the server says of the settings.

import { createElement, find } from "./dom.js";

/**
 * @typedef {import("./training_types.js").Setting} Setting
 * @typedef {import("./training_types.js").SettingValue} SettingValue
 */

export class SettingsFields {
  /** @type {Map<string, {setting: Setting, input: HTMLInputElement | HTMLSelectElement}>} */
  #fields = new Map();

  /** @param {Setting[]} settings */
  constructor(settings) {
    for (const setting of settings) {
      const input = createElement(setting.type === "choice" || setting.type === "flag" ? "select" : "input", {
        id: `setting-${setting.name}`,
        "aria-describedby": `help-${setting.name}`,
      });
      if (input instanceof HTMLInputElement) {
        input.type = setting.type === "text" ? "text" : "number";
        input.step = "any";
      }
      const place = find(setting.is_main ? "#train-settings" : "#train-more-settings", HTMLElement);
      const help = createElement("span", { class: "hint", id: `help-${setting.name}` }, setting.help);
      place.append(createElement("label", { class: "field" }, createElement("code", {}, setting.name), input, help));
      this.#fields.set(setting.name, { setting, input });
    }
  }

  /**
   * Show a preset's values where the reader has not given another one.
   * @param {Record<string, SettingValue>} values
   */
  showDefaults(values) {
    for (const { setting, input } of this.#fields.values()) {
      const shown = showValue(values[setting.name]);
      if (input instanceof HTMLInputElement) {
        input.placeholder = shown;
      } else {
        const chosen = input.value;
        const choices = setting.type === "flag" ? ["true", "false"] : setting.choices;
        const options = choices.map((value) => createElement("option", { value }, showFlag(value)));
        input.replaceChildren(createElement("option", { value: "" }, `${shown} (preset)`), ...options);
        input.value = chosen;
      }
    }
  }

  /**
   * Return the settings that the reader has given.
   * @returns {Record<string, SettingValue>}
   */
  read() {
    const given = [...this.#fields.values()].filter(({ input }) => input.value !== "");
    return Object.fromEntries(given.map(({ setting, input }) => [setting.name, convert(setting, input.value)]));
  }
}

/**
 * @param {Setting} setting
 * @param {string} value
 * @returns {SettingValue}
 */
function convert(setting, value) {
  if (setting.type === "flag") return value === "true";
  return setting.type === "integer" || setting.type === "number" ? Number(value) : value;
}

/** @param {SettingValue} value */
function showValue(value) {
  return value === null ? "none" : showFlag(String(value));
}

/** @param {string} value */
function showFlag(value) {
  return { true: "yes", false: "no" }[value] ?? value;
}
