// What the browser keeps for the page. In a frame of another site, and where the browser refuses, only the page keeps it.

import { embedded } from "./embed.js";

export const kept = storage(() => localStorage);
export const keptInTab = storage(() => sessionStorage);

function storage(find) {
  try {
    if (!embedded) return find();
  } catch {
    // a browser that blocks all cookies refuses storage too
  }
  const values = new Map();
  return {
    getItem: (name) => values.get(name) ?? null,
    setItem: (name, value) => values.set(name, String(value)),
    removeItem: (name) => values.delete(name),
  };
}
