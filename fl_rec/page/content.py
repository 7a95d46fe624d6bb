"""What a page shows of a run, as JSON: read anew from what the run has written, whatever of it is there.

`content_of` gives one mapping, and a key whose content the run doesn't have is null or empty:

format        1
run           name, configuration (its file's name), state (training, done, failed, interrupted, killed), workers,
              servers, coordinators, epochs (planned), top_k, started, ended, seconds, start_seconds, command, versions,
              data, private (patterns of parameters that stay with a worker), model, best (the epoch that is kept, if
              one was chosen)
failure       role, kind, error, log (its file's name), tail (its last lines)
popularity    hr, ndcg of ranking by training counts
clients       by number: name, and of its shard train_rows, positives, users, items, test_users, common_items, tags,
              popularity
tastes        tags (names) and shares (a list for each client, beside them `all`) of the training positives
epochs        numbers of the epochs that all have reported, from 1
figures       all and each client by its number: a list over `epochs` for each figure of metrics.jsonl, null where
              there is none
groups        bounds (of training items of a user; the last has no end), and for all and each client by its number
              users, hr, ndcg of each group after the epoch that is kept
rounds        round, strategy, seconds, missing, sent, received (bytes of reports and decisions), clients (by number:
              state, local epochs, factor of the rate, number of the reason)
reasons       those of the rounds' decisions
distillation  temperature, weight, positives, students
compression   reports (how arrays travel), models (folder, bits, prune, before, after)
privacy       epsilon, delta, exchanges, noise_multiplier, clip, users_per_exchange
notes         what was told beside the tables
configuration each key: name, value, default, meaning, and whether it was changed
progress      while it trains: of each role its state, what it does, and how far it is in its epoch
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fl_rec.config import Config
from fl_rec.config.written import KEYS
from fl_rec.coordinator.rounds import RoundLog
from fl_rec.data.manifest import Manifest, load_manifest
from fl_rec.errors import ConfigError, DataError
from fl_rec.evaluation.groups import BOUNDS
from fl_rec.evaluation.metrics import ALL
from fl_rec.evaluation.records import EpochRecord, records_of
from fl_rec.files import read_json
from fl_rec.packed import open_regular
from fl_rec.runs.directory import Launch, RunDirectory
from fl_rec.runs.listing import KILLED, TRAINING, goes_on
from fl_rec.runs.result import DONE
from fl_rec.runs.saved import SIGNATURE
from fl_rec.typed import to_plain

FORMAT = 1
# Of a log that is shown, and of the tables that are looked through.
_TAIL_BYTES, _TABLES_BYTES = 6000, 1 << 22
_MOST_NOTES, _MOST_CLIENTS = 200, 10_000
# Sizes that a job has taken from the data.
_FILLED = {f"hyper_parameters.{name}" for name in ("num_users", "num_items", "group_size")}


def content_of(run: RunDirectory) -> dict[str, Any]:
    """See above. DataError if the folder is no run's, or its figures can't be read."""
    if not run.metrics.is_file():
        raise DataError(
            f"A run's folder has a {run.metrics.name}. Received: {run.path}, which "
            f"{'has none' if run.path.is_dir() else 'is no folder'}. Name one of the folders in runs/."
        )
    config, manifest = _config(run), None
    with suppress(DataError, OSError):
        manifest = load_manifest(config.runner.train_data_dir) if config else None
    result: dict[str, Any] = {}
    with suppress(DataError):
        result = run.read_result().to_json() if run.result.is_file() else {}
    records = records_of(run.read_metrics())
    totals = [each for each in records if each.client == ALL]
    rounds, reasons = _rounds(run)
    top_k = totals[-1].top_k if totals else config.runner.top_k if config else None
    clients = _clients(run, manifest, records, top_k)
    content = {
        "format": FORMAT,
        "run": {**_run(run, config, manifest, result), "top_k": top_k},
        "failure": _failure(run, result),
        "popularity": _popularity(result, manifest, top_k),
        "clients": clients,
        "tastes": _tastes(manifest, clients),
        "epochs": [each.epoch for each in totals],
        "figures": _figures(totals),
        "groups": _groups(totals, result),
        "rounds": rounds,
        "reasons": reasons,
        "distillation": _distillation(config),
        "compression": _compression(run, config),
        "privacy": _privacy(config, result, totals),
        "notes": _notes(run),
        "configuration": _configuration(config),
        "progress": None,
    }
    finite: dict[str, Any] = _finite(content)
    return finite


def _finite(value: Any) -> Any:
    """Null for what is no number, and which JSON has no letters for."""
    if isinstance(value, Mapping):
        return {str(name): _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _config(run: RunDirectory) -> Config | None:
    try:
        return Config.load(run.config)
    except ConfigError:  # of another version
        return None


def _run(
    run: RunDirectory,
    config: Config | None,
    manifest: Manifest | None,
    result: Mapping[str, Any],
) -> dict[str, Any]:
    launch: dict[str, Any] = {}
    told = dict(result)
    with suppress(DataError):
        started = Launch.read(run)
        launch = {"workers": started.workers, "servers": started.servers, "coordinators": started.coordinators}
        if not told and started.began is not None:  # it still trains
            told = asdict(started.began)
    source = manifest.source if manifest else {}
    names = ("started", "ended", "seconds", "start_seconds", "command", "versions", "model")
    return {
        "name": run.path.name,
        "configuration": config.yaml_path.name if config else None,
        "state": _state(run, result),
        **launch,
        "epochs": config.runner.epochs if config else None,
        **{name: told.get(name) for name in names},
        "data": {"kind": source.get("kind"), "name": source.get("name"), **(told.get("data") or {})},
        "private": list(config.runner.private_params or ()) if config else [],
        "best": (told.get("best") or {}).get("epoch"),
    }


def _state(run: RunDirectory, result: Mapping[str, Any]) -> str:
    if result:
        return str(result["state"])
    return TRAINING if goes_on(run) else KILLED


def _failure(run: RunDirectory, result: Mapping[str, Any]) -> dict[str, Any] | None:
    if result.get("state") in (None, DONE):
        return None
    # Of another place nothing is shown: who sends a run would choose what its reader shows to others.
    log = run.path / str(result.get("log") or "")
    inside = bool(result.get("log")) and log.resolve().is_relative_to(run.path.resolve())
    return {
        "role": result.get("role"),
        "kind": result.get("kind"),
        "error": result.get("error") or "",
        "log": log.name if result.get("log") else None,
        "tail": _tail(log, _TAIL_BYTES) if inside else None,
    }


def _tail(path: Path, most: int) -> str | None:
    """The last whole lines of a text; None if it can't be read."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            text = file.read(most).decode("utf-8", "replace")
    except (OSError, ValueError):
        return None
    return text if size <= most else text.partition("\n")[2]


