"use strict";
// The page of one run. A section is [key, part of the content it shows, what makes its element].

const kept = { round: null, client: "all", open: new Set(), search: "" };
const details = (key, title, ...children) => el("details", {
  open: kept.open.has(key), ontoggle: (event) => (event.currentTarget.open ? kept.open.add(key) : kept.open.delete(key)),
}, el("summary", {}, title), ...children);
const facts = (pairs) => el("dl", {}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) =>
  [el("dt", {}, name), el("dd", {}, value)]));

// --- At the top ---------------------------------------------------------------------------------------------------

const head = (content) => {
  const { run } = content, strategy = content.rounds.at(-1)?.strategy;
  const told = [
    run.workers ? plural(run.workers, "client") : null, run.servers ? plural(run.servers, "server") : null,
    strategy ? ["coordinator with ", strategy] : run.coordinators ? "coordinator" : null, run.data.name ?? run.data.kind,
    run.epochs ? (content.epochs.length === run.epochs ? plural(run.epochs, "epoch") : `${content.epochs.length} of ${plural(run.epochs, "epoch")}`) : null,
    moment(run.started), known(run.seconds) ? ["took ", seconds(run.seconds)] : null,
  ];
  return el("header", {}, el("div", { class: "line" }, el("h1", {}, run.name), el("span", { class: `pill ${run.state}` }, run.state)),
    el("div", { class: "facts" }, told.filter(Boolean).map((text) => el("span", {}, text))), verdict(content));
};

const verdict = (content) => {
  const { run, popularity } = content, hr = figure(content, "hr"), at = `HR@${run.top_k}`;
  if (!known(hr)) return content.epochs.length ? null : el("p", { class: "verdict soft" }, run.state === "training" ? "Nothing has been trained yet: its figures come with the first epoch." : "No epoch was finished.");
  const parts = [`${at} is `, el("b", {}, share(hr)), ` after ${plural(content.epochs[keptAt(content)], "epoch")}`];
  if (run.best !== null) parts.push(" (chosen by the validation shards)");
  if (!popularity) return el("p", { class: "verdict" }, parts, ". The data does not say what ranking by popularity would reach.");
  const above = hr - popularity.hr;
  return el("p", { class: "verdict" }, parts, ", ", el("b", { class: above > 0 ? "good" : "bad" }, `${share(Math.abs(above))} ${above > 0 ? "above" : "below"}`),
    " ranking by popularity (", el("span", { class: "popular" }, share(popularity.hr)), ").",
    above > 0 ? null : " A list of what most people take would do as well or better: train longer, or see the documentation on ranking quality.");
};

const tiles = (content) => {
  if (!content.epochs.length) return null;
  const { run, popularity } = content, first = (name) => content.figures.all[name]?.find(known);
  const against = (name) => popularity ? el("span", { class: figure(content, name) > popularity[name] ? "good" : "bad" }, `${signed(figure(content, name) - popularity[name])} vs popularity`) : "of the test users";
  const tile = (name, value, more) => value === NONE ? null : el("div", { class: "tile" }, el("div", { class: "name" }, name), el("div", { class: "value" }, value), el("div", { class: "more" }, more));
  const worst = worstClient(content);
  return el("div", { class: "tiles" },
    tile(`HR@${run.top_k}`, share(figure(content, "hr")), against("hr")), tile(`NDCG@${run.top_k}`, share(figure(content, "ndcg")), against("ndcg")),
    tile("Test AUC", share(figure(content, "test_auc")), "of all test rows"),
    tile("Training loss", loss(figure(content, "train_loss")), `${loss(first("train_loss"))} in epoch ${content.epochs[0]}`),
    worst ? tile("Worst-served shard", share(worst.hr), nameOf(content, worst.client)) : null,
    tile("An epoch takes", seconds(mean(epochSeconds(content))), `${count(mean(content.figures.all.rows_per_second ?? []))} rows/s`));
};

// --- While it trains ----------------------------------------------------------------------------------------------

