// What the answers took: how they ended, their tokens, how long people waited, and who used how much.

import { get } from "./console-api.js";
import { buckets, chart, colourOf, legend } from "./console-chart.js";
import { choices, duration, h, number, Table } from "./console-dom.js";
import { pages } from "./console-pages.js";
import { quantiles, RANGES } from "./console-quantiles.js";
import { words } from "./console-words.js";

const GROUPS = ["user", "key", "day"];
const USAGE_LIMIT = 50;
const DAYS_MAX = 31; // of the table, whose rows are summed up when it is asked for

export function answersScreen() {
  const charts = h("div");
  const place = h("div");
  let range = "day";
  let group = "user";
  let table;

  const draw = async () => {
    const answer = await get("usage/chart", { seconds: RANGES[range] });
    charts.replaceChildren(
      h("h2", {}, words.answersByOutcome),
      stacked(answer, RANGES[range], "outcomes", words.answersSummary, words.outcomes),
      h("h2", {}, words.tokensOverTime),
      stacked(answer, RANGES[range], "tokens", words.tokensSummary, words.tokenTypes),
      h("h2", {}, words.untilFirst),
      quantiles(answer, RANGES[range], "first", words.firstSummary, words.noAnswers),
      h("h2", {}, words.untilEnd),
      quantiles(answer, RANGES[range], "took", words.tookSummary, words.noAnswers),
    );
    ranges.press(range);
  };

  const sums = async () => {
    table = usagePages(group, sinceOf(range));
    place.replaceChildren(table.element);
    groups.press(group);
    await table.reload();
  };

  const ranges = choices(words.range, Object.keys(RANGES), words.ranges, async (name) => {
    range = name;
    await draw();
    await sums();
  });
  const groups = choices(words.usageBy, GROUPS, words.usageGroups, async (name) => {
    group = name;
    await sums();
  });
  return {
    element: h("div", {}, ranges.element, charts, h("h2", {}, words.usage), groups.element, place),
    refresh: async () => {
      await draw();
      if (!table) await sums();
    },
    every: 30_000,
  };
}

const total = (counts) => counts.reduce((one, other) => one + other, 0);

// Cached tokens are among the input: what is stacked is what was not cached.
function parts({ input = [], cached = [], ...rest }) {
  return input.length ? { ...rest, cached, input: input.map((count, place) => Math.max(0, count - (cached[place] ?? 0))) } : rest;
}

function stacked(answer, seconds, name, summary, texts) {
  const counts = name === "tokens" ? parts(answer.tokens) : answer[name];
  const sums = Object.entries(counts).map(([label, values]) => [label, total(values)]).filter(([, sum]) => sum > 0);
  if (!sums.length) return h("p", { class: "empty" }, name === "tokens" ? words.noTokens : words.noAnswers);
  const [times, of] = buckets(answer, seconds);
  // An outcome has its own colour, whichever others there were: what failed is red.
  const colours = sums.map(([label], place) => (name === "outcomes" ? Object.keys(texts).indexOf(label) : place));
  const series = sums.map(([label], place) => ({ label, values: of(counts[label]), colour: colourOf(colours[place]) }));
  const said = sums.map(([label, sum]) => `${texts[label] ?? label} · ${number(sum)}`);
  return h("div", {}, chart(`${summary}: ${said.join(", ")}`, times, series, "bars"), legend(said, colours));
}

function sinceOf(range) {
  const days = Math.min(Math.ceil(RANGES[range] / 86_400), DAYS_MAX);
  return new Date(Date.now() - (days - 1) * 86_400_000).toISOString().slice(0, 10);
}

const count = (value) => (value === null ? "–" : number(value));
const names = {
  user: (row) => row.user,
  key: (row) => (row.key ? `${row.key}… ${row.subject}` : (row.key_id ?? words.noKey)),
  day: (row) => row.date,
};

function usagePages(group, since) {
  const columns = [
    { title: words.usageGroups[group], text: names[group] },
    { title: words.sessions, text: (row) => number(row.sessions) },
    { title: words.answersTab, text: (row) => number(row.answers) },
    { title: words.outcomes.failed, text: (row) => number(row.failed), tone: (row) => (row.failed ? "bad" : "plain") },
    { title: words.tokenTypes.all, text: (row) => count(row.input_tokens) },
    { title: words.tokenTypes.cached, text: (row) => count(row.cached_tokens) },
    { title: words.tokenTypes.output, text: (row) => count(row.output_tokens) },
    { title: words.firstPiece, text: (row) => duration(row.first_seconds) },
    { title: words.lasted, text: (row) => duration(row.answer_seconds) },
  ];
  const table = new Table(words.usage, columns, (row) => names[group](row) + row.key_id, words.noAnswers);
  const sums = pages(table, USAGE_LIMIT, (after) => get("usage", { by: group, since, limit: USAGE_LIMIT, after }));
  return { element: h("div", {}, h("p", { class: "by" }, words.usageSince(since)), sums.element), reload: sums.reload };
}
