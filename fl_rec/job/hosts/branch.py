"""The launcher of any other host than the first worker's: it links to that one, tells how its roles fare, and does as
it is told. No Paddle is imported here.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

# Roles are started beside this channel's threads, by a program of their own; and what it says of a peer, this says.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc
import psutil

from fl_rec.coordinator.process import hand_out, tokens_of
from fl_rec.errors import FLRecError
from fl_rec.files import last_bytes
from fl_rec.job.alive import Awake
from fl_rec.job.hosts.company import Linked, NotMet, channel_options_of, first_of
from fl_rec.job.hosts.messages import (
    BEAT,
    DOUBT,
    LONGEST_LOG,
    METHOD,
    Answer,
    Begin,
    Hello,
    Verdict,
    Word,
    broken_by,
    decode,
    encode,
    short,
    status_taken_in,
)
from fl_rec.job.hosts.reporter import Reporter
from fl_rec.job.judge import STARTER, Failure, Judge
from fl_rec.job.observers import RoleView
from fl_rec.job.watch import log_path
from fl_rec.runs import activity, roles
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.hosts import Hosts
from fl_rec.runs.result import DONE, INTERRUPTED
from fl_rec.secure import Tls, channel_credentials, why_refused

# Seconds between two attempts to reach the hub, and for which a farewell is waited for.
_PAUSE, _FAREWELL = 0.5, 3.0
# What gRPC says where the other side has gone, or this one; all else is an error that somebody must know.
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Branch(Linked):
    """This host, which links to the first worker's."""

    _link: Link | None = None
    # Of the last attempt, if it was told.
    _verdict: Verdict | None = None

    def meet(self, epoch: int | None, note: Callable[[str], None]) -> Begin:
        hello, began, waits = self._hello(self._resumed), time.monotonic(), False
        while True:
            link = self._link = Link(self._hosts, self._run, self._limit, self._tls, hello)
            while not (link.begin or link.verdict or link.over) and link.silence < self._limit:
                time.sleep(0.05)
            if link.begin is not None:
                self._run.adopt(link.begin.identity)
                self._resumed = True  # as what an attempt after this one begins
                return link.begin
            why = link.close()
            if (failure := link.failure()) is not None and (link.refused or link.verdict):
                raise NotMet(failure)
            if time.monotonic() - began > self._patience.start:
                raise NotMet(self._not_met(why))
            if not waits:
                note(f"waiting for {self._hosts.hub}, the first worker's host, to answer at {self._hosts.workers[0]}")
                waits = True
            time.sleep(_PAUSE)

    def judge(self, leader: psutil.Process, logs: Callable[[str], Path]) -> Judge:
        own = self._hosts.roles_of(self._hosts.here)
        assert self._link is not None
        self._link.logs = logs
        self._link.reporter = Reporter(self._hosts.here, self._run, own, leader, self._patience, logs)
        return Follower(self._link, self._run, own, leader, self._patience, logs)

    def goes_on(self, failure: Failure) -> bool:
        # If this host is cut off, its own launcher decides.
        return super().goes_on(failure) if self._verdict is None else self._verdict.again

    def leave(self, reason: str) -> None:
        if self._link is not None:
            self._link.leave(reason)

    def write(self, failure: Failure) -> None:
        if self._verdict is not None and self._verdict.state == "interrupted":
            with suppress(OSError):
                self._run.end(INTERRUPTED, error=failure.reason)
        else:
            super().write(failure)

    def part(self) -> None:
        if self._link is not None:
            self._link.part()
            self._link.close()
            self._verdict, self._link = self._link.verdict, None
        if self._verdict is not None and self._verdict.state == "done" and not self._hosts.workers_of():
            with suppress(OSError):  # elsewhere the first worker has written it
                self._run.end(DONE)

    def _not_met(self, why: str) -> Failure:
        hub, address = self._hosts.hub, self._hosts.workers[0]
        reason = (
            f"{hub}, the first worker's host, must answer within runner.start_timeout={self._patience.start:g} s. "
            f"Received: nothing from {address} ({why or 'silence'}). Start the same command there, with --host {hub}; "
            "see whether this host reaches that address; or raise runner.start_timeout."
        )
        return Failure(first_of(self._hosts.roles_of(self._hosts.here)), reason, None)