const progress = (content) => {
  if (!content.progress) return null;
  const roles = Object.entries(content.progress), states = {};
  for (const [, role] of roles) states[role.state || "not there yet"] = (states[role.state || "not there yet"] ?? 0) + 1;
  const done = roles.map(([, role]) => role).filter((role) => role.rows_of_epoch > 0);
  const epoch = Math.max(0, ...done.map((role) => role.epoch));
  const part = sum(done.map((role) => (role.epoch < epoch ? 0 : role.rows))) / (sum(done.map((role) => role.rows_of_epoch)) || 1);
  const whole = content.run.epochs ? Math.min(1, Math.max(content.epochs.length, epoch - 1 + part) / content.run.epochs) : 0;
  return section("Now", Object.entries(states).map(([state, many]) => say(`${many} ${state}`)).join(", "),
    card(el("div", { class: "row-between" }, el("b", {}, epoch ? `Epoch ${epoch} of ${content.run.epochs}` : "Starting"), el("span", { class: "soft" }, `${Math.round(100 * whole)} %`)),
      el("div", { class: "progress", role: "progressbar", "aria-valuenow": Math.round(100 * whole), "aria-valuemin": 0, "aria-valuemax": 100 }, el("i", { "--share": whole })),
      el("div", { class: "roles" }, roles.slice(0, 60).map(([name, role]) => el("div", {}, el("div", { class: "what" }, el("b", {}, name), el("span", { class: "soft" }, role.what || role.state || "not there yet")),
        role.rows_of_epoch ? el("div", { class: "progress" }, el("i", { "--share": Math.min(1, role.rows / role.rows_of_epoch) })) : null)))));
};

const failure = ({ failure: fault, epochs, run }) => fault && section(run.state === "interrupted" ? "It was interrupted" : "What went wrong", `It ended after ${plural(epochs.length, "whole epoch")}.`,
  el("div", { class: "card fault" }, el("h3", {}, [fault.role, fault.kind].filter(Boolean).join(", ") || "the job"), el("p", {}, fault.error),
    fault.tail ? el("div", { class: "after" }, details("log", ["The end of its log, ", fault.log], el("pre", {}, fault.tail))) : null));

// --- Learning -----------------------------------------------------------------------------------------------------

const named = (content) => [...new Set(Object.values(content.figures).flatMap(Object.keys))];
const curves = (content) => {
  const all = named(content), own = all.filter((name) => ![...FIRST, ...THEN, ...COUNTS, "train_auc"].includes(name) && !isTime(name));
  return [...FIRST, ...THEN, ...own].filter((name) => all.includes(name));
};
const linesOf = (content, name) => {
  const blank = content.epochs.map(() => null);
  const clients = clientsOf(content).map((client) => ({ key: String(client), name: nameOf(content, client), kind: "client", token: "client", values: content.figures[client][name] ?? blank }));
  return [...clients, { key: "all", name: "all clients", kind: "all", token: "all", values: content.figures.all?.[name] ?? blank }];
};

const drawn = new Map();
const chart = (content, name, height) => {
  const format = formatOf(name);
  const lines = linesOf(content, name), reference = content.popularity?.[name] ?? null;
  const key = `${name} ${lines.length}`;
  if (drawn.has(key)) drawn.get(key).update(content.epochs, lines, reference);
  else drawn.set(key, new Lines(titleOf(name, content.run.top_k), content.epochs, lines, { height, format, reference }));
  const { element } = drawn.get(key);
  element.dataset.figure = name;
  return element;
};

const learning = (content) => {
  if (!content.epochs.length) return null;
  const [first, ...others] = curves(content), clients = clientsOf(content);
  return section("Learning", "Each thin line is a client, measured on its own test users; the thick one is all of them together. Point at a line to follow a client through every chart, or pick one.",
    legend(["all clients", "all"], ["each client", "client"], ["the one looked at", "picked"], ...(content.popularity ? [["ranking by popularity", "popularity", "dash"]] : [])),
    clients.length <= 40 ? el("div", { class: "chips" }, clients.map((client) => el("button", { class: "chip", type: "button", "data-client": client, "aria-pressed": String(focus.picked === String(client)), onclick: () => focus.pick(String(client)) }, nameOf(content, client)))) : null,
    el("div", { class: "grid" }, first ? chart(content, first, 280) : null),
    el("div", { class: "grid three" }, others.map((name) => chart(content, name, 180))),
    el("div", { class: "after" }, details("figures", "The figures of every epoch", figuresTable(content))));
};

