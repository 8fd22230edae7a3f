// The chat page: what the user does goes to the server, what the server says goes to the page.

import { Api } from "./api.js";
import { BAD_KEY, CLOSED_BY_SOMEBODY, Connection, IDLE } from "./connection.js";
import { ConversationList } from "./conversations.js";
import { embedded, Surroundings } from "./embed.js";
import { OlderItems, REPLAYED } from "./history.js";
import { MemoryPanel } from "./memory.js";
import { myData, saveAsFile } from "./my_data.js";
import { Outbox } from "./outbox.js";
import { $, closePanels, confirmed, fitHeight, hideNotice, showNotice, showState, startPanels, startTheme } from "./page.js";
import { Readiness } from "./readiness.js";
import { SignIn } from "./sign_in.js";
import { Transcript } from "./transcript.js";
import { showTurn } from "./turn.js";
import { addressed, key, lastConversation, showAddress, stopped, typedName } from "./visit.js";
import { translate, words } from "./words.js";

const TOO_LARGE = 1009;
const ASK = "ask"; // the event id of every response.create
const DELETE = "delete "; // and of every deletion, before the item's id
const EDITED_ITEMS_MAX = 100; // deleted at once, which the server's queue of events can take
const HARMLESS = new Set([
  "missing_api_key", "response_cancel_not_active", "session_expired", "session_idle", "server_shutting_down",
]);

const transcript = new Transcript($("messages"), $("scroll"), $("hint"));
const api = new Api(key.get, () => user);
const memory = new MemoryPanel(
  { list: $("facts"), empty: $("facts-empty"), count: $("memory-count"), refresh: $("refresh") },
  api,
  confirmed,
);
const connection = new Connection(address, key.get);
const outbox = new Outbox(connection);
const readiness = new Readiness((isReady) => showState(isReady ? "connected" : "unsaved", 0, {}));
const older = new OlderItems(transcript, api, () => conversation);
const list = new ConversationList(
  {
    panel: $("conversations"),
    list: $("conversation-list"),
    empty: $("conversations-empty"),
    search: $("search"),
    more: $("more"),
  },
  api,
  confirmed,
);

const surroundings = embedded ? new Surroundings(useSecret) : null;
const signIn = embedded ? null : new SignIn({ leave: leaveUser, enter: enterAs });

let name = typedName.get(); // that was asked for
let user = name; // whose session it is, as the server says
let conversation = addressed() ?? lastConversation.of(user); // null: a new one
let session = null; // id of the session that is open or was the last
let ready = false; // the session is open and its history has been shown
let answering = null; // id of the response that is under way
let owed = false; // the newest message still needs a response
let idle = false; // the session was closed because nothing was said
let editing = null; // id of the message that is being changed
let draft = ""; // what stood in the field before that
let failed = new Set(); // ids of answers that failed
let cutOff = new Set(); // and of those that reached the limit of their length
const own = new Set(); // ids of what is being answered here
let elsewhere = new Set(); // ids of messages that the user has sent from another place, where they are answered

