/** Curves in SVG. All charts of a page point at the same step; nothing but numbers and text nodes is put into them. */

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 46, right: 10, top: 8, bottom: 22 };
const charts = new Set();

/**
 * One line of a chart: a course with its interval, and the range that it is a mean of.
 *
 * @typedef {{name: string, steps: number[], mean: number[], low: number[], high: number[],
 *            least?: number[], most?: number[], dots?: boolean}} Line
 */

export class Chart {
  /**
   * @param {HTMLElement} figure has an `svg`, and a `ul.legend` for the names and the values.
   * @param {{log?: boolean, share?: boolean, onStep?: (step: number) => void}} options
   */
  constructor(figure, options = {}) {
    this.figure = figure;
    this.svg = figure.querySelector("svg");
    this.legend = figure.querySelector(".legend");
    this.options = options;
    this.lines = [];
    this.at = null;
    this.svg.addEventListener("pointermove", (event) => pointAll(this.stepAt(event)));
    this.svg.addEventListener("pointerdown", (event) => pointAll(this.stepAt(event)));
    this.svg.addEventListener("pointerleave", () => pointAll(null));
    this.svg.addEventListener("blur", () => pointAll(null));
    this.svg.addEventListener("keydown", (event) => this.onKey(event));
    this.svg.addEventListener("click", (event) => this.options.onStep?.(this.stepAt(event)));
    new ResizeObserver(() => this.draw()).observe(this.svg);
    charts.add(this);
  }

  /** @param {Line[]} lines */
  show(lines) {
    this.lines = lines.filter((line) => line.mean.some(Number.isFinite) || line.least?.some(Number.isFinite));
    this.steps = [...new Set(this.lines.flatMap((line) => line.steps))].sort((a, b) => a - b);
    this.draw();
  }

  get isFlat() {
    return this.lines.every((line) => Math.min(...finite(line.least ?? line.mean)) === Math.max(...finite(line.most ?? line.mean)));
  }

  // ---- drawing

  draw() {
    [this.width, this.height] = [this.svg.clientWidth, this.svg.clientHeight];
    if (!this.width || !this.lines.length) return;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.scale();
    const parts = [...this.axes()];
    this.lines.forEach((line, number) => parts.push(...this.drawn(line, line.colour ?? number)));
    this.cross = element("g", { class: "cross" });
    this.svg.replaceChildren(...parts, this.cross);
    this.point(this.at);
  }

  scale() {
    const measured = this.lines.flatMap((line) => [line.least, line.most, line.mean].flatMap(finite));
    const values = [...measured, ...this.lines.flatMap((line) => [line.low, line.high].flatMap(finite))];
    let [low, high] = [Math.min(...values), Math.max(...values)];
    this.log = Boolean(this.options.log) && Math.min(...measured) > 0;
    if (this.log) {
      [low, high] = [Math.min(...measured) / 1.1, Math.max(...measured) * 1.1];
    } else {
      const room = (high - low || Math.abs(high) || 1) * 0.06;
      const fromZero = low >= 0 && low < high * 0.3;
      [low, high] = [fromZero ? 0 : low - room, high + room];
      if (this.options.share) high = Math.min(high, Math.max(1, ...values));
    }
    const [first, last] = [Math.min(...this.steps), Math.max(...this.steps)];
    const from = first <= 1 ? 0 : first;
    const span = last - from || 1;
    const to = (value) => (this.log ? Math.log(value) : value);
    const [bottom, top] = [this.height - MARGIN.bottom, MARGIN.top];
    this.range = { first: from, last: from + span, low, high };
    this.x = (step) => MARGIN.left + ((step - from) / span) * (this.width - MARGIN.left - MARGIN.right);
    this.y = (value) => bottom - ((to(value) - to(low)) / (to(high) - to(low))) * (bottom - top);
  }