const figuresTable = (content) => {
  const shown = [...curves(content), "train_auc"], place = el("div");
  const fill = () => {
    const own = content.figures[kept.client] ?? content.figures.all;
    place.replaceChildren(table(
      [["epoch", (row) => content.epochs[row]], ["rows", (row) => count(own.rows?.[row])], ["seconds", (row) => fixed(2)(own.seconds?.[row])],
        ...shown.map((name) => [titleOf(name, content.run.top_k), (row) => formatOf(name)(own[name]?.[row] ?? null)])],
      content.epochs.map((_, row) => row), { kind: "figures" }));
  };
  const choice = el("select", { "aria-label": "whose figures", onchange: (event) => { kept.client = event.target.value; fill(); } },
    [["all", "all clients"], ...clientsOf(content).map((client) => [String(client), nameOf(content, client)])].map(([value, name]) => el("option", { value, selected: value === kept.client }, name)));
  fill();
  return card(el("div", { class: "row-between" }, choice), place);
};

// --- Clients ------------------------------------------------------------------------------------------------------

const served = (content) => clientsOf(content).map((client) => ({ client, hr: figure(content, "hr", client) })).filter(({ hr }) => known(hr));
const worstClient = (content) => { const all = served(content); return all.length > 1 ? all.reduce((low, each) => (each.hr < low.hr ? each : low)) : null; };
const groupName = (bounds, index) => (index + 1 < bounds.length ? `${bounds[index]} to ${bounds[index + 1] - 1}` : `${bounds[index]} or more`);
const groupsOf = (content, client = "all") => (content.groups?.[client]?.users ?? []).map((users, index) => ({
  index, users, name: groupName(content.groups.bounds, index), hr: content.groups[client].hr[index], ndcg: content.groups[client].ndcg[index] })).filter(({ users }) => users > 0);
const worstGroup = (content) => { const all = groupsOf(content).filter(({ hr }) => known(hr)); return all.length > 1 ? all.reduce((low, each) => (each.hr < low.hr ? each : low)) : null; };

const clients = (content) => {
  if (!content.clients.length) return null;
  const { clients: all, run } = content, at = `@${run.top_k}`, worst = worstClient(content), group = worstGroup(content), whole = figure(content, "hr");
  const most = (value) => Math.max(0, ...all.map((_, client) => value(client) ?? 0));
  const rows = (client) => all[client].train_rows ?? Math.max(0, ...(content.figures[client]?.rows ?? []).filter(known)), hr = (client) => figure(content, "hr", client);
  const [mostRows, mostHr] = [most(rows), Math.max(most(hr), most((client) => all[client].popularity?.hr))];
  const has = (name) => all.some((client) => known(client[name]));
  const epoch = (client) => mean(epochSeconds(content, String(client)));
  const columns = [
    ["client", (client) => nameOf(content, client), { type: "left name", sort: (client) => client }],
    ["training rows", (client) => [count(rows(client)), meter(rows(client), mostRows, { quiet: true })], { sort: rows }],
    has("users") ? ["users", (client) => count(all[client].users), { type: "wide", sort: (client) => all[client].users }] : null,
    has("common_items") ? ["items in common", (client) => fixed(3)(all[client].common_items), { type: "wide", sort: (client) => all[client].common_items }] : null,
    has("tags") ? ["taste apart", (client) => fixed(3)(all[client].tags), { type: "wide", sort: (client) => all[client].tags }] : null,
    content.epochs.length ? [`HR${at}`, (client) => [share(hr(client)), meter(hr(client), mostHr, { tick: all[client].popularity?.hr })], { sort: hr }] : null,
    content.epochs.length ? [`NDCG${at}`, (client) => share(figure(content, "ndcg", client)), { type: "wide", sort: (client) => figure(content, "ndcg", client) }] : null,
    content.epochs.length ? ["s an epoch", (client) => fixed(2)(epoch(client)), { type: "wide", sort: epoch }] : null,
  ].filter(Boolean);
  const lead = (title, who, value, more) => card(el("div", { class: "lead" }, el("span", { class: "soft" }, title), el("span", { class: "who" }, who), el("span", { class: "big" }, value), el("span", { class: "soft" }, more)));
  const apart = (value) => `${share(Math.abs(value - whole))} ${value < whole ? "below" : "above"} all together`;
  return section("Clients", "How much each holds, how far its taste is from the others', and how well the model serves its users.",
    worst || group ? el("div", { class: "grid two worst" },
      worst ? lead("Worst-served shard", nameOf(content, worst.client), share(worst.hr), `HR${at} of its ${plural(all[worst.client].test_users ?? 0, "test user")}, ${apart(worst.hr)}`) : null,
      group ? lead("Worst-served group of users", `${group.name} training items`, share(group.hr), `HR${at} of ${plural(group.users, "test user")} of all shards, ${apart(group.hr)}`) : null) : null,
    card(table(columns, all.map((_, client) => client), { kind: "clients", rowOf: (client) => ({ "data-client": client, class: focus.picked === String(client) ? "picked" : "", onclick: () => focus.pick(String(client)) }) }),
      all.some((client) => client.popularity) ? el("p", { class: "sub after" }, el("span", { class: "popular" }, "|"), " marks what ranking by popularity reaches for the client's users.") : null),
    groups(content), tastes(content));
};

