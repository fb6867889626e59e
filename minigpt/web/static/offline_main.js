// The start of a page that has a model inside (minigpt/web/offline.py): it opens the page with that model as its backend.

import { find } from "./dom.js";
import { decodeBase64, openModelFile } from "./engine/model_file.js";
import { OfflineBackend } from "./engine/offline_backend.js";
import { showError } from "./messages.js";
import { openPage } from "./page.js";

async function start() {
  const file = JSON.parse(find("#model", HTMLScriptElement).textContent);
  const weights = find("#weights", HTMLScriptElement);
  const { model, tokenizer } = openModelFile(file, decodeBase64(weights.textContent));
  weights.remove(); // its text takes more memory than the weights
  await openPage(new OfflineBackend(file, model, tokenizer));
}

start().catch((error) => showError(find("#page-message", HTMLElement), error));
