/** Keeps a page as its runs are now. What the server sends is plain data: it becomes text and numbers, never HTML. */

import { Chart } from "/static/chart.js";

const AGAIN_MS = 2000;
const OVER_AGAIN_MS = 15000; // somebody may resume it
const FEW = 60; // evaluations that have a dot each
const { live, shape } = document.body.dataset;
const charts = new Map();
const shown = new WeakMap();
let series = null;
let known = "";

// ---- curves

function chartOf(figure) {
  if (!charts.has(figure)) {
    const { log, unit, completions } = figure.dataset;
    const onStep = completions && ((step) => step !== null && location.assign(completions + step));
    charts.set(figure, new Chart(figure, { log: log !== undefined, share: unit === "share", onStep }));
  }
  return charts.get(figure);
}

function draw(figure, lines) {
  figure.hidden = !lines.length;
  if (figure.hidden) return;
  const chart = chartOf(figure);
  chart.show(lines);
  figure.hidden = figure.dataset.optional !== undefined && chart.isFlat;
}

function drawAll(selector, linesOf) {
  for (const figure of document.querySelectorAll(selector)) draw(figure, linesOf(figure.dataset));
}

/** Puts the buckets that were sent behind those that stay. */
function joined(sent) {
  const before = (name, key) => (series?.series[name]?.[key] ?? Array(sent.from).fill(null)).slice(0, sent.from);
  const all = { steps: [...(series?.steps ?? []).slice(0, sent.from), ...sent.steps], series: {} };
  for (const [name, own] of Object.entries(sent.series)) {
    const keys = ["least", "most", "mean", "low", "high"];
    const whole = Object.fromEntries(keys.map((key) => [key, [...before(name, key), ...own[key]]]));
    all.series[name] = { ...whole, broken: own.broken };
  }
  return all;
}

function showCurves(sent) {
  series = joined(sent);
  drawAll("figure[data-names]", ({ names }) => {
    const measured = names.split(" ").filter((name) => name in series.series);
    return measured.map((name) => ({ name, steps: series.steps, ...series.series[name] }));
  });
}

function showEvaluations(sets) {
  drawAll("figure[data-set]", ({ set }) => {
    const { steps, curves } = sets[set] ?? { steps: [], curves: {} };
    const dots = steps.length < FEW;
    return Object.entries(curves).map(([name, { value: mean, low, high }]) => ({ name, steps, mean, low, high, dots }));
  });
}

// ---- words

const at = (data, path) => path.split(".").reduce((value, key) => value?.[key], data);

function showWords(data) {
  const each = (attribute, show) => {
    const key = attribute.replace(/-(.)/, (_, letter) => letter.toUpperCase());
    for (const place of document.querySelectorAll(`[data-${attribute}]`)) {
      const value = at(data, place.dataset[key]);
      if (value !== undefined) show(place, value); // what is not sent stays as it is
    }
  };
  each("text", write);
  each("is-of", (place, word) => (place.dataset.is = word));
  each("progress", (place, [step, of]) => ([place.value, place.max] = [step, of]));
  each("items", showItems);
  each("if", (place, items) => (place.hidden = !items.length));
  each("unless", (place, items) => (place.hidden = items.length > 0));
}

/** Fills what a list or a table holds; where there are more or fewer items than before, it is made anew. */
function showItems(place, items) {
  const now = JSON.stringify(items);
  if (shown.get(place) === now) return;
  shown.set(place, now);
  if (place.children.length !== items.length) place.replaceChildren(...items.map((item) => made(place, item)));
  const keyed = (key) => [...place.children].find((child) => child.dataset.key === key);
  items.forEach((item, i) => fill(item.key ? keyed(item.key) : place.children[i], item));
}

function made(place, item) {
  const { template } = place.dataset;
  if (template) return document.getElementById(template).content.firstElementChild.cloneNode(true);
  const row = document.createElement("tr");
  row.append(...item.map((_, i) => document.createElement(i ? "td" : "th")));
  row.firstElementChild.scope = "row";
  return row;
}

function fill(element, item) {
  if (Array.isArray(item)) return item.forEach((words, i) => write(element.children[i], words));
  for (const slot of element.querySelectorAll("[data-slot]")) write(slot, item[slot.dataset.slot]);
  for (const mark of element.querySelectorAll("[data-slot-is]")) mark.dataset.is = item[mark.dataset.slotIs];
  for (const line of element.querySelectorAll("[data-slot-points]")) {
    line.setAttribute("points", item[line.dataset.slotPoints]);
  }
}

function write(place, words = "") {
  if (place.textContent !== words) place.textContent = words;
}

// ---- the loop

async function look() {
  const more = live.includes("?") ? "&" : "?";
  const answer = await fetch(`${live}${more}known=${encodeURIComponent(known)}`, { cache: "no-store" });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const data = await answer.json();
  if (data.shape !== shape) return location.reload(); // there is something that has no place here yet
  showWords(data);
  if (data.evaluations) showEvaluations(data.evaluations);
  if (data.curves) showCurves(data.curves);
  if (data.compared) drawAll("figure[data-metric]", ({ metric }) => data.compared[metric] ?? []);
  known = data.known ?? "";
  return data.over;
}

async function follow() {
  const pulse = document.getElementById("pulse");
  let again = AGAIN_MS;
  try {
    const over = await look();
    again = over ? OVER_AGAIN_MS : AGAIN_MS;
    write(pulse, `updated ${new Date().toLocaleTimeString()}`);
    pulse.dataset.is = over ? "done" : "running";
  } catch (error) {
    write(pulse, `no answer from the page's server (${error.message}); asked again every ${again / 1000} s`);
    pulse.dataset.is = "stopped";
  }
  setTimeout(document.hidden ? whenSeen : follow, again);
}

function whenSeen() {
  if (!document.hidden) follow();
  else document.addEventListener("visibilitychange", whenSeen, { once: true });
}

if (live) follow();
