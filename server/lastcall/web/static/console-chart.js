// Charts over time, drawn by uPlot.

import { duration, h, number } from "./console-dom.js";
import { locale } from "./words.js";

const HEIGHT = 180;
const COLOURS = 8;
const STEPS_SECONDS = [0.001, 0.01, 0.1, 1, 10, 60, 600, 3600, 36_000, 86_400, 864_000];
const drawn = new Set();

// uPlot draws on a canvas, which does not know light-dark(): the browser resolves it for an element.
function colour(name) {
  const probe = h("span", { hidden: true });
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

export const colourOf = (place) => `--chart-${place % COLOURS}`;

export const swatch = (place) => h("span", { class: "swatch", "aria-hidden": "true", data: { colour: place % COLOURS } });

/** What the colours of a chart mean: a text for each, in their order. colours: the place of each; else that of its text. */
export const legend = (texts, colours = [...texts.keys()]) =>
  h("ul", { class: "legend" }, ...texts.map((text, place) => h("li", {}, swatch(colours[place]), text)));

/** The whole range in buckets, the empty ones too: [times, of(the answer's values, what empty buckets have)]. */
export function buckets({ width_seconds: width, times }, seconds) {
  const place = new Map(times.map((time, index) => [time, index]));
  const last = Math.floor(Date.now() / 1000 / width) * width;
  const first = Math.min(times.length ? times[0] : last, last - seconds);
  const phase = times.length ? ((times[0] % width) + width) % width : 0;
  const whole = [];
  for (let time = Math.floor((first - phase) / width) * width + phase; time <= last + width; time += width) whole.push(time);
  const shown = whole.filter((time) => time <= Date.now() / 1000);
  return [shown, (values, empty = 0) => shown.map((time) => (place.has(time) ? values[place.get(time)] : empty))];
}

/**
 * A chart. series: {label, values, colour}: a custom property. kind: "line", "bars" (stacked) or "seconds" (lines, by
 * powers of ten). summary: what a screen reader says of it.
 */
export function chart(summary, times, series, kind) {
  const place = h("div", { class: "chart", role: "img", "aria-label": summary });
  const draw = () => {
    place.replaceChildren();
    if (place.clientWidth) new uPlot(options(place.clientWidth, series, kind), data(times, series, kind), place);
  };
  drawn.add(draw);
  new ResizeObserver(() => {
    if (place.isConnected) draw();
    else drawn.delete(draw);
  }).observe(place);
  return place;
}

/** Draws all charts again, in the colours of another theme. */
export function redraw() {
  for (const draw of drawn) draw();
}

function data(times, series, kind) {
  if (kind !== "bars") return [times, ...series.map(({ values }) => values)];
  const sums = times.map(() => 0);
  const stacked = series.map(({ values }) => values.map((value, index) => (sums[index] += value)));
  return [times, ...stacked.reverse()]; // the highest first: the others are painted over it
}

function options(width, series, kind) {
  const ordered = kind === "bars" ? [...series].reverse() : series;
  const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const shown = kind === "seconds" ? step : (value) => (Number.isInteger(value) ? number(value) : "");
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: { y: kind === "seconds" ? { distr: 3 } : { range: (_, __, most) => [0, Math.max(most || 0, 1) * 1.1] } },
    axes: [
      { ...axis, size: 32, values: (_, ticks) => ticks.map((tick) => tickText(tick, ticks)) },
      { ...axis, size: 72, values: (_, ticks) => ticks.map(shown), ...(kind === "seconds" && { splits: steps, filter: (_, ticks) => ticks }) },
    ],
    series: [
      {},
      ...ordered.map(({ label, colour: name }) => ({
        label,
        stroke: colour(name),
        fill: kind === "seconds" ? undefined : colour(name).replace("rgb(", "rgba(").replace(")", kind === "line" ? ", 0.15)" : ", 1)"),
        width: kind === "bars" ? 0 : 2,
        points: { show: kind === "seconds", size: 4 }, // a bucket between empty ones is no line
        ...(kind === "bars" && { paths: uPlot.paths.bars({ size: [0.9, 60] }) }),
      })),
    ],
  };
}

const steps = (_chart, _axis, least, most) => STEPS_SECONDS.filter((each) => each >= least && each <= most);

// A whole number of one unit.
function step(seconds) {
  const [most, unit] = [[86_400, "d"], [3600, "h"], [60, "min"], [1, "s"], [0, "ms"]].find(([from]) => seconds >= from);
  return `${number(most ? seconds / most : seconds * 1000)} ${unit}`;
}

function tickText(tick, ticks) {
  const whole = ticks.at(-1) - ticks[0] > 2 * 86_400 ? { day: "numeric", month: "short" } : { timeStyle: "short" };
  return new Intl.DateTimeFormat(locale, whole).format(new Date(tick * 1000));
}
