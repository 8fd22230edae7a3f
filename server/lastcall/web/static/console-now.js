// Now: what is active, and how it became so.

import { all, get } from "./console-api.js";
import { buckets, chart } from "./console-chart.js";
import { h, number } from "./console-dom.js";
import { activeTable } from "./console-sessions.js";
import { words } from "./console-words.js";

const CHART_SECONDS = 6 * 3600;
const ACTIVE_MAX = 500; // shown; their number stands above
const CHART_MS = 30_000;

export function nowScreen({ truth, mayAct }) {
  const table = activeTable(mayAct, () => list());
  const place = h("div");
  const more = h("p", { class: "empty", hidden: true });
  let drawnAt = 0;
  const list = async () => {
    const rows = await all("sessions", { active: "true" }, ACTIVE_MAX);
    table.show(rows);
    more.hidden = rows.length < ACTIVE_MAX;
    more.textContent = words.onlyFirst(number(ACTIVE_MAX));
  };
  const refresh = async () => {
    await list();
    if (Date.now() - drawnAt < CHART_MS) return;
    drawnAt = Date.now();
    place.replaceChildren(activeChart(await get("chart", { seconds: CHART_SECONDS }), truth()?.rows ?? 0));
  };
  return {
    element: h(
      "div",
      {},
      h("h2", {}, words.activeOverTime),
      place,
      h("h2", {}, words.activeSessions),
      table.element,
      more,
    ),
    refresh,
  };
}

// From how many there are now, back in time: less those that began, and those that ended added.
function activeChart(answer, active) {
  const [times, of] = buckets(answer, CHART_SECONDS);
  const began = of(answer.started);
  const ended = times.map(() => 0);
  for (const counts of Object.values(answer.ended)) of(counts).forEach((count, place) => (ended[place] += count));
  const values = times.map(() => 0);
  let then = active;
  for (let place = times.length - 1; place >= 0; place -= 1) {
    values[place] = then;
    then = Math.max(0, then - began[place] + ended[place]);
  }
  const most = values.reduce((one, other) => Math.max(one, other), 0);
  return chart(words.activeSummary(number(active), number(most)), times, [{ label: words.active, values, colour: "--accent" }], "line");
}
