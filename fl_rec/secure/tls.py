"""Mutual TLS: a party's three files, what is wrong with them, and what gRPC makes of them."""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

from fl_rec.config import TlsConfig
from fl_rec.errors import ConfigError, DataError

log = logging.getLogger(__name__)

# Days before its end from which a certificate is warned of.
SOON = 14
# What OpenSSL says of a certificate, in words, with the remedy.
_REASONS = {
    3: "can't be judged: tls.crl has no list of its authority: fl-rec certs DIR --revoke writes one",
    8: "can't be judged: tls.crl is not signed by its authority: fl-rec certs DIR --revoke writes one that is",
    9: "is not valid yet: look at the clocks of both machines, or wait until it is",
    10: "has expired: fl-rec certs DIR --renew makes new ones",
    12: "can't be judged: tls.crl has expired: fl-rec certs DIR --revoke writes a new one",
    18: "is signed by itself, not by tls.ca: give both sides certificates of one fl-rec certs DIR",
    19: "is of another authority than tls.ca: give both sides certificates of one fl-rec certs DIR",
    20: "is of another authority than tls.ca: give both sides certificates of one fl-rec certs DIR",
    23: "has been revoked: fl-rec certs DIR --renew, with --clients or --hosts, makes a new one",
    26: "is not made for this: a client's can't serve, and an authority's is for signing alone",
    62: "is of another name than the address: fl-rec certs DIR --hosts NAME ... makes one of that name",
    64: "is of another address: fl-rec certs DIR --hosts ADDRESS ... makes one of that address",
}
# What OpenSSL calls it when somebody speaks no TLS.
_PLAIN = (
    "HTTP_REQUEST",
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "UNEXPECTED_MESSAGE",
    "PACKET_LENGTH_TOO_LONG",
)
# What a peer answers to a certificate that it does not take, as OpenSSL names the alert.
_ALERTS = {
    "CERTIFICATE_EXPIRED": _REASONS[10],
    "CERTIFICATE_REVOKED": _REASONS[23],
    "UNKNOWN_CA": _REASONS[19],
    "CERTIFICATE_UNKNOWN": "is not taken; its log says why",
    "BAD_CERTIFICATE": "is not taken: it is not valid yet, or not whole; its log says which",
    "UNSUPPORTED_CERTIFICATE": _REASONS[26],
    "CERTIFICATE_REQUIRED": "is asked for: set tls.cert and tls.key",
}

_LISTS = re.compile(b"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)

# How HTTP/2, and so gRPC, begins: a frame of settings, of which there are none, and from a client some words before.
_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS


@dataclass(frozen=True)
class Tls:
    """One party's files, PEM.

    Attributes:
        cert: its certificate, and those between it and an authority's.
        key: the private key.
        ca: the authorities' certificates, by which the other party's is judged.
        crl: certificates that are not taken any more, by who is connected to; None without.
    """

    cert: Path
    key: Path
    ca: Path
    crl: Path | None = None

    @classmethod
    def of(cls, config: TlsConfig, name: str) -> Tls | None:
        """The files of `coordinator`, `client-3` or a host; None if the configuration has no TLS."""
        if config.cert is None or config.key_ is None or config.ca is None:
            return None
        cert, key, ca = (Path(str(path).replace("{name}", name)) for path in (config.cert, config.key_, config.ca))
        return cls(cert, key, ca, config.crl)

    def check(self) -> frozenset[str]:
        """Looks whether they can be read, belong together, are of the authority, valid today and not revoked.

        Returns:
            the names in the certificate; see `names_of`.

        Raises:
            ConfigError: they will not do.
        """
        if self.key.is_file() and self.key.stat().st_mode & 0o077:
            _warn(f"{self.key} can be read by others than its owner: chmod 600 it, or make a new one.")
        try:
            found = _handshake(_serving(self), _unverified(self))
        except ssl.SSLError as err:
            raise ConfigError(f"tls.cert must do. Received: {self.cert}, which {_why(err)}.") from err
        ends = ssl.cert_time_to_seconds(found["notAfter"])
        if ends - time.time() < SOON * 86400:
            _warn(f"{self.cert} expires on {found['notAfter']}: fl-rec certs DIR --renew makes a new one.")
        return names_of(found)


@cache
def _warn(text: str) -> None:
    """Once: who waits for a server looks at its own files at each attempt."""
    log.warning("%s", text)


def server_credentials(tls: Tls) -> Any:
    """gRPC's, for a server whose clients need a certificate of `tls.ca`. ConfigError if the files won't do."""
    import grpc

    if tls.crl is not None:
        _require_library()
    tls.check()
    pair = (tls.key.read_bytes(), tls.cert.read_bytes())
    return grpc.ssl_server_credentials([pair], tls.ca.read_bytes(), require_client_auth=True)


def channel_credentials(tls: Tls) -> Any:
    """gRPC's, for a client. ConfigError if the files won't do."""
    import grpc

    tls.check()
    return grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.key.read_bytes(), tls.cert.read_bytes())


