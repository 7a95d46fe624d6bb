"""The coordinator's process. No Paddle is imported here; a strategy may."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Lt

from fl_rec.arguments import add_config_arguments
from fl_rec.config import Config, received
from fl_rec.coordinator.checkpoints import Checkpoints
from fl_rec.coordinator.claims import limits_of
from fl_rec.coordinator.messages import FINISH
from fl_rec.coordinator.reception import Reception, token_for
from fl_rec.coordinator.rounds import Round, RoundLog, recorded_reports
from fl_rec.coordinator.service import Coordinator
from fl_rec.coordinator.strategies import STRATEGIES, Fleet, Strategy, new_strategy
from fl_rec.errors import DataError, RunError
from fl_rec.files import atomic_write, read_json, write_json
from fl_rec.outside import Count, as_typed
from fl_rec.runs import activity, roles
from fl_rec.runs.audit import Audit
from fl_rec.runs.directory import Launch, RunDirectory
from fl_rec.runs.listing import named
from fl_rec.secure import INSECURE_KEY, Tls, is_insecure, require_safe

log = logging.getLogger(__name__)

ROLE = "coordinator.0"
POLL_SECONDS = 0.5
# For the last answers to be sent.
GRACE_SECONDS = 5.0
# Between two looks for what another host's launcher is about to tell.
_TOLD_SECONDS = 0.1


@dataclass(frozen=True)
class Address:
    """How the clients of a run reach its coordinator.

    Attributes:
        endpoint: "host:port".
        workers: how many clients there are.
        token: the run's secret, of which each client's own token is made; only this user can read it.
    """

    endpoint: str
    workers: Annotated[Count, Ge(1), Lt(1_000_000)]
    token: str

    @staticmethod
    def path(run: RunDirectory) -> Path:
        return run.coordinator / "address.json"

    @classmethod
    def read(cls, run: RunDirectory) -> Address | None:
        """None if no coordinator has started in this run yet."""
        path = cls.path(run)
        rule = "A coordinator's address is as the coordinator has written it."
        return as_typed(cls, read_json(path), rule, path) if path.is_file() else None

    def write(self, run: RunDirectory) -> None:
        write_json(self.path(run), asdict(self), mode=0o600)


def token_of(run: RunDirectory, client: int) -> str:
    """A client's own token, or "" before the coordinator has started."""
    try:
        return _token_path(run, client).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def awaited_token_of(run: RunDirectory, client: int, seconds: float) -> str:
    """As `token_of`, where the coordinator is on another host: it may answer before that host's launcher has told."""
    deadline = time.monotonic() + seconds
    while not (token := token_of(run, client)) and time.monotonic() < deadline:
        time.sleep(_TOLD_SECONDS)
    return token


def tokens_of(run: RunDirectory, clients: Iterable[int]) -> dict[int, str]:
    """Tokens for the clients of another host, on the coordinator's host, once it has started; empty before."""
    address = Address.read(run)
    return {client: token_for(address.token, client) for client in clients} if address else {}


def hand_out(run: RunDirectory, tokens: Mapping[int, str]) -> None:
    """Puts tokens where this host's clients look for their own. OSError."""
    for client, token in tokens.items():
        with atomic_write(_token_path(run, client), 0o600, sync=False) as file:
            file.write(token.encode())


def _token_path(run: RunDirectory, client: int) -> Path:
    return run.coordinator / "tokens" / str(client)


def coordinate(
    config: Config, run: RunDirectory, endpoint: str, workers: int, keep: Callable[[int], None] = lambda _round: None
) -> None:
    """Plays the coordinator of a run until its workers have ended.

    Args:
        keep: called when a round is decided, before its clients hear of it.

    Raises:
        FLRecError: the strategy failed, or the port is taken.
    """
    known = Address.read(run)
    address = Address(endpoint, workers, known.token if known else secrets.token_hex(16))
    address.write(run)
    hand_out(run, tokens_of(run, range(workers)))
    activity.tell(run.roles, ROLE)
    activity.beat()
    activity.doing("serving")
    asyncio.run(_serve(config, run, address, keep))


def coordinate_again(config: Config, run: RunDirectory) -> None:
    """Plays it again after it was lost, on the same endpoint, from the round where it was.

    Raises:
        FLRecError: the run has no coordinator, or one that lives, or is over; a link leads out of its folder; or see
            `coordinate`.
    """
    run.require_no_way_out()
    address = Address.read(run)
    if address is None:
        raise RunError(f"A coordinator is started again in a run that had one. Received: {run.path}, which had none.")
    status = roles.read_statuses(run.roles).get(ROLE)
    if status is not None and not status.has_ended:
        raise RunError(f"A run has one coordinator. Received: {run.path}, whose own lives (process {status.pid}).")
    if _workers_ended(run, address.workers):
        raise RunError(f"A coordinator is started again while its workers live. Received: {run.path}, which is over.")
    coordinate(config, run, address.endpoint, address.workers, _keep(config, run))


def _keep(config: Config, run: RunDirectory) -> Callable[[int], None]:
    """What `coordinate` calls, in a run whose launcher has written down where its roles are."""
    with suppress(DataError):
        begun = Launch.read(run)
        if begun.hosts is not None and begun.began is not None and not begun.hosts.workers_of():
            return Checkpoints(config.runner, run, begun.began.data.checksum or "").decided
    return lambda _round: None