def _popularity(
    result: Mapping[str, Any], manifest: Manifest | None, top_k: int | None, shard: int | None = None
) -> dict[str, float] | None:
    """Of all together by the result, or as long as there is none by the data; of a shard by the data."""
    told = result.get("popularity") if shard is None else None
    if told is None and manifest is not None and top_k is not None:
        told = manifest.popularity_at(top_k, shard)
    return {name.partition("@")[0]: value for name, value in told.items()} if told else None


def _clients(
    run: RunDirectory, manifest: Manifest | None, records: Iterable[EpochRecord], top_k: int | None
) -> list[dict[str, Any]]:
    last = {each.client: each for each in records if each.client != ALL}
    count = max([1 + int(number) for number in last], default=0)
    with suppress(DataError):
        count = max(count, Launch.read(run).workers)
    clients: list[dict[str, Any]] = [{"name": f"client {number}"} for number in range(min(count, _MOST_CLIENTS))]
    for number, record in last.items():
        if int(number) < len(clients):
            clients[int(number)]["test_users"] = record.test_users
    if manifest is None or manifest.num_shards != len(clients):  # several shards each
        return clients
    for number, (client, shard) in enumerate(zip(clients, manifest.shards)):
        train = shard.train
        client |= {"train_rows": train.rows, "positives": train.positives, "users": train.users, "items": train.items}
        client["test_users"] = shard.test.users
        client["name"] = manifest.clients[number] if manifest.clients else client["name"]
        for name in ("common_items", "tags"):
            spread = manifest.difference.get(name)
            client[name] = spread["shards"][number] if spread else None
        client["popularity"] = _popularity({}, manifest, top_k, number)
    return clients


def _tastes(manifest: Manifest | None, clients: Sequence[Any]) -> dict[str, Any] | None:
    told = manifest.difference.get("tastes") if manifest and manifest.num_shards == len(clients) else None
    if not told:
        return None
    shares = {str(number): shares for number, shares in enumerate(told["shards"])}
    return {"tags": told["names"], "shares": {ALL: told["all"], **shares}}