def server_context(tls: Tls) -> ssl.SSLContext:
    """For a server whose clients need a certificate of `tls.ca`. ConfigError if the files won't do."""
    tls.check()
    return _serving(tls)


def refuse_revoked(tls: Tls, found: Mapping[str, Any]) -> None:
    """DataError if a client's certificate is in `tls.crl`, of which Python's gRPC knows nothing, or no list of its
    authority there is valid today.

    Args:
        found: gRPC's `context.auth_context()`.
    """
    if tls.crl is None:
        return
    from cryptography import x509

    def key(signed: Any) -> bytes | None:
        """The authority's, whose name may be another one's too."""
        try:
            found: bytes = signed.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        except x509.ExtensionNotFound:
            return None
        return found

    cert, now = x509.load_pem_x509_certificate(found["x509_pem_cert"][0]), datetime.now(timezone.utc)
    lists = map(x509.load_pem_x509_crl, _LISTS.findall(tls.crl.read_bytes()))
    own = [each for each in lists if each.issuer == cert.issuer and len({key(each), key(cert)} - {None}) < 2]
    if any(each.get_revoked_certificate_by_serial_number(cert.serial_number) for each in own):
        why = 23
    elif not any(each.next_update_utc is None or each.next_update_utc > now for each in own):
        why = 12 if own else 3
    else:
        return
    names = ", ".join(sorted(names_of(found)))[:200]
    raise DataError(f"A certificate must be one that tls.crl lets in. Received: one of {names}, which {_REASONS[why]}.")


def _require_library() -> None:
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError as err:
        raise ConfigError(
            "tls.crl needs the cryptography library where hosts link to the first worker's. Received: none. Install "
            "it: pip install 'cryptography>=42'; or leave tls.crl out."
        ) from err


def _serving(tls: Tls) -> ssl.SSLContext:
    context = _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls)
    if tls.crl is not None:
        _take_list(context, tls.crl)
    context.set_alpn_protocols(["h2"])
    # A session that is taken up again would not be judged again.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    return context


def _take_list(context: ssl.SSLContext, path: Path) -> None:
    """Has it take nobody who is in a list of revoked certificates, or of whose authority there is none."""
    reason, before = "", context.cert_store_stats()["x509"]
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError) as err:
        reason = getattr(err, "reason", None) or str(err)
    else:
        after = context.cert_store_stats()
        if not after["crl"] or after["x509"] != before:  # those would be taken for authorities
            reason = "certificates, and no list" if not after["crl"] else "certificates too"
    if reason:
        raise ConfigError(
            f"tls.crl must be a list of revoked certificates, PEM. Received: {path} ({reason}). fl-rec certs DIR "
            "--revoke NAME writes one."
        )
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def names_of(found: Mapping[str, Any]) -> frozenset[str]:
    """Names and addresses in a peer's certificate.

    Args:
        found: from `SSLSocket.getpeercert`, or gRPC's `context.auth_context()`.
    """
    if "x509_subject_alternative_name" in found or "x509_common_name" in found:
        values = (*found.get("x509_subject_alternative_name", ()), *found.get("x509_common_name", ()))
        return frozenset(each.decode("utf-8", "replace") for each in values)
    names = {str(value) for kind, value in found.get("subjectAltName", ()) if kind in ("DNS", "IP Address")}
    names |= {str(value) for part in found.get("subject", ()) for kind, value in part if kind == "commonName"}
    return frozenset(names)


