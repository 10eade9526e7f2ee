// The list of clips. Only the rows in sight are in the document, so that 10,000 scroll as 10 do.
const ORDERS = {
  wrong: ["worst first", (one, other) => other.wrong - one.wrong],
  differ: ["models disagree most", (one, other) => other.differ - one.differ],
  doubt: ["likely label error first", (one, other) => place(one) - place(other)],
  name: ["by name", (one, other) => (one.name < other.name ? -1 : one.name > other.name ? 1 : 0)],
};
const place = (clip) => (clip.doubt < 0 ? Infinity : clip.doubt);

// extra(clip): more elements of a row; moved(clip): called with the clip that the arrows reach.
function clipList(clips, start, extra = () => [], moved = () => {}) {
  const filter = { label: "", order: start, only: "", text: "", cell: null };
  const probe = el("div", { class: "clip probe" }); // as high as every row
  const space = el("div", { id: "space" }, probe);
  const list = el("div", { id: "list", role: "list", tabindex: 0, "aria-label": "clips", scroll: draw }, space);
  const number = el("span", { role: "status", id: "count" });
  const drawn = new Map();
  let [shown, current] = [[], 0];
  space.style.setProperty("--models", data.models.length);

  function matches(clip) {
    return (filter.label === "" || clip.truth.includes(Number(filter.label)))
      && (filter.only !== "doubt" || clip.doubt >= 0)
      && (filter.only !== "wrong" || !clip.truth.includes(clip.first[0][0]))
      && (filter.only !== "differ" || new Set(clip.models.map(([k]) => k)).size > 1)
      && (!filter.cell || (clip.truth[0] === filter.cell[0] && clip.first[0][0] === filter.cell[1]))
      && clip.name.toLowerCase().includes(filter.text.toLowerCase());
  }
  function update() {
    shown = clips.filter(matches).sort(ORDERS[filter.order][1]);
    current = 0;
    for (const node of drawn.values()) node.remove();
    drawn.clear();
    list.scrollTop = 0;
    const cell = filter.cell ? `: ${data.classes[filter.cell[0]]}, put first as ${data.classes[filter.cell[1]]}` : "";
    number.textContent = `${shown.length} of ${count(clips.length, "clip")}${cell}`;
    all.hidden = !filter.cell;
    draw();
  }
  function draw() {
    const height = probe.offsetHeight;
    space.style.height = `${shown.length * height}px`;
    const first = Math.max(0, Math.floor(list.scrollTop / height) - 2);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / height) + 2);
    for (const [i, node] of drawn) {
      const audio = node.querySelector("audio");
      if ((i < first || i >= last) && (!audio || audio.paused)) { node.remove(); drawn.delete(i); }
    }
    for (let i = first; i < last; i++) if (!drawn.has(i)) {
      drawn.set(i, row(shown[i], i));
      space.append(drawn.get(i));
    }
    for (const [i, node] of drawn) {
      node.style.top = `${i * height}px`;
      node.setAttribute("aria-current", i === current);
    }
  }
  function redraw() {
    const node = drawn.get(current);
    if (!node) return;
    node.querySelector(".extra").replaceChildren(...extra(shown[current]));
  }
  function row(clip, i) {
    const sure = (p) => p.toFixed(2);
    return el("article", { class: "clip", role: "listitem", "aria-posinset": i + 1, "aria-setsize": shown.length,
      pointerdown: () => { current = i; draw(); } },
    el("div", {},
      clip.picture ? el("img", { src: clip.picture, alt: `log-mel spectrogram of ${clip.name}` })
        : el("p", { class: "none" }, "no picture: --pictures gives more"),
      clip.sound ? el("audio", { src: clip.sound, controls: true, preload: "none", "aria-label": clip.name,
        play: (event) => pauseOthers(event.target),
        error: (event) => copyOf(clip, event.target), timeupdate: (event) => { if (event.target.currentTime > 0) heard(clip); } })
        : el("p", { class: "soft" }, "no sound file")),
    el("div", {},
      el("p", { class: "name", title: clip.name }, clip.name),
      el("p", {}, `label: ${labels(clip.truth)}${clip.verified ? " (verified)" : ""}`),
      clip.doubt >= 0 ? el("p", { class: "soft" }, `likely ${labels(clip.proposed)} (error ${clip.doubt + 1})`) : null,
      el("ul", { class: "models" }, ...clip.models.map(([k, p], m) => el("li", { class: "soft" }, `${data.models[m]}: ${data.classes[k]} ${sure(p)}`)))),
    el("div", {}, el("ol", { class: "first" }, ...clip.first.map(([k, p]) => {
      const bar = el("span", { class: "bar" });
      bar.style.width = `${100 * Math.max(0, Math.min(1, p))}%`;
      return el("li", { class: clip.truth.includes(k) ? "true" : null }, bar, el("span", {}, `${data.classes[k]} ${sure(p)}`));
    })), el("div", { class: "extra" }, ...extra(clip))));
  }
  function pauseOthers(playing) {
    for (const audio of list.querySelectorAll("audio")) if (audio !== playing) audio.pause();
  }
  // Where the file itself cannot be played, a short copy of it, if the page has one.
  function copyOf(clip, audio) {
    if (!clip.copy || audio.getAttribute("src") === clip.copy) return audio.replaceWith("this browser cannot play this file");
    audio.src = clip.copy;
    audio.play().catch(() => {});
    audio.after(el("p", { class: "soft" }, "a short copy: this browser cannot play the original"));
  }
  function heard(clip) {
    if (clip.heard) return;
    clip.heard = true;
    redraw();
  }
  function move(step) {
    if (!shown.length) return;
    current = Math.max(0, Math.min(shown.length - 1, current + step));
    const height = probe.offsetHeight;
    const [top, bottom] = [current * height, (current + 1) * height];
    if (top < list.scrollTop) list.scrollTop = top;
    if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
    draw();
    moved(shown[current]);
  }
  function play(again = false) {
    const audio = drawn.get(current)?.querySelector("audio");
    if (audio && (again || audio.paused)) audio.play().catch(() => {});
    else audio?.pause();
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, select, textarea, button, audio, a, summary")) return;
    const act = { " ": () => play(), ArrowDown: () => move(1), ArrowUp: () => move(-1) }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  addEventListener("resize", draw);
  const option = (value, name) => el("option", { value }, name);
  const set = (key) => (event) => { filter[key] = event.target.value; update(); };
  const all = el("button", { type: "button", hidden: true, click: () => { filter.cell = null; update(); } }, "all cells");
  const order = el("select", { id: "order", change: set("order") }, ...Object.entries(ORDERS).map(([key, [name]]) => option(key, name)));
  order.value = start;
  const only = el("select", { id: "only", change: set("only") }, option("", "all clips"), option("doubt", "likely label errors"),
    option("wrong", "blend's first is wrong"), option("differ", "models' firsts differ"));
  const label = el("select", { id: "label", change: set("label") }, option("", "every label"), ...data.classes.map((name, k) => option(String(k), name)));
  const search = el("input", { id: "search", type: "search", placeholder: "part of a name", "aria-label": "part of a name", input: set("text") });
  const form = el("form", { submit: (event) => event.preventDefault() }, el("label", {}, "order ", order), el("label", {}, "show ", only),
    el("label", {}, "label ", label), search, number, all);
  const help = el("p", { class: "soft" }, el("kbd", {}, "space"), " plays, ", el("kbd", {}, "↑"), " ", el("kbd", {}, "↓"), " move");
  return {
    nodes: [form, help, list], update, move, play, redraw, current: () => shown[current],
    choose: (i, j) => { Object.assign(filter, { cell: [i, j], label: "", only: "", text: "" });
      label.value = only.value = search.value = ""; update(); list.scrollIntoView(); list.focus({ preventScroll: true }); },
    go: (clip) => { const at = shown.indexOf(clip); if (at >= 0) { current = at; move(0); } },
  };
}
