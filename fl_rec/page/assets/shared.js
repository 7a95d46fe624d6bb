"use strict";
// What the page of a run and that of several have in common.

const section = (title, sub, ...children) => el("section", {}, el("h2", {}, title), sub ? el("p", { class: "sub" }, sub) : null, ...children);
const otherLanguage = () => [" ", LANGUAGE === "zh" ? el("a", { href: "?lang=en" }, "English") : el("a", { href: "?lang=zh" }, "中文")];
const card = (...children) => el("div", { class: "card" }, ...children);
const plural = (many, one, more = `${one}s`) => (many === 1 ? `1 ${one}` : `${count(many)} ${more}`);

// The epoch whose model is kept: the chosen one, or else the last.
const keptAt = (content) => Math.max(0, content.run.best === null ? content.epochs.length - 1 : content.epochs.indexOf(content.run.best));
const figure = (content, name, client = "all") => content.figures[client]?.[name]?.[keptAt(content)] ?? null;
const nameOf = (content, client) => content.clients[client]?.name ?? `client ${client}`;
const clientsOf = (content) => Object.keys(content.figures).filter((key) => key !== "all").map(Number).sort((a, b) => a - b);

const NAMED = { train_loss: "Training loss", train_auc: "Training AUC", test_auc: "Test AUC", epsilon: "Epsilon spent" };
const titleOf = (name, k) => NAMED[name] ?? (name === "hr" ? `HR@${k}` : name === "ndcg" ? `NDCG@${k}` : name === "validation_hr" ? `Validation HR@${k}` : name === "validation_ndcg" ? `Validation NDCG@${k}` : name.replaceAll("_", " "));
const FIRST = ["hr", "ndcg", "test_auc", "train_loss"], THEN = ["validation_hr", "validation_ndcg", "epsilon"];
const loss = (value) => (Math.abs(value) < 1000 ? share(value) : number(value));
const formatOf = (name) => (name === "train_loss" ? loss : FIRST.includes(name) || name.endsWith("auc") || name.startsWith("validation") ? share : number);
const COUNTS = ["rows", "seconds", "rows_per_second", "test_users", "test_tied"];
const isTime = (name) => name.endsWith("_seconds") || name === "seconds";
const PARTS = [["train_seconds", "training", "train"], ["exchange_seconds", "exchange", "exchange"], ["wait_seconds", "waiting for others", "wait"], ["evaluation_seconds", "evaluation", "evaluate"], ["save_seconds", "saving", "save"]];
const partsOf = (content, client = null) => {
  const whose = client === null ? clientsOf(content).map(String) : [client];
  const parts = PARTS.map(([name, title, token]) => ({ name: title, token, values: content.epochs.map((_, place) => mean(whose.map((each) => content.figures[each]?.[name]?.[place] ?? null))) }));
  // Of an earlier version there is the training alone.
  if (!parts[0].values.some(known)) parts[0].values = content.epochs.map((_, place) => mean(whose.map((each) => content.figures[each]?.seconds?.[place] ?? null)));
  return parts.filter((part) => part.values.some((value) => value > 0));
};
const epochSeconds = (content, client = null) => { const parts = partsOf(content, client); return content.epochs.map((_, place) => sum(parts.map((part) => part.values[place]))); };
