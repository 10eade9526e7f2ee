// Repair of labels: a decision is what the file of corrections has for a clip: a label, '' drops it from training.
const several = data.task === "multi_label";

function joined(indices) {
  const names = indices.map((k) => data.classes[k]).sort();
  return several ? names.join("|") || "|" : names[0];
}

const quoted = (cell) => (/[",\r\n]/.test(cell) || cell !== cell.trim() ? `"${cell.replaceAll('"', '""')}"` : cell);

function repairPage() {
  document.body.classList.add("repair");
  const key = `label-repair:${data.identity}`;
  const decisions = stored(key);
  const history = [];
  const status = el("p", { class: "status", role: "status", id: "progress" });
  const note = el("p", { class: "decision", role: "alert", id: "note" });
  const auto = el("input", { type: "checkbox", id: "auto", checked: true });
  let saving = Promise.resolve();
  const list = clipList(data.clips, "doubt", extra, () => { if (auto.checked) list.play(true); });

  function extra(clip) {
    const label = decisions.get(clip.name);
    const chosen = label === undefined ? (clip.heard ? "heard" : "not heard")
      : label === "" ? "drop" : label === joined(clip.truth) ? "keep" : `change to ${label}`;
    const button = (name, act) => el("button", { type: "button", click: () => { list.go(clip); act(clip); } }, name);
    const other = el("select", { "aria-label": "another label", change: (event) => { list.go(clip); pick(clip, Number(event.target.value)); } },
      el("option", { value: "", disabled: true, selected: true }, several ? "add or remove…" : "another label…"),
      ...data.classes.map((name, k) => el("option", { value: k }, name)));
    return [el("p", { class: "decision" }, chosen), el("div", { class: "keys" }, button("keep", keep), button("change", change),
      button("drop", drop), other)];
  }
  const keep = (clip) => decide(clip, joined(clip.truth));
  const drop = (clip) => decide(clip, "");
  const change = (clip) => decide(clip, joined(clip.proposed));
  function pick(clip, k) {
    if (!several) return decide(clip, joined([k]));
    const now = decisions.get(clip.name) ?? joined(clip.truth);
    const names = new Set(now.split("|").filter((name) => name));
    if (!names.delete(data.classes[k])) names.add(data.classes[k]);
    return decide(clip, [...names].sort().join("|") || "|", false);
  }
  function decide(clip, label, next = true) {
    note.textContent = clip.heard ? "" : `${clip.name}: listen first, space plays: what was not heard is not changed`;
    if (!clip.heard) return;
    history.push([clip, decisions.get(clip.name)]);
    decisions.set(clip.name, label);
    changed();
    if (next) list.move(1);
  }
  function undo() {
    if (!history.length) return;
    const [clip, before] = history.pop();
    if (before === undefined) decisions.delete(clip.name);
    else decisions.set(clip.name, before);
    list.go(clip);
    changed();
  }
  function changed() {
    try {
      localStorage.setItem(key, JSON.stringify([...decisions]));
    } catch {
      note.textContent = "this browser keeps nothing: save the file before you close the page";
    }
    list.redraw();
    tell();
    if (data.save) saving = saving.then(send);
  }
  async function send() {
    try {
      const answer = await fetch(data.save, { method: "POST", headers: { "Content-Type": "application/json" },
        body: JSON.stringify(Object.fromEntries(decisions)) });
      if (!answer.ok) throw new Error(await answer.text());
      tell(`saved ${decisions.size}`);
    } catch (error) {
      note.textContent = `not saved: ${error.message}`;
    }
  }
  function tell(saved = "") {
    status.textContent = [`${decisions.size} of ${count(data.clips.length, "clip")} decided`, saved].filter((part) => part).join(", ");
  }
  function download() {
    if (!decisions.size) return void (note.textContent = "nothing is decided yet");
    const rows = [...new Map([...data.before, ...decisions])].map((pair) => pair.map(quoted).join(","));
    const file = new Blob([["fname,label", ...rows, ""].join("\n")], { type: "text/csv" });
    const link = el("a", { href: URL.createObjectURL(file), download: "corrections.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  const save = data.save ? null : el("button", { type: "button", id: "save", click: download }, "save corrections.csv");
  const acts = { k: keep, c: change, d: drop, u: undo };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, select, textarea")) return;
    const clip = list.current();
    const first = clip && /^[1-9]$/.test(event.key) ? clip.first[event.key - 1] : null;
    if (first) pick(clip, first[0]);
    else if (clip && Object.hasOwn(acts, event.key)) acts[event.key](clip);
    else return;
    event.preventDefault();
  });
  const kbd = (name) => el("kbd", {}, name);
  section("Likely label errors", ...data.facts.map((fact) => el("p", {}, fact)), el("p", { class: "soft" },
    kbd("k"), " keep, ", kbd("c"), " change to the likely label, ", kbd("1"), " to ", kbd("5"),
    several ? " add or remove one of the blend's first five, " : " change to one of the blend's first five, ",
    kbd("d"), " drop, ", kbd("u"), " undo"), status, el("div", { class: "status" }, save, el("label", {}, auto, " play at once")), note,
  ...list.nodes);
  tell();
  list.update();
}

// What this browser remembers, of the clips and labels that the page still has.
function stored(key) {
  try {
    const names = new Set(data.clips.map((clip) => clip.name));
    const known = (label) => label === "" || label === "|" || (several ? label.split("|") : [label]).every((name) => data.classes.includes(name));
    return new Map(JSON.parse(localStorage.getItem(key) || "[]").filter(([name, label]) => names.has(name) && known(label)));
  } catch {
    return new Map();
  }
}
