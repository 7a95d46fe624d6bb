"""The launcher of the first worker's host: the others link to it, and it judges the whole job. No Paddle is imported.

Each host keeps one stream open, on which it tells how its roles fare twice a second and is answered what they need to
know. What a host tells is written into this run's folder as if its roles were here, and the judge reads it there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import psutil

from fl_rec.coordinator.process import hand_out, tokens_of
from fl_rec.errors import DataError, FLRecError, RunError
from fl_rec.job.hosts.company import Linked, NotMet, channel_options_of, difference, first_of
from fl_rec.job.hosts.first_words import FirstWords
from fl_rec.job.hosts.hub_judge import HubJudge
from fl_rec.job.hosts.members import Member, Members
from fl_rec.job.hosts.messages import (
    BEAT,
    CALL,
    LONGEST_LOG,
    LONGEST_TEXT,
    SERVICE,
    Answer,
    Begin,
    Verdict,
    Word,
    broken_by,
    decode,
    encode,
    short,
    taken_in,
)
from fl_rec.job.hosts.refusals import Differs, Refusals
from fl_rec.job.hosts.reporter import Reporter
from fl_rec.job.judge import STARTER, Failure, Judge
from fl_rec.job.watch import GRACE_SECONDS, KILL_SECONDS, log_path
from fl_rec.runs import activity, roles
from fl_rec.runs.audit import Audit
from fl_rec.runs.hosts import said
from fl_rec.runs.roles import RoleStatus
from fl_rec.secure import names_of, refuse_revoked, server_credentials

# Seconds after which a host that comes is waited for aloud.
_SAID_AFTER = 2.0
# Connections at a time beside two of each host, and seconds after which one on which no host speaks is closed.
_MORE_CONNECTIONS, _UNUSED_SECONDS = 64, 5.0


class Hub(Linked):
    """This host, to which the others link."""

    _server: grpc.Server | None = None

    def meet(self, epoch: int | None, note: Callable[[str], None]) -> Begin:
        self._lock = threading.RLock()
        self._members = Members(self._hosts, self._patience, self._limit)
        self._notes: list[str] = []
        self._tokens: dict[int, str] = {}
        self._begin: Begin | None = None
        self._verdict: Verdict | None = None
        self._reporter: Reporter | None = None
        # What is to be seen of it is a note.
        self._audit = Audit(self._run.audit, logged=False)
        self._refusals = Refusals(self._hosts.here, self._patience.start, self._notes)
        self._own = self._hello(self._resumed)
        self._server = self._serve()
        aloud, awaited = time.monotonic() + _SAID_AFTER, False
        while True:
            missing = [name for name in self._hosts.names[1:] if name not in self._members]
            for each in self.notes():
                note(each)
            if not missing:
                break
            if time.monotonic() > aloud and not awaited:
                note(
                    f"waiting for {' and '.join(map(self._members.named, missing))} to link to {self._hosts.workers[0]}"
                )
                awaited = True
            if not self._refusals.left:
                raise NotMet(self._not_met(missing))
            with self._lock:
                for name in self._members.lost():
                    note(f"{self._members.named(name)} has gone again")
                    self._members.pop(name).end()
            time.sleep(0.1)
        self._resumed = True  # as what an attempt after this one begins
        self._begin = super().meet(self._common(), note)
        return self._begin

    def judge(self, leader: psutil.Process, logs: Callable[[str], Path]) -> Judge:
        own = self._hosts.roles_of(self._hosts.here)
        self._reporter = Reporter(self._hosts.here, self._run, own, leader, self._patience, logs)
        return HubJudge(
            self._members, self._hosts, self.notes, self._run, [*self._hosts.roles], leader, self._patience, logs
        )

    def tell(self, failure: Failure | None) -> None:
        if failure is None:
            self._verdict = Verdict("done")
        else:
            again = self.goes_on(failure)
            self._verdict = Verdict("failed", failure.role, short(failure.reason), failure.kind, again)

    def leave(self, reason: str) -> None:
        if self._server is not None:
            self._verdict = self._verdict or Verdict(
                "interrupted", error=short(f"ended on {self._hosts.here}: {reason}")
            )

    def part(self) -> None:
        if self._server is None:
            return
        deadline = time.monotonic() + BEAT + (GRACE_SECONDS + KILL_SECONDS) * 1.2
        while time.monotonic() < deadline and not all(
            member.parted or self._members.is_lost(member) for member in self._members.values()
        ):
            time.sleep(0.05)
        self._server.stop(0).wait(BEAT)
        self._server = None
        self._audit.close()
        if self._reporter is not None:
            self._reporter.close()

    def notes(self) -> Iterator[str]:
        """What is to be told of hosts since the last call."""
        while self._notes:
            yield self._notes.pop(0)

    # -- the service ---------------------------------------------------------------------------------------------

    def _serve(self) -> grpc.Server:
        # A thread for each host, one for each that has not said yet who it is, and one for who comes then.
        hosts = len(self._hosts.names)
        self._first_words = FirstWords(hosts)
        options = [
            *channel_options_of(self._limit),
            # Whoever holds as many as this process may have files open ends the job, without a word.
            ("grpc.max_allowed_incoming_connections", _MORE_CONNECTIONS + 2 * hosts),
            ("grpc.server_handshake_timeout_ms", int(_UNUSED_SECONDS * 1000)),
            ("grpc.max_connection_idle_ms", int(_UNUSED_SECONDS * 1000)),
        ]
        server = grpc.server(ThreadPoolExecutor(2 * hosts), options=options)
        handler = grpc.stream_stream_rpc_method_handler(self._join)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {CALL: handler}),))
        address = self._hosts.workers[0]
        try:
            if self._tls is None:
                server.add_insecure_port(address)
            else:
                server.add_secure_port(address, server_credentials(self._tls))
        except RuntimeError as err:
            raise RunError(
                f"The other hosts link to the first worker's address. Received: {address}, which can't be bound. Free "
                "the port, or name another one on every host."
            ) from err
        server.start()
        return server

    def _join(self, words: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """A host's stream, in a thread of its own: an answer to each word."""
        peer, member = context.peer(), None
        try:
            self._require_certificate(context)
            if self._verdict is not None and self._verdict.again:  # who has ended sooner is early for the next attempt
                context.set_code(grpc.StatusCode.UNAVAILABLE)
                context.set_details("the last attempt has not ended there yet")
                return
            word = decode(Word, self._first_words.of(words, context.cancel), peer)
            member = self._admit(word, context)
            yield encode(self._answer(member))
            for data in words:
                self._take(member, decode(Word, data, peer))
                yield encode(self._answer(member))
        except grpc.RpcError:
            return  # one side has ended it
        except Exception as err:
            why, status = broken_by(err), grpc.StatusCode.INTERNAL
            if member is not None:
                member.broken = why
            if isinstance(err, FLRecError):
                why, status = self._refuse(peer, err), grpc.StatusCode.FAILED_PRECONDITION
            context.abort(status, why[:LONGEST_TEXT])
        finally:  # also when it was broken off
            if member is not None:
                member.gone = self._members.silence(member)

    def _admit(self, word: Word, context: grpc.ServicerContext) -> Member:
        """FLRecError: it is refused."""
        hello = word.hello
        if hello is None:
            raise DataError(f"A host says first who it is. Received: something else of {context.peer()}.")
        shown = hello.host[:100]
        if hello.host not in self._hosts.names[1:]:
            raise DataError(f"A host is one of {', '.join(self._hosts.names[1:])}. Received: {shown}.")
        self._require_certificate(context, hello.host)
        if wrong := difference(self._own, hello):
            raise Differs(shown, f"{wrong} The first is of {self._hosts.here}, the second of {shown}.")
        with self._lock:
            self._members.require_place(hello.host, self._begin is not None)
            if hello.host in self._members:  # by a connection of which nobody has told this host that it is none
                self._members[hello.host].end()
            member = self._members[hello.host] = Member(hello, self._members.clock(), word, context.cancel)
            self._refusals.hosts.pop(hello.host, None)
        self._audit.tell("joined", hello.host, f"from {context.peer()}, with {said(self._hosts.roles_of(hello.host))}")
        self._notes.append(f"{self._members.named(hello.host)} has joined")
        return member

    def _require_certificate(self, context: grpc.ServicerContext, host: str | None = None) -> None:
        """DataError if it is none of this host's, or of any other; a client's, which it takes, opens nothing here, nor
        does the coordinator's, which has the names of all hosts."""
        if self._tls is None:
            return
        names = names_of(context.auth_context())
        wanted = {host} if host else {*self._hosts.names[1:]}
        if "coordinator" in names.difference(self._hosts.names) or not names & wanted:
            raise DataError(
                f"A host's certificate is of its name, {host or ' or '.join(self._hosts.names[1:])}. Received: one of "
                f"{', '.join(sorted(names))[:200]}. fl-rec certs DIR --hosts makes them."
            )
        refuse_revoked(self._tls, context.auth_context())

    def _refuse(self, peer: str, err: FLRecError) -> str:
        """What is told there."""
        self._audit.tell("refused", peer, str(err), "link")
        if self._begin is not None:  # a job that goes on is nobody else's
            return str(err)
        return self._refusals.refused(peer, err, self._members.named(err.host) if isinstance(err, Differs) else "")

    def _take(self, member: Member, word: Word) -> None:
        """Takes a word in, and writes down what it says of roles."""
        own = self._hosts.roles_of(member.hello.host)
        with self._lock:
            for report in word.reports:
                name = report.status.role
                if name not in own:
                    raise DataError(f"A host tells of its own roles. Received: {name[:100]} of {member.hello.host}.")
                before, report = member.reports.get(name), taken_in(report, member.hello.host, word.now)
                member.reports[name] = report
                with suppress(OSError):  # a full disk must not end the link
                    if before is None or _changed(before.status, report.status):
                        roles.write_told(self._run.roles, report.status)
                    if report.activity is not None:
                        activity.write_told(self._run.roles, name, report.activity)
            for name, content in word.logs.items():
                if name in own or name == STARTER:
                    path = log_path(self._run, name)
                    path = path.with_name(f"{path.name}-{member.hello.host}") if name == STARTER else path
                    with suppress(OSError):
                        path.write_bytes(content[-LONGEST_LOG:])
                member.parted = name == STARTER
            if word.tokens and not self._tokens and "coordinator.0" in own:
                self._tokens = dict(word.tokens)
                with suppress(OSError):
                    here = self._hosts.workers_of()
                    hand_out(self._run, {worker: token for worker, token in word.tokens if worker in here})
            member.heard, member.word = self._members.clock(), word

    def _answer(self, member: Member) -> Answer:
        told = []
        with self._lock:
            for name, status in self._statuses().items():
                before = member.told.get(name)
                if status.host != member.hello.host and (before is None or _changed(before, status)):
                    member.told[name] = status
                    told.append(status)
            workers = self._hosts.workers_of(member.hello.host)
            known = tokens_of(self._run, workers) if self._hosts.has_coordinator else self._tokens
            given = tuple((worker, known[worker]) for worker in workers if worker in known)
            return Answer(time.monotonic(), self._begin, tuple(told), given, self._verdict)

    def _statuses(self) -> dict[str, RoleStatus]:
        """Of all roles that are there."""
        own = self._reporter.reports() if self._reporter else {}
        members = [member.reports for member in self._members.values()]
        return {name: report.status for reports in (own, *members) for name, report in reports.items()}

    def _not_met(self, missing: list[str]) -> Failure:
        reason = f"its host must come within runner.start_timeout={self._patience.start:g} s, and "
        if refused := [name for name in missing if name in self._refusals.hosts]:
            missing = refused
            reason += f"{self._members.named(refused[0])} was refused: {self._refusals.hosts[refused[0]]}"
        else:
            names, commands = (" and ".join(map(each, missing)) for each in (self._members.named, "--host {}".format))
            reason += (
                f"nothing has linked to {self._hosts.workers[0]} from {names}{self._refusals.stranger}. Start the same "
                f"command there, with {commands}; see whether it reaches this address; or raise runner.start_timeout."
            )
        return Failure(first_of(self._hosts.roles_of(missing[0])), reason, None)

    def _common(self) -> int | None:
        """The newest checkpoint that every host has, but those of servers alone, which keep none.

        Raises:
            NotMet: there is none, though a host has several: to begin anew would remove those.
        """
        everyone = [self._own, *(member.hello for member in self._members.values())]
        kept = {
            each.host: set(each.checkpoints)
            for each in everyone
            if not all(name.startswith("server") for name in self._hosts.roles_of(each.host))
        }
        common = set.intersection(*kept.values())
        # One is no more than the first, at which the hosts may have parted.
        if not common and max(map(len, kept.values())) > 1:
            had = "; ".join(f"{host}: {', '.join(map(str, sorted(own))) or 'none'}" for host, own in kept.items())
            fewest = min(kept, key=lambda host: len(kept[host]))
            reason = (
                f"all hosts go on from a checkpoint that each of them has. Received: {had}. Put those that are missing "
                "back into RUN/checkpoint there, or begin a new run; none was removed."
            )
            raise NotMet(Failure(first_of(self._hosts.roles_of(fewest)), reason, None))
        return max(common, default=None)


def _changed(before: RoleStatus, now: RoleStatus) -> bool:
    """But for times, which are told a little differently each time."""
    known = [(each.pid, each.state, each.error, each.endpoint, each.lives, each.ports) for each in (before, now)]
    return known[0] != known[1]
