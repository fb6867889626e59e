// The start of the server's page: it takes the token, and opens the page with the server as its backend.

import { forgetToken, takeToken } from "./access_token.js";
import { BackendError } from "./backend.js";
import { CompareView } from "./compare_view.js";
import { find } from "./dom.js";
import { showError } from "./messages.js";
import { openPage } from "./page.js";
import { ServerBackend } from "./server_backend.js";
import { TrainView } from "./train_view.js";

const LOCKED =
  "This page needs the server's token: open the whole URL that minigpt serve prints, which ends with #token=…";

/** @param {string} token */
async function start(token) {
  try {
    const backend = new ServerBackend(token);
    await openPage(backend, (runs, tabs) => {
      new TrainView(backend, runs, tabs);
      new CompareView(backend, runs, tabs);
    });
  } catch (error) {
    if (error instanceof BackendError && error.isTokenRefused) {
      forgetToken();
      lock();
    } else {
      showError(find("#page-message", HTMLElement), error);
    }
  }
}

/** Say how to get a token, and nothing else. */
function lock() {
  showError(find("#page-message", HTMLElement), new Error(LOCKED));
}

window.addEventListener("hashchange", () => {
  if (new URLSearchParams(location.hash.slice(1)).has("token")) location.reload(); // a new token was pasted
});
const token = takeToken();
if (token) start(token);
else lock();
