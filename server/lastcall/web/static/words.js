// The words of the page in the browser's language. Each language is a file; all have the same keys.

import de from "./words.de.js";
import en from "./words.en.js";
import es from "./words.es.js";
import zh from "./words.zh.js";

// All of them, a few kilobytes: a module that waits for one is run after the page is usable, and its forms would be
// sent before anybody listens.
const LANGUAGES = { en, de, es, zh };

const baseOf = (locale) => locale.toLowerCase().split("-")[0];
export const locale = navigator.languages.find((each) => baseOf(each) in LANGUAGES) ?? "en"; // times and numbers look as in its country

export const language = baseOf(locale);
export const words = LANGUAGES[language];

/** Replaces the English of a page: `data-words` names the text, `data-words-ATTRIBUTE` that of an attribute. */
export function translate(root, words) {
  document.documentElement.lang = language;
  for (const element of root.querySelectorAll("*"))
    for (const [name, key] of Object.entries(element.dataset)) {
      if (name === "words") element.textContent = words[key];
      else if (name.startsWith("words")) element.setAttribute(attribute(name), words[key]);
    }
}

// wordsAriaLabel: aria-label
function attribute(name) {
  return name.slice("words".length).replace(/(?!^)[A-Z]/g, "-$&").toLowerCase();
}

const time = new Intl.DateTimeFormat(locale, { timeStyle: "short" });
const wholeDay = new Intl.DateTimeFormat(locale, { dateStyle: "medium" });
const date = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });

/** The day of a moment. seconds: since 1970. */
export function day(seconds) {
  return wholeDay.format(new Date(seconds * 1000));
}

/** A moment in a few words: today only its time. seconds: since 1970. */
export function moment(seconds) {
  const then = new Date(seconds * 1000);
  return (then.toDateString() === new Date().toDateString() ? time : date).format(then);
}
