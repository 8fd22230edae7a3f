// The element of one message: who said it, what, when, and what can be done with it.

import { copyButton } from "./copy.js";
import { moment, words } from "./words.js";

const SPEAKERS = { user: words.you, assistant: words.agent, system: words.system };

/** An element with `said` (where the text goes), `note(text)` and `date(seconds)`. textOf, edit: called on a press. */
export function newMessage(id, role, textOf, edit) {
  const element = document.createElement("li");
  element.className = "message";
  element.dataset.item = id;
  element.dataset.role = role;
  const speaker = part("span", "unseen speaker"); // without it, only colour and place tell who spoke
  speaker.textContent = `${SPEAKERS[role] ?? role} `;
  const said = part("div", "said");
  said.dir = "auto";
  const note = part("span", "note");
  const foot = part("div", "foot");
  const time = part("time", "time");
  time.hidden = true;
  foot.append(time, copyButton(textOf, words.copy));
  if (role === "user") foot.append(editButton(edit));
  element.append(speaker, said, note, foot);
  return Object.assign(element, {
    said,
    note: (text) => (note.textContent = text),
    date: (seconds) => {
      time.dateTime = new Date(seconds * 1000).toISOString();
      time.textContent = moment(seconds);
      time.hidden = false;
    },
  });
}

function part(tag, name) {
  const element = document.createElement(tag);
  element.className = name;
  return element;
}

function editButton(edit) {
  const button = part("button", "small edit");
  button.type = "button";
  button.textContent = words.edit;
  button.addEventListener("click", edit);
  return button;
}
