// A question in a dialog, with a field for a reason or for a name that must be typed.

import { $ } from "./page.js";

/** What was typed; null: cancelled. must: what has to be typed for the button to work. label null: no field. */
export function ask({ title, text, label = null, yes, must = null }) {
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-label").textContent = label ?? "";
  $("ask-label").hidden = $("ask-field").hidden = label === null;
  $("ask-field").value = "";
  $("ask-yes").textContent = yes;
  const check = () => ($("ask-yes").disabled = must !== null && $("ask-field").value.trim() !== must);
  $("ask-field").oninput = check;
  check();
  $("ask").showModal();
  (label === null ? $("ask-no") : $("ask-field")).focus();
  return new Promise((answer) => {
    $("ask-form").onsubmit = (event) => {
      event.preventDefault();
      answer($("ask-field").value.trim());
      $("ask").close();
    };
    $("ask-no").onclick = () => $("ask").close();
    $("ask").onclose = () => answer(null); // after an answer it has no effect
  });
}
