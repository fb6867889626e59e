// The page's start: it takes the token, makes the backend and the views, and opens a tab.

import { forgetToken, takeToken } from "./access_token.js";
import { BackendError } from "./backend.js";
import { ChatView } from "./chat_view.js";
import { find } from "./dom.js";
import { LookView } from "./look_view.js";
import { showError } from "./messages.js";
import { RunList } from "./run_list.js";
import { RunsView } from "./runs_view.js";
import { ServerBackend } from "./server_backend.js";
import { Tabs } from "./tabs.js";
import { WriteView } from "./write_view.js";

const LOCKED =
  "This page needs the server's token: open the whole URL that minigpt serve prints, which ends with #token=…";

/** @param {string} token */
async function start(token) {
  const backend = new ServerBackend(token);
  const runs = new RunList(backend);
  const tabs = new Tabs(find("[role=tablist]", HTMLElement), (name) => history.replaceState(null, "", `#${name}`));
  const writeView = new WriteView(backend, runs);
  new LookView(backend, runs);
  new ChatView(backend, runs);
  new RunsView(backend, runs, (name) => {
    writeView.chooseRun(name);
    tabs.show("write");
    find("#write-prompt", HTMLTextAreaElement).focus();
  });
  try {
    await runs.refresh();
  } catch (error) {
    if (error instanceof BackendError && error.isTokenRefused) {
      forgetToken();
      lock();
    } else {
      showError(find("#page-message", HTMLElement), error);
    }
    return;
  }
  find("#page-message", HTMLElement).hidden = true;
  find("#views", HTMLElement).hidden = false;
  tabs.show(location.hash.slice(1));
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
