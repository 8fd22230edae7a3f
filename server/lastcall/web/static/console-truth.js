// The truth: whether every active row has its socket. Green, red with the list, grey while it cannot be known.

import { duration, h, number } from "./console-dom.js";
import { words } from "./console-words.js";
import { $ } from "./page.js";

/** Shows what `/v1/admin/truth` said; null: nobody answers. */
export function showTruth(truth) {
  const state = truth?.state ?? "unknown";
  for (const place of [$("truth"), $("mini")]) place.dataset.truth = state;
  const numbers = truth ? words.rowsAndSockets(number(truth.rows), sign(truth), number(truth.sockets)) : words.rowsUnknown;
  put($("truth-numbers"), numbers);
  put($("mini-text"), truth ? `${number(truth.rows)} ${sign(truth)} ${number(truth.sockets)}` : "?");
  put($("mini-state"), `${words.truth}: ${words.light[state]}, `);
  put($("truth-verdict"), verdict(truth));
  put($("truth-facts"), truth ? facts(truth) : "");
  list(truth?.unmatched ?? []);
}

const sign = (truth) => (truth.rows === truth.sockets ? "=" : "≠");

function verdict(truth) {
  if (!truth) return words.cannotKnow(words.noAnswer);
  if (truth.state === "red") return words.disagree(number(truth.unmatched.length));
  if (truth.state === "unknown") return words.cannotKnow(truth.silent.length ? words.silent(truth.silent.join(", ")) : words.noServer);
  return truth.rows === truth.sockets ? words.agree : words.settling;
}

function facts(truth) {
  const running = truth.servers.filter(({ state }) => state === "runs").length;
  return [
    words.serversRun(number(running)),
    words.orphanedRows(number(truth.orphaned)),
    words.memoryWork(number(truth.memory_pending), number(truth.memory_failed)),
    `PostgreSQL ${duration(truth.database_ms / 1000)}`,
  ].join(" · ");
}

function list(unmatched) {
  const shown = [...$("unmatched").children].map(({ dataset }) => dataset.key).join();
  const keyOf = ({ session_id: id, lacks }) => `${id} ${lacks}`;
  if (shown === unmatched.map(keyOf).join()) return; // the focus stays
  $("unmatched").replaceChildren(
    ...unmatched.map((each) =>
      h(
        "li",
        { data: { key: keyOf(each) } },
        h("a", { href: `#/session/${each.session_id}` }, each.session_id),
        ` ${each.lacks === "socket" ? words.lacksSocket : words.lacksRow}${each.server ? ` · ${each.server}` : ""}`,
      ),
    ),
  );
}

// A live region speaks whenever its text is set, also to what it was.
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
