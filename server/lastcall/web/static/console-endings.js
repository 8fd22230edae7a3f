// Endings: how many, why, after how long, and how late the rows said so.

import { get } from "./console-api.js";
import { buckets, chart, colourOf, swatch } from "./console-chart.js";
import { button, choices, h, number } from "./console-dom.js";
import { quantiles, RANGES } from "./console-quantiles.js";
import { reasonText, sessionPages } from "./console-sessions.js";
import { words } from "./console-words.js";

export function endingsScreen() {
  const charts = h("div");
  const sessions = h("div");
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
    ranges.press(range);
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
        const made = button("", () => choose(name), "small");
        made.append(swatch(place), `${reasonText(name)} · ${number(count)}`);
        return h("li", {}, made);
      }),
    );

  const ranges = choices(words.range, Object.keys(RANGES), words.ranges, async (name) => {
    range = name;
    await draw();
  });
  return {
    element: h("div", {}, ranges.element, charts, sessions),
    refresh: async () => {
      await draw();
      if (!pages) await show();
    },
    every: 30_000,
  };
}
