// The page: its views and its tabs, for any backend.

import { ChatView } from "./chat_view.js";
import { find } from "./dom.js";
import { LookView } from "./look_view.js";
import { RunList } from "./run_list.js";
import { RunsView } from "./runs_view.js";
import { Tabs } from "./tabs.js";
import { WriteView } from "./write_view.js";

/**
 * Make the views, list the runs, and open the tab that the address names.
 * @param {import("./backend.js").Backend} backend Throws a BackendError if the runs cannot be listed.
 * @param {(runs: RunList, tabs: Tabs) => void} [addViews] Makes the views that only some pages have.
 */
export async function openPage(backend, addViews) {
  const runs = new RunList(backend);
  const tabs = new Tabs(find("[role=tablist]", HTMLElement));
  tabs.onShow((name) => history.replaceState(null, "", `#${name}`));
  const writeView = new WriteView(backend, runs);
  new LookView(backend, runs);
  new ChatView(backend, runs);
  new RunsView(backend, runs, (name) => {
    writeView.chooseRun(name);
    tabs.show("write");
    find("#write-prompt", HTMLTextAreaElement).focus();
  });
  addViews?.(runs, tabs);
  await runs.refresh();
  find("#page-message", HTMLElement).hidden = true;
  find("#views", HTMLElement).hidden = false;
  tabs.show(location.hash.slice(1) || (runs.runs.length === 0 ? "train" : ""));
}