const groups = (content) => {
  const all = groupsOf(content), at = `@${content.run.top_k}`;
  if (!all.length) return null;
  const most = Math.max(...all.map(({ hr }) => hr ?? 0));
  return card(el("h3", {}, "Users by how much is known of them"), el("div", { class: "after" }, table([
    ["training items of a user", ({ name }) => name, { type: "left" }], ["test users", ({ users }) => count(users)],
    [`HR${at}`, ({ hr }) => [share(hr), meter(hr, most)]], [`NDCG${at}`, ({ ndcg }) => share(ndcg), { type: "wide" }]], all, { kind: "groups" })));
};

const tastes = (content) => {
  const { tastes: told } = content;
  if (!told) return null;
  const order = told.tags.map((_, index) => index).sort((a, b) => told.shares.all[b] - told.shares.all[a]).slice(0, 18);
  const most = Math.max(1e-9, ...content.clients.flatMap((_, client) => order.map((tag) => Math.abs(Math.log((told.shares[client][tag] + 1e-4) / (told.shares.all[tag] + 1e-4))))));
  const cell = (client, tag) => {
    const own = told.shares[client][tag], apart = Math.log((own + 1e-4) / (told.shares.all[tag] + 1e-4));
    return el("i", { "--heat": `rgba(var(--${apart < 0 ? "below" : "above"}), ${(0.75 * Math.min(1, Math.abs(apart) / most)).toFixed(3)})`, title: `${(100 * own).toFixed(1)} %, all together ${(100 * told.shares.all[tag]).toFixed(1)} %` }, (100 * own).toFixed(0));
  };
  return card(el("h3", {}, "Tastes"), el("p", { class: "sub" }, "What part of a client's training interactions has a tag, in percent; blue is more than in all shards together, pink is less."),
    el("div", { class: "after" }, table([["client", (client) => nameOf(content, client), { type: "left name" }], ...order.map((tag) => [told.tags[tag], (client) => cell(client, tag)])], content.clients.map((_, client) => client), { kind: "heat" })));
};

// --- Rounds -------------------------------------------------------------------------------------------------------

