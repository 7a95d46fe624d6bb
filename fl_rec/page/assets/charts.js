"use strict";
// Elements, numbers and charts. Whatever comes from a run becomes text, never markup.

// A text in the reader's language: the browser's, or what stands behind ?lang= in the address. Numbers keep their order.
const LANGUAGE = (new URLSearchParams(location.search).get("lang") ?? navigator.language).startsWith("zh") ? "zh" : "en";
document.documentElement.lang = LANGUAGE;
const NUMBER = /[-+\u2212]?\d+(?:[.,]\d+)*/g;
const say = (text) => {
  const numbers = text.match(NUMBER) ?? [], told = LANGUAGE === "zh" ? CHINESE[text.replace(NUMBER, "#")] : undefined;
  return told === undefined ? text : told.replace(/#/g, () => numbers.shift() ?? "#");
};
const READ = ["title", "aria-label", "placeholder"];

const el = (tag, properties = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") made.className = value;
    else if (name.startsWith("--")) made.style.setProperty(name, value);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : READ.includes(name) ? say(value) : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false).map((child) =>
    child instanceof Node ? child : tag === "code" || tag === "pre" ? String(child) : say(String(child))));
  return made;
};

const known = (value) => typeof value === "number" && Number.isFinite(value);
const MINUS = "\u2212", NONE = "\u2013";
const fixed = (digits) => (value) => (known(value) ? value.toFixed(digits).replace("-", MINUS) : NONE);
const share = fixed(4);
const count = (value) => (known(value) ? Math.round(value).toLocaleString("en-US") : NONE);
const signed = (value, digits = 4) => (known(value) ? (value < 0 ? MINUS : "+") + Math.abs(value).toFixed(digits) : NONE);
const seconds = (value) => {
  if (!known(value)) return NONE;
  if (value < 10) return `${value.toFixed(2)} s`;
  if (value < 100) return `${value.toFixed(1)} s`;
  const whole = Math.round(value), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`;
};
const bytes = (value) => (!known(value) ? NONE : value < 1e4 ? `${count(value)} B` : value < 1e7 ? `${(value / 1e3).toFixed(1)} kB` : `${(value / 1e6).toFixed(1)} MB`);
const number = (value) => (!known(value) ? NONE : Number.isInteger(value) ? count(value) : Math.abs(value) < 1e6 ? String(Number(value.toPrecision(4))) : value.toExponential(3));
const moment = (text) => {
  const when = text ? new Date(text) : null;
  return when && !Number.isNaN(when.getTime()) ? when.toLocaleString(LANGUAGE === "zh" ? "zh-CN" : "en-GB", { dateStyle: "medium", timeStyle: "short" }) : null;
};
const last = (values) => (values ? [...values].reverse().find(known) : undefined);
const sum = (values) => values.filter(known).reduce((total, value) => total + value, 0);
const mean = (values) => { const there = values.filter(known); return there.length ? sum(there) / there.length : null; };

let colours = {};
const colour = (name) => (colours[name] ??= getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
const charts = new Set();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  colours = {};
  charts.forEach((chart) => chart.plot.redraw(false, true));
});

// The line that is looked at, the same in all charts: what is under the pointer, or else what was picked.
const focus = {
  hovered: null, picked: null, listeners: new Set(),
  get key() { return this.hovered ?? this.picked; },
  hover(key) { if (key !== this.hovered) { this.hovered = key; this.tell(); } },
  pick(key) { this.picked = key === this.picked ? null : key; this.tell(); },
  tell() { charts.forEach((chart) => chart.emphasise()); this.listeners.forEach((listen) => listen()); },
};

const legend = (...items) => el("div", { class: "legend" }, items.map(([name, token, kind = ""]) =>
  el("span", { class: "item" }, el("i", { class: `swatch ${kind}`, "--c": `var(--${token})` }), name)));

class Chart {
  constructor(title, height, options, data) {
    this.tip = el("div", { class: "tip" });
    this.now = el("span", { class: "now" });
    this.box = el("div", { class: "plot" });
    this.element = el("figure", { class: "card", style: null }, el("div", { class: "chart-head" }, el("h3", {}, title), this.now), this.box);
    this.element.style.margin = "0";
    this.element.chart = this;
    const axis = { stroke: () => colour("faint"), font: "12px system-ui, sans-serif", ticks: { show: false } };
    this.plot = new uPlot({
      width: 300, height, legend: { show: false }, padding: [10, 10, 0, 0],
      ...options,
      cursor: { sync: { key: "epochs" }, drag: { x: false, y: false }, points: { show: false }, ...options.cursor },
      axes: [
        { ...axis, grid: { show: false }, size: 28, space: 34, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1e4, 1e5] },
        { ...axis, grid: { stroke: () => colour("line"), width: 1 }, size: 50, space: 34, values: options.ticks },
      ],
      hooks: { ...options.hooks, setCursor: [(plot) => this.showTip(plot)] },
    }, data, this.box);
    this.box.append(this.tip);
    this.box.addEventListener("mouseleave", () => { this.tip.style.display = "none"; focus.hover(null); });
    new ResizeObserver(() => this.fit(height)).observe(this.box);
    charts.add(this);
  }
  fit(height) {
    const width = Math.floor(this.box.clientWidth);
    if (width > 0 && width !== this.plot.width) this.plot.setSize({ width, height });
  }
  emphasise() {}
  showTip(plot) {
    const { idx, left } = plot.cursor;
    const rows = idx === null || idx === undefined || left < 0 || !this.box.matches(":hover") ? [] : this.rows(idx);
    this.tip.style.display = rows.length ? "block" : "none";
    if (!rows.length) return;
    this.tip.replaceChildren(el("div", { class: "faint" }, `epoch ${plot.data[0][idx]}`), ...rows.map(([name, token, value]) =>
      el("div", { class: "row" }, el("i", { class: "swatch box", "--c": `var(--${token})` }), el("span", {}, name), el("b", {}, value))));
    const x = left + plot.over.offsetLeft, wide = this.tip.offsetWidth;
    this.tip.style.left = `${x + 14 + wide > this.box.clientWidth ? Math.max(0, x - wide - 14) : x + 14}px`;
    this.tip.style.top = "6px";
  }
  drop() { charts.delete(this); this.plot.destroy(); }
}

const steady = (plot, low, high) => (low === high ? [low - 1, high + 1] : [low, high]);
const compact = new Intl.NumberFormat("en-US", { notation: "compact" });
const ticks = (plot, values) => {
  const step = values.length > 1 ? Math.abs(values[1] - values[0]) : 1;
  let digits = 0;
  while (digits < 6 && Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6) digits += 1;
  return values.map((value) => (Math.abs(value) >= 1e4 ? compact.format(value) : value.toFixed(digits).replace("-", MINUS)));
};

// Lines over epochs. A line: key, name, values, kind (client, all or run), token of its colour.
// Across them goes the reference, a number: what a ranking by popularity reaches.
class Lines extends Chart {
  constructor(title, epochs, lines, { height = 200, format = share, reference = null } = {}) {
    super(title, height, {
      ticks, scales: { x: { time: false, range: steady }, y: { range: (plot, low, high) => Lines.range(low, high, this.reference ?? reference) } },
      cursor: { focus: { prox: 18 } }, focus: { alpha: 1 },
      series: [{}, ...lines.map((line) => ({
        label: line.key, stroke: () => colour(this.tokenOf(line)), width: Lines.widthOf(line),
        spanGaps: line.kind !== "client",
        points: { show: (plot) => plot.data[0].length < 3, size: 6, fill: () => colour(this.tokenOf(line)) },
      }))],
      hooks: {
        setSeries: [(plot, index) => { if (this.box.matches(":hover")) focus.hover(index ? this.keyAt(index) : null); }],
        draw: [(plot) => this.drawReference(plot)],
      },
    }, [epochs, ...lines.map((line) => line.values)]);
    Object.assign(this, { lines, format, reference });
    this.element.dataset.chart = title;
    this.latest();
    this.emphasise();
  }
  static widthOf(line) { return line.kind === "client" ? 1.1 : 2.4; }
  static range(low, high, reference) {
    if (!known(low)) return [0, 1];
    if (known(reference)) { low = Math.min(low, reference); high = Math.max(high, reference); }
    const room = (high - low || Math.abs(high) || 1) * 0.07;
    return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
  }
  keyAt(index) { const line = this.lines[index - 1]; return line.kind === "client" || line.kind === "run" ? line.key : null; }
  tokenOf(line) { return line.kind === "client" && line.key === focus.key ? "picked" : line.token; }
  emphasise() {
    this.lines.forEach((line, index) => {
      const strong = line.key === focus.key && (line.kind === "client" || line.kind === "run");
      this.plot.series[index + 1].width = strong ? Lines.widthOf(line) + 1 : Lines.widthOf(line);
    });
    this.plot.redraw(false);
  }
  latest() { const all = this.lines.find((line) => line.kind === "all"); this.now.textContent = all ? this.format(last(all.values)) : ""; }
  rows(index) {
    const shown = this.lines.filter((line) => line.kind !== "client" || line.key === focus.key).reverse();
    const rows = shown.map((line) => [line.name, this.tokenOf(line), this.format(line.values[index])]);
    return known(this.reference) ? [...rows, ["popularity", "popularity", this.format(this.reference)]] : rows;
  }
  drawReference(plot) {
    if (!known(this.reference)) return;
    const ratio = devicePixelRatio, { ctx, bbox } = plot, y = plot.valToPos(this.reference, "y", true);
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colour("popularity");
    ctx.lineWidth = 1.4 * ratio;
    ctx.setLineDash([5 * ratio, 4 * ratio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.font = `${11.5 * ratio}px system-ui, sans-serif`;
    const above = y - bbox.top > 18 * ratio;
    ctx.textBaseline = above ? "bottom" : "top";
    // At the end where the thick line is farther from it.
    const thick = this.lines.find((line) => line.kind !== "client")?.values ?? [], away = (value) => (known(value) ? Math.abs(value - this.reference) : Infinity);
    const left = away(thick.find(known)) >= away(last(thick));
    ctx.textAlign = left ? "left" : "right";
    const label = [say(`popularity ${this.format(this.reference)}`), left ? bbox.left + 4 * ratio : bbox.left + bbox.width, y + (above ? -3 : 4) * ratio];
    ctx.setLineDash([]);
    ctx.strokeStyle = colour("card");
    ctx.lineWidth = 4 * ratio;
    ctx.lineJoin = "round";
    ctx.strokeText(...label);
    ctx.fillText(...label);
    ctx.restore();
  }
  update(epochs, lines, reference = null) {
    Object.assign(this, { lines, reference });
    this.plot.setData([epochs, ...lines.map((line) => line.values)]);
    this.latest();
  }
}

// Parts that add up, a column for each epoch. A part: name, token, values.
class Columns extends Chart {
  constructor(title, epochs, parts, { height = 220, format = seconds } = {}) {
    const bars = uPlot.paths.bars({ size: [0.72, 46], radius: 0 });
    super(title, height, {
      ticks, scales: { x: { time: false, range: (plot, low, high) => [low - 0.6, high + 0.6] }, y: { range: (plot, low, high) => [0, (high || 1) * 1.06] } },
      series: [{}, ...[...parts].reverse().map((part) => ({ label: part.name, fill: () => colour(part.token), stroke: "transparent", width: 0, paths: bars, points: { show: false } }))],
    }, Columns.stacked(epochs, parts));
    Object.assign(this, { parts, format });
    this.element.dataset.chart = title;
  }
  static stacked(epochs, parts) {
    const sums = parts.map((_, upto) => epochs.map((_, place) => sum(parts.slice(0, upto + 1).map((part) => part.values[place]))));
    return [epochs, ...sums.reverse()];
  }
  rows(index) {
    const rows = this.parts.map((part) => [part.name, part.token, this.format(part.values[index])]);
    return [...rows, ["together", "line", this.format(sum(this.parts.map((part) => part.values[index])))]];
  }
  update(epochs, parts) { this.parts = parts; this.plot.setData(Columns.stacked(epochs, parts)); }
}

// A table: columns are [title, cell(row), options], an option `sort` the value that a click on the title sorts by.
const table = (columns, rows, { total = null, rowOf = () => ({}), kind = "" } = {}) => {
  const cells = (row, properties) => el("tr", properties, columns.map(([, cell, { type = "" } = {}]) => el("td", { class: type }, cell(row))));
  const body = el("tbody");
  let sorted = null, falling = true;
  const fill = () => {
    const order = [...rows];
    if (sorted !== null) {
      const value = columns[sorted][2].sort;
      order.sort((one, other) => {
        const [a, b] = [value(one), value(other)];
        return (typeof a === "string" ? a.localeCompare(b) : (known(a) ? a : -Infinity) - (known(b) ? b : -Infinity)) * (falling ? -1 : 1);
      });
    }
    body.replaceChildren(...order.map((row) => cells(row, rowOf(row))), ...(total ? [cells(total, { class: "total" })] : []));
  };
  const heads = columns.map(([title, , { type = "", sort = null } = {}], index) => el("th", { class: type, scope: "col" }, sort === null ? title :
    el("button", { type: "button", onclick: () => {
      falling = sorted === index ? !falling : true;
      sorted = index;
      heads.forEach((head, place) => (place === index ? head.setAttribute("aria-sort", falling ? "descending" : "ascending") : head.removeAttribute("aria-sort")));
      fill();
    } }, title)));
  fill();
  return el("div", { class: "scroll" }, el("table", { class: kind }, el("thead", {}, el("tr", {}, heads)), body));
};

const meter = (value, most, { tick = null, quiet = false } = {}) => el("span", { class: "meter", "aria-hidden": "true" },
  el("i", { class: quiet ? "quiet" : "", "--share": known(value) && most > 0 ? Math.min(1, Math.max(0, value / most)) : 0 }),
  known(tick) && most > 0 ? el("u", { "--share": Math.min(1, Math.max(0, tick / most)) }) : null);
