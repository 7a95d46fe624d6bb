"""What a process of a job opens to the network, and whom it lets in."""

from __future__ import annotations

import http.client
import logging
import socketserver
from typing import Any

from fl_rec.ps.native import never_call
from fl_rec.runs.audit import Audit

log = logging.getLogger(__name__)

# Seconds in which whoever connects to gloo's store has asked. It answers one after the other.
_PATIENCE = 10.0


def leave_out_brpcs_pages() -> None:
    """brpc shows its inside on the port of a server's tables, and lets whoever comes set its flags there.

    None of its flags turns the pages off: a server's options do, which Paddle makes itself (2.6.2, 3.0.0).
    """
    if not never_call("_ZN4brpc6Server18AddBuiltinServicesEv"):
        log.warning("this Paddle is no wheel: brpc's pages, on which its flags can be set, are open at this server")


def leave_out_the_workers_service() -> None:
    """Every worker has a service of brpc for other workers, from port 8500 on, at the address of the machine's name.

    It serves Paddle's global shuffle and its own channel to a coordinator, which nobody uses here (2.6.2, 3.0.0).
    """
    if not never_call("_ZN6paddle11distributed12BrpcPsClient18StartClientServiceEv"):
        log.warning("this Paddle is no wheel: this worker has an open service of brpc, from port 8500 on")


def keep_the_job_out_of_logs() -> None:
    """Paddle prints by what its workers know each other into each role's log (2.6.2, 3.0.0)."""
    from paddle.distributed.fleet.base import role_maker

    role_maker.print = lambda *_: None


def guard_gloos_store(host: str, scope: str, audit: Audit) -> None:
    """Gloo's store listens at one address, and serves those who know its job.

    Paddle's listens at all addresses, and takes whatever a worker of another job writes for its own's (2.6.2, 3.0.0).

    Args:
        host: where it is to listen.
        scope: the first part of the paths of all that this job's workers ask for.
        audit: told of all others.
    """
    from paddle.distributed.fleet.utils.http_server import KVHandler, KVHTTPServer

    def listen(self: Any) -> None:
        self.server_address = (host, self.server_address[1])
        # Not HTTPServer's, which asks who has that address, of a name server that may not answer.
        socketserver.TCPServer.server_bind(self)

    KVHTTPServer.server_bind = listen
    original = getattr(KVHandler.parse_request, "fl_rec_original", KVHandler.parse_request)

    def parse_request(self: Any) -> bool:
        if not original(self):
            return False
        if self.path.split("/")[1] == scope:
            if self.path != _knock(scope):
                return True
            self.send_status_code(200)
            return False
        audit.tell("refused", self.client_address[0], "gloo's store: it is of another job, or of none", "gloo's store")
        self.send_error(403, "of another job")
        return False

    parse_request.fl_rec_original = original  # type: ignore[attr-defined]
    KVHandler.parse_request, KVHandler.timeout = parse_request, _PATIENCE


def knows(store: tuple[str, int], scope: str) -> bool:
    """Whether gloo's store at a host and port is this job's. OSError if it does not answer."""
    connection = http.client.HTTPConnection(*store, timeout=_PATIENCE)
    try:
        connection.request("GET", _knock(scope))
        return connection.getresponse().status == 200
    except http.client.HTTPException:  # some other program's answer
        return False
    finally:
        connection.close()


def _knock(scope: str) -> str:
    return f"/{scope}/"