def replay(config: Config, run: RunDirectory, say: Callable[[str], None]) -> None:
    """Shows what a strategy would have decided on a recorded run, round by round.

    Raises:
        DataError: the run has no figures.
        FLRecError: the strategy fails.
    """
    recorded = recorded_reports(run)
    clients = 1 + max(client for reports in recorded for client in reports)
    epochs = max(config.runner.epochs, len(recorded) - 1)
    strategy = strategy_of(config, Fleet(clients, epochs, config.runner.seed, config=config))
    for number, reports in enumerate(recorded):
        decisions = strategy.next_round(reports, number)
        say(Round(number, config.coordinator.strategy, reports, decisions).table(epochs) + "\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec coordinator`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--insecure", action="store_true", help="listen where others come to it, without TLS; see tls.cert"
    )
    parser.add_argument("--dry", action="store_true", help="show what a strategy would decide on the recorded run")
    add_config_arguments(parser, required=False)


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec coordinator`."""
    run = RunDirectory(named(options.run).resolve())
    if not run.metrics.is_file():
        raise RunError(f"RUN must be a run's folder. Received: {run.path}, which has no metrics.jsonl.")
    config = Config.load(options.config_yaml, options.opt) if options.config_yaml else _recorded(run, options.opt)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if options.dry:
        replay(config, run, print)
    else:
        if options.insecure:
            os.environ[INSECURE_KEY] = "1"
        coordinate_again(config, run)
    return 0


def _recorded(run: RunDirectory, overrides: Sequence[str]) -> Config:
    """The configuration of a run that may be somebody else's. Raises `ConfigError`."""
    config = received.load(run.config, overrides, ("coordinator.strategy", "coordinator.options"))
    # A strategy of the user's own may ask for anything, and a teacher is a net.
    alone = config.coordinator.strategy in STRATEGIES and config.coordinator.strategy != "distill"
    return config if alone else received.load(run.config, overrides)


def strategy_of(config: Config, fleet: Fleet) -> Strategy:
    """The configured strategy. Raises `ConfigError`."""
    return new_strategy(config.coordinator.strategy, config.coordinator.options, fleet, config.yaml_path.parent)


async def _serve(config: Config, run: RunDirectory, address: Address, keep: Callable[[int], None]) -> None:
    settings, epochs = config.coordinator, config.runner.epochs
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # fleetrun ends a coordinator so, when the last worker has gone.
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    fleet = Fleet(address.workers, epochs, config.runner.seed, run.coordinator, config)

    def show(done: Round) -> None:
        table = done.table(epochs)
        print(table, flush=True)
        run.append_table(table)
        keep(done.round)

    def fail(err: Exception) -> None:
        # Before the clients hear of it, and fail too: the launcher names who failed first.
        with suppress(OSError):  # on a full disk the clients must hear of it all the same
            roles.write_status(run.roles, ROLE, roles.FAILED, str(err))

    def doubt(client: int, text: str) -> None:
        audit.tell("excluded", f"client-{client}", text)
        log.warning("%s", text)
        run.append_table(f"note: {text}")

    audit = Audit(run.audit)
    tls = Tls.of(config.tls, "coordinator")
    require_safe(address.endpoint, tls, is_insecure(), "the coordinator")

    finished: set[int] = set()

    def record(done: Round) -> None:
        show(done)
        for client in done.missing:
            audit.tell("excluded", f"client-{client}", f"no report in time in round {done.round}")
        for client in {*done.clients(FINISH)} - finished:
            finished.add(client)
            audit.tell("finished", f"client-{client}", f"in round {done.round}: {done.decisions[client].reason}")

    coordinator = Coordinator(
        lambda: strategy_of(config, fleet),
        settings.strategy,
        settings,
        RoundLog(run.rounds),
        record,
        fail,
        config.runner.compress_report,
        limits_of(config, address.workers),
        doubt if config.runner.on_divergence == "warn" else None,
    )
    await coordinator.start()
    reception = Reception(coordinator, address.token, settings.max_message_bytes, audit, tls)
    await reception.open(address.endpoint)
    log.info("the coordinator listens at %s, %s", address.endpoint, "with TLS" if tls else "without TLS")
    roles.write_status(run.roles, ROLE, roles.RUNNING)
    try:
        while not stop.is_set() and not coordinator.failure.done():
            # In a thread: to read as many files as there are workers takes seconds, in which nobody would be answered.
            if await asyncio.to_thread(_workers_ended, run, address.workers):
                break
            try:
                await asyncio.wait_for(stop.wait(), POLL_SECONDS)
            except asyncio.TimeoutError:
                continue
    finally:
        coordinator.close()
        await reception.stop(GRACE_SECONDS)
    if coordinator.failure.done():
        coordinator.failure.result()


def _workers_ended(run: RunDirectory, workers: int) -> bool:
    statuses = (roles.read_status(run.roles, name) for name in roles.role_names(workers, 0))
    return all(status is not None and status.has_ended for status in statuses)  # no more are read than need be