const TOKENS = { JOIN: "join", WAIT: "waited", FINISH: "finish", missing: "missing" }, MOST_CELLS = 6000;
const stateIn = (round, client) => (round.missing.includes(client) ? "missing" : round.clients[client]?.[0]);
const rounds = (content) => {
  const { rounds: all, reasons, run } = content;
  if (!all.length) return null;
  const who = [...new Set(all.flatMap((round) => Object.keys(round.clients)))].map(Number).sort((a, b) => a - b);
  // The newest one that decides on an epoch.
  const newest = Math.max(0, all.findLastIndex((round) => who.some((client) => round.clients[client]?.[0] !== "FINISH")));
  const place = el("div", { class: "after" }), grid = el("div", { class: "matrix", "--rounds": all.length }), label = el("div");
  const show = (index) => {
    kept.round = index === newest ? null : index;
    const round = all[index], groups = new Map();
    for (const client of who) {
      const told = round.clients[client], joins = told?.[0] === "JOIN";
      const row = { state: stateIn(round, client) ?? NONE, passes: joins ? told[1] : null, rate: joins ? told[2] : null, why: reasons[told?.[3]] || NONE };
      const key = JSON.stringify(row);
      groups.set(key, { ...row, clients: [...(groups.get(key)?.clients ?? []), client] });
    }
    const rows = [...groups.values()], many = (state) => sum(rows.filter((row) => row.state === state).map((row) => row.clients.length));
    const told = [["JOIN", "joined"], ["WAIT", "waited"], ["FINISH", "finished"], ["missing", "did not report in time"]].filter(([state]) => many(state)).map(([state, word]) => `${many(state)} ${word}`);
    range.value = index;
    grid.querySelectorAll("[data-round]").forEach((cell) => cell.classList.toggle("on", Number(cell.dataset.round) === index));
    const when = run.epochs && round.round >= run.epochs ? " after the last epoch" : ` decided on epoch ${round.round + 1}`;
    label.replaceChildren(el("b", {}, `Round ${round.round}`), el("span", { class: "soft" }, when, ": ", told.map(say).join(", "), "; it took ", seconds(round.seconds)));
    place.replaceChildren(table([
      [who.length === 1 ? "client" : "clients", (row) => row.clients.map((client) => nameOf(content, client)).join(", "), { type: "left wrap" }],
      ["", (row) => row.state, { type: "left" }], ["passes", (row) => fixed(2)(row.passes)], ["rate ×", (row) => number(row.rate), { type: "wide" }],
      ["why", (row) => row.why, { type: "left wrap" }]], rows, { kind: "round" }));
  };
  const range = el("input", { type: "range", min: 0, max: all.length - 1, "aria-label": "round", oninput: () => show(Number(range.value)) });
  if (who.length * all.length <= MOST_CELLS) {
    const step = Math.ceil(all.length / 12);
    who.forEach((client) => grid.append(el("span", { class: "who" }, nameOf(content, client)), ...all.map((round, index) => {
      const state = stateIn(round, client) ?? "not asked", title = `${nameOf(content, client)}, round ${round.round}: ${state}`;
      return el("button", { type: "button", tabindex: -1, "data-round": index, title, "aria-label": title, "--c": `var(--${TOKENS[state] ?? "wash"})`, onclick: () => show(index) });
    })));
    grid.append(el("span", { class: "who faint" }, "round"), ...all.map((round, index) => el("span", { class: "number", "data-round": index }, index % step ? "" : round.round)));
  }
  const there = new Set(all.flatMap((round) => who.map((client) => stateIn(round, client))));
  show(Math.min(kept.round ?? newest, all.length - 1));
  return section("Rounds", ["Who joined and who waited, as ", all.at(-1).strategy, " decided before each epoch, and why."],
    card(legend(...[["joined", "join", "JOIN"], ["waited", "waited", "WAIT"], ["finished", "finish", "FINISH"], ["no report in time", "missing", "missing"]].filter(([, , state]) => there.has(state)).map(([name, token]) => [name, token, "box"])),
      grid.children.length ? el("div", { class: "scroll after" }, grid) : null, el("div", { class: "row-between after" }, label, all.length > 1 ? range : null), place));
};

// --- Time ---------------------------------------------------------------------------------------------------------

