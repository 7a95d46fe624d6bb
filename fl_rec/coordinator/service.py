"""The coordinator's gRPC service: one call, a report in and a decision out. No Paddle is imported here.

A client's call waits until its round is decided: when all clients that the coordinator expects have reported, or
`round_timeout` after the first. The call may be repeated as often as need be; the answer of a round stays the same.

A report that breaks off does not count, since no part of a message is a message.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any

import grpc

from fl_rec.config import CoordinatorConfig
from fl_rec.coordinator.claims import Limits, strange
from fl_rec.coordinator.messages import FINISH, WAIT, ClientReport, Decision, MessageError, check_fields
from fl_rec.coordinator.rounds import Round, RoundLog
from fl_rec.coordinator.strategies import Strategy
from fl_rec.coordinator.wire import decode_report, encode
from fl_rec.errors import FLRecError, RunError

log = logging.getLogger(__name__)

# A client whose connection broke asks again before the coordinator has seen that it broke.
CALLS_OF_A_CLIENT = 8
# Clients that are told a decision before connections are looked after again: thousands at once would take many seconds,
# in which no ping is answered, and connections without an answer break.
TOLD_AT_ONCE = 50


class Refused(FLRecError):
    """A report that is not accepted; the client is told why.

    Args:
        kind: see `Audit.tell`; "" for what is nobody's doing, and is not written.
    """

    def __init__(self, status: grpc.StatusCode, reason: str, kind: str = "report") -> None:
        super().__init__(reason)
        self.status, self.kind = status, kind


class Coordinator:
    """Collects the reports of a round, has the strategy decide, and answers.

    Args:
        new_strategy: makes the strategy. It is called, and the strategy used, in one thread of its own, which writes
            the rounds too: neither a long decision nor a long line holds up the service.
        strategy_name: for the record.
        settings: `round_timeout` and `report_fields` are read.
        rounds: where rounds are written. Those that are there already were decided before a restart: the strategy is
            shown their reports again, and their decisions stand.
        on_round: told of each round, after it was written and before it is answered; in the strategy's thread.
        on_failure: told why the strategy failed, before the clients are.
        compression: runner.compress_report, for the decisions.
        limits: what each client's reports can't be above; empty where nothing is known.
        doubted: is told whose report can't be, and why, which counts as none, so that its client waits; None: it is
            refused, which ends its client.

    Attributes:
        failure: set when the strategy has failed, after which no report is accepted.
    """

    def __init__(
        self,
        new_strategy: Callable[[], Strategy],
        strategy_name: str,
        settings: CoordinatorConfig,
        rounds: RoundLog,
        on_round: Callable[[Round], None] = lambda _: None,
        on_failure: Callable[[Exception], None] = lambda _: None,
        compression: str = "none",
        limits: Sequence[Limits] = (),
        doubted: Callable[[int, str], None] | None = None,
    ) -> None:
        self._limits, self._tell_doubt = limits, doubted
        self._new_strategy, self._strategy_name = new_strategy, strategy_name
        self._settings, self._rounds, self._on_round, self._on_failure = settings, rounds, on_round, on_failure
        self._compression = compression
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._reports: dict[int, ClientReport] = {}
        self._report_bytes: dict[int, int] = {}
        self._doubts: dict[int, str] = {}
        # Calls that wait, by client; and clients that say that they are ahead, with their round, how many say
        # so of each, and their calls.
        self._waiting: defaultdict[int, set[asyncio.Future[bytes]]] = defaultdict(set)
        self._ahead: dict[int, int] = {}
        self._alike: Counter[int] = Counter()
        self._calls_ahead: set[asyncio.Future[bytes]] = set()
        # As they travel: encoded once, told as often as need be.
        self._decided: Mapping[int, bytes] = {}
        # Clients that went on without a coordinator are ahead of it when it comes, or comes back.
        self._may_skip = True
        self._deciding: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Makes the strategy and shows it the rounds that were decided before.

        Raises:
            FLRecError: the strategy can't be made, or fails.
        """
        self._loop = asyncio.get_running_loop()
        # Not an executor's: Python waits for those when it ends, and so for a strategy that hangs.
        threading.Thread(target=_work, args=(self._calls,), name="strategy", daemon=True).start()
        self.failure: asyncio.Future[None] = self._loop.create_future()
        self._round = await self._in_thread(self._take_up)
        self._expected = set(self._strategy.fleet) - self._strategy.finished

    async def answer(self, data: bytes, sender: int | None = None) -> bytes:
        """The decision for a client, once there is one, both as they travel.

        Args:
            sender: the client that has shown to be who sends it; None where nobody else can.

        Raises:
            MessageError: it is no report.
            Refused: the report is of another round or client, or of nobody who is expected.
        """
        client, decided = await self._take(data, sender)
        del data  # what waits holds no message
        if decided is not None:
            return decided
        with self._call_of(client) as call:
            return await call

    @contextmanager
    def _call_of(self, client: int) -> Iterator[asyncio.Future[bytes]]:
        """What is waited for in a call. Raises Refused if the client waits in too many."""
        own = self._waiting[client]
        if len(own) >= CALLS_OF_A_CLIENT:
            raise Refused(
                grpc.StatusCode.UNAVAILABLE,
                f"A client waits in one call. Received: {CALLS_OF_A_CLIENT + 1} of client {client}.",
            )
        call: asyncio.Future[bytes] = self._loop.create_future()
        own.add(call)
        try:
            yield call
        finally:
            own.discard(call)

    async def _take(self, data: bytes, sender: int | None) -> tuple[int, bytes | None]:
        """The client of a report, and its answer if there is one already."""
        report = decode_report(data)
        client = report.client
        if sender not in (None, client):
            raise Refused(
                grpc.StatusCode.PERMISSION_DENIED,
                f"A client reports as itself. Received: a report of client {client} from client {sender}.",
                "identity",
            )
        if self.failure.done():
            raise Refused(grpc.StatusCode.ABORTED, str(self.failure.exception()))
        if client not in self._strategy.standing:
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Clients are 0 to {self._strategy.fleet.clients - 1}. Received: a report of {client}.",
            )
        try:
            check_fields(report, self._settings.report_fields)
        except MessageError as err:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, str(err)) from err
        skips = self._may_skip and not self._reports and client in self._expected
        if report.round > self._round and skips and report.round <= self._strategy.fleet.epochs:
            await self._wait_ahead(report)
        if report.round == self._round - 1 and client in self._decided:
            return client, self._decided[client]
        self._check_round(report)
        if client not in self._reports and client not in self._doubts:
            doubt = self._doubt(report)
            if doubt:
                self._doubts[client] = doubt
            else:
                self._reports[client] = report
                self._report_bytes[client] = len(data)
                self._look_again()
            if len(self._reports) + len(self._doubts) == 1:
                self._first = time.monotonic()
                self._timer = self._loop.call_later(self._settings.round_timeout, self._decide)
            # Nobody else's are there; to look at all of them each time would take the square of their number.
            if len(self._reports) + len(self._doubts) == len(self._expected):
                self._decide()
        return client, None

    def _doubt(self, report: ClientReport) -> str:
        """What of a report can't be. Raises Refused if such a report ends its client."""
        limits = self._limits[report.client] if self._limits else Limits()
        received = strange(report, self._strategy.standing[report.client], limits, report.round == self._told + 1)
        if not received:
            return ""
        text = f"A report must be what can be. Received from client {report.client}: {received}."
        if self._tell_doubt is None:
            raise Refused(
                grpc.StatusCode.INVALID_ARGUMENT, f"{text} Look at that client, or set runner.on_divergence=warn."
            )
        self._tell_doubt(report.client, f"round {report.round}: {text} It waits.")
        return received

    async def _wait_ahead(self, report: ClientReport) -> None:
        """Clients that went on without a coordinator are ahead of it when it comes, or comes back, and all alike: one
        alone is not believed."""
        if report.client in self._ahead:
            self._alike[self._ahead[report.client]] -= 1
        self._ahead[report.client] = report.round
        self._alike[report.round] += 1
        alike = self._alike[report.round]
        if 2 * alike > len(self._expected):
            log.info("clients went on without a coordinator: round %d follows %d", report.round, self._round - 1)
            self._round, self._decided = report.round, {}
            self._look_again()
            return
        with self._call_of(report.client) as call:
            self._calls_ahead.add(call)
            try:
                await asyncio.wait({call}, timeout=self._settings.round_timeout)
            finally:
                self._calls_ahead.discard(call)
            if call.done():
                call.result()  # raises what ends all calls

    def _look_again(self) -> None:
        """Has those who are ahead see which round it is."""
        calls, self._calls_ahead = self._calls_ahead, set()
        if calls:
            self._telling = self._loop.create_task(_tell((call, b"") for call in calls))

    @property
    def clients(self) -> int:
        """How many there are."""
        return self._strategy.fleet.clients

    def close(self) -> None:
        """Lets go of the clients that wait; they try again until `coordinator_timeout`."""
        self._refuse_all(Refused(grpc.StatusCode.UNAVAILABLE, "The coordinator ends.", kind=""))

    def _check_round(self, report: ClientReport) -> None:
        if report.round != self._round:
            which = "has not begun" if report.round > self._round else "is over"
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"Reports are of round {self._round}. Received: one of round {report.round} from client "
                f"{report.client}, which {which}.",
                "round",
            )
        if report.client not in self._expected:
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"Client {report.client} was told to FINISH before round {report.round}, and reports no more.",
            )

    def _decide(self) -> None:
        self._timer.cancel()
        # The last report may come while the deadline's decision is being made.
        if self._deciding is None:
            self._deciding = self._loop.create_task(self._finish_round())

    async def _finish_round(self) -> None:
        number, reports = self._round, dict(self._reports)
        report_bytes, doubts = dict(self._report_bytes), dict(self._doubts)
        missing = tuple(sorted(self._expected - {*reports, *doubts}))
        try:
            decisions, answers = await self._in_time(
                f"{self._strategy} must decide", self._next_round, reports, doubts, number
            )
            done = Round(
                number,
                self._strategy_name,
                reports,
                decisions,
                missing,
                seconds=time.monotonic() - self._first,
                report_bytes=report_bytes,
                decision_bytes={client: len(each) for client, each in answers.items()},
            )
            # Written before anybody is answered: a coordinator that is started again must say the same.
            await self._in_time("The disk must take a round", self._write, done)
        except Exception as err:
            self._fail(err, number)
            return
        self._decided = answers
        self._expected -= set(done.clients(FINISH))
        self._round, self._reports, self._report_bytes, self._doubts = number + 1, {}, {}, {}
        self._told = number
        self._may_skip, self._deciding = False, None
        self._look_again()
        waiting, self._waiting = self._waiting, defaultdict(set)
        await _tell((call, answers[client]) for client, calls in waiting.items() for call in tuple(calls))

    def _fail(self, err: Exception, number: int) -> None:
        if isinstance(err, OSError):
            err = RunError(f"Round {number} must be written to the run directory, and was not: {err.strerror}.")
        log.error("round %d failed", number, exc_info=err)
        self._on_failure(err)
        self.failure.set_exception(err)
        self._refuse_all(Refused(grpc.StatusCode.ABORTED, str(err)))

    def _refuse_all(self, refused: Refused) -> None:
        for call in itertools.chain.from_iterable(self._waiting.values()):
            if not call.done():
                call.set_exception(refused)

    def _take_up(self) -> int:
        self._strategy = self._new_strategy()
        self._rounds.mend()
        number = -1
        decisions: Mapping[int, Decision] = {}
        for past in self._rounds:
            number = past.round
            self._strategy.propose(past.reports, number)
            # A strategy that draws its random numbers elsewhere may decide otherwise now; what was told stands.
            self._strategy.told(past.decisions, number)
            decisions = past.decisions
        self._decided = self._encode(decisions)
        self._told = number
        return number + 1

    def _next_round(
        self, reports: Mapping[int, ClientReport], doubts: Mapping[int, str], number: int
    ) -> tuple[Mapping[int, Decision], Mapping[int, bytes]]:
        decisions = self._strategy.propose(reports, number)
        for client, received in doubts.items():
            if decisions[client].next_state != FINISH:
                decisions[client] = Decision(WAIT, reason=f"its report can't be: {received}")
        self._strategy.told(decisions, number)
        return decisions, self._encode(decisions)

    def _encode(self, decisions: Mapping[int, Decision]) -> dict[int, bytes]:
        return {client: encode(each, self._compression) for client, each in decisions.items()}

    def _write(self, done: Round) -> None:
        self._rounds.append(done)
        self._on_round(done)

    async def _in_time(self, rule: str, function: Callable[..., Any], *arguments: Any) -> Any:
        limit = self._settings.round_timeout
        try:
            return await asyncio.wait_for(self._in_thread(function, *arguments), limit)
        except asyncio.TimeoutError:
            text = f"{rule} within coordinator.round_timeout={limit:g} s, and did not in round {self._round}."
            raise RunError(text) from None

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        future: Future[Any] = Future()
        self._calls.put((future, partial(function, *arguments)))
        return await asyncio.wrap_future(future)


async def _tell(answers: Iterable[tuple[asyncio.Future[bytes], bytes]]) -> None:
    """Answers calls that wait, TOLD_AT_ONCE at a time."""
    for count, (call, answer) in enumerate(answers, 1):
        if not call.done():
            call.set_result(answer)
        if count % TOLD_AT_ONCE == 0:
            await asyncio.sleep(0)


def _work(calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]]) -> None:
    while True:
        future, call = calls.get()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except BaseException as err:
                future.set_exception(err)
