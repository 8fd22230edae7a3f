// Elements, tables that are kept up to date in place, and numbers in words.

import { locale, moment } from "./words.js";

const whole = new Intl.NumberFormat(locale);
const precise = new Intl.NumberFormat(locale, { maximumSignificantDigits: 3 });

export const number = (value) => whole.format(value);

/** A new element. Of properties, `class`, `data` (an object) and `on…` are what they are called; others are attributes. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "data") Object.assign(element.dataset, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Seconds in a few words. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds > 0 && seconds < 1) return `${precise.format(seconds * 1000)} ms`;
  if (seconds < 100) return `${precise.format(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 100) return `${minutes} min ${Math.round(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 72 ? `${hours} h ${minutes % 60} min` : `${number(Math.floor(hours / 24))} d ${hours % 24} h`;
}

export const when = (seconds) => (seconds === null || seconds === undefined ? "–" : moment(seconds));
export const now = () => Date.now() / 1000;

/** A button that does something once at a time. */
export function button(text, action, kind = "quiet") {
  const made = h("button", { class: kind, type: "button" }, text);
  let busy = false; // not disabled meanwhile: it would lose the focus
  made.addEventListener("click", async () => {
    if (busy) return;
    busy = true;
    try {
      await action();
    } finally {
      busy = false;
    }
  });
  return made;
}

/** Buttons of which one is pressed: {element, press}. texts: by name. */
export function choices(label, names, texts, choose) {
  const element = h("div", { class: "ranges", role: "group", "aria-label": label });
  for (const name of names) {
    const made = button(texts[name], () => choose(name));
    made.dataset.name = name;
    element.append(made);
  }
  const press = (wanted) => {
    for (const each of element.children) each.setAttribute("aria-pressed", each.dataset.name === wanted);
  };
  return { element, press };
}

/**
 * A table whose rows are changed in place, so that the focus stays where it is.
 *
 * columns: {title, text(row)} or {title, make(row)}: an element, made once for each row.
 */
export class Table {
  #columns;
  #keyOf;
  #body = h("tbody");
  #empty;
  #rows = new Map();

  constructor(caption, columns, keyOf, empty) {
    this.#columns = columns;
    this.#keyOf = keyOf;
    this.#empty = h("p", { class: "empty", hidden: true }, empty); // until it is known
    const head = columns.map(({ title, hidden }) =>
      h("th", { scope: "col" }, hidden ? h("span", { class: "unseen" }, title) : title),
    );
    const table = h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, ...head)), this.#body);
    const wide = h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption }, table);
    this.element = h("div", { class: "listed" }, wide, this.#empty);
  }

  /** Shows these rows; those that are shown already stay. */
  show(rows) {
    const kept = new Set();
    rows.forEach((row, place) => {
      const key = String(this.#keyOf(row));
      kept.add(key);
      const element = this.#rows.get(key) ?? this.#add(key, row);
      this.#update(element, row);
      if (this.#body.children[place] !== element) this.#body.insertBefore(element, this.#body.children[place] ?? null);
    });
    for (const [key, element] of this.#rows)
      if (!kept.has(key)) {
        element.remove();
        this.#rows.delete(key);
      }
    this.#empty.hidden = rows.length > 0;
    this.element.firstChild.hidden = rows.length === 0;
  }

  #add(key, row) {
    const cells = this.#columns.map(({ title, make }) => h("td", { data: { title } }, make ? make(row) : ""));
    const element = h("tr", { data: { key } }, ...cells);
    this.#rows.set(key, element);
    return element;
  }

  #update(element, row) {
    this.#columns.forEach(({ text, tone }, place) => {
      if (text && element.children[place].textContent !== text(row)) element.children[place].textContent = text(row);
      if (tone) element.children[place].dataset.tone = tone(row);
    });
  }
}

/** A file for the person to keep. */
export function save(name, blob) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
