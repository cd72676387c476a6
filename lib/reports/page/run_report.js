
"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const find = (selector, inside = document) => inside.querySelector(selector);
const findAll = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const redraws = []; // what depends on the size of the page or on its colours

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children); // strings become text
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const percent = (share, decimals = 1) => `${(100 * share).toFixed(decimals)} %`;
const compact = (value) => {
  const rounded = +value.toPrecision(4);
  return rounded && Math.abs(rounded) < 1e-3 ? rounded.toExponential() : String(rounded);
};
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// The tip beside the pointer

const tip = document.getElementById("tip");

function showTip(event, text) {
  tip.textContent = text;
  tip.style.display = "block";
  const { width, height } = tip.getBoundingClientRect();
  const above = event.clientY - height - 14;
  tip.style.left = `${clamp(event.clientX + 14, 4, innerWidth - width - 4)}px`;
  tip.style.top = `${above > 4 ? above : event.clientY + 18}px`;
}

const hideTip = () => { tip.style.display = "none"; };

// Call show(event) wherever the pointer is over a target, and leave() when it has left. A finger leaves when it is
// lifted: what it has tapped stays until it taps elsewhere.
let followed = null;

function follow(target, show, leave) {
  const over = (event) => {
    if (followed && followed.target !== target) followed.leave();
    followed = { target, leave };
    show(event);
  };
  target.addEventListener("pointermove", over);
  target.addEventListener("pointerdown", over);
  target.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") leave(); });
}

document.addEventListener("pointerdown", (event) => {
  if (followed && !followed.target.contains(event.target)) followed.leave();
});

// Charts of lines

function ticks(low, high, count) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw) * power;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  return found;
}

function decades(low, high) {
  const found = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++)
    for (const factor of [1, 2, 5]) {
      const value = power + Math.log10(factor);
      if (value >= low - 1e-9 && value <= high + 1e-9) found.push(value);
    }
  return found;
}

// A series has x, y, color, name; maybe low and high (of a band), its opacity faint, dashed, dots, labels (of points).
function lineChart(container, series, { log = false, top = null, unit = "" } = {}) {
  const width = Math.max(container.clientWidth, 240), height = Math.round(clamp(width * 0.46, 170, 270));
  const left = 46, right = 18, bottom = 24, above = 8;
  container.replaceChildren();
  series = series.filter((one) => one.x.length);
  if (!series.length) {
    container.append(element("p", { class: "note" }, "Nothing in the log."));
    return;
  }
  const scale = log ? (value) => Math.log10(Math.max(value, 1e-12)) : (value) => value;
  const xs = series.flatMap((one) => [one.x[0], one.x[one.x.length - 1]]);
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  let low = 0, high = 0;
  if (log) {
    const values = series.flatMap((one) => one.y.filter((value) => value > 0).map(scale));
    low = Math.min(...values) - 0.05;
    high = Math.max(...values) + 0.05;
  } else {
    for (const one of series) for (const value of one.y) high = Math.max(high, value);
    const bands = series.flatMap((one) => one.high || []).sort((a, b) => a - b);
    // A few batches that stand out must not flatten everything else.
    if (bands.length) high = Math.max(high, bands[Math.floor(0.97 * (bands.length - 1))]);
    high = top === null ? high * 1.05 || 1 : top;
  }
  const px = (x) => left + (width - left - right) * (last > first ? (x - first) / (last - first) : 0.5);
  const py = (y) => above + (height - above - bottom) * (1 - (scale(y) - low) / (high - low || 1));
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "chart" });
  const marks = log ? decades(low, high) : ticks(low, high, 4);
  for (const mark of marks) {
    const value = log ? 10 ** mark : mark, y = py(value);
    picture.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y, y2: y }),
      svg("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, compact(value) + unit));
  }
  for (const mark of ticks(first, last, width > 500 ? 6 : 4)) {
    const text = mark >= 10000 ? `${compact(mark / 1000)}k` : compact(mark);
    picture.append(svg("text", { x: px(mark), y: height - 6, "text-anchor": "middle" }, text));
  }
  const inner = svg("svg", { x: 0, y: above - 3, width: width, height: height - above - bottom + 6,
    viewBox: `0 ${above - 3} ${width} ${height - above - bottom + 6}` });
  for (const one of series) {
    if (one.high) {
      const points = [...one.x.map((x, i) => [px(x), py(one.high[i])]),
        ...one.x.map((x, i) => [px(x), py(one.low[i])]).reverse()];
      inner.append(svg("path", { d: `M${points.map((point) => point.map((v) => v.toFixed(1)).join()).join("L")}Z`,
        style: `fill:${one.color};stroke:${one.color};stroke-width:.7;opacity:${one.faint || 0.2}` }));
    }
  }
  for (const one of series) {
    const points = one.x.map((x, i) => `${px(x).toFixed(1)},${py(one.y[i]).toFixed(1)}`);
    inner.append(svg("polyline", { points: points.join(" "),
      style: `stroke:${one.color};stroke-width:${one.dashed ? 1.6 : 2};${one.dashed ? "stroke-dasharray:5 3" : ""}` }));
    if (one.dots && one.x.length <= 60)
      for (let i = 0; i < one.x.length; i++)
        inner.append(svg("circle", { cx: px(one.x[i]), cy: py(one.y[i]), r: 2.6, style: `fill:${one.color}` }));
  }
  const cursor = svg("line", { class: "cursor", y1: above, y2: height - bottom, visibility: "hidden" });
  picture.append(inner, cursor);
  container.append(picture);

  follow(picture, (event) => {
    const box = picture.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * width - left) / (width - left - right);
    const wanted = first + clamp(share, 0, 1) * (last - first);
    const lines = [];
    let best = null;
    for (const one of series) {
      const i = nearest(one.x, wanted);
      if (best === null || Math.abs(one.x[i] - wanted) < Math.abs(best - wanted)) best = one.x[i];
      lines.push(`${one.labels ? one.labels[i] : `${one.name}${one.dots ? ` (at ${one.x[i]})` : ""}`}: ` +
        `${compact(one.y[i])}${unit}`);
    }
    cursor.setAttribute("x1", px(best));
    cursor.setAttribute("x2", px(best));
    cursor.setAttribute("visibility", "visible");
    showTip(event, [...(series[0].labels ? [] : [`iteration ${best}`]), ...lines].join("\n"));
  }, () => {
    cursor.setAttribute("visibility", "hidden");
    hideTip();
  });
}

