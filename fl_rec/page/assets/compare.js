"use strict";
// The page of several runs beside each other.

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", COLOURS = 8;
const { runs } = JSON.parse(document.getElementById("content").textContent);
const token = (index) => `run-${index % COLOURS}`;
const badge = (index) => el("span", { class: "badge", "--c": `var(--${token(index)})` }, LETTERS[index]);
const tops = new Set(runs.map(({ run }) => run.top_k)), at = tops.size === 1 ? `@${[...tops][0]}` : "@K";
const change = (value) => (Math.abs(value) < 1000 ? signed(value) : (value < 0 ? MINUS : "+") + number(Math.abs(value)));
const alike = (values) => values.every((value) => value === values[0]);

const head = () => el("header", {}, el("h1", {}, `${runs.length} runs beside each other`), el("p", { class: "verdict" }, verdict()));

const verdict = () => {
  const reached = runs.map((content, index) => ({ index, hr: figure(content, "hr") })).filter(({ hr }) => known(hr)).sort((a, b) => b.hr - a.hr);
  if (reached.length < 2) return "Fewer than two of them have been evaluated.";
  const [best, second] = reached, checksums = runs.map(({ run }) => run.data.checksum).filter(Boolean);
  const told = best.hr === second.hr ? ["The first two have the same HR", at, ", ", el("b", {}, share(best.hr)), "."]
    : [badge(best.index), " has the highest HR", at, ", ", el("b", {}, share(best.hr)), `, ${share(best.hr - second.hr)} above `, badge(second.index), "."];
  return checksums.length > 1 && !alike(checksums) ? [told, " They were not trained on the same data, so figures can't be set against each other."] : told;
};

const overview = () => {
  const base = (name) => figure(runs[0], name);
  const column = (name, title, format = share, type = "") => [title, (index) => {
    const value = figure(runs[index], name);
    return [format(value), index && known(value) && known(base(name)) ? el("div", { class: "change faint" }, change(value - base(name))) : null];
  }, { type, sort: (index) => figure(runs[index], name) }];
  return section("Figures", "Of the epoch that each keeps; below them by how much they differ from A's.", card(table([
    ["", badge, { type: "left" }], ["run", (index) => [runs[index].run.name, el("div", { class: "faint" }, `${runs[index].run.state}, ${plural(runs[index].epochs.length, "epoch")}`)], { type: "left wrap" }],
    column("hr", `HR${at}`), column("ndcg", `NDCG${at}`), column("test_auc", "Test AUC", share, "wide"), column("train_loss", "Training loss", loss, "wide"),
    ["above popularity", (index) => signed(figure(runs[index], "hr") - (runs[index].popularity?.hr ?? NaN)), { type: "wide" }],
    ["s an epoch", (index) => fixed(2)(mean(epochSeconds(runs[index]))), { type: "wide", sort: (index) => mean(epochSeconds(runs[index])) }],
  ], runs.map((_, index) => index), { kind: "figures" })));
};

const learning = () => {
  const epochs = [...new Set(runs.flatMap((content) => content.epochs))].sort((a, b) => a - b);
  const names = [...FIRST, ...THEN].filter((name) => runs.filter((content) => content.figures.all?.[name]).length);
  const references = new Set(runs.map((content) => content.popularity?.hr ?? null)), same = references.size === 1 ? runs[0].popularity : null;
  const drawn = names.map((name, place) => {
    const lines = runs.map((content, index) => ({ key: `run ${index}`, name: `${LETTERS[index]} ${content.run.name}`, kind: "run", token: token(index), values: epochs.map((epoch) => content.figures.all?.[name]?.[content.epochs.indexOf(epoch)] ?? null) }));
    return new Lines(titleOf(name, at.slice(1)), epochs, lines, { height: place ? 180 : 280, format: formatOf(name), reference: same?.[name] ?? null }).element;
  });
  return section("Learning", "All clients of each run together.", legend(...runs.map((content, index) => [`${LETTERS[index]} ${content.run.name}`, token(index)]), ...(same ? [["ranking by popularity", "popularity", "dash"]] : [])),
    el("div", { class: "grid" }, drawn[0]), el("div", { class: "grid three" }, drawn.slice(1)));
};

const configurations = () => {
  const values = new Map();
  runs.forEach((content, index) => content.configuration.forEach((key) => values.set(key.name, (values.get(key.name) ?? runs.map(() => null)).with(index, key.value))));
  values.delete("runner.run_dir");  // which names the run itself
  const differ = [...values].filter(([, each]) => !alike(each));
  return section("Configuration", `In what they differ; the other ${values.size - differ.length} keys are alike.`, card(differ.length ? table([
    ["key", ([name]) => el("code", {}, name), { type: "left wrap" }], ...runs.map((_, index) => [badge(index), ([, each]) => [el("span", { class: "narrow" }, badge(index), " "), each[index] === null ? NONE : el("code", {}, each[index])], { type: "left wrap" }])], differ, { kind: "changed" }) : "Their configurations are alike."));
};

const clients = () => {
  const many = runs.map((content) => content.clients.length);
  if (!alike(many) || many[0] < 2 || many[0] > 200) return null;
  return section("Clients", `HR${at} of each client's test users; the best of a line is bold.`, card(table([
    ["client", (client) => nameOf(runs[0], client), { type: "left name" }],
    ...runs.map((content, index) => [badge(index), (client) => {
      const value = figure(content, "hr", client), best = Math.max(...runs.map((each) => figure(each, "hr", client) ?? -1));
      return el(value === best ? "b" : "span", {}, share(value));
    }])], runs[0].clients.map((_, client) => client), { kind: "clients" })));
};

const time = () => {
  const totals = runs.map((content) => [...(known(content.run.start_seconds) ? [["start", "start", content.run.start_seconds]] : []), ...partsOf(content).map((part) => [part.name, part.token, sum(part.values)])]);
  const most = Math.max(0, ...totals.map((parts) => sum(parts.map(([, , value]) => value))));
  if (!most) return null;
  const named = new Map(totals.flat().map(([name, part]) => [name, part]));
  return section("Time", "Where it went: the mean over the clients of each run.", card(legend(...[...named].map(([name, part]) => [name, part, "box"])),
    ...totals.map((parts, index) => {
      const whole = sum(parts.map(([, , value]) => value));
      return el("div", { class: "after" }, el("div", { class: "chart-head" }, badge(index), el("span", { class: "soft" }, seconds(whole))),
        el("div", { class: "bar" }, parts.map(([name, part, value]) => el("i", { "--c": `var(--${part})`, "--share": value / most, title: `${say(name)}: ${say(seconds(value))}` })), el("i", { "--c": "transparent", "--share": 1 - whole / most })));
    })));
};

document.getElementById("page").append(...[head(), overview(), learning(), configurations(), clients(), time(), el("footer", {}, "Written by fl_rec. This page needs no network.", otherLanguage())].filter(Boolean));
