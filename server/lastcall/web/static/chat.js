// The chat page: what the user does goes to the server, what the server says goes to the page.

import { Connection } from "./connection.js";
import { MemoryPanel } from "./memory.js";
import { Transcript } from "./transcript.js";

const ANONYMOUS = "anonymous";
const TOO_LARGE = 1009;
const BAD_KEY = 3000;
const ASK = "ask"; // the event id of every response.create
const HARMLESS = new Set(["missing_api_key", "response_cancel_not_active", "session_expired"]);

const $ = (id) => document.getElementById(id);
const transcript = new Transcript($("messages"), $("scroll"), $("hint"));
const memory = new MemoryPanel($("facts"), $("facts-empty"), $("memory-count"), key);
const connection = new Connection(address, key);

let user = recallUser();
let unsent = new Map(); // item id -> text of messages that the server has not acknowledged, in order
let ready = false; // the session is open and its history has been shown
let answering = null; // id of the response that is under way
let owed = false; // the newest message still needs a response

// --- what is kept between visits ---

function recallUser() {
  return localStorage.getItem("lastcall.user") || ANONYMOUS;
}

// A key, client secret or token; only for this tab.
function key() {
  return sessionStorage.getItem("lastcall.key");
}

function conversation() {
  return localStorage.getItem(`lastcall.conversation.${user}`);
}

function keepConversation(id) {
  if (id) localStorage.setItem(`lastcall.conversation.${user}`, id);
  else localStorage.removeItem(`lastcall.conversation.${user}`);
}

