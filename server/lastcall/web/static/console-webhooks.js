// Webhooks: where events are sent, what was sent, and what is sent again.

import { get, post, remove } from "./console-api.js";
import { ask } from "./console-ask.js";
import { button, h, now, number, Table, when } from "./console-dom.js";
import { pages } from "./console-pages.js";
import { words } from "./console-words.js";

const DELIVERIES_LIMIT = 50;
const CLAIM_SECONDS = 30; // what is due sooner may be on its way just now, and is not sent again
const STATES = ["pending", "delivered", "failed"];
const TONES = { pending: "plain", delivered: "good", failed: "bad" };

export function webhooksScreen({ mayAct }) {
  const said = h("p", { role: "status" });
  const endpoints = endpointTable(mayAct, said, () => refresh());
  const state = h("select", { id: "state" }, h("option", { value: "" }, words.allStates), ...STATES.map((each) => h("option", { value: each }, words.deliveryStates[each])));
  const deliveries = deliveryTable(mayAct, said, state, () => refresh());
  state.addEventListener("change", () => deliveries.reload());
  const refresh = async () => {
    endpoints.show((await get("webhooks")).data);
    await deliveries.refresh();
  };
  const retryAll = async () => {
    said.textContent = words.sentAgain(number((await post("webhooks/deliveries/retry")).deliveries));
    await refresh();
  };
  const fields = h("div", { class: "fields" }, h("label", { for: "state" }, words.state), state, mayAct ? button(words.retryAll, retryAll) : null);
  return {
    element: h(
      "div",
      {},
      h("h2", {}, words.webhooks),
      mayAct ? newWebhook(refresh) : null,
      endpoints.element,
      h("h3", {}, words.deliveries),
      fields,
      said,
      deliveries.element,
    ),
    refresh,
    every: 3000,
  };
}

function endpointTable(mayAct, said, done) {
  const columns = [
    { title: words.url, text: (row) => row.url },
    { title: words.events, text: (row) => row.events.join(", ") },
    { title: words.deliveryStates.pending, text: (row) => number(row.pending) },
    { title: words.deliveryStates.failed, text: (row) => number(row.failed), tone: (row) => (row.failed ? "bad" : "plain") },
    { title: words.created, text: (row) => when(row.created_at) },
  ];
  const test = (row) => async () => {
    await post(`webhooks/${row.id}/test`);
    said.textContent = words.testQueued;
    await done();
  };
  const drop = (row) => async () => {
    const answer = await ask({ title: words.removeTitle(row.url), text: words.removeText, yes: words.remove });
    if (answer === null) return;
    await remove(`webhooks/${row.id}`);
    await done();
  };
  if (mayAct) {
    columns.push({ title: words.test, hidden: true, make: (row) => button(words.test, test(row)) });
    columns.push({ title: words.remove, hidden: true, make: (row) => button(words.removeDots, drop(row)) });
  }
  return new Table(words.webhooks, columns, ({ id }) => id, words.noWebhooks);
}

function deliveryTable(mayAct, said, state, done) {
  const columns = [
    { title: words.when, text: (row) => when(row.created_at) },
    { title: words.event, text: (row) => row.event },
    { title: words.session, make: (row) => (row.session_id ? h("a", { href: `#/session/${row.session_id}` }, row.user) : "–") },
    { title: words.url, text: (row) => row.url },
    { title: words.state, text: (row) => words.deliveryStates[row.state], tone: (row) => TONES[row.state] },
    { title: words.tries, text: (row) => number(row.attempts) },
    { title: words.due, text: (row) => when(row.due_at) },
    { title: words.error, text: (row) => row.error ?? "–" },
  ];
  const again = (row) => async () => {
    said.textContent = words.sentAgain(number((await post("webhooks/deliveries/retry", { delivery_id: row.id })).deliveries));
    await done();
  };
  const mayRetry = (row) => row.state === "failed" || (row.due_at !== null && row.due_at > now() + CLAIM_SECONDS);
  if (mayAct) columns.push({ title: words.retry, hidden: true, make: (row) => (mayRetry(row) ? button(words.retry, again(row)) : "") });
  const table = new Table(words.deliveries, columns, (row) => `${row.id} ${mayRetry(row)}`, words.noDeliveries);
  return pages(table, DELIVERIES_LIMIT, (before) => get("webhooks/deliveries", { limit: DELIVERIES_LIMIT, before, state: state.value }));
}

function newWebhook(done) {
  const url = h("input", { id: "url", type: "url", maxlength: "2048", required: true, autocomplete: "off", spellcheck: "false", placeholder: "https://" });
  const told = h("p", { role: "status", class: "new-key" });
  const add = h("button", { class: "primary", type: "submit" }, words.addWebhook);
  const form = h("form", { class: "fields" }, h("label", { for: "url" }, words.url), url, add);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const made = await post("webhooks", { url: url.value.trim() });
    url.value = "";
    told.replaceChildren(words.shownOnce, " ", h("code", {}, made.secret));
    await done();
  });
  return h("div", {}, form, told);
}