// Index of the value of an ascending list that is nearest to another.
function nearest(values, wanted) {
  let low = 0, high = values.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (values[middle] < wanted) low = middle; else high = middle;
  }
  return wanted - values[low] <= values[high] - wanted ? low : high;
}

function drawCurves() {
  const hidden = new Set(), several = data.runs.length > 1;
  const color = (run) => `var(--s${run % 8})`;
  findAll(".dot[data-run]").forEach((dot) => { dot.style.background = color(+dot.dataset.run); });
  const charts = findAll("[data-curve]").map((container) => () => {
    const series = [];
    data.runs.forEach((run, number) => {
      const curve = run.curves[container.dataset.curve];
      if (!curve || hidden.has(number)) return;
      const name = several ? `${run.name}, ` : "", { train, val } = curve;
      if (train) {
        // A learning rate has no noise to be smoothed.
        const exact = container.dataset.curve === "lr";
        series.push({ name: `${name}training`, x: train.x, y: exact ? train.high : train.mean, color: color(number),
          ...(exact ? {} : { low: train.low, high: train.high, faint: several ? 0.1 : 0.2, dashed: true }) });
      }
      if (val) series.push({ name: `${name}validation`, x: val.x, y: val.y, color: color(number), dots: true });
    });
    lineChart(container, series, { log: container.dataset.curve === "lr" });
  });
  redraws.push(...charts);
  const legend = document.getElementById("legend");
  if (!legend || !several) return;
  data.runs.forEach((run, number) => {
    const button = element("button", { type: "button", "aria-pressed": "true" });
    const dot = element("i", { class: "dot" });
    dot.style.background = color(number);
    button.append(dot, run.name);
    button.addEventListener("click", () => {
      if (!hidden.delete(number)) hidden.add(number);
      button.setAttribute("aria-pressed", String(!hidden.has(number)));
      charts.forEach((draw) => draw());
    });
    legend.append(button);
  });
}

// Accuracy of many classes at a glance

