"""What a run leaves, and what is sent: records, models, parts, exports, checkpoints, policies, messages."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fl_rec import environment
from fl_rec.api import Run
from fl_rec.coordinator import rounds, simulation, wire
from fl_rec.coordinator.messages import ClientReport, Decision, Device, check_fields
from fl_rec.coordinator.process import Address
from fl_rec.coordinator.strategies import ddpg_agent
from fl_rec.data import catalogue
from fl_rec.errors import DataError
from fl_rec.evaluation.metrics import ALL
from fl_rec.job.hosts.messages import Answer, Begin, Hello, Report, Verdict, Word, decode, encode, status_taken_in
from fl_rec.nets.structure import Structure
from fl_rec.page.content import content_of
from fl_rec.page.render import run_page
from fl_rec.runs import activity, private_parts, roles, training_state
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.renumber import COUNTED
from fl_rec.runs.result import Began, Data, RunResult, Versions, result_of
from fl_rec.runs.saved import SavedModel
from tests.fuzzing.base import (
    ITEMS,
    SHARDS,
    USERS,
    given,
    ids_are_below,
    lines,
    npz,
    prepared,
    reader,
    sound,
    trained_rows,
)
from tests.fuzzing.jobs import a_job, configured
from tests.fuzzing.mutations import Files


def record(client: Any, epoch: int) -> dict[str, Any]:
    return {
        **{"epoch": epoch, "client": client, "rows": 40, "seconds": 0.5, "rows_per_second": 80.0, "train_loss": 0.5},
        **{"train_auc": 0.7, "test_auc": 0.7, "test_users": 6, "test_tied": 0, "hr": 0.5, "ndcg": 0.25, "top_k": 10},
    }


def messages() -> tuple[ClientReport, Decision]:
    logits = np.arange(8, dtype=np.float16).reshape(4, 2)
    report = ClientReport(1, 2, 40, 40, 0.5, 0.5, 0.7, 0.7, 0.5, 0.2, 6, Device("phone", 0.5, 1e6), 10, 20)
    report = ClientReport(**{**vars(report), "extra": {"logits": logits, "x": 0.5}})
    return report, Decision("JOIN", 0.5, 1.0, "because", {"soft": np.ones((3, 2), np.float32)})


def a_run() -> Files:
    report, decision = messages()
    records = [record(client, epoch) for epoch in (1, 2, 3) for client in (0, 1, ALL)]
    said = [rounds.Round(n, "join_all", {1: report}, {0: decision, 1: decision}, (0,), 0.5) for n in range(2)]
    status = {"role": "worker.0", "pid": 1, "state": "done", "error": "", "times": {"starting": 1.0, "done": 2.0}}
    with tempfile.TemporaryDirectory() as name:
        roles.write_status(Path(name), "worker.0", "done")
        status = json.loads((Path(name) / "worker.0.json").read_text())
    address = {"endpoint": "127.0.0.1:1", "workers": 2, "token": "ab"}
    return {
        "metrics.jsonl": "".join(json.dumps(each) + "\n" for each in records).encode(),
        "rounds.jsonl": "".join(each.to_json() + "\n" for each in said).encode(),
        "result.json": json.dumps(a_result(records).to_json()).encode(),
        "roles/worker.0.json": json.dumps(status).encode(),
        "coordinator/address.json": json.dumps(address).encode(),
        "config.yaml": a_job()["job.yaml"],
        "model/3/rec_static.pdmodel": b"model",
        "model/3/model.json": json.dumps(signature()).encode(),
        "model/3/private/0.npz": b"none",
    }


def a_result(records: list[dict[str, Any]]) -> RunResult:
    versions, data = Versions("0.1.0", "3.0.0", "3.11.0"), Data("../data", "0" * 64)
    began = Began("2026-01-01T00:00:00+00:00", 1.0, "fl-rec run", versions, data, {"hr@10": 0.4, "ndcg@10": 0.2})
    totals = [each for each in records if each["client"] == ALL]
    return result_of("done", Path("/run"), began, totals, 2, model="/run/model/3", workers=2)


def signature() -> dict[str, Any]:
    return {
        **{
            "feeds": ["user_input", "item_input"],
            "private": ["user_emb"],
            "paddle": "3.0.0",
            **COUNTED,
            "epoch": 3,
            "client": 0,
        },
        **{"config": configured().to_dict(), "public_users": [1, 2], "mappings": {"users.csv": "0" * 64}},
        "structure": Structure.from_record(
            {"product": ["u", "i"], "mlp": None, "layers": [], "prediction": ["w", "b"], "bias": "c"}
        ).to_record(),
        "ids": {"users": USERS, "items": ITEMS, "sha256": {}},
    }


@reader(a_run, 12)
def run(folder: Path) -> None:
    whole = Run(folder)
    for each in whole.metrics:
        sound(isinstance(each.epoch, int) and each.epoch >= 1, f"epoch {each.epoch!r}")
        sound(each.client == ALL or (type(each.client) is int and each.client >= 0), f"client {each.client!r}")
        for name in ("rows", "test_users", "top_k", "test_tied"):
            sound(type(getattr(each, name)) is int and getattr(each, name) >= 0, f"{name} {getattr(each, name)!r}")
        for name in ("seconds", "train_loss", "train_auc", "test_auc", "hr", "ndcg", "validation_hr", "epsilon"):
            sound(type(getattr(each, name)) in (int, float), f"{name} {getattr(each, name)!r}")
        for name in ("train_auc", "test_auc", "hr", "ndcg"):
            sound(math.isnan(getattr(each, name)) or 0 <= getattr(each, name) <= 1, f"{name} {getattr(each, name)!r}")
    result = whole.result
    sound(result.state in ("done", "failed", "interrupted") and isinstance(result.epochs, list), "result")
    for name, kind in (("model", str), ("error", str), ("workers", int), ("seconds", (int, float)), ("best", dict)):
        sound(result[name] is None or (type(result[name]) is not bool and isinstance(result[name], kind)), name)


@reader(a_run, 8)
def page(folder: Path) -> None:
    content = content_of(RunDirectory(folder))
    shown = run_page(content)
    inside = re.search(r'id="content">(.*?)</script>', shown, re.DOTALL)
    sound(inside is not None and json.loads(inside[1]) == content, "the content of the page")
    sound(shown.count("<script") == shown.count("</script") == 2 and "<!--" not in shown, "markup")
    lengths = {len(each) for columns in content["figures"].values() for each in columns.values()}
    sound(lengths <= {len(content["epochs"])}, "figures")


@reader(a_run, 8)
def run_of_coordinator(folder: Path) -> None:
    directory = RunDirectory(folder)
    for each in rounds.RoundLog(directory.rounds):
        sound(type(each.round) is int and each.round >= 0 and isinstance(each.strategy, str), "round")
        sound(all(type(client) is int for client in (*each.missing, *each.reports, *each.decisions)), "clients")
        sound(type(each.seconds) in (int, float) and each.seconds >= 0, "seconds")
        each.table(3)
    for reports in rounds.recorded_reports(directory):
        for client, report in reports.items():
            sound(type(client) is int and report.rows >= 0 and report.seconds >= 0, "report")
    address = Address.read(directory)
    if address is not None:
        sound(isinstance(address.token, str) and isinstance(address.endpoint, str), "address")
        sound(type(address.workers) is int and 0 < address.workers < 10**6, "workers")
    for name, status in roles.read_statuses(directory.roles).items():
        sound(name == status.role and type(status.pid) is int and status.pid > 0, "pid")
        sound(isinstance(status.state, str) and isinstance(status.error, str), "state")
        sound(math.isfinite(status.time), "time")
        status.process()


@reader(
    lambda: {"metrics.jsonl": b"".join(json.dumps(record(c, e)).encode() + b"\n" for e in (1, 2, 3) for c in range(2))}
)
def recording(folder: Path) -> None:
    found = simulation.Recording.read(folder / "metrics.jsonl")
    sound(all(np.isfinite(curve).all() for curve in found.curves.values()), "curves")
    sound(math.isfinite(found.seconds_per_row) and found.seconds_per_row >= 0, "seconds")
    sound((found.rows > 0).all() and (found.test_users >= 0).all(), "rows")


@reader(a_run, 8)
def saved_model(folder: Path) -> None:
    saved = SavedModel.open(folder / "model" / "3")
    sound(saved.epoch is None or (type(saved.epoch) is int and saved.epoch >= 0), f"epoch {saved.epoch!r}")
    sound(saved.client is None or (type(saved.client) is int and saved.client >= 0), f"client {saved.client!r}")
    sound(all(type(each) is int and each >= 0 for each in saved.clients), "clients")
    if "structure" in saved.signature:
        structure = Structure.from_record(saved.signature["structure"])
        sound(all(isinstance(name, str) for name in structure.names), "structure")
    saved.config()
    saved.metrics()
    SavedModel.open(folder)


# -- parts and exports ------------------------------------------------------------------------------------------


def parts() -> Files:
    rng = np.random.default_rng(1)
    return {
        f"{k}.npz": npz(
            {
                "user_emb/rows": np.arange(k, USERS, SHARDS),
                "user_emb/values": rng.normal(size=(USERS // SHARDS, 4)).astype("f4"),
                **({"bias/values": rng.normal(size=4).astype("f4")} if k == 0 else {}),
            }
        )
        for k in range(SHARDS)
    }


@reader(parts, 6)
def private_part(folder: Path) -> None:
    files = sorted(folder.rglob("*.npz"))
    loaded = [private_parts.load(path) for path in files]
    whole = {"user_emb": np.zeros((USERS, 4), np.float32), "bias": np.zeros(4, np.float32)}
    joined = private_parts.join(loaded, whole)
    for name, values in joined.items():
        sound(values.shape == whole[name].shape and values.dtype == np.float32, f"{name} {values.shape} {values.dtype}")
        sound(np.isfinite(values).all(), f"{name} is not finite")


def exported() -> Files:
    users, positives = (
        np.arange(USERS),
        [sorted({i for u, i, _ in trained_rows() if u == user}) for user in range(USERS)],
    )
    arrays = {
        "indptr": np.cumsum([0, *map(len, positives)]),
        "items": np.concatenate(positives).astype(np.int32),
    }
    files: Files = {
        "items.csv": prepared()["items.csv"],
        "users.csv": lines(",", ((u, u + 1) for u in users), "user,original_id\n"),
        "history.npz": npz(arrays),
    }
    return {**files, "model.json": json.dumps({**signature(), "ids": checksums(files)}).encode()}


def checksums(files: Files) -> dict[str, Any]:
    names = ("items.csv", "users.csv", "history.npz")
    found = {name: hashlib.sha256(files[name]).hexdigest() for name in names if isinstance(files.get(name), bytes)}  # type: ignore[arg-type]
    return {"users": USERS, "items": ITEMS, "sha256": found}


def seal_export(files: Files) -> None:
    try:
        content = json.loads(files["model.json"])  # type: ignore[arg-type]
        content["ids"] = checksums(files)
        files["model.json"] = json.dumps(content).encode()
    except Exception:
        pass


@reader(exported, 10, seal_export)
def export(folder: Path) -> None:
    (folder / "rec_static.pdmodel").write_bytes(b"model")
    saved = SavedModel.open(folder)
    if not saved.exported:
        return
    found = catalogue.Catalogue.read(saved.folder, saved.signature["ids"].get("sha256", {}))
    items = len(found.items.title)
    ids_are_below(found.users, 10**8, "users")
    sound(len(set(found.users.tolist())) == len(found.users) == len(found.original_users), "users")
    sound(len(found.items.tags) == len(found.items.original_id) == items, "items")
    for position, original in enumerate(found.original_users.tolist()[:USERS]):
        seen = found.seen(position).tolist()
        ids_are_below(np.array(seen), items, "history")
        sound(seen == sorted(set(seen)), "history is not in order")
        found.position(original)


@reader(lambda: {"policy.npz": (environment.shipped("configs/ddpg_policy.npz")).read_bytes()}, 2)
def policy(folder: Path) -> None:
    for name, weights in ddpg_agent.read_policy(folder / "policy.npz").items():
        sound(weights.dtype == np.float32 and np.isfinite(weights).all(), name)


def a_checkpoint() -> Files:
    with tempfile.TemporaryDirectory() as name:
        run, _ = RunDirectory.claim(Path(name) / "run", "me")
        run.append_metrics([record(ALL, 1)])
        training_state.write_shared(run, 3, {"items": np.ones((ITEMS, 4), np.float32)})
        for worker in range(SHARDS):
            parts_of = {"program": {"users": np.ones(4, np.float32)}, "local": {"rows": np.array([9, 1, 0])}}
            training_state.write_own(run, 3, worker, parts_of)
        content = training_state.content(run, 3, (2, 0.5), {"run": "a", "net": "b", "data": "c"})
        training_state.complete(run, 3, content, 2)
        return {
            path.relative_to(run.path).as_posix(): path.read_bytes()
            for path in (run.metrics, *run.checkpoint.rglob("*"))
            if path.is_file()
        }


def seal_checkpoint(files: Files) -> None:
    with contextlib.suppress(Exception):
        content = json.loads(files["checkpoint/3/checkpoint.json"])
        for name in content["files"]:
            kept = files[f"checkpoint/3/{name}"]
            content["files"][name] = [len(kept), hashlib.sha256(kept).hexdigest()]  # type: ignore[arg-type]
        files["checkpoint/3/checkpoint.json"] = json.dumps(content).encode()


@reader(a_checkpoint, 6, seal_checkpoint)
def checkpoint(folder: Path) -> None:
    run = RunDirectory(folder)
    epochs = training_state.epochs(run)
    state = training_state.newest(run)
    if state is None:
        raise DataError("There is no checkpoint that is whole.")
    sound(state.epoch in epochs and type(state.best[0]) is int, "epoch")
    for name, values in {**state.shared(), **state.own(0).get("program", {})}.items():
        sound(isinstance(values, np.ndarray), name)
    before = run.metrics.read_bytes() if run.metrics.is_file() else b""
    run.log.mkdir(exist_ok=True)
    training_state.go_back(run, state)
    if run.metrics.is_file():
        sound(before.startswith(run.metrics.read_bytes()), "records")


# -- messages ---------------------------------------------------------------------------------------------------


@reader(lambda: {"m.msgpack": wire.encode(messages()[0], "int8")}, 8)
def report_message(folder: Path) -> None:
    report = wire.decode_report(given(folder / "m.msgpack"))
    check_fields(report, {"logits": (4, 2), "x": ()})
    for name in ("client", "round", "shard_rows", "rows", "test_users"):
        sound(type(getattr(report, name)) is int and getattr(report, name) >= 0, name)
    sound(math.isfinite(report.seconds) and report.seconds >= 0, "seconds")
    sound(0 < report.device.capacity < math.inf, "capacity")


@reader(lambda: {"m.msgpack": wire.encode(messages()[1], "float16")}, 6)
def decision_message(folder: Path) -> None:
    decision = wire.decode_decision(given(folder / "m.msgpack"))
    sound(decision.next_state in ("JOIN", "WAIT", "FINISH"), "state")
    sound(0 < decision.local_epochs < math.inf and isinstance(decision.reason, str), "epochs")


def words() -> Files:
    status = roles.RoleStatus("worker.1", 7, "boot 1", "running", "", {"running": 1.0}, "", "south", True, (8900,))
    doing = activity.Activity("training epoch 3", 2.0, False, activity.Progress(3, 4, 5, 0.5))
    hello = Hello("1", "south", (("n:1",), ("n:2", "s:2"), ()), {"runner.seed": "7"}, "ab", "cd", (1, 2))
    word = Word(
        3.0, hello, (Report(status, doing, 0.5, False, "ValueError: no"),), False, ((1, "ef"),), "", {"w": b"x"}
    )
    answer = Answer(3.0, Begin("ab", 2, "1:4"), (status,), ((1, "ef"),), Verdict("done"))
    return {"word": encode(word), "answer": encode(answer)}


@reader(words, 6)
def link(folder: Path) -> None:
    word = decode(Word, given(folder / "word"), "a host")
    answer = decode(Answer, given(folder / "answer"), "the hub")
    sound(all(type(each.now) in (int, float) and math.isfinite(each.now) for each in (word, answer)), "now")
    sound(
        all(type(each) is int and each >= 0 for each in (word.hello.checkpoints if word.hello else ())), "checkpoints"
    )
    sound(all(isinstance(each, bytes) for each in word.logs.values()), "logs")
    sound(
        all(type(worker) is int and isinstance(token, str) for worker, token in (*word.tokens, *answer.tokens)), "token"
    )
    sound(answer.verdict is None or answer.verdict.state in ("done", "failed", "interrupted"), "verdict")
    for report in word.reports:
        doing = report.activity
        sound(math.isfinite(report.silence) and (doing is None or math.isfinite(doing.since)), "time")
        sound(doing is None or doing.progress is None or 0 <= doing.progress.rows < 1 << 63, "rows")
    for status in (*answer.statuses, *(report.status for report in word.reports)):
        sound(type(status.pid) is int and all(0 <= port < 1 << 16 for port in status.ports), "ports")
        sound(math.isfinite(status_taken_in(status, "south", 1.0).time), "times")
