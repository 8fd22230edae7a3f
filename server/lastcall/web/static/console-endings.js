// Endings: how many, why, after how long, and how late the rows said so.

import { get } from "./console-api.js";
import { buckets, chart, colourOf } from "./console-chart.js";
import { button, h, number } from "./console-dom.js";
import { quantiles, RANGES } from "./console-quantiles.js";
import { reasonText, sessionPages } from "./console-sessions.js";
import { words } from "./console-words.js";

export function endingsScreen() {
  const charts = h("div");
  const sessions = h("div");
  const ranges = h("div", { class: "ranges", role: "group", "aria-label": words.range });
  let range = "day";
  let reason = "";
  let pages;

  const draw = async () => {
    const answer = await get("chart", { seconds: RANGES[range] });
    const totals = Object.entries(answer.ended).map(([name, counts]) => [name, counts.reduce((one, other) => one + other, 0)]);
    totals.sort(([, one], [, other]) => other - one);
    const [times, of] = buckets(answer, RANGES[range]);
    const series = totals.map(([name], place) => ({ label: name, values: of(answer.ended[name]), colour: colourOf(place) }));
    const sum = totals.reduce((one, [, count]) => one + count, 0);
    charts.replaceChildren(
      h("h2", {}, words.endedByReason),
      chart(words.endedSummary(number(sum)), times, series, "bars"),
      legend(totals),
      h("h2", {}, words.howLong),
      quantiles(answer, RANGES[range], "lasted", words.lastedSummary, words.noneEnded),
      h("h2", {}, words.howLate),
      quantiles(answer, RANGES[range], "late", words.lateSummary, words.noneEnded),
    );
    for (const each of ranges.children) each.setAttribute("aria-pressed", each.dataset.range === range);
  };

  const show = async () => {
    const title = reason ? words.sessionsEnded(reasonText(reason)) : words.allSessions;
    pages = sessionPages(title, "sessions", { end_reason: reason });
    sessions.replaceChildren(h("h2", {}, title), ...(reason ? [button(words.showAll, () => choose(""))] : []), pages.element);
    await pages.refresh();
  };

  const choose = async (name) => {
    reason = name;
    await show();
  };

  const legend = (totals) =>
    h(
      "ul",
      { class: "legend" },
      ...totals.map(([name, count], place) => {
        const swatch = h("span", { class: "swatch", "aria-hidden": "true", data: { colour: place % 8 } });
        const made = button("", () => choose(name), "small");
        made.append(swatch, `${reasonText(name)} · ${number(count)}`);
        return h("li", {}, made);
      }),
    );

  for (const name of Object.keys(RANGES)) {
    const made = button(words.ranges[name], async () => {
      range = name;
      await draw();
    });
    made.dataset.range = name;
    ranges.append(made);
  }
  return {
    element: h("div", {}, ranges, charts, sessions),
    refresh: async () => {
      await draw();
      if (!pages) await show();
    },
    every: 30_000,
  };
}
