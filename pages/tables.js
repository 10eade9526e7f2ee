// A table whose headers sort it. columns: {title, value(row), text(row), isText}; the first click puts the largest first.
function sortable(columns, rows, isChosen = () => false) {
  const body = el("tbody");
  const headers = columns.map((column) =>
    el("th", { scope: "col", "aria-sort": "none", class: column.isText ? "text" : null }, el("button", { type: "button", click: () => sort(column) }, column.title)));
  function sort(column) {
    const at = headers[columns.indexOf(column)];
    const down = at.getAttribute("aria-sort") !== "descending" && !(column.isText && at.getAttribute("aria-sort") === "none");
    headers.forEach((header) => header.setAttribute("aria-sort", "none"));
    at.setAttribute("aria-sort", down ? "descending" : "ascending");
    const missing = (value) => value === null || value === undefined;
    draw([...rows].sort((one, other) => {
      const [a, b] = [column.value(one), column.value(other)];
      if (missing(a) || missing(b)) return missing(a) - missing(b); // last, whatever the order
      const order = column.isText ? a.localeCompare(b) : a - b;
      return down ? -order : order;
    }));
  }
  function draw(ordered) {
    body.replaceChildren(...ordered.map((row) => el("tr", { class: isChosen(row) ? "chosen" : null },
      ...columns.map((column) => el("td", { class: column.isText ? "text" : null },
        column.text ? column.text(row) : String(column.value(row)))))));
  }
  draw(rows);
  return el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...headers)), body));
}

const text = (title, key) => ({ title, value: (row) => row[key], isText: true });
const number = (title, key, digits = 4) => ({ title, value: (row) => row[key], text: (row) => show(row[key], digits) });

function experimentsTable(rows) {
  return sortable([
    text("experiment", "name"), text("folds", "folds"), text("metric", "metric"),
    number("mean of folds", "score"), number("standard error", "error"), number("seconds", "seconds", 0),
    { title: "parameters", value: (row) => row.parameters, text: (row) => row.parameters === null ? "" : row.parameters.toLocaleString("en") },
    { title: "differs from the defaults by", value: (row) => row.differs.join("; "), isText: true },
  ], rows);
}

function heat(cell, share, rgb = "var(--rgb)") {
  cell.style.backgroundColor = `rgb(${rgb} / ${0.1 + 0.6 * Math.sqrt(Math.max(0, share))})`;
  return cell;
}

function correlationTable(matrix) {
  const row = (name, values) => el("tr", {}, el("th", { scope: "row" }, name), ...values.map((value) => heat(el("td", {}, show(value, 2)), value ** 2)));
  return el("div", { class: "wide" }, el("table", { class: "confusion" }, el("thead", {}, el("tr", {}, el("th"),
    ...data.models.map((name) => el("th", { scope: "col" }, el("div", {}, name))))),
  el("tbody", {}, ...matrix.map((values, m) => row(data.models[m], values)))));
}

function confusionTable(matrix, choose) {
  const names = data.classes;
  const head = el("tr", {}, el("th", {}, "true \\ first"),
    ...names.map((name) => el("th", { scope: "col" }, el("div", {}, name))));
  const rows = matrix.map((row, i) => {
    const all = Math.max(1, row.reduce((sum, n) => sum + n, 0));
    return el("tr", {}, el("th", { scope: "row" }, names[i]), ...row.map((n, j) => {
      if (!n) return el("td");
      const cell = el("td", {}, el("button", {
        type: "button", "aria-label": `${count(n, "clip")} of ${names[i]}, put first as ${names[j]}: list ${n === 1 ? "it" : "them"}`, click: () => choose(i, j),
      }, String(n)));
      return heat(cell, n / all, i === j ? "var(--rgb)" : "221 107 32");
    }));
  });
  return el("div", { class: "wide" }, el("table", { class: "confusion" }, el("thead", {}, head), el("tbody", {}, ...rows)));
}
