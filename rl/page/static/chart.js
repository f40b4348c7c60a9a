/** Curves in SVG. All charts of a page point at the same step; nothing but numbers and text nodes is put into them. */

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 46, right: 10, top: 8, bottom: 22 };
const COLOURS = 7;
const charts = new Set();

/**
 * One line of a chart: a course with its interval, and the range that it is a mean of. What is null is a gap.
 *
 * @typedef {{name: string, steps: number[], mean: number[], low: number[], high: number[],
 *            least?: number[], most?: number[], broken?: number, dots?: boolean, colour?: number}} Line
 */

export class Chart {
  /**
   * @param {HTMLElement} figure has an `svg`, and a `.legend` for the names and the values.
   * @param {{log?: boolean, share?: boolean, onStep?: (step: number) => void}} options
   */
  constructor(figure, options = {}) {
    this.svg = figure.querySelector("svg");
    this.legend = figure.querySelector(".legend");
    this.options = options;
    this.lines = [];
    this.at = null;
    for (const name of ["pointermove", "pointerdown"]) {
      this.svg.addEventListener(name, (event) => pointAll(this.stepAt(event)));
    }
    for (const name of ["pointerleave", "blur"]) this.svg.addEventListener(name, () => pointAll(null));
    this.svg.addEventListener("keydown", (event) => this.onKey(event));
    this.svg.addEventListener("click", (event) => options.onStep?.(this.stepAt(event)));
    new ResizeObserver(() => this.draw()).observe(this.svg);
    charts.add(this);
  }

  /** @param {Line[]} lines */
  show(lines) {
    this.lines = lines
      .filter((line) => finite([...line.mean, ...(line.least ?? [])]).length)
      .map((line, number) => ({ ...line, colour: (line.colour ?? number) % COLOURS }));
    this.steps = [...new Set(this.lines.flatMap((line) => line.steps))].sort((a, b) => a - b);
    this.draw();
  }

  /** Whether it is the same number all the time. */
  get isFlat() {
    return this.lines.every((line) => {
      const values = finite([...(line.least ?? line.mean), ...(line.most ?? line.mean)]);
      return Math.min(...values) === Math.max(...values);
    });
  }

  // ---- drawing

  draw() {
    [this.width, this.height] = [this.svg.clientWidth, this.svg.clientHeight];
    if (!this.width || !this.lines.length) return;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.scale();
    this.cross = element("g", { class: "cross" });
    this.svg.replaceChildren(...this.axes(), ...this.lines.flatMap((line) => [...this.drawn(line)]), this.cross);
    this.point(this.at);
  }

  scale() {
    const measured = this.lines.flatMap(({ least, most, mean }) => [least, most, mean].flatMap(finite));
    const values = [...measured, ...this.lines.flatMap(({ low, high }) => [low, high].flatMap(finite))];
    this.log = Boolean(this.options.log) && Math.min(...measured) > 0;
    const [low, high] = this.log
      ? [Math.min(...measured) / 1.1, Math.max(...measured) * 1.1]
      : this.withRoom(Math.min(...values), Math.max(...values), Math.max(...measured) <= 1);
    const from = this.steps[0] <= 1 ? 0 : this.steps[0];
    const span = this.steps.at(-1) - from || 1;
    const across = this.width - MARGIN.left - MARGIN.right;
    const [bottom, top] = [this.height - MARGIN.bottom, MARGIN.top];
    const to = this.log ? Math.log : (value) => value;
    this.range = { first: from, last: from + span, low, high };
    this.x = (step) => MARGIN.left + ((step - from) / span) * across;
    this.y = (value) => bottom - ((to(value) - to(low)) / (to(high) - to(low))) * (bottom - top);
  }

  /** From zero where that is not far; a share ends at one, whatever its interval does. */
  withRoom(low, high, isShare) {
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    const limit = this.options.share && isShare ? 1 : Infinity;
    return [low >= 0 && low < high * 0.3 ? 0 : low - room, Math.min(high + room, limit)];
  }

