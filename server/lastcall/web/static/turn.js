// What the user can do next, below the newest message: continue, try again, have it answered anew.

import { $ } from "./page.js";
import { stopped } from "./visit.js";
import { words } from "./words.js";

const NOTHING = { text: "", can: [] };

/** Shows it. last: of `Transcript`. failed, cutOff: ids of answers. elsewhere: of messages answered there. idle: whether nothing is under way. */
export function showTurn(last, { failed, cutOff, elsewhere }, idle) {
  const { text, can } = idle && !elsewhere.has(last.id) ? turnAfter(last, failed, cutOff) : NOTHING;
  for (const id of ["continue", "again", "regenerate"]) $(id).hidden = !can.includes(id);
  $("turn-text").textContent = text;
  $("turn").hidden = can.length === 0;
}

function turnAfter({ id, role, state }, failed, cutOff) {
  if (state === "refused") return { text: "", can: ["again"] };
  if (role === "user" && state === "completed") return { text: words.turnUnanswered, can: ["again"] };
  if (role !== "assistant") return NOTHING;
  if (failed.has(id)) return { text: words.turnFailed, can: ["again"] };
  if (state === "completed") return { text: "", can: ["regenerate"] };
  if (cutOff.has(id)) return { text: "", can: ["continue", "regenerate"] }; // its note says why
  const text = stopped.has(id) ? words.turnStopped : words.turnInterrupted;
  return state === "incomplete" ? { text, can: ["continue", "regenerate"] } : NOTHING;
}
