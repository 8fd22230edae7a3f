// Durations over time, and the times that charts may show.

import { buckets, chart, colourOf, legend } from "./console-chart.js";
import { duration, h } from "./console-dom.js";

export const RANGES = { hour: 3600, day: 86_400, week: 7 * 86_400, month: 30 * 86_400, year: 366 * 86_400 };

/** A chart of p50, p95 and p99 of what the answer has under this name. */
export function quantiles(answer, seconds, name, summary, none) {
  const [times, of] = buckets(answer, seconds);
  const series = ["p50", "p95", "p99"].map((label, place) => ({ label, values: of(answer[name][label], null), colour: colourOf(place) }));
  const last = series.map(({ label, values }) => `${label} ${duration(values.findLast((value) => value !== null))}`);
  if (!answer.times.length) return h("p", { class: "empty" }, none);
  return h("div", {}, chart(`${summary}: ${last.join(", ")}`, times, series, "seconds"), legend(last));
}