function address() {
  const query = new URLSearchParams({ user });
  if (conversation()) query.set("conversation", conversation());
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/realtime?${query}`;
}

// --- what the server says ---

const on = {
  "session.created": ({ session }) => {
    if (session.conversation_id) keepConversation(session.conversation_id);
    memory.follow(user);
    // The history comes before the answer to the first event, whatever that event is.
    connection.send({ type: "session.update", session: { type: "realtime" } });
  },
  "session.updated": () => {
    if (ready) return;
    ready = true;
    for (const [id, text] of unsent) sendItem(id, text);
    if (owed && unsent.size === 0 && transcript.endsWithUser()) askForResponse();
    else if (unsent.size === 0) owed = false;
  },
  "conversation.item.added": ({ item, previous_item_id: previous }) => transcript.show(item, previous),
  "conversation.item.done": ({ item, previous_item_id: previous }) => {
    transcript.show(item, previous);
    acknowledged(item.id);
  },
  "conversation.item.deleted": ({ item_id: id }) => transcript.remove(id),
  "response.created": ({ response }) => setAnswering(response.id),
  "response.output_text.delta": ({ item_id: id, delta }) => transcript.append(id, delta),
  "response.done": ({ response }) => responseDone(response),
  error: ({ error }) => refused(error),
};

function acknowledged(id) {
  if (!unsent.delete(id)) return;
  owed = true;
  if (ready) askForResponse();
}

function responseDone(response) {
  setAnswering(null);
  const id = response.output?.at(-1)?.id;
  const failure = response.status === "failed" && (response.status_details?.error?.message ?? "no reason was given");
  if (failure) showNotice(`The agent could not answer: ${failure}`);
  if (failure && id) transcript.note(id, "failed");
  if (response.status === "incomplete" && id) transcript.note(id, "cut off: the answer reached its length limit");
  if (id) $("announce").textContent = transcript.textOf(id);
  if (owed) askForResponse();
}

function refused(error) {
  if (error.code === "conversation_not_found" && conversation()) startOver();
  else if (error.code === "item_create_duplicate_item_id" && unsent.has(error.event_id)) settle(error.event_id);
  else if (error.code === "conversation_already_has_active_response") owed = true;
  else if (error.event_id === ASK) askRefused(error.message);
  else if (HARMLESS.has(error.code)) return;
  else if (unsent.has(error.event_id)) giveUp(error.event_id, error.message);
  else showNotice(error.message);
}

function askRefused(why) {
  setAnswering(null);
  showNotice(why);
}

// The conversation is not there any more: what was not sent yet goes into a new one.
function startOver() {
  keepConversation(null);
  transcript.clear();
  for (const [id, text] of unsent) transcript.showOwn(id, text);
  reconnect();
}

function settle(id) {
  transcript.note(id, "", "completed");
  acknowledged(id);
}

function giveUp(id, why) {
  unsent.delete(id);
  transcript.note(id, `not sent: ${why}`, "refused");
}

function lost({ code, reason }) {
  const [first] = unsent.keys();
  if (code === TOO_LARGE && first) giveUp(first, "the message is too long");
  if (code === BAD_KEY) askForKey();
  if (code === 1008) showNotice(`The server refused the connection${reason ? `: ${reason}` : "."}`);
  hangUp();
}

// --- what the user does ---

function askForKey() {
  sessionStorage.removeItem("lastcall.key");
  $("key-form").hidden = false;
  $("key").focus();
}

function useKey(event) {
  event.preventDefault();
  sessionStorage.setItem("lastcall.key", $("key").value.trim());
  $("key").value = "";
  $("key-form").hidden = true;
  hideNotice();
  connection.open();
  $("text").focus();
}

function submit(text) {
  const id = newItemId();
  unsent.set(id, text);
  transcript.showOwn(id, text);
  if (ready) sendItem(id, text);
}

// The id makes sending again safe: the server refuses an item that it already has.
function newItemId() {
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  return "item_" + Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function sendItem(id, text) {
  const item = { id, type: "message", role: "user", content: [{ type: "input_text", text }] };
  connection.send({ type: "conversation.item.create", event_id: id, item });
}

function askForResponse() {
  if (answering) return; // one at a time: the end of this one asks again
  owed = false;
  answering = "asked";
  connection.send({ type: "response.create", event_id: ASK });
}

function reconnect() {
  hangUp();
  connection.open();
}

function hangUp() {
  owed ||= Boolean(answering);
  ready = false;
  setAnswering(null);
  transcript.interrupt();
}

function leaveConversation() {
  unsent = new Map();
  hangUp();
  owed = false;
  transcript.clear();
  hideNotice();
}

function newConversation() {
  leaveConversation();
  keepConversation(null);
  connection.open();
  $("text").focus();
}

function changeUser(name) {
  const chosen = name.trim() || ANONYMOUS;
  if (chosen === user) return;
  leaveConversation();
  memory.clear();
  user = chosen;
  localStorage.setItem("lastcall.user", user);
  connection.open();
}

// --- the page ---

function setAnswering(id) {
  answering = id;
  $("stop").hidden = !id;
  $("send").hidden = Boolean(id);
}

function showState({ state, text }) {
  $("status").dataset.state = state;
  if ($("status-text").textContent !== text) $("status-text").textContent = text;
}

function showNotice(text) {
  $("notice-text").textContent = text;
  $("notice").hidden = false;
}

function hideNotice() {
  $("notice").hidden = true;
}

function fitHeight() {
  const field = $("text");
  field.style.height = "auto";
  if (field.value) field.style.height = `${field.scrollHeight + 2}px`;
}

function sendWritten(event) {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  fitHeight();
  hideNotice();
  submit(text);
}

function onKey(event) {
  // A key that ends the composition of a character is not meant for us.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) sendWritten(event);
}

function start() {
  $("user").value = user === ANONYMOUS ? "" : user;
  $("memory").open = matchMedia("(min-width: 56.01rem)").matches;
  $("composer").addEventListener("submit", sendWritten);
  $("text").addEventListener("keydown", onKey);
  $("text").addEventListener("input", fitHeight);
  $("stop").addEventListener("click", () => connection.send({ type: "response.cancel" }));
  $("new").addEventListener("click", newConversation);
  $("user").addEventListener("change", () => changeUser($("user").value));
  $("who").addEventListener("submit", (event) => (event.preventDefault(), $("text").focus()));
  $("key-form").addEventListener("submit", useKey);
  $("notice-close").addEventListener("click", hideNotice);
  $("refresh").addEventListener("click", () => memory.follow(user));
  connection.addEventListener("state", ({ detail }) => showState(detail));
  connection.addEventListener("event", ({ detail }) => on[detail.type]?.(detail));
  connection.addEventListener("lost", ({ detail }) => lost(detail));
  connection.open();
  $("text").focus();
}

start();
