// The parts of the page around the conversation: the state of the line, notices, the theme, panels, a question.

import { kept } from "./storage.js";
import { words } from "./words.js";

const WIDE = matchMedia("(min-width: 72.01rem)");
const THEMES = ["auto", "light", "dark"];
const UP = new Set(["connecting", "connected", "unsaved"]);

export const $ = (id) => document.getElementById(id);

/** Says how the line is. Only another state is announced: the seconds until the next try stand beside it. */
export function showState(state, seconds, { canReconnect }) {
  $("status").dataset.state = state;
  if ($("status-text").textContent !== words[state]) $("status-text").textContent = words[state];
  $("countdown").textContent = seconds > 0 ? words.inSeconds(seconds) : "";
  $("reconnect").hidden = UP.has(state) || !canReconnect;
}

export function showNotice(text) {
  $("notice-text").textContent = text;
  $("notice").hidden = false;
}

export function hideNotice() {
  $("notice").hidden = true;
}

/** Asks whether something is to be done; true or false. yes: what the button that does it says. */
export function confirmed(text, yes = words.delete) {
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = yes;
  $("confirm").showModal();
  return new Promise((answer) => {
    const end = (value) => () => {
      answer(value);
      $("confirm").close();
    };
    $("confirm-yes").onclick = end(true);
    $("confirm-no").onclick = end(false);
    $("confirm").onclose = () => answer(false); // by Escape; after an answer it has no effect
  });
}

export function fitHeight(field) {
  field.style.height = "auto";
  if (field.value) field.style.height = `${field.scrollHeight + 2}px`;
}

export function startTheme() {
  const now = () => document.documentElement.dataset.theme ?? "auto";
  const label = () => {
    for (const attribute of ["aria-label", "title"]) $("theme").setAttribute(attribute, words.theme[now()]);
  };
  $("theme").addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(now()) + 1) % THEMES.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    if (next === "auto") kept.removeItem("lastcall.theme");
    else kept.setItem("lastcall.theme", next);
    label();
  });
  label();
}

/** Panels stand beside the conversation where there is room; else one at a time opens above it. */
export function startPanels() {
  const panels = document.querySelectorAll(".panel details");
  const fit = () => {
    for (const panel of panels) {
      if (WIDE.matches) panel.removeAttribute("name");
      panel.open = WIDE.matches;
      if (!WIDE.matches) panel.setAttribute("name", "panel");
    }
  };
  WIDE.addEventListener("change", fit);
  fit();
}

export function closePanels() {
  if (!WIDE.matches) for (const panel of document.querySelectorAll(".panel details")) panel.open = false;
}