def why_refused(address: str, tls: Tls | None, timeout: float = 2.0) -> str | None:
    """Why no connection comes about, by one of one's own; "" if it is not for TLS, or the want of it; None if nobody
    has said anything in time.

    Args:
        address: "host:port" of the server.
        tls: the client's; None without.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if tls is None:
            if _speaks_plainly(host, int(port), timeout):  # which would write down who comes with TLS
                return ""
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        else:
            tls.check()
            _loaded(context, tls)
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection((host, int(port)), timeout)
        with plain, context.wrap_socket(plain, server_hostname=host) as secure:
            if tls is None:
                return f"{address} asks for TLS: set tls.cert, tls.key and tls.ca."
            # A server that does not take a certificate says so when the client believes to be through.
            secure.recv(1)
    except ConfigError as err:
        return str(err)
    except ssl.SSLCertVerificationError as err:
        return f"The certificate of {address} {_why(err)}."
    except ssl.SSLEOFError:
        return ""  # closed without a word, as a door does to an address that comes too often
    except ssl.SSLError as err:
        if tls is None:
            return ""
        if err.reason in _PLAIN:
            return f"{address} speaks no TLS: set tls.cert, tls.key and tls.ca there, or leave them out here."
        return f"For {address} the certificate {tls.cert} {_why(err)}."
    except TimeoutError:
        return None
    except OSError:
        return ""
    return ""


def _speaks_plainly(host: str, port: int, timeout: float) -> bool:
    """Whether gRPC without TLS answers there. OSError if nobody does."""
    with socket.create_connection((host, port), timeout) as plain:
        plain.sendall(_GREETING)
        try:
            return plain.recv(9)[3:4] == _SETTINGS[3:4]
        except ConnectionError:
            return False


def _why(err: ssl.SSLError) -> str:
    """Completes "a certificate ..."."""
    if isinstance(err, ssl.SSLCertVerificationError):
        return _REASONS.get(err.verify_code, f"is not taken ({err.verify_message})")
    reason = err.reason or str(err)
    return next((text for name, text in _ALERTS.items() if name in reason), f"gives no connection ({reason})")


def refusal(err: Exception) -> str:
    """What a server says of a client whose handshake failed."""
    if isinstance(err, ssl.SSLError):
        if err.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "it shows no certificate: set tls.cert and tls.key there"
        if err.reason in _PLAIN:
            return "it speaks no TLS: set tls.cert, tls.key and tls.ca there"
        return f"its certificate {_why(err)}"
    return f"its handshake came to no end ({type(err).__name__})"


def _loaded(context: ssl.SSLContext, tls: Tls) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for name, path in (("cert", tls.cert), ("key", tls.key), ("ca", tls.ca)):
        if not path.is_file():
            raise ConfigError(
                f"tls.{name} must be a file. Received: {path}. fl-rec certs DIR makes them; {{name}} in a path stands "
                "for whose it is."
            )
    try:
        # Without a password OpenSSL would ask the terminal for one.
        context.load_cert_chain(tls.cert, tls.key, password="")
    except (ssl.SSLError, OSError) as err:
        raise ConfigError(
            f"tls.cert and tls.key must be a certificate and its own key, PEM, not encrypted. Received: {tls.cert}, "
            f"{tls.key} ({getattr(err, 'reason', None) or err})."
        ) from err
    try:
        context.load_verify_locations(tls.ca)
    except (ssl.SSLError, OSError) as err:
        raise ConfigError(
            f"tls.ca must be certificates, PEM. Received: {tls.ca} ({getattr(err, 'reason', None) or err})."
        ) from err
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _unverified(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(tls.cert, tls.key, password="")
    return context


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """What the server sees of the client's certificate, without a socket. SSLError if it does not take it."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    there, here = server.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up)
    for _ in range(10):
        for side in (here, there):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return there.getpeercert() or {}