  *axes() {
    const { first, last, low, high } = this.range;
    for (const value of this.log ? powers(low, high) : ticks(low, high, 4)) {
      const y = this.y(value);
      yield element("line", { class: "grid", x1: MARGIN.left, x2: this.width - MARGIN.right, y1: y, y2: y });
      yield text(short(value), { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" });
    }
    for (const step of ticks(first, last, this.width / 90).filter(Number.isInteger)) {
      const x = this.x(step);
      const anchor = x > this.width - 30 ? "end" : "middle";
      yield text(step.toLocaleString("en"), { class: "tick", x, y: this.height - 5, "text-anchor": anchor });
    }
  }

  *drawn(line, colour) {
    const points = line.steps.map((step, i) => [this.x(step), i]);
    const paint = (name, d) => element("path", { class: `${name} c${colour % 7}`, d });
    if (line.least) yield paint("range", this.area(points, line.least, line.most));
    yield paint("band", this.area(points, line.low, line.high));
    yield paint("line", this.path(points, line.mean));
    if (line.dots || points.length === 1) {
      for (const [x, i] of points.filter(([, i]) => Number.isFinite(line.mean[i]))) {
        yield element("circle", { class: `dot c${colour % 7}`, cx: x, cy: this.y(line.mean[i]), r: 2.5 });
      }
    }
  }

  path(points, values) {
    let pen = "M";
    return points.map(([x, i]) => {
      if (!Number.isFinite(values[i])) {
        pen = "M"; // a gap is left where nothing was measured
        return "";
      }
      const part = `${pen}${x.toFixed(1)} ${this.y(values[i]).toFixed(1)}`;
      pen = "L";
      return part;
    }).join("");
  }

  /** Each stretch without a gap as a closed shape; one where both are the same is the line between its points. */
  area(points, lows, highs) {
    const stretches = [[]];
    for (const point of points) {
      if (Number.isFinite(lows?.[point[1]]) && Number.isFinite(highs?.[point[1]])) stretches.at(-1).push(point);
      else stretches.push([]);
    }
    const inside = (value) => this.y(Math.min(Math.max(value, this.range.low), this.range.high)).toFixed(1);
    return stretches.filter((stretch) => stretch.length).map((stretch) => {
      const over = stretch.map(([x, i]) => `${x.toFixed(1)} ${inside(highs[i])}`);
      const under = stretch.map(([x, i]) => `${x.toFixed(1)} ${inside(lows[i])}`).reverse();
      return `M${[...over, ...under].join("L")}Z`;
    }).join("");
  }

  // ---- pointing

  stepAt(event) {
    const box = this.svg.getBoundingClientRect();
    const { first, last } = this.range ?? { first: 0, last: 0 };
    const share = (event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
    return this.nearest(first + share * (last - first));
  }

  nearest(step) {
    return this.steps?.reduce((best, own) => (Math.abs(own - step) < Math.abs(best - step) ? own : best), this.steps[0]);
  }

  onKey(event) {
    const place = this.at === null ? this.steps.length : this.steps.indexOf(this.nearest(this.at));
    const places = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: this.steps.length - 1 };
    if (event.key in places) {
      event.preventDefault();
      pointAll(this.steps[Math.min(Math.max(places[event.key], 0), this.steps.length - 1)]);
    } else if (event.key === "Escape") {
      pointAll(null);
    } else if (event.key === "Enter" && this.at !== null) {
      this.options.onStep?.(this.nearest(this.at));
    }
  }

  /** Shows the values at the step nearest to this one; the newest for null. */
  point(step) {
    this.at = step;
    if (!this.lines.length || !this.cross) return;
    const at = step === null ? this.steps.at(-1) : this.nearest(step);
    const said = this.lines.map((line, number) => this.reading(line, at, line.colour ?? number));
    this.legend.replaceChildren(...said.map((one) => one.item));
    const where = `step ${at.toLocaleString("en")}`;
    for (const [name, value] of Object.entries({
      "aria-valuemin": this.steps[0],
      "aria-valuemax": this.steps.at(-1),
      "aria-valuenow": at,
      "aria-valuetext": `${where}: ${said.map((one) => one.text).join("; ")}`,
    })) this.svg.setAttribute(name, value);
    if (step === null) return this.cross.replaceChildren();
    const x = this.x(at);
    const dots = said.filter((one) => one.y !== null).map((one) => element("circle", { class: `dot c${one.colour % 7}`, cx: x, cy: one.y, r: 3.5 }));
    const anchor = x > this.width - 70 ? "end" : x < MARGIN.left + 40 ? "start" : "middle";
    const label = text(where, { x, y: this.height - 5, "text-anchor": anchor, class: "where" });
    this.cross.replaceChildren(element("line", { x1: x, x2: x, y1: MARGIN.top, y2: this.height - MARGIN.bottom }), label, ...dots);
  }

  /** What a line is at the step, or was at its last one before it. */
  reading(line, step, colour) {
    const i = line.steps.findLastIndex((own) => own <= step);
    const [mean, low, high] = [line.mean, line.low, line.high].map((values) => precise(values[i]));
    const [least, most] = [line.least?.[i], line.most?.[i]].map(precise);
    const value = low === high ? mean : `${mean} [${low}, ${high}]`;
    const own = least === most ? least : `${least} … ${most}`;
    const parts = [[`swatch c${colour % 7}`, ""], ["name", line.name], ["value", value], ["dim own", own]];
    const item = document.createElement("li");
    item.append(...parts.map(([name, words]) => Object.assign(document.createElement("span"), { className: name, textContent: words })));
    const text = `${line.name} ${value}${own && `, ${own}`}`;
    return { item, colour, text, y: Number.isFinite(line.mean[i]) ? this.y(line.mean[i]) : null };
  }
}

function pointAll(step) {
  for (const chart of charts) chart.point(step ?? null);
}

const finite = (values) => (values ?? []).filter(Number.isFinite);

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function text(words, attributes) {
  const made = element("text", attributes);
  made.textContent = words;
  return made;
}

/** Round numbers between two others, about n of them. */
function ticks(low, high, n) {
  const rough = (high - low) / Math.max(1, n);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** Powers of ten between two numbers, no more than five; where there are few, twice and five times as much, too. */
function powers(low, high) {
  const [first, last] = [Math.floor(Math.log10(low)), Math.floor(Math.log10(high))];
  const inside = (values) => values.filter((value) => value >= low && value <= high);
  const tens = Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i));
  const every = Math.ceil(inside(tens).length / 5);
  return inside(tens).length > 2 ? inside(tens).filter((_, i) => i % every === 0) : inside(tens.flatMap((ten) => [ten, 2 * ten, 5 * ten]));
}

function short(value) {
  const size = Math.abs(value);
  if (size && (size < 0.001 || size >= 100000)) return value.toExponential(0).replace("e+", "e").replace("-", "−");
  return String(Number(value.toPrecision(6))).replace("-", "−");
}

/** Three digits; empty for what is no number. */
function precise(value) {
  if (!Number.isFinite(value)) return "";
  const size = Math.abs(value);
  const words = size && (size < 0.001 || size >= 1e6) ? value.toExponential(1).replace("e+", "e")
    : size >= 1000 || !size ? Math.round(value).toLocaleString("en")
    : value.toPrecision(3);
  return words.replaceAll("-", "−");
}