function drawSkyline() {
  const container = document.getElementById("skyline");
  if (!container) return;
  const { names, videos, hits } = data.confusion;
  const order = names.map((_, k) => k).filter((k) => videos[k]).sort((a, b) => hits[b] / videos[b] - hits[a] / videos[a]);
  const y = order.map((k) => 100 * hits[k] / videos[k]);
  redraws.push(() => lineChart(container, [{ x: order.map((_, i) => i + 1), y, color: "var(--s0)", low: y.map(() => 0),
    high: y, labels: order.map((k) => names[k]) }], { top: 100, unit: " %" }));
}

// Tables that are sorted and searched

function makeSortable(table) {
  const body = find("tbody", table), heads = findAll("th", table);
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim(), found = parseFloat(text);
    return heads[column].classList.contains("n") ? (Number.isNaN(found) ? -1 : found) : text.toLowerCase();
  };
  heads.forEach((head, column) => {
    if (!("sort" in head.dataset)) return;
    head.tabIndex = 0;
    const sort = () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [value(row, column), row]);
      rows.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1));
      body.append(...rows.map(([, row]) => row));
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
}

function makeSearchable(table, field, shown) {
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    let count = 0;
    for (const row of find("tbody", table).rows) {
      row.hidden = !row.cells[1].textContent.toLowerCase().includes(wanted);
      count += !row.hidden;
    }
    shown.textContent = wanted ? `${count} of ${data.confusion.names.length} classes` : "";
  });
}

// The confusion matrix