def _figures(totals: Sequence[EpochRecord]) -> dict[str, dict[str, list[Any]]]:
    """By client and figure, over the epochs."""
    figures: dict[str, dict[str, list[Any]]] = {}
    for place, total in enumerate(totals):
        for record in (total, *total.clients):
            columns = figures.setdefault(str(record.client), {})
            for name, value in record.figures().items():
                if (
                    isinstance(value, bool)
                    or not isinstance(value, int | float)
                    or name in ("epoch", "client", "top_k")
                ):
                    continue
                if math.isfinite(value):
                    columns.setdefault(name, [None] * len(totals))[place] = value
    return figures


def _groups(totals: Sequence[EpochRecord], result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of the epoch that is kept."""
    kept = (result.get("best") or {}).get("epoch")
    total = next((each for each in totals if each.epoch == kept), totals[-1] if totals else None)
    if total is None or total.groups is None:
        return None
    groups = {str(each.client): each.groups for each in (total, *total.clients) if each.groups is not None}
    return {
        "bounds": list(BOUNDS),
        **{
            client: {
                "users": list(each.users),
                "hr": [hits / users if users else None for hits, users in zip(each.hits, each.users)],
                "ndcg": [gain / users if users else None for gain, users in zip(each.ndcg_sum, each.users)],
            }
            for client, each in groups.items()
        },
    }


def _rounds(run: RunDirectory) -> tuple[list[dict[str, Any]], list[str]]:
    reasons: dict[str, int] = {}
    rounds = []
    for each in RoundLog(run.rounds, with_arrays=False):
        clients = {
            str(client): [
                decision.next_state,
                decision.local_epochs,
                decision.learning_rate_factor,
                reasons.setdefault(decision.reason, len(reasons)),
            ]
            for client, decision in sorted(each.decisions.items())
        }
        rounds.append(
            {
                "round": each.round,
                "strategy": each.strategy,
                "seconds": each.seconds,
                "missing": list(each.missing),
                "sent": sum(each.report_bytes.values()) or None,
                "received": sum(each.decision_bytes.values()) or None,
                "clients": clients,
            }
        )
    return rounds, list(reasons)


def _distillation(config: Config | None) -> dict[str, Any] | None:
    if config is None or config.distillation.proxy_data_dir is None:
        return None
    settings = config.distillation
    return {
        "temperature": settings.temperature,
        "weight": settings.weight,
        "positives": settings.positives,
        "students": to_plain(settings.students),
        "strategy": config.coordinator.strategy,
        "options": to_plain(config.coordinator.options),
    }


def _compression(run: RunDirectory, config: Config | None) -> dict[str, Any] | None:
    models = []
    for path in sorted((*run.path.glob(f"*/{SIGNATURE}"), *run.path.glob(f"*/*/{SIGNATURE}"))):
        with suppress(DataError):
            told = read_json(path).get("compression")
            if isinstance(told, dict):
                names = ("bits", "prune", "before", "after")
                models.append({"folder": path.parent.name, **{name: told.get(name) for name in names}})
    reports = config.runner.compress_report if config else "none"
    return {"reports": reports, "models": models} if models or reports != "none" else None


def _privacy(config: Config | None, result: Mapping[str, Any], totals: Sequence[EpochRecord]) -> dict[str, Any] | None:
    if config is None or config.privacy.clip is None:
        return None
    settings = config.privacy
    epsilon = totals[-1].epsilon if totals else math.nan
    return {
        "epsilon": epsilon if math.isfinite(epsilon) else None,
        "delta": settings.delta,
        "exchanges": len(totals) * config.runner.exchanges_per_epoch,
        "noise_multiplier": settings.noise_multiplier,
        "clip": settings.clip,
        "users_per_exchange": settings.users_per_exchange,
        **(result.get("privacy") or {}),
    }


def _notes(run: RunDirectory) -> list[str]:
    text = _tail(run.tables, _TABLES_BYTES) or ""
    notes = [line.removeprefix("note: ") for line in text.splitlines() if line.startswith("note: ")]
    return list(dict.fromkeys(notes))[:_MOST_NOTES]


def _configuration(config: Config | None) -> list[dict[str, Any]]:
    if config is None:
        return []
    changed = config.changed().keys() - _FILLED
    return [
        {
            "name": name,
            "value": _shown(config[name]),
            "default": None if item.is_required() else _shown(to_plain(item.default)),
            "meaning": item.description,
            "changed": name in changed,
        }
        for name, item in KEYS.items()
    ]


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