const time = (content) => {
  const parts = partsOf(content);
  if (!parts.length) return null;
  const whole = [...(known(content.run.start_seconds) ? [["start", "start", content.run.start_seconds]] : []), ...parts.map((part) => [part.name, part.token, sum(part.values)])];
  const rest = known(content.run.seconds) ? content.run.seconds - sum(whole.map(([, , value]) => value)) : 0;
  if (rest > 0.05) whole.push(["the rest", "other", rest]);
  const key = `time ${parts.length}`;
  if (drawn.has(key)) drawn.get(key).update(content.epochs, parts);
  else drawn.set(key, new Columns("Each epoch, in seconds", content.epochs, parts));
  const together = sum(whole.map(([, , value]) => value));
  return section("Time", "Where it goes: the mean over the clients, who work side by side.",
    card(el("div", { class: "chart-head" }, el("h3", {}, "The whole run"), el("span", { class: "soft" }, seconds(together))),
      el("div", { class: "bar", role: "img", "aria-label": whole.map(([name, , value]) => `${say(name)} ${say(seconds(value))}`).join(", ") }, whole.map(([name, token, value]) => el("i", { "--c": `var(--${token})`, "--share": value / (together || 1), title: `${say(name)}: ${say(seconds(value))}` }))),
      el("div", { class: "after" }, legend(...whole.map(([name, token, value]) => [[name, " ", seconds(value)], token, "box"])))),
    el("div", { class: "grid" }, drawn.get(key).element));
};

// --- What was configured ------------------------------------------------------------------------------------------

const extras = (content) => {
  const { distillation: taught, compression, privacy, run } = content, cards = [];
  if (privacy) cards.push(card(el("h3", {}, "Privacy spent"), el("p", { class: "big" }, known(privacy.epsilon) ? [el("b", {}, `ε = ${privacy.epsilon.toPrecision(3)}`), ` at δ = ${number(privacy.delta)}`] : "No guarantee without noise."),
    facts([["exchanges paid for", count(privacy.exchanges)], ["noise multiplier", number(privacy.noise_multiplier)], ["clipped to", number(privacy.clip)], ["a user's chance", known(privacy.users_per_exchange) ? `${number(privacy.users_per_exchange)} an exchange` : null]])));
  if (taught) cards.push(card(el("h3", {}, "Distillation"), facts([["strategy", taught.strategy], ["public interactions a round", count(taught.positives)], ["temperature", number(taught.temperature)], ["weight of the loss", number(taught.weight)],
    ["students that differ", Object.entries(taught.students).map(([client, net]) => `${client}: ${JSON.stringify(net)}`).join("; ") || null], ["options", JSON.stringify(taught.options)],
    ["reports in all", bytes(sum(content.rounds.map((round) => round.sent)))], ["answers in all", bytes(sum(content.rounds.map((round) => round.received)))]])));
  if (compression) cards.push(card(el("h3", {}, "Compression"), facts([["arrays of reports travel as", compression.reports]]),
    compression.models.length ? table([["model", (model) => model.folder, { type: "left name" }], ["how", (model) => [model.bits ? `${model.bits} bits` : null, model.prune ? `${100 * model.prune} % pruned` : null].filter(Boolean).join(", "), { type: "left" }],
      ["size", (model) => `${bytes(model.before?.bytes)} → ${bytes(model.after?.bytes)}`], [`HR@${run.top_k}`, (model) => `${share(model.before?.hr)} → ${share(model.after?.hr)}`]], compression.models) : null));
  if (run.private.length) cards.push(card(el("h3", {}, "What stays with the clients"), el("p", { class: "sub" }, "Parameters that are never sent, by name:"), el("p", {}, run.private.map((name) => [el("code", {}, name), name === "*" ? " (all of them) " : " "]))));
  return cards.length ? section("Beyond plain training", null, el("div", { class: "grid two" }, cards)) : null;
};

const notes = (content) => content.notes.length ? section("Notes", "What happened, or is worth knowing, beside the figures.", card(el("ul", { class: "notes" }, content.notes.map((note) => el("li", {}, note))))) : null;

