"""What a process of a job opens to the network, and whom it lets in."""

from __future__ import annotations

import http.client
import logging
import socketserver
from typing import Any

from fl_rec.ps.native import never_call
from fl_rec.runs.audit import Audit

log = logging.getLogger(__name__)

# Seconds in which whoever connects to gloo's store has asked, and in which it has answered.
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
    from paddle.distributed.fleet.utils import http_server

    server: Any = http_server.KVHTTPServer
    handler: Any = http_server.KVHandler
    left = set[str]()

    class Store(socketserver.ThreadingMixIn, server):  # type: ignore[misc]
        server_address: Any
        daemon_threads = True  # a thread for each who comes, so that nobody waits for one who asks nothing

        def server_bind(self) -> None:
            self.server_address = (host, self.server_address[1])
            # Not HTTPServer's, which asks who has that address, of a name server that may not answer.
            socketserver.TCPServer.server_bind(self)

        def get_deleted_size(self, _scope: str) -> int:
            """Of workers that need it no more. When all do it ends, and whoever has no answer by then asks for ever."""
            return len(left)

        def server_close(self) -> None:
            super().server_close()
            audit.close()

    class Door(handler):  # type: ignore[misc]
        timeout = _PATIENCE

        def parse_request(self) -> bool:
            if not super().parse_request():
                return False
            if self.path.split("/")[1:2] == [scope]:
                if self.path != _knock(scope):
                    return True
                self.send_status_code(200)
                return False
            why = "gloo's store: it is of another job, or of none"
            audit.tell("refused", self.client_address[0], why, "gloo's store")
            self.send_error(403, "of another job")
            return False

        def do_DELETE(self) -> None:
            super().do_DELETE()
            left.add(self.path)

    http_server.KVHTTPServer, http_server.KVHandler = Store, Door


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
