// Colours code: as elements around its tokens, never as markup.

import { grammars } from "./grammars.js";
import { tokenizer } from "./tokenizer.js";

const CHARS_MAX = 10_000; // longer code stays plain

/** Colours the code that an element holds as text. language: what stands behind the fence; plain where it is unknown. */
export function colour(element, language) {
  const rules = grammars.get(language.toLowerCase());
  const text = element.textContent;
  // A task for each block: the page stays free for its reader between them.
  if (rules && text.length <= CHARS_MAX) setTimeout(() => element.replaceChildren(...coloured(text, rules)));
}

function coloured(text, rules) {
  const parts = [];
  const steps = tokenizer(text, rules, (part, kind) => part && parts.push(kind ? token(part, kind) : part));
  steps.next(); // to its end: it would stop for a language to be loaded, and none of ours names another
  return parts;
}

function token(text, kind) {
  const element = document.createElement("span");
  element.dataset.token = kind;
  element.textContent = text;
  return element;
}
