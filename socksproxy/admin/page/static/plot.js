// The plots: points of the last ten minutes and of the last day, drawn by uPlot.

import { byId, clock, count, made, perSecond, rate } from "./words.js";

const KEYS = ["time", "sent", "received", "sessions", "connections", "refused"];
const RANGES = { seconds: { span: 600, apart: 3 }, minutes: { span: 86400, apart: 150 } };

/** The points of one range, column by column. */
export class Points {
  constructor(name) {
    this.span = RANGES[name].span;
    this.apart = RANGES[name].apart;
    this.columns = Object.fromEntries(KEYS.map((key) => [key, []]));
  }

  /** What the server has kept is true; what was seen before a restart of it stays, with a gap between. */
  replace(columns) {
    const first = columns.time.length ? columns.time[0] : Infinity;
    const kept = this.columns.time.filter((time) => time < first).length;
    for (const key of KEYS) this.columns[key] = this.columns[key].slice(0, kept).concat(columns[key]);
    this.forget();
  }

  add(point) {
    const times = this.columns.time;
    if (times.length && point[0] <= times[times.length - 1]) return;
    KEYS.forEach((key, place) => this.columns[key].push(point[place]));
    this.forget();
  }

  /** A minute that is not over is counted again with each of its points. */
  addToMinute(point, all) {
    const end = Math.floor(point[0] / 60) * 60 + 60;
    const times = all.columns.time;
    let start = times.length;
    while (start > 0 && times[start - 1] >= end - 60) start -= 1;
    const some = KEYS.map((key) => all.columns[key].slice(start));
    const mean = some.map((values) => values.reduce((sum, value) => sum + value, 0) / values.length);
    mean[0] = end;
    mean[3] = Math.max(...some[3]);
    if (this.columns.time[this.columns.time.length - 1] === end) for (const key of KEYS) this.columns[key].pop();
    this.add(mean);
  }

  forget() {
    const times = this.columns.time;
    const oldest = times[times.length - 1] - this.span;
    let gone = 0;
    while (gone < times.length && times[gone] < oldest) gone += 1;
    if (gone) for (const key of KEYS) this.columns[key].splice(0, gone);
  }

  most(key) { return this.columns[key].reduce((most, value) => Math.max(most, value), 0); }

  last() { return Object.fromEntries(KEYS.map((key) => [key, this.columns[key].at(-1)])); }

  /** Columns for uPlot. Where points are missing there is a gap and no line. */
  drawn(keys) {
    const out = [[], ...keys.map(() => [])];
    const times = this.columns.time;
    times.forEach((time, place) => {
      if (place && time - times[place - 1] > this.apart) {
        out[0].push(times[place - 1] + 1);
        keys.forEach((_, number) => out[number + 1].push(null));
      }
      out[0].push(time);
      keys.forEach((key, number) => out[number + 1].push(this.columns[key][place]));
    });
    return out;
  }
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** One plot. */
export class Plot {
  constructor(id, series) {
    this.place = byId(id);
    this.told = byId(`at-${id}`);
    this.series = series;
    this.plot = null;
    this.points = null;
    new ResizeObserver(() => this.resize()).observe(this.place);
    this.values = series.map((each) => {
      const item = made("span");
      item.append(made("i", "", `key ${each.key}`), `${each.name} `);
      const value = made("b", "–");
      item.append(value);
      this.told.append(item);
      return value;
    });
    this.when = made("span", "", "quiet");
    this.told.prepend(this.when);
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.place;
    if (this.plot && width && (width !== this.plot.width || height !== this.plot.height)) this.plot.setSize({ width, height });
  }

  /** Draw it anew: the colours or the range have changed. */
  make(points) {
    this.points = points;
    if (this.plot) this.plot.destroy();
    const axis = { stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const scales = [...new Set(this.series.map((each) => each.scale))];
    this.plot = new uPlot({
      width: this.place.clientWidth || 300,
      height: this.place.clientHeight || 190,
      legend: { show: false },
      cursor: { y: false, drag: { setScale: false, x: false, y: false } },
      scales: {
        x: { range: (_, least, most) => [(most ?? Date.now() / 1000) - points.span, most ?? Date.now() / 1000] },
        ...Object.fromEntries(scales.map((name) => [name, { range: (_, least, most) => [0, Math.max(most * 1.08 || 0, name === "rate" ? 1000 : 4)] }])),
      },
      axes: [
        { ...axis, size: 26, values: (_, times) => times.map((time) => new Date(time * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })) },
        ...scales.map((name, place) => ({
          ...axis, scale: name, side: place ? 1 : 3, size: name === "rate" ? 74 : 48,
          grid: place ? { show: false } : axis.grid,
          values: (_, values) => values.map(name === "rate" ? rate : name === "each" ? perSecond : count),
        })),
      ],
      series: [{}, ...this.series.map((each) => ({
        scale: each.scale, stroke: colour(each.key), width: 1.6, points: { show: false }, spanGaps: false,
        fill: each.scale === "each" ? undefined : `${colour(each.key)}22`,
      }))],
      hooks: { setCursor: [(plot) => this.tell(plot.cursor.idx)] },
    }, points.drawn(this.series.map((each) => each.key)), this.place);
  }

  update() {
    if (!this.plot) return;
    this.plot.setData(this.points.drawn(this.series.map((each) => each.key)));
    this.tell(this.plot.cursor.idx);
  }

  /** Say the values at the cursor, or the newest. */
  tell(place) {
    if (!this.plot) return;
    const data = this.plot.data;
    const at = place ?? data[0].length - 1;
    this.when.textContent = place === null || place === undefined ? "" : clock(data[0][at]);
    this.series.forEach((each, number) => { this.values[number].textContent = each.said(data[number + 1][at]); });
    if (this.when.textContent === "")
      this.place.setAttribute("aria-label", this.series.map((each, number) => `${each.name}: ${this.values[number].textContent}`).join(", "));
  }
}
