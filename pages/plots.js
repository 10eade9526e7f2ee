// Plots as SVG, each with a title and a description that says what it shows; legends are lists above them.
const COLOURS = ["#2b6cb0", "#c05621", "#2f855a", "#b83280", "#6b46c1", "#b7791f", "#2c7a7b", "#c53030"];
let plots = 0;

function plot(width, height, title, description, ...marks) {
  const id = `plot${plots++}`;
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": `${id}t ${id}d` },
    svg("title", { id: `${id}t` }, title), svg("desc", { id: `${id}d` }, description), ...marks);
}

function ticks(low, high) {
  if (low === high) return [Number(low.toPrecision(3))];
  const step = 10 ** Math.floor(Math.log10((high - low) / 3 || 1));
  const wide = [1, 2, 5, 10].map((k) => k * step).find((one) => (high - low) / one <= 5) || 10 * step;
  const found = [];
  for (let k = Math.ceil(low / wide - 1e-9); k * wide <= high + 1e-9 * wide; k++) found.push(k * wide);
  return found;
}

const plain = (value) => String(Number(value.toPrecision(6)));
const line = (x1, y1, x2, y2, stroke = "var(--line)", width = 1) =>
  svg("line", { x1, y1, x2, y2, stroke, "stroke-width": width });
const write = (x, y, anchor, ...what) => svg("text", { x, y, "text-anchor": anchor }, ...what);
const phone = innerWidth < 700; // a plot drawn for a wide screen would have letters of 7 pixels there
const short = (name, most = phone ? 16 : 24) => (name.length > most ? `${name.slice(0, most - 1)}…` : name);

// rows: {name, score, low, high, chosen}
function intervalsPlot(rows, title) {
  const [left, width, step] = phone ? [120, 390, 22] : [170, 640, 22];
  const all = rows.flatMap((row) => [row.low, row.high, row.score]).filter(Number.isFinite);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const x = (value) => left + 10 + ((value - low) / (high - low || 1)) * (width - left - 30);
  const height = rows.length * step + 30;
  const marks = ticks(low, high).flatMap((tick) => [
    line(x(tick), 0, x(tick), height - 20), write(x(tick), height - 5, "middle", plain(tick))]);
  rows.forEach((row, i) => {
    const [y, colour] = [i * step + 14, row.chosen ? "var(--two)" : "var(--one)"];
    marks.push(write(left, y + 4, "end", short(row.name)), line(x(row.low), y, x(row.high), y, colour, 2),
      svg("circle", { cx: x(row.score), cy: y, r: 4, fill: colour }));
  });
  const spoken = rows.map((row) => `${row.name} ${show(row.score)}, ${show(row.low)} to ${show(row.high)}`).join("; ");
  return plot(width, height, title, spoken, ...marks);
}

// rows: {name, clips, blend, single}
function classPlot(rows, title) {
  const [left, width, step] = phone ? [150, 390, 20] : [190, 640, 20];
  const known = rows.filter((row) => row.blend !== null).sort((a, b) => a.blend - b.blend);
  const x = (value) => left + 8 + Math.max(0, Math.min(1, value)) * (width - left - 24);
  const height = known.length * step + 30;
  const marks = [0, 0.25, 0.5, 0.75, 1].flatMap((tick) => [
    line(x(tick), 0, x(tick), height - 20), write(x(tick), height - 5, "middle", plain(tick))]);
  known.forEach((row, i) => {
    const y = i * step;
    marks.push(write(left, y + 14, "end", `${short(row.name)} (${row.clips})`),
      svg("rect", { x: x(0), y: y + 4, width: x(row.blend) - x(0), height: step - 8, fill: "var(--one)" }));
    if (row.single !== null) marks.push(line(x(row.single), y + 2, x(row.single), y + step - 2, "var(--two)", 3));
  });
  const spoken = known.map((row) => `${row.name} ${show(row.blend, 3)}`).join("; ");
  return plot(width, height, title, spoken || "no class can be scored", ...marks);
}

// lines: {name, colour, x: [], y: []}
function linesPlot(lines, title, below = "epoch") {
  const [left, width, height] = [52, 420, 250];
  const [xs, ys] = [lines.flatMap((one) => one.x), lines.flatMap((one) => one.y).filter((value) => value !== null)];
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const x = (value) => left + 6 + ((value - x0) / (x1 - x0 || 1)) * (width - left - 16);
  const share = (value) => (y0 === y1 ? 0.5 : (value - y0) / (y1 - y0));
  const y = (value) => height - 36 - share(value) * (height - 60);
  const marks = ticks(y0, y1).flatMap((tick) => [
    line(left, y(tick), width - 8, y(tick)), write(left - 4, y(tick) + 4, "end", plain(tick))]);
  marks.push(...ticks(x0, x1).filter(Number.isInteger).map((tick) => write(x(tick), height - 18, "middle", plain(tick))));
  marks.push(write(width / 2, height - 3, "middle", below), write(left, 14, "start", title));
  for (const one of lines) {
    const points = one.x.map((at, i) => [at, one.y[i]]).filter(([, value]) => value !== null);
    marks.push(svg("polyline", { fill: "none", stroke: one.colour, "stroke-width": 1.6, points: points.map(([a, b]) => `${x(a)},${y(b)}`).join(" ") }));
    if (points.length === 1) marks.push(svg("circle", { cx: x(points[0][0]), cy: y(points[0][1]), r: 3, fill: one.colour }));
  }
  const spoken = lines.map((one) => `${one.name}: from ${one.y[0]} to ${one.y[one.y.length - 1]}`).join("; ");
  return plot(width, height, title, spoken, ...marks);
}

function legend(items) {
  return el("ul", { class: "legend" }, ...items.map(([name, colour]) => {
    const swatch = el("span", { class: "swatch" });
    swatch.style.background = colour;
    return el("li", {}, swatch, name);
  }));
}

function curvePlots(runs) {
  const names = [...new Set(runs.map((run) => run.experiment))];
  const colour = (name) => COLOURS[names.indexOf(name) % COLOURS.length];
  const quantities = [...new Set(runs.flatMap((run) => Object.keys(run.values)))];
  const drawn = quantities.map((key) => linesPlot(runs.filter((run) => run.values[key]).map((run) => ({
    name: `${run.experiment}, fold ${run.fold}`, colour: colour(run.experiment), x: run.epoch, y: run.values[key],
  })), key));
  return [legend(names.map((name) => [name, colour(name)])), el("div", { class: "plots" }, ...drawn)];
}
