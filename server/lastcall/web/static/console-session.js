// One session: whose it was, what happened when, what was said, what was remembered.

import { all, get, post } from "./console-api.js";
import { button, duration, h, number, save, Table, when } from "./console-dom.js";
import { forget } from "./console-people.js";
import { closeByHand, reasonText } from "./console-sessions.js";
import { words } from "./console-words.js";

const ITEMS_MAX = 2000;
const TIMELINE_MAX = 60; // events; those between the first and the last ones are counted

export function sessionScreen({ mayAct }, id) {
  const screen = h("div", { class: "session" });
  let shown = "";
  const refresh = async () => {
    const detail = await get(`sessions/${id}`);
    const items = await all(`sessions/${id}/items`, {}, ITEMS_MAX);
    const responses = await all(`sessions/${id}/responses`, {}, ITEMS_MAX);
    const seen = JSON.stringify([detail, items, responses]);
    if (seen === shown) return; // the focus and the place stay
    shown = seen;
    screen.replaceChildren(...parts({ ...detail, responses }, items, mayAct, refresh));
  };
  return { element: screen, refresh };
}

function parts(detail, items, mayAct, refresh) {
  const { session, memories, responses } = detail;
  return [
    h("h2", {}, `${words.session} `, h("code", {}, session.id)),
    actions(detail, items, mayAct, refresh),
    header(detail),
    h("h2", {}, words.timeline),
    timeline(session, items, responses),
    ...(responses.length ? [h("h2", {}, words.answersTab), answers(responses)] : []),
    h("h2", {}, words.transcript),
    items.length ? h("ol", { class: "transcript" }, ...items.map(said)) : h("p", { class: "empty" }, words.nothingSaid),
    h("h2", {}, words.memoriesMade),
    memories.length ? h("ul", { class: "made" }, ...memories.map((each) => remembered(each, mayAct, refresh))) : h("p", { class: "empty" }, words.nothingRemembered),
  ];
}

function actions({ session, ...rest }, items, mayAct, refresh) {
  const name = session.id;
  const json = () => save(`${name}.json`, new Blob([JSON.stringify({ session, ...rest, items }, null, 2)], { type: "application/json" }));
  const markdown = () => save(`${name}.md`, new Blob([asMarkdown(session, items)], { type: "text/markdown" }));
  const made = [button(words.exportJson, json), button(words.exportMarkdown, markdown)];
  if (mayAct && session.state !== "ended")
    made.unshift(button(words.closeDots, async () => (await closeByHand(session)) && refresh(), "stop"));
  if (mayAct && session.memory_status === "failed")
    made.unshift(
      button(words.retry, async () => {
        await post("memory/retry", { session_id: session.id });
        await refresh();
      }),
    );
  return h("div", { class: "actions" }, ...made);
}