class Link:
    """The stream to the hub, in threads of its own: a word every `BEAT`, and an answer to each.

    Args:
        hosts: all of them.
        run: this host's folder.
        limit: seconds of silence after which the hub is lost.
        tls: None without.
        hello: what this host says of itself.

    Attributes:
        begin, verdict: what the hub has told; None before.
        over: whether the stream has ended, well or not.
        refused: why the hub has sent it away.
        leaving: why this launcher ends by itself.
        reporter: tells how the roles fare; None before they are started.
        logs: the log of a role, or of `STARTER`.
    """

    def __init__(self, hosts: Hosts, run: RunDirectory, limit: float, tls: Tls | None, hello: Hello) -> None:
        self._hosts, self._run, self._limit, self._tls, self._hello = hosts, run, limit, tls, hello
        self.begin: Begin | None = None
        self.verdict: Verdict | None = None
        self.over = False
        self.refused, self.leaving, self._why, self._broken = "", "", "", ""
        self.reporter: Reporter | None = None
        self.logs: Callable[[str], Path] = partial(log_path, run)
        self._clock = Awake()  # in which what this launcher stands still for is not the hub's silence
        self._heard = self._clock()
        self._gone = 0.0  # for how long the hub had been silent when the stream ended
        self._tokens: tuple[tuple[int, str], ...] = ()
        self._wake, self._parting = threading.Event(), threading.Event()
        address, options = hosts.workers[0], channel_options_of(limit)
        if tls is None:
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            self._channel = grpc.secure_channel(address, channel_credentials(tls), options=options)
        self._call = self._channel.stream_stream(METHOD)(self._words())
        self._thread = threading.Thread(target=self._listen, name="link", daemon=True)
        self._thread.start()

    @property
    def silence(self) -> float:
        """Seconds since the hub was heard."""
        return self._clock() - self._heard

    def leave(self, reason: str) -> None:
        """Says why this launcher ends, and waits until that is heard."""
        self.leaving = short(reason)
        self._wake.set()
        deadline = time.monotonic() + _FAREWELL
        while time.monotonic() < deadline and not self.over and self.verdict is None:
            time.sleep(0.05)

    def part(self) -> None:
        """Sends the logs, when this host's processes have ended. Returns when they are sent, or can't be."""
        if not self.over and self.silence < self._limit:
            self._parting.set()
            self._wake.set()
            self._thread.join(_FAREWELL)

    def close(self) -> str:
        """Ends it. Returns why it ended, "" if it was not the other side."""
        self._call.cancel()
        self._thread.join(_FAREWELL)
        self._channel.close()
        if self.reporter is not None:
            self.reporter.close()
        return self._why

    def failure(self) -> Failure | None:
        """What the hub has told, or that it is lost; None while all goes well."""
        own = first_of(self._hosts.roles_of(self._hosts.here))
        log = self.logs(STARTER)
        hub, verdict = self._hosts.hub, self.verdict
        if verdict is not None and verdict.state == "done":
            return None
        if verdict is not None:
            role = verdict.role or own
            path = self.logs(role) if role in self._hosts.roles_of(self._hosts.here) else log
            return Failure(role, verdict.error, path if self.begin else None, verdict.kind)
        if self.refused:
            return Failure(own, self.refused, log if self.begin else None)
        if self._broken:
            return Failure(own, f"the link to {hub}, which judges the job, has ended by an error: {self._broken}", log)
        if self.over and self._gone < DOUBT * BEAT:
            reason = f"{hub}, which judges the job, has ended the link without a word: its launcher was killed"
            return Failure(own, f"{reason}, or it was switched off.", log, "died")
        if self.over or self.silence > self._limit:
            reason = (
                f"this host, {self._hosts.here}, is cut off: {hub}, which judges the job, has not been heard for "
                f"{self.silence:.0f} s, which is all but runner.heartbeat_timeout."
            )
            return Failure(own, reason, log, "died")
        return None

    # -- in its threads ------------------------------------------------------------------------------------------

    def _words(self) -> Iterator[bytes]:
        try:
            yield encode(Word(time.monotonic(), hello=self._hello))
            while not self.over:
                if self._parting.is_set():
                    yield from self._last_words()
                    return
                yield encode(self._word())
                self._wake.wait(BEAT)
                self._wake.clear()
        except Exception as err:
            self._broken = broken_by(err)
        if self._broken:
            yield encode(Word(time.monotonic(), leaving=short(f"an error of its link: {self._broken}")))

    def _word(self) -> Word:
        reports = tuple(self.reporter.reports().values()) if self.reporter else ()
        given = tokens_of(self._run, range(len(self._hosts.workers))) if self._hosts.has_coordinator else {}
        over = self.reporter is not None and self.reporter.is_over
        return Word(time.monotonic(), None, reports, over, tuple(given.items()), self.leaving)

    def _last_words(self) -> Iterator[bytes]:
        # With their last states, and the starter's log at the end.
        yield encode(self._word())
        for name in (*self._hosts.roles_of(self._hosts.here), STARTER):
            text = b""
            with suppress(OSError):
                text = last_bytes(self.logs(name), LONGEST_LOG)
            yield encode(Word(time.monotonic(), leaving=self.leaving, logs={name: text}))

    def _listen(self) -> None:
        peer = self._hosts.hub
        try:
            for data in self._call:
                self._take(decode(Answer, data, peer))
        except grpc.RpcError as err:
            self._why = str(err.details())
            if err.code() == grpc.StatusCode.FAILED_PRECONDITION:
                self.refused = f"{peer}, the first worker's host, has refused this one: {self._why}"
            elif self.begin is None and (why := why_refused(self._hosts.workers[0], self._tls)):
                # To wait doesn't change certificates.
                self.refused = f"there is no link to {peer}, the first worker's host: {why}"
            elif err.code() not in _GONE:
                self._broken = self._why
        except Exception as err:
            self._broken = broken_by(err)
            if isinstance(err, FLRecError):
                self.refused = f"{peer}, the first worker's host, was not understood: {err}"
        self._gone, self.over = self.silence, True
        self._wake.set()

    def _take(self, answer: Answer) -> None:
        here = self._hosts.here
        for status in answer.statuses:
            name = status.role
            if name in self._hosts.roles and name not in self._hosts.roles_of(here):
                host = roles.host_of(self._hosts.roles[name])
                with suppress(OSError):  # a full disk must not end the link
                    roles.write_told(self._run.roles, status_taken_in(status, host, answer.now))
        if answer.tokens and not self._hosts.has_coordinator and answer.tokens != self._tokens:
            with suppress(OSError):
                hand_out(self._run, dict(answer.tokens))
                self._tokens = answer.tokens
        self._heard = self._clock()
        self.verdict, self.begin = answer.verdict or self.verdict, answer.begin or self.begin


class Follower(Judge):
    """Judges nothing but whether the hub is there, and does as that says.

    Args:
        link: to the hub.
    """

    def __init__(self, link: Link, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._link = link

    def look(self) -> None:
        self._statuses = self._read()

    def views(self) -> Mapping[str, RoleView]:
        folder = self._run.roles
        return {name: RoleView(self._state(name) or "", activity.read(folder, name)) for name in self._expected}

    def notes(self) -> Iterator[str]:
        return iter(())

    def failure(self) -> Failure | None:
        return None if self._done_but_for_the_hub() else self._link.failure()

    def is_over(self) -> bool:
        return self._link.verdict is not None or self._done_but_for_the_hub()

    def _done_but_for_the_hub(self) -> bool:
        """Whether the hub is lost when the workers are done, who know then that all others have done everything."""
        lost = self._link.verdict is None and self._link.failure() is not None
        return lost and bool(self._workers) and len(self._done()) == len(self._workers)