// "rgb(1, 2, 3)" of a variable of the style sheet, as numbers.
function colorOf(variable) {
  const probe = element("i");
  probe.style.color = `var(${variable})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return found;
}

function drawConfusion() {
  const frame = document.getElementById("matrix");
  if (!frame) return;
  const { names, videos, hits, cells } = data.confusion, size = names.length;
  const rows = names.map(() => new Map()), columns = names.map(() => new Map());
  for (let i = 0; i < cells.length; i += 3) {
    rows[cells[i]].set(cells[i + 1], cells[i + 2]);
    columns[cells[i + 1]].set(cells[i], cells[i + 2]);
  }
  const accuracy = (k) => (videos[k] ? hits[k] / videos[k] : 2);
  const orders = {
    id: () => 0,
    accuracy: (a, b) => accuracy(a) - accuracy(b),
    name: (a, b) => (names[a] < names[b] ? -1 : 1),
  };
  const canvas = find("canvas", frame), [rowBand, columnBand] = findAll(".band", frame);
  const numbered = size <= 30;
  let order = names.map((_, k) => k), here = null, margin = 0, cell = 1;

  function draw() {
    const [card, good, bad, line, text] = ["--card", "--good", "--bad", "--line", "--text"].map(colorOf);
    // By the root of the share, so that single videos among hundreds are seen.
    const shade = (share, color) => {
      const opacity = numbered ? Math.sqrt(share) : 0.3 + 0.7 * Math.sqrt(share);
      return card.map((from, i) => Math.round(from + (color[i] - from) * opacity));
    };
    const width = frame.clientWidth, ratio = devicePixelRatio || 1, context = canvas.getContext("2d");
    context.font = "12px system-ui, sans-serif";
    margin = numbered ? Math.min(Math.max(...names.map((name) => context.measureText(name).width)) + 10, width * 0.3) : 0;
    // Few classes need no more than so much; many need a pixel each, which the browser shrinks if there is no place.
    const shown = numbered ? Math.min((width - margin) / size, 84) : (width - margin) / size;
    const scale = numbered ? ratio : Math.max(1, Math.floor(shown * ratio)) / shown;
    cell = shown;
    const side = margin + shown * size;
    canvas.width = canvas.height = Math.round(side * scale);
    canvas.style.width = `${side}px`;
    canvas.style.height = `${side}px`;
    context.scale(scale, scale);
    context.fillStyle = `rgb(${line.map((value, i) => Math.round((value + 3 * card[i]) / 4))})`;
    context.fillRect(margin, 0, shown * size, shown * size);
    const gap = numbered ? 1.5 : 0, place = new Map(order.map((k, i) => [k, i]));
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let i = 0; i < cells.length; i += 3) {
      const [k, other, count] = cells.slice(i, i + 3), share = count / videos[k];
      const x = margin + place.get(other) * shown, y = place.get(k) * shown;
      context.fillStyle = `rgb(${shade(share, k === other ? good : bad)})`;
      context.fillRect(x + gap, y + gap, shown - 2 * gap, shown - 2 * gap);
      if (numbered && shown > 17) {
        context.fillStyle = `rgb(${share > 0.35 ? card : text})`;
        context.font = `${Math.min(14, shown * 0.4)}px system-ui, sans-serif`;
        context.fillText(count, x + shown / 2, y + shown / 2);
      }
    }
    if (numbered) {
      context.fillStyle = `rgb(${text})`;
      context.font = `${Math.min(12, shown * 0.8)}px system-ui, sans-serif`;
      context.textAlign = "right";
      order.forEach((k, i) => {
        context.fillText(shortened(context, names[k], margin - 10), margin - 6, (i + 0.5) * shown);
        context.save();
        context.translate(margin + (i + 0.5) * shown, shown * size + 6);
        context.rotate(-Math.PI / 2);
        context.fillText(shortened(context, names[k], margin - 10), 0, 0);
        context.restore();
      });
    }
    mark();
  }

  function mark() {
    for (const band of [rowBand, columnBand]) band.style.display = here ? "block" : "none";
    if (!here) return;
    const [row, column] = here, side = cell * size, thick = Math.max(cell, 3);
    Object.assign(rowBand.style, { left: `${margin}px`, top: `${(row + 0.5) * cell - thick / 2}px`, width: `${side}px`,
      height: `${thick}px` });
    Object.assign(columnBand.style, { left: `${margin + (column + 0.5) * cell - thick / 2}px`, top: 0,
      width: `${thick}px`, height: `${side}px` });
  }

  function describe([row, column]) {
    const k = order[row], other = order[column], count = rows[k].get(other) || 0;
    const share = videos[k] ? ` (${percent(count / videos[k])})` : "";
    return k === other ? `${names[k]}\nright: ${count} of ${videos[k]} videos${share}`
      : `${names[k]}\ntaken for ${names[other]}: ${count} of ${videos[k]} videos${share}`;
  }

  function cellAt(event) {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - margin) / cell), row = Math.floor((event.clientY - box.top) / cell);
    return row >= 0 && row < size && column >= 0 && column < size ? [row, column] : null;
  }

  function list(title, counts, total) {
    const found = [...counts].sort(([, a], [, b]) => b - a).slice(0, 10);
    if (!found.length) return [];
    const items = found.map(([k, count]) => {
      const inner = element("i"), bar = element("i", { class: `bar ${total[1] === k ? "good" : "bad"}` }, inner);
      inner.style.width = `${100 * count / total[0]}%`;
      const link = element("a", { href: "#confusion" }, names[k]);
      link.addEventListener("click", (event) => { event.preventDefault(); choose(k); });
      return element("li", {}, element("span", {}, link), bar, element("span", { class: "n" }, `${count} of ${total[0]}`));
    });
    return [element("h4", {}, title), element("ul", { class: "scores" }, ...items)];
  }

  function choose(k) {
    const panel = document.getElementById("class-panel");
    const taken = new Map([...columns[k]].filter(([other]) => other !== k));
    const all = [...taken.values()].reduce((a, b) => a + b, 0);
    panel.replaceChildren(element("h3", {}, names[k]),
      element("p", { class: "note" }, `class ${k}, ${videos[k]} videos${videos[k] ? `, ${percent(hits[k] / videos[k], 2)} right` : ""}`),
      ...list("Its videos were taken for", rows[k], [videos[k], k]),
      ...list("Of other classes, taken for it", taken, [all, -1]));
  }

  const point = (event) => {
    here = cellAt(event);
    mark();
    if (here) showTip(event, describe(here)); else hideTip();
  };
  const leave = () => { here = null; mark(); hideTip(); };
  follow(canvas, point, leave);
  canvas.addEventListener("click", (event) => { const at = cellAt(event); if (at) choose(order[at[0]]); });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Enter" && here) choose(order[here[0]]);
    if (!step) return;
    event.preventDefault();
    here = here ? here.map((value, i) => clamp(value + step[i], 0, size - 1)) : [0, 0];
    mark();
    const box = canvas.getBoundingClientRect();
    showTip({ clientX: box.left + margin + here[1] * cell, clientY: box.top + here[0] * cell }, describe(here));
  });
  canvas.addEventListener("blur", leave);
  document.getElementById("order").addEventListener("change", (event) => {
    order = names.map((_, k) => k).sort(orders[event.target.value]);
    draw();
  });
  document.getElementById("class-names").append(...names.map((name) => element("option", { value: name })));
  document.getElementById("pick").addEventListener("change", (event) => {
    const k = names.indexOf(event.target.value);
    if (k >= 0) choose(k);
  });
  findAll("a[data-class]").forEach((link) => link.addEventListener("click", () => choose(+link.dataset.class)));
  choose(names.map((_, k) => k).sort(orders.accuracy)[0]);
  redraws.push(draw);
}

function shortened(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let length = text.length;
  while (length > 1 && context.measureText(`${text.slice(0, length)}…`).width > width) length--;
  return `${text.slice(0, length)}…`;
}

// Calibration

function drawReliability() {
  const container = document.getElementById("reliability");
  if (!container) return;
  const { bins } = data.calibration, most = Math.max(...bins.map((bin) => bin.videos));
  redraws.push(() => {
    const width = Math.min(container.clientWidth, 460), left = 44, right = 8, plot = width - left - right;
    const low = plot * 0.8, counts = 46, height = 8 + low + 22 + counts + 22;
    const px = (share) => left + plot * share, py = (share) => 8 + low * (1 - share);
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": "accuracy by confidence" });
    picture.style.maxWidth = `${width}px`;
    for (const mark of [0, 0.25, 0.5, 0.75, 1]) {
      picture.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: py(mark), y2: py(mark) }),
        svg("text", { x: left - 6, y: py(mark) + 4, "text-anchor": "end" }, percent(mark, 0)),
        svg("text", { x: clamp(px(mark), left + 10, width - 18), y: height - 5, "text-anchor": "middle" }, percent(mark, 0)));
    }
    for (const bin of bins) {
      const x = px(bin.low) + 1, w = px(bin.high) - px(bin.low) - 2;
      const said = `${percent(bin.low, 0)} to ${percent(bin.high, 0)}: ${bin.videos} videos\n` +
        `mean confidence ${percent(bin.confidence, 2)}\naccuracy ${percent(bin.accuracy, 2)}`;
      const bars = svg("g", {},
        svg("rect", { x, y: 8, width: w, height: height - 30, style: "fill:transparent" }),
        svg("rect", { x, y: py(bin.accuracy), width: w, height: py(0) - py(bin.accuracy), style: "fill:var(--good);opacity:.8" }),
        svg("line", { x1: x, x2: x + w, y1: py(bin.confidence), y2: py(bin.confidence),
          style: "stroke:var(--bad);stroke-width:3" }),
        svg("rect", { x, y: height - 22 - counts * bin.videos / most, width: w, height: counts * bin.videos / most,
          style: "fill:var(--faint);opacity:.6" }));
      follow(bars, (event) => showTip(event, said), hideTip);
      picture.append(bars);
    }
    picture.append(svg("line", { class: "ideal", x1: px(0), y1: py(0), x2: px(1), y2: py(1) }));
    container.replaceChildren(picture, element("p", { class: "note" },
      "Blue: accuracy. Orange: mean confidence, which it should meet, on the dashed line. Grey: number of videos."));
  });
}

// Light and dark, size, printing

const redraw = () => redraws.forEach((draw) => draw());

function setTheme(theme) {
  root.dataset.theme = theme;
  redraw();
}

const dark = matchMedia("(prefers-color-scheme: dark)");
const themeNow = () => root.dataset.theme || (dark.matches ? "dark" : "light");
const byHash = () => { if (["#dark", "#light"].includes(location.hash)) setTheme(location.hash.slice(1)); };

document.getElementById("theme").addEventListener("click", () => setTheme(themeNow() === "dark" ? "light" : "dark"));
dark.addEventListener("change", redraw);
addEventListener("hashchange", byHash);
let before = null;
addEventListener("beforeprint", () => {
  before = root.dataset.theme;
  setTheme("light");
});
addEventListener("afterprint", () => {
  if (before) setTheme(before); else { delete root.dataset.theme; redraw(); }
});
let width = innerWidth, waiting = 0;
addEventListener("resize", () => {
  if (innerWidth === width) return; // the bars of a phone's browser come and go
  width = innerWidth;
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(redraw);
});
addEventListener("scroll", hideTip, { passive: true });

drawCurves();
drawSkyline();
drawConfusion();
drawReliability();
const table = document.getElementById("by-class");
if (table) {
  makeSortable(table);
  makeSearchable(table, document.getElementById("filter"), document.getElementById("shown"));
}
redraw();
byHash();
})();
