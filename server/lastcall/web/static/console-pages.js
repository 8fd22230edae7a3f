// Tables that grow by pages.

import { button, h } from "./console-dom.js";
import { words } from "./console-words.js";

/** {element, reload, refresh}. read: asks for the page behind a place, or the first. Once more pages are shown, refresh keeps them. */
export function pages(table, limit, read) {
  let rows = [];
  let next = null;
  const load = async (behind) => {
    const page = await read(behind);
    rows = behind ? [...rows, ...page.data] : page.data;
    next = page.next;
    table.show(rows);
    more.hidden = !next;
  };
  const more = button(words.showMore, () => load(next));
  more.hidden = true;
  const reload = () => load(null);
  return { element: h("div", {}, table.element, more), reload, refresh: async () => rows.length > limit || reload() };
}
