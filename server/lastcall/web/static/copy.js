// A button that copies a text.

import { words } from "./words.js";

const COPIED_MS = 1500;

/** textOf: asked when it is pressed. */
export function copyButton(textOf, label) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "small";
  button.textContent = label;
  button.addEventListener("click", async () => {
    await copy(textOf());
    button.textContent = words.copied;
    setTimeout(() => (button.textContent = label), COPIED_MS);
  });
  return button;
}

// Pages that came without TLS from another machine have no clipboard: there the text is selected and copied.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}