function header({ session, closing }) {
  const closedBy = closing ? `${closing.name}${closing.reason ? `: ${closing.reason}` : ""}` : (session.closed_by_server ?? "–");
  const facts = [
    [words.user, h("a", { href: `#/users/${encodeURIComponent(session.user)}` }, session.user)],
    [words.state, words.states[session.state]],
    [words.started, when(session.started_at)],
    [words.ended, when(session.ended_at)],
    [words.lasted, duration(session.seconds)],
    [words.end, `${reasonText(session.end_reason)}${session.close_code ? ` (${session.close_code})` : ""}`],
    [words.closedBy, session.state === "ended" ? closedBy : "–"],
    [words.server, session.server ?? "–"],
    [words.key, session.key ? `${session.key}…` : "–"],
    [words.conversation, h("code", {}, session.conversation_id)],
    [words.memory, memoryText(session)],
  ];
  return h("dl", { class: "header" }, ...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function memoryText({ memory_status: status, memory_attempts: attempts, memory_error: error }) {
  return [words.memoryStates[status], attempts ? words.attempts(number(attempts)) : "", error ?? ""].filter(Boolean).join(" · ");
}

const tokens = ({ input_tokens: input, output_tokens: output }) =>
  input === null && output === null ? "" : words.tokens(number((input ?? 0) + (output ?? 0)));

const outcome = ({ outcome: name, reason }) => `${words.outcomes[name]}${reason ? ` (${reason})` : ""}`;

function answers(responses) {
  const known = (value) => (value === null ? "–" : number(value));
  const columns = [
    { title: words.started, text: (row) => when(row.started_at) },
    { title: words.firstPiece, text: (row) => duration(row.first_at === null ? null : row.first_at - row.started_at) },
    { title: words.lasted, text: (row) => duration(row.ended_at - row.started_at) },
    { title: words.tokenTypes.all, text: (row) => known(row.input_tokens) },
    { title: words.tokenTypes.cached, text: (row) => known(row.cached_tokens) },
    { title: words.tokenTypes.output, text: (row) => known(row.output_tokens) },
    { title: words.outcome, text: outcome, tone: (row) => (row.outcome === "failed" ? "bad" : "plain") },
    { title: words.model, text: (row) => row.model ?? row.agent },
  ];
  const table = new Table(words.answersTab, columns, (row) => row.id, "");
  table.show(responses);
  return table.element;
}

function timeline(session, items, responses) {
  const events = [{ at: session.started_at, text: words.began, tone: "good" }];
  for (const item of items) {
    events.push({ at: item.stored_at, text: `${words.roles[item.role]}${item.status === "incomplete" ? ` · ${words.cut}` : ""}` });
    if (item.deleted_at) events.push({ at: item.deleted_at, text: words.deleted });
  }
  for (const each of responses) {
    const facts = [words.answer, duration(each.ended_at - each.started_at), tokens(each), each.outcome === "completed" ? "" : outcome(each)];
    events.push({ at: each.ended_at, text: facts.filter(Boolean).join(" · "), tone: each.outcome === "failed" ? "bad" : undefined });
  }
  if (session.ended_at) {
    events.push({ at: session.ended_at, text: reasonText(session.end_reason), tone: "bad" });
    events.push({ at: session.row_closed_at, text: words.rowClosed });
  }
  if (session.memory_done_at) events.push({ at: session.memory_done_at, text: words.memoryDone, tone: "good" });
  events.sort((one, other) => one.at - other.at);
  const left = events.length - TIMELINE_MAX;
  if (left > 0) events.splice(TIMELINE_MAX / 2, left, { at: events[TIMELINE_MAX / 2].at, text: words.moreEvents(number(left)) });
  const steps = events.map(({ at, text, tone }, place) =>
    h("li", { data: { tone: tone ?? "plain" } }, h("span", { class: "gap" }, place ? `+${duration(Math.max(0, at - events[place - 1].at))}` : when(at)), h("span", {}, text)),
  );
  return h("ol", { class: "timeline", tabindex: "0", "aria-label": words.timeline }, ...steps);
}

function said(item) {
  const notes = [item.status === "incomplete" && words.cut, item.deleted_at && words.deleted, item.name].filter(Boolean);
  return h(
    "li",
    { data: { role: item.role, deleted: Boolean(item.deleted_at) } },
    h("p", { class: "by" }, `${words.roles[item.role]} · ${when(item.stored_at)}${notes.length ? ` · ${notes.join(" · ")}` : ""}`),
    h("p", { class: "words", dir: "auto" }, item.content),
  );
}

function remembered(memory, mayAct, refresh) {
  const { kind, content, quote } = memory;
  const drop = mayAct ? button(words.forgetDots, async () => (await forget(memory)) && refresh()) : null;
  return h("li", {}, h("span", { class: "kind" }, kind), h("p", { dir: "auto" }, content), quote && h("q", { dir: "auto" }, quote), drop);
}

function asMarkdown(session, items) {
  const head = `# ${session.id}\n\n${session.user} · ${new Date(session.started_at * 1000).toISOString()} · ${session.end_reason ?? session.state}\n`;
  const texts = items.filter((item) => !item.deleted_at).map((item) => `\n**${item.role}** (${new Date(item.stored_at * 1000).toISOString()})\n\n${item.content}\n`);
  return head + texts.join("");
}
