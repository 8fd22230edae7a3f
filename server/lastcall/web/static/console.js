// The console: a client of `/v1/admin/…`. One screen at a time, named by the address, and the truth above all.

import { answersScreen } from "./console-answers.js";
import { get } from "./console-api.js";
import { redraw } from "./console-chart.js";
import { endingsScreen } from "./console-endings.js";
import { nowScreen } from "./console-now.js";
import { keysScreen, usersScreen } from "./console-people.js";
import { sessionScreen } from "./console-session.js";
import { showTruth } from "./console-truth.js";
import { webhooksScreen } from "./console-webhooks.js";
import { words } from "./console-words.js";
import { auditScreen, memoryScreen, serversScreen } from "./console-work.js";
import { $, startTheme } from "./page.js";
import { key } from "./visit.js";
import { translate } from "./words.js";

const TRUTH_MS = 2000;
const SCREEN_MS = 4000;
const SCREENS = {
  now: nowScreen,
  endings: endingsScreen,
  answers: answersScreen,
  session: sessionScreen,
  servers: serversScreen,
  memory: memoryScreen,
  keys: keysScreen,
  users: usersScreen,
  webhooks: webhooksScreen,
  audit: auditScreen,
};

let truth = null; // as last told; null: nobody answers
let screen = null;
const timers = {};

const place = { truth: () => truth, mayAct: false };

function open() {
  const [, name = "now", rest = ""] = location.hash.split("/");
  const known = name in SCREENS ? name : "now";
  for (const link of $("tabs").children) {
    if (link.hash === `#/${known}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  $("truth").hidden = known !== "now";
  $("notice").hidden = true;
  document.title = `${words[TITLES[known]]} · lastcall`;
  screen = SCREENS[known](place, decodeURIComponent(rest));
  $("screen").replaceChildren(screen.element);
  refresh();
}

const TITLES = { now: "now", endings: "endings", answers: "answersTab", session: "session", servers: "servers", memory: "memory", keys: "keysTab", users: "users", webhooks: "webhooks", audit: "audit" };

async function refresh() {
  const mine = screen;
  clearTimeout(timers.screen);
  try {
    await mine.refresh();
    if (mine === screen) $("notice").hidden = true;
  } catch (error) {
    if (mine === screen) failed(error);
  }
  clearTimeout(timers.screen);
  if (mine === screen && !document.hidden) timers.screen = setTimeout(refresh, mine.every ?? SCREEN_MS);
}

// What a button's action throws comes here too.
function failed(error) {
  if (error.status === undefined) throw error;
  if (error.status === 401 || (error.status === 403 && !truth)) return askForKey(error);
  tell(error.status === 404 ? words.notThere : error.message || words.noAnswer);
}

function tell(text) {
  if ($("notice-text").textContent !== text || $("notice").hidden) $("notice-text").textContent = text;
  $("notice").hidden = false;
}

async function look() {
  clearTimeout(timers.truth);
  try {
    truth = await get("truth");
    if (place.mayAct !== truth.may_act || screen === null) {
      place.mayAct = truth.may_act;
      open();
    }
    document.body.dataset.role = truth.may_act ? "operator" : "reader";
    $("key-form").hidden = true;
  } catch (error) {
    truth = null;
    if (error.status === undefined) throw error;
    if (error.status === 401 || error.status === 403) askForKey(error);
  }
  showTruth(truth);
  clearTimeout(timers.truth);
  if ($("key-form").hidden && !document.hidden) timers.truth = setTimeout(look, TRUTH_MS);
}

function askForKey(error) {
  if (error.status === 403) tell(error.message);
  if (!$("key-form").hidden) return;
  key.forget();
  clearTimeout(timers.screen);
  screen = null;
  $("screen").replaceChildren();
  $("key-form").hidden = false;
  $("key").focus();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value.trim());
  $("key").value = "";
  $("key-form").hidden = true;
  $("notice").hidden = true;
  look();
});
$("notice-close").addEventListener("click", () => ($("notice").hidden = true));
addEventListener("hashchange", () => {
  if (screen === null) return;
  open();
  $("screen").querySelector("h2")?.setAttribute("tabindex", "-1");
  $("screen").querySelector("h2")?.focus();
});
addEventListener("unhandledrejection", (event) => {
  if (event.reason?.status === undefined) return;
  event.preventDefault();
  failed(event.reason);
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !$("key-form").hidden) return;
  look();
  if (screen) refresh();
});
$("theme").addEventListener("click", () => setTimeout(redraw));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

translate(document, words);
startTheme();
showTruth(null);
look();
