function reportPage() {
  for (const part of data.facts) page.append(el("p", {}, part));
  if (data.expected) section("What to expect", el("p", {}, data.expected));
  if (data.methods) {
    section("Models and methods", el("p", { class: "soft" }, data.score_note), sortable([
      text("name", "name"), text("kind", "kind"), number("weight", "weight", 3), number(data.metric, "score"),
      number("from", "low"), number("to", "high"), number("fitted", "fitted"), number("to the best single", "gain"),
    ], data.methods, (row) => row.chosen), legend([["chosen", "var(--two)"], ["the others, with 95 % interval", "var(--one)"]]),
    intervalsPlot(data.methods, `${data.metric} of every model and method`));
    section("Classes", el("p", { class: "soft" }, data.class_note), sortable([
      text("class", "name"), number("clips", "clips", 0), number("blend", "blend", 3), number("best single", "single", 3),
      ...(data.by_class.some((row) => row.offset !== null) ? [number("offset", "offset", 2)] : []),
    ], data.by_class), legend([["blend", "var(--one)"], ["best single model", "var(--two)"]]), classPlot(data.by_class, data.class_note));
  }
  if (data.methods && data.models.length > 1) section("Models that err alike", el("p", { class: "soft" }, data.alike_note), correlationTable(data.alike));
  if (data.methods && data.greedy.length > 1) section("Greedy selection", el("p", { class: "soft" }, "Each step adds the model that helps most; first added: ",
    [...new Set(data.greedy.map(([name]) => name))].map((name) => `${name} at step ${data.greedy.findIndex(([one]) => one === name) + 1}`).join(", ")), el("div", { class: "plots" }, linesPlot([{ name: `fitted ${data.metric}`, colour: "var(--one)",
    x: data.greedy.map((_, i) => i + 1), y: data.greedy.map(([, score]) => score) }], `fitted ${data.metric}`, "step")));
  if (data.methods && data.unverified.length) section("Noisy labels", el("p", { class: "soft" }, "Log-linear pool, by the weight of unverified rows in the fit."),
    sortable([number("weight", "weight", 2), number(data.metric, "score")], data.unverified));
  if (data.experiments.length) section("Experiments", experimentsTable(data.experiments));
  if (data.curves.length) section("Training of every run", ...curvePlots(data.curves));
  if (!data.clips) return;
  const clips = clipList(data.clips, "wrong");
  if (data.confusion) section("Confusion matrix", el("p", { class: "soft" }, "Rows: true class; columns: what the blend puts first. Choose a number to list its clips."),
    confusionTable(data.confusion, clips.choose));
  section("Clips", ...clips.nodes);
  clips.update();
}

if (data.mode === "repair") repairPage();
else reportPage();