  *axes() {
    const { first, last, low, high } = this.range;
    for (const value of this.log ? powers(low, high) : ticks(low, high, 4)) {
      const y = this.y(value);
      yield element("line", { class: "grid", x1: MARGIN.left, x2: this.width - MARGIN.right, y1: y, y2: y });
      yield label(short(value), { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" });
    }
    for (const step of ticks(first, last, this.width / 90).filter(Number.isInteger)) {
      const x = this.x(step);
      const anchor = x > this.width - 30 ? "end" : "middle";
      yield label(step.toLocaleString("en"), { class: "tick", x, y: this.height - 5, "text-anchor": anchor });
    }
  }

  *drawn(line) {
    const points = line.steps.map((step, i) => [this.x(step), i]);
    const paint = (name, d) => element("path", { class: `${name} c${line.colour}`, d });
    if (line.least) yield paint("range", this.area(points, line.least, line.most));
    yield paint("band", this.area(points, line.low, line.high));
    yield paint("line", this.path(points, line.mean));
    if (!line.dots && points.length > 1) return;
    for (const [x, i] of points.filter(([, i]) => Number.isFinite(line.mean[i]))) {
      yield element("circle", { class: `dot c${line.colour}`, cx: x, cy: this.y(line.mean[i]), r: 2.5 });
    }
  }

  path(points, values) {
    const placed = (i) => this.y(values[i]).toFixed(1);
    return stretches(points, (i) => Number.isFinite(values[i]))
      .map((stretch) => `M${stretch.map(([x, i]) => `${x.toFixed(1)} ${placed(i)}`).join("L")}`)
      .join("");
  }

  /** Each stretch without a gap as a closed shape; where both are the same, it is the line between its points. */
  area(points, lows, highs) {
    const placed = (value) => this.y(Math.min(Math.max(value, this.range.low), this.range.high)).toFixed(1);
    return stretches(points, (i) => Number.isFinite(lows[i]) && Number.isFinite(highs[i]))
      .map((stretch) => {
        const over = stretch.map(([x, i]) => `${x.toFixed(1)} ${placed(highs[i])}`);
        const under = stretch.map(([x, i]) => `${x.toFixed(1)} ${placed(lows[i])}`).reverse();
        return `M${[...over, ...under].join("L")}Z`;
      })
      .join("");
  }

  // ---- pointing

  stepAt(event) {
    if (!this.range) return null;
    const box = this.svg.getBoundingClientRect();
    const share = (event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
    return this.nearest(this.range.first + share * (this.range.last - this.range.first));
  }

  nearest(step) {
    return this.steps.reduce((best, own) => (Math.abs(own - step) < Math.abs(best - step) ? own : best));
  }

  onKey(event) {
    if (!this.steps?.length) return;
    const place = this.at === null ? this.steps.length : this.steps.indexOf(this.nearest(this.at));
    const last = this.steps.length - 1;
    const places = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: last };
    if (event.key in places) {
      event.preventDefault();
      pointAll(this.steps[Math.min(Math.max(places[event.key], 0), last)]);
    } else if (event.key === "Escape") {
      pointAll(null);
    } else if (event.key === "Enter" && this.at !== null) {
      this.options.onStep?.(this.nearest(this.at));
    }
  }

  /** Says the values at the step nearest to this one; the newest where it is null. */
  point(step) {
    this.at = step;
    if (!this.cross) return;
    const at = step === null ? this.steps.at(-1) : this.nearest(step);
    const readings = this.lines.map((line) => reading(line, at));
    this.legend.replaceChildren(...readings.map(legendItem));
    const where = `step ${at.toLocaleString("en")}`;
    const told = readings.map(({ name, value, own }) => [`${name} ${value}`, own].filter(Boolean).join(", "));
    this.svg.setAttribute("aria-valuemin", this.steps[0]);
    this.svg.setAttribute("aria-valuemax", this.steps.at(-1));
    this.svg.setAttribute("aria-valuenow", at);
    this.svg.setAttribute("aria-valuetext", `${where}: ${told.join("; ")}`);
    this.cross.replaceChildren(...(step === null ? [] : this.crossed(at, where, readings)));
  }

  *crossed(at, where, readings) {
    const x = this.x(at);
    const anchor = x > this.width - 70 ? "end" : x < MARGIN.left + 40 ? "start" : "middle";
    yield element("line", { x1: x, x2: x, y1: MARGIN.top, y2: this.height - MARGIN.bottom });
    yield label(where, { class: "where", x, y: this.height - 5, "text-anchor": anchor });
    for (const { mean, colour } of readings.filter(({ mean }) => Number.isFinite(mean))) {
      yield element("circle", { class: `dot c${colour}`, cx: x, cy: this.y(mean), r: 3.5 });
    }
  }
}

function pointAll(step) {
  for (const chart of charts) chart.point(step);
}

/** What a line is at the step, or was at its last one before it, in words. */
function reading(line, step) {
  const i = line.steps.findLastIndex((own) => own <= step);
  const [mean, low, high, least, most] = ["mean", "low", "high", "least", "most"].map((key) => precise(line[key]?.[i]));
  return {
    name: line.name,
    colour: line.colour,
    mean: line.mean[i],
    value: low === high ? mean : `${mean} [${low}, ${high}]`,
    own: (least === most ? least : `${least} … ${most}`) + (line.broken ? `; ${line.broken} not finite` : ""),
  };
}

function legendItem({ name, value, own, colour }) {
  const item = document.createElement("li");
  for (const [kind, words] of [[`swatch c${colour}`, ""], ["name", name], ["value", value], ["dim own", own]]) {
    const part = document.createElement("span");
    [part.className, part.textContent] = [kind, words];
    item.append(part);
  }
  return item;
}

/** The points between gaps. */
function stretches(points, isThere) {
  const found = [[]];
  for (const point of points) {
    if (isThere(point[1])) found.at(-1).push(point);
    else found.push([]);
  }
  return found.filter((stretch) => stretch.length);
}

const finite = (values) => (values ?? []).filter(Number.isFinite);

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function label(words, attributes) {
  const made = element("text", attributes);
  made.textContent = words;
  return made;
}

// ---- numbers

/** Round numbers between two others, about n of them. */
function ticks(low, high, n) {
  const rough = (high - low) / Math.max(1, n);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const [first, last] = [Math.ceil(low / step), Math.floor(high / step)];
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** Powers of ten between two numbers, no more than five; where there are few, twice and five times as much, too. */
function powers(low, high) {
  const [first, last] = [Math.floor(Math.log10(low)), Math.floor(Math.log10(high))];
  const inside = (values) => values.filter((value) => value >= low && value <= high);
  const tens = Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i));
  const every = Math.ceil(inside(tens).length / 5);
  if (inside(tens).length > 2) return inside(tens).filter((_, i) => i % every === 0);
  return inside(tens.flatMap((ten) => [ten, 2 * ten, 5 * ten]));
}

function short(value) {
  const size = Math.abs(value);
  const words = size && (size < 0.001 || size >= 1e5) ? value.toExponential(0) : String(Number(value.toPrecision(6)));
  return words.replace("e+", "e").replaceAll("-", "−");
}

/** Three digits; empty for what is no number. */
function precise(value) {
  if (!Number.isFinite(value)) return "";
  const size = Math.abs(value);
  const isWhole = size >= 1000 || !size;
  const plain = () => (isWhole ? Math.round(value).toLocaleString("en") : value.toPrecision(3));
  const words = size && (size < 0.001 || size >= 1e6) ? value.toExponential(1) : plain();
  return words.replace("e+", "e").replaceAll("-", "−");
}