const configuration = (content) => {
  const { configuration: keys, run } = content, code = (value) => (value === null ? NONE : el("code", {}, value));
  const columns = (more) => [["key", (key) => el("code", {}, key.name), { type: "left wrap" }], ["value", (key) => code(key.value), { type: "left wrap" }], ["default", (key) => code(key.default), { type: "left wrap wide" }], ...more];
  const changed = keys.filter((key) => key.changed), place = el("div");
  const fill = () => place.replaceChildren(table(columns([["meaning", (key) => key.meaning, { type: "left wrap wide" }]]), keys.filter((key) => `${key.name} ${key.meaning}`.toLowerCase().includes(kept.search.toLowerCase()))));
  const search = el("input", { type: "search", placeholder: "find a key", "aria-label": "find a key", oninput: () => { kept.search = search.value; fill(); } });
  search.value = kept.search;
  fill();
  const versions = Object.entries(run.versions ?? {}).filter(([, version]) => version).map(([name, version]) => `${name} ${version}`).join(", ");
  return section("Configuration", "What differs from the defaults.",
    keys.length ? card(table(columns([]), changed, { kind: "changed" }), el("div", { class: "after" }, details("keys", `All ${keys.length} keys`, el("div", { class: "row-between" }, search), place))) : card("Its configuration is another version's, and can't be read."),
    card(facts([["command", run.command ? el("code", {}, run.command) : null], ["started", moment(run.started)], ["ended", moment(run.ended)], ["versions", versions], ["data", [run.data.name ?? run.data.kind, run.data.folder].filter(Boolean).join(", ")],
      ["data's checksum", run.data.checksum ? el("code", {}, run.data.checksum) : null], ["model", run.model ? el("code", {}, run.model) : null]])));
};

// --- All of it ----------------------------------------------------------------------------------------------------

const learned = (content) => [content.epochs, content.figures, content.popularity, content.clients, content.run.top_k, content.run.best];
const SECTIONS = [
  ["head", (content) => [content.run, content.epochs, content.figures.all, content.popularity, content.rounds.at(-1)], head],
  ["progress", (content) => [content.progress, content.run.epochs, content.epochs], progress],
  ["failure", (content) => [content.failure, content.epochs, content.run.state], failure],
  ["tiles", learned, tiles],
  ["learning", learned, learning],
  ["clients", (content) => [learned(content), content.groups, content.tastes], clients],
  ["rounds", (content) => [content.rounds, content.reasons, content.clients], rounds],
  ["time", (content) => [content.epochs, content.figures, content.run.seconds, content.run.start_seconds], time],
  ["extras", (content) => [content.privacy, content.distillation, content.compression, content.run.private], extras],
  ["notes", (content) => content.notes, notes],
  ["configuration", (content) => [content.configuration, content.run], configuration],
];
const seen = new Map(), places = new Map();

const show = (content) => {
  document.title = `${content.run.name} · fl_rec`;
  for (const [key, part, make] of SECTIONS) {
    const now = JSON.stringify(part(content));
    if (seen.get(key) === now) continue;
    seen.set(key, now);
    places.get(key).replaceChildren(...[make(content)].filter(Boolean));
  }
  focus.tell();
};

focus.listeners.add(() => {
  document.querySelectorAll(".chip").forEach((chip) => chip.setAttribute("aria-pressed", String(chip.dataset.client === focus.picked)));
  document.querySelectorAll("tr[data-client]").forEach((row) => row.classList.toggle("picked", row.dataset.client === focus.picked));
});

const page = document.getElementById("page");
for (const [key] of SECTIONS) { places.set(key, el("div", { id: key })); page.append(places.get(key)); }
const said = el("span", {}, "Written by fl_rec. This page needs no network.");
page.append(el("footer", {}, said, otherLanguage()));
show(JSON.parse(document.getElementById("content").textContent));

// Served by the job itself: its content is asked for again, and a version that is here already has no answer.
const EVERY = 500;
let version = null, silent = 0;
const follow = async () => {
  try {
    const answer = await fetch("content.json", { headers: version ? { "If-None-Match": version } : {}, cache: "no-store" });
    silent = 0;
    if (answer.status === 200) {
      const content = await answer.json();
      version = answer.headers.get("ETag");
      show(content);
      said.textContent = say(content.run.state === "training" ? "Live: it follows the job without a reload." : "The job has ended. To keep this page: fl-rec report");
      if (content.run.state !== "training") return;
    }
  } catch {
    silent += 1;
    if (silent > 10) { said.textContent = say("The job gives no answer any more: it has ended. To see all of it: fl-rec report"); return; }
  }
  setTimeout(follow, EVERY);
};
if (document.documentElement.dataset.live !== undefined) follow();