function address() {
  const query = new URLSearchParams({ user: name, replay: REPLAYED });
  if (conversation) query.set("conversation", conversation);
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/realtime?${query}`;
}

// --- what the server says

const on = {
  "session.created": ({ session: made }) => begun(made),
  "session.updated": () => ready || historyShown(),
  "conversation.item.added": ({ item, previous_item_id: previous }) => {
    if (!ready && transcript.oldest === undefined) older.reset(Boolean(previous));
    if (isOwn(item)) transcript.show(item, previous);
  },
  "conversation.item.done": ({ item, previous_item_id: previous }) => {
    if (!isOwn(item)) return heardFromElsewhere(item, previous);
    transcript.show(item, previous);
    if (ready && item.role === "assistant") transcript.date(item.id, Date.now() / 1000);
    acknowledged(item.id);
  },
  "conversation.item.deleted": ({ item_id: id }) => removed(id),
  "response.created": ({ response }) => setAnswering(response.id),
  "response.output_item.added": ({ item }) => own.add(item.id),
  "response.output_text.delta": ({ item_id: id, delta }) => transcript.append(id, delta),
  "response.done": ({ response }) => responseDone(response),
  error: ({ error }) => refused(error),
};

function begun({ id: made, user: owner = name, conversation_id: id }) {
  session = made;
  user = owner;
  conversation = id;
  surroundings?.accepted();
  lastConversation.keep(user, id);
  showUser();
  memory.follow();
  list.current = id;
  list.refresh();
  readiness.start();
  // The history comes before the answer to the first event, whatever that event is.
  connection.send({ type: "session.update", session: { type: "realtime" } });
}

// A key may be for one user only: then the server decides the name, whatever was typed.
function showUser() {
  const isFixed = user !== name;
  $("user").readOnly = isFixed;
  $("user").title = isFixed ? words.nameFixed : "";
  // Not while the user types another one.
  if (isFixed || document.activeElement !== $("user")) $("user").value = typedName.shown(user);
}

function historyShown() {
  ready = true;
  for (const [id] of outbox.entries()) outbox.send(id);
  if (transcript.last.id) {
    if (outbox.size === 0) showAddress(conversation);
    older.date();
    if (transcript.nearBeginning) older.load();
  }
  if (owed && outbox.size === 0 && transcript.endsWithUser()) askForResponse();
  else if (outbox.size === 0) owed = false;
  turn();
}

function acknowledged(id) {
  if (!outbox.drop(id)) return;
  showAddress(conversation);
  list.refresh();
  owed = true;
  if (ready) askForResponse();
}

function isOwn({ id }) {
  return !ready || own.has(id) || outbox.has(id);
}

// The conversation is open in another tab, or on another device.
function heardFromElsewhere(item, previous) {
  if (previous && !transcript.has(previous) && older.more) return; // it comes with the older ones
  transcript.show(item, previous);
  transcript.date(item.id, Date.now() / 1000);
  if (item.role === "user") {
    elsewhere.add(item.id);
    showAddress(conversation);
    list.refresh();
  } else if (item.role === "assistant") $("announce").textContent = transcript.spoken(item.id);
  turn();
}

function removed(id) {
  transcript.remove(id);
  failed.delete(id);
  if (editing === id) endEditing();
  turn();
}

function responseDone(response) {
  const id = response.output?.at(-1)?.id;
  const failure = response.status === "failed" && (response.status_details?.error?.message ?? words.noReason);
  if (failure) showNotice(words.couldNotAnswer(failure));
  if (failure && id) {
    failed.add(id);
    transcript.note(id, words.failed, "incomplete");
  }
  if (response.status === "incomplete" && id) {
    cutOff.add(id);
    transcript.note(id, words.cutOff);
  }
  if (id) $("announce").textContent = transcript.spoken(id);
  own.clear();
  setAnswering(null);
  if (owed) askForResponse();
}

function refused(error) {
  const { code, event_id: event, message } = error;
  if (code === "store_unavailable") readiness.check();
  if (code === "conversation_not_found" && conversation) startOver();
  else if (code === "item_create_duplicate_item_id" && outbox.has(event)) settle(event);
  else if (code === "conversation_already_has_active_response") owed = true;
  else if (event === ASK) askRefused(message);
  else if (event?.startsWith(DELETE) && code === "item_delete_invalid_item_id") removed(event.slice(DELETE.length));
  else if (HARMLESS.has(code)) return;
  else if (outbox.has(event)) giveUp(event, message);
  else showNotice(message);
}

function askRefused(why) {
  setAnswering(null);
  showNotice(why);
}

// The conversation is not there any more: what was not sent yet goes into a new one.
function startOver() {
  if (addressed()) showNotice(words.noSuchConversation);
  lastConversation.keep(user, null);
  conversation = null;
  showAddress(null);
  transcript.clear();
  older.reset(false);
  for (const [id, text] of outbox.entries()) transcript.showOwn(id, text);
  reconnect();
}

function settle(id) {
  transcript.note(id, "", "completed");
  acknowledged(id);
}

function giveUp(id, why) {
  outbox.drop(id);
  transcript.note(id, words.notSent(why), "refused");
  turn();
}

function lost({ code, reason }) {
  if (code === TOO_LARGE && outbox.first) giveUp(outbox.first, words.tooLong);
  hangUp();
  if (code === BAD_KEY) askForKey();
  if (code === 1008) showNotice(words.refusedConnection(reason));
  idle = code === IDLE;
  if (idle) showNotice(words.closedAsIdle);
  if (code === CLOSED_BY_SOMEBODY) explainClose();
}

// The code is the same whoever closed the session; what is still allowed tells why.
async function explainClose() {
  const { status } = await api.ask("GET", `/v1/conversations/${conversation}/items`, { query: { limit: 1 } });
  if (status === 401) askForKey();
  const told = { 401: words.closedAsRevoked, 404: words.closedAsDeleted }[status];
  if (told) return showNotice(told);
  const { body } = await api.ask("GET", `/v1/sessions/${session}`);
  if (body?.end_reason === "revoked") return showNotice(words.closedAsRevoked);
  const by = body?.closed_by;
  showNotice(by ? words.closedBy(by.name, by.reason) : words.closedByOperator);
}

// --- what the user does

function askForKey() {
  key.forget();
  if (embedded) {
    showNotice(words.embedWaiting);
    surroundings.ask();
    return;
  }
  $("key-form").hidden = false;
  $("reconnect").hidden = true;
  $("key").focus();
}

function useSecret(secret) {
  key.set(secret);
  hideNotice();
  reconnect();
}

function leaveUser() {
  connection.close();
  leaveConversation();
  memory.clear();
  list.clear();
  key.forget();
  $("key-form").hidden = true;
}

/** signedIn: who; null: nobody, and the name that was typed counts again. */
function enterAs(signedIn) {
  user = signedIn ?? name;
  conversation = addressed() ?? lastConversation.of(user);
  connection.open();
}

function useKey(event) {
  event.preventDefault();
  key.set($("key").value.trim());
  $("key").value = "";
  $("key-form").hidden = true;
  hideNotice();
  connection.open();
  $("text").focus();
}

function submit(text) {
  const id = outbox.keep(text);
  transcript.showOwn(id, text);
  if (ready) outbox.send(id);
  else if (idle) reconnect(); // a session that ended in silence goes on with the next word
  turn();
}

function askForResponse() {
  if (answering) return; // one at a time: the end of this one asks again
  owed = false;
  setAnswering("asked");
  connection.send({ type: "response.create", event_id: ASK });
}

function stop() {
  const { id, role, state } = transcript.last;
  if (role === "assistant" && state === "streaming") stopped.add(id);
  connection.send({ type: "response.cancel" });
}

function tryAgain() {
  const { id, role, state } = transcript.last;
  if (state === "refused") sendAnew(id);
  else if (role === "assistant") regenerate();
  else askForResponse();
}

function sendAnew(id) {
  const text = transcript.textOf(id);
  transcript.remove(id);
  submit(text);
}

function regenerate() {
  const answers = transcript.sinceUser();
  if (answers.length > EDITED_ITEMS_MAX) return showNotice(words.tooFarBack);
  deleteItems(answers);
  askForResponse();
}

function deleteItems(ids) {
  for (const id of ids) connection.send({ type: "conversation.item.delete", item_id: id, event_id: DELETE + id });
}

function edit(id) {
  if (transcript.from(id).length > EDITED_ITEMS_MAX) return showNotice(words.tooFarBack);
  const text = transcript.textOf(id);
  if (!editing) draft = $("text").value;
  if (answering) stop();
  if (outbox.drop(id) || transcript.stateOf(id) === "refused") transcript.remove(id); // the server has not seen it
  else editing = id;
  $("editing").hidden = !editing;
  write(text);
  $("text").focus();
  turn();
}

function write(text) {
  $("text").value = text;
  fitHeight($("text"));
}

function cancelEditing() {
  if (editing) write(draft);
  endEditing();
}

function endEditing() {
  editing = null;
  $("editing").hidden = true;
  turn();
}

function sendWritten(event) {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  if (editing && (!ready || answering)) return showNotice(words.couldNotDo);
  hideNotice();
  if (editing) deleteItems(transcript.from(editing));
  endEditing();
  write("");
  submit(text);
}

function onKey(event) {
  // A key that ends the composition of a character is not meant for us.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) sendWritten(event);
}

function onEscape(event) {
  if (event.key !== "Escape" || event.isComposing || $("confirm").open) return;
  if (editing) cancelEditing();
  else if (answering) stop();
}

function reconnect() {
  hangUp();
  connection.open();
}

function hangUp() {
  readiness.stop();
  owed ||= Boolean(answering);
  ready = false;
  own.clear();
  setAnswering(null);
  transcript.interrupt();
}

async function saveMyData() {
  const whose = user;
  $("my-data").disabled = true;
  try {
    const pieces = await myData(api, whose);
    if (whose === user) saveAsFile(pieces, "my-data.json");
  } catch {
    showNotice(words.couldNotDo);
  } finally {
    $("my-data").disabled = false;
    $("my-data").focus();
  }
}

function leaveConversation() {
  outbox.clear();
  hangUp();
  owed = false;
  failed = new Set();
  cutOff = new Set();
  elsewhere = new Set();
  cancelEditing();
  transcript.clear();
  older.reset(false);
  hideNotice();
  document.title = "lastcall";
}

/** id: null for a new one. */
function openConversation(id) {
  leaveConversation();
  conversation = id;
  lastConversation.keep(user, id);
  list.current = id;
  closePanels();
  connection.open();
  $("text").focus();
}

function visit(id) {
  showAddress(id, { added: true });
  openConversation(id);
}

function changeUser(typed) {
  const chosen = typedName.of(typed);
  if (chosen === name) return;
  leaveConversation();
  memory.clear();
  list.clear();
  name = user = chosen;
  typedName.set(name);
  conversation = lastConversation.of(name);
  showAddress(conversation, { added: true });
  connection.open();
}

// --- the page

function setAnswering(id) {
  answering = id;
  $("stop").hidden = !id;
  $("send").hidden = Boolean(id);
  turn();
}

function turn() {
  showTurn(transcript.last, { failed, cutOff, elsewhere }, ready && !answering && !editing && outbox.size === 0);
}

function start() {
  translate(document, words);
  startTheme();
  startPanels();
  $("user").value = typedName.shown(name);
  $("composer").addEventListener("submit", sendWritten);
  $("text").addEventListener("keydown", onKey);
  $("text").addEventListener("input", () => fitHeight($("text")));
  $("stop").addEventListener("click", stop);
  $("new").addEventListener("click", () => visit(null));
  $("user").addEventListener("change", () => changeUser($("user").value));
  $("who").addEventListener("submit", (event) => (event.preventDefault(), $("text").focus()));
  $("key-form").addEventListener("submit", useKey);
  $("notice-close").addEventListener("click", hideNotice);
  $("my-data").addEventListener("click", saveMyData);
  $("reconnect").addEventListener("click", () => (hideNotice(), reconnect()));
  $("continue").addEventListener("click", askForResponse);
  $("again").addEventListener("click", tryAgain);
  $("regenerate").addEventListener("click", regenerate);
  $("editing-cancel").addEventListener("click", cancelEditing);
  addEventListener("keydown", onEscape);
  addEventListener("popstate", () => openConversation(addressed()));
  transcript.addEventListener("edit", ({ detail }) => edit(detail.id));
  list.addEventListener("deleting", ({ detail }) => detail.id === conversation && visit(null));
  for (const panel of [list, memory]) {
    panel.addEventListener("open", ({ detail }) => visit(detail.id));
    panel.addEventListener("failed", () => showNotice(words.couldNotDo));
  }
  memory.addEventListener("said", ({ detail }) => ($("announce").textContent = detail.text));
  list.addEventListener("title", ({ detail }) => {
    document.title = detail.title ? `${detail.title} · lastcall` : "lastcall";
  });
  connection.addEventListener("state", ({ detail }) => {
    showState(detail.state, detail.seconds, { canReconnect: $("key-form").hidden });
  });
  connection.addEventListener("event", ({ detail }) => on[detail.type]?.(detail));
  connection.addEventListener("lost", ({ detail }) => lost(detail));
  if (embedded) surroundings.ask();
  else if (!signIn.begin()) connection.open();
  $("text").focus();
}

start();
