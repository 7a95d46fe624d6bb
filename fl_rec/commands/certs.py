"""`fl-rec certs`: an authority of one's own, and a certificate for the coordinator, each host and each client."""

from __future__ import annotations

import argparse
import ipaddress
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from fl_rec.arguments import count
from fl_rec.errors import ConfigError
from fl_rec.files import atomic_write, drafted

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

AUTHORITY, COORDINATOR, LIST = "ca", "coordinator", "crl.pem"
# How the coordinator is reached on its own machine.
HERE = ("localhost", "127.0.0.1", "::1")
AUTHORITY_DAYS, DAYS = 3650, 365
# Clocks differ.
_EARLIER = timedelta(minutes=5)
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$", re.IGNORECASE)
_CLIENT = re.compile(r"client-\d+$")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec certs`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="where they go; new, but for --renew")
    parser.add_argument("--clients", type=count, default=None, metavar="N", help="clients, one for each; default: 10")
    parser.add_argument(
        "--hosts", nargs="+", default=[], metavar="NAME", help="names or addresses by which hosts are reached"
    )
    parser.add_argument(
        "--days", type=count, default=DAYS, metavar="N", help=f"how long they are valid; default: {DAYS}"
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--renew", action="store_true", help="new ones by the authority in DIR, for all that are there and are named"
    )
    again.add_argument(
        "--revoke",
        nargs="*",
        metavar="NAME",
        help=f"take these back, such as client-3: they go from DIR, into the list DIR/{LIST}, which is valid for --days"
        " and, without a NAME, written anew",
    )


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec certs`."""
    folder: Path = options.folder
    until = datetime.now(timezone.utc) + timedelta(days=options.days)
    if options.revoke is not None:
        count = revoke(folder, options.revoke, options.days)
        print(f"{folder / LIST} has {count} revoked certificates, and is valid until {until:%Y-%m-%d}.\n")
        print(f"tls:\n  crl: {folder / LIST}\n")
        print(f"Give it to each host, as {AUTHORITY}.crt. A coordinator that runs takes a new one at once.")
        return 0
    if options.renew:
        made = renew(folder, options.clients or 0, options.hosts, options.days)
    else:
        made = create(folder, options.clients or 10, options.hosts, options.days)
    print(f"{folder} has certificates, valid until {until:%Y-%m-%d}, of {', '.join(_told(made))}.")
    print("\ntls:")
    for key, name in (("cert", "{name}.crt"), ("key", "{name}.key"), ("ca", f"{AUTHORITY}.crt")):
        print(f"  {key}: {folder / name}")
    print(
        f"\nGive each host {AUTHORITY}.crt, and the .crt and .key of its own name and its own clients, no others'. "
        f"{AUTHORITY}.key\nmakes new ones: keep it where no job runs. fl-rec certs {folder} --renew renews them all."
    )
    return 0


def create(folder: Path, clients: int, hosts: Iterable[str], days: int = DAYS) -> list[str]:
    """Makes an authority and its certificates: NAME.crt and NAME.key, readable by their owner alone.

    Args:
        folder: new, or empty.
        clients: how many; they are client-0, client-1, ...
        hosts: names or addresses by which hosts are reached, each of which gets one; the coordinator's has all of them.
        days: for which they are valid.

    Returns:
        whose they are.

    Raises:
        ConfigError: there is something in the folder, a host has no name, or the cryptography library is missing.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"Certificates go to a new folder, for none is overwritten. Received: {folder}. Name another; or add "
            "--renew, and new ones are made by the authority that is there."
        )
    return _write(folder, Authority.new(), _parties(clients, hosts), days)


def renew(folder: Path, clients: int = 0, hosts: Iterable[str] = (), days: int = DAYS) -> list[str]:
    """As `create`, by the authority that is there: for all who have one, under the names in it, and those named."""
    authority = Authority.load(folder)
    parties = _parties(clients, hosts)
    for path in sorted(folder.glob("*.crt")):
        if path.stem != AUTHORITY:
            parties[path.stem] = [*dict.fromkeys((*_names_in(path, authority), *parties.get(path.stem, ())))]
    made = _write(folder, authority, parties, days)
    if (folder / LIST).exists():
        revoke(folder, (), days)
    return made


def revoke(folder: Path, names: Iterable[str], days: int = DAYS) -> int:
    """Takes certificates back: they go from the folder, and into its list, `LIST`.

    Args:
        folder: with the authority and the certificates.
        names: whose; they must be there.
        days: for which the list is valid.

    Returns:
        how many there are in the list.

    Raises:
        ConfigError: there is none, it is not the authority's, or it is the coordinator's.
    """
    authority = Authority.load(folder)
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    now, path = datetime.now(timezone.utc), folder / LIST
    old = x509.load_pem_x509_crl(path.read_bytes()) if path.exists() else ()
    revoked = {each.serial_number: each for each in old}
    names = [*names]
    for name in names:
        if name in (AUTHORITY, COORDINATOR):
            raise ConfigError(
                f"Clients don't look whether their coordinator's certificate was revoked. Received: {name}. If its key "
                "is lost, make a new folder, which has a new authority, and hand that out."
            )
        number = _serial_of(folder, name, authority)
        revoked[number] = x509.RevokedCertificateBuilder(number, now).build()
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = x509.CertificateRevocationListBuilder(
        authority.cert.subject, now - _EARLIER, now + timedelta(days=days), revoked_certificates=[*revoked.values()]
    )
    builder = builder.add_extension(issuer, critical=False)
    builder = builder.add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
    with atomic_write(path, 0o600) as file:
        file.write(builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    for name in names:
        for end in ("crt", "key"):
            (folder / f"{name}.{end}").unlink(missing_ok=True)
    return len(revoked)


@dataclass(frozen=True)
class Authority:
    """What signs certificates."""

    key: EllipticCurvePrivateKey
    cert: x509.Certificate

    @classmethod
    def new(cls, days: int = AUTHORITY_DAYS) -> Authority:
        _require_library()
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
        name = _named("fl_rec authority")
        builder = _builder(name, name, key, now - _EARLIER, now + timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        return cls(key, _signed(builder, key))

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """ConfigError if there is none."""
        _require_library()
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key((folder / f"{AUTHORITY}.key").read_bytes(), None)
            cert = x509.load_pem_x509_certificate((folder / f"{AUTHORITY}.crt").read_bytes())
        except (OSError, ValueError, TypeError) as err:
            raise ConfigError(
                f"--renew takes the folder that fl-rec certs made, with {AUTHORITY}.crt and {AUTHORITY}.key. Received: "
                f"{folder} ({err})."
            ) from err
        return cls(key, cert)

    def issue(self, name: str, names: Iterable[str], begins: datetime, ends: datetime) -> tuple[bytes, bytes]:
        """A certificate and its new key, PEM.

        Args:
            name: whose it is; a client's can't serve.
            names: names and addresses that it has.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID

        key = ec.generate_private_key(ec.SECP256R1())
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if not _CLIENT.match(name):
            purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = _builder(_named(name), self.cert.subject, key, begins, ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([*_general(names)]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        cert = _signed(builder.add_extension(issuer, critical=False), self.key)
        return cert.public_bytes(serialization.Encoding.PEM), _pem_of(key)


def _parties(clients: int, hosts: Iterable[str]) -> dict[str, list[str]]:
    """Whose certificates there are to be, with the names in each."""
    hosts = [each.strip("[]") for each in hosts]
    for host in hosts:
        with suppress(ValueError):
            ipaddress.ip_address(host)
            continue
        if not _HOST.match(host) or _CLIENT.match(host) or host in (AUTHORITY, COORDINATOR):
            raise ConfigError(
                f"--hosts takes names and addresses of hosts, without ports. Received: {host}. Write them as in "
                "--servers, such as --hosts train-1.example 10.0.0.2"
            )
    parties = {COORDINATOR: [COORDINATOR, *dict.fromkeys((*HERE, *hosts))]}
    parties.update((host, [host]) for host in hosts)
    parties.update((f"client-{number}", [f"client-{number}"]) for number in range(clients))
    return parties


def _write(folder: Path, authority: Authority, parties: dict[str, list[str]], days: int) -> list[str]:
    from cryptography.hazmat.primitives.serialization import Encoding

    now = datetime.now(timezone.utc)
    ends = now + timedelta(days=days)
    if ends > authority.cert.not_valid_after_utc:
        raise ConfigError(
            f"--days must end before the authority, on {authority.cert.not_valid_after_utc:%Y-%m-%d}. Received: "
            f"{days}. Take fewer, or make a new folder, which has a new one."
        )
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    with drafted(folder.absolute(), 0o700) as draft:
        if folder.is_dir():  # what else lies there stays
            shutil.copytree(folder, draft, dirs_exist_ok=True)
        _put(draft, AUTHORITY, authority.cert.public_bytes(Encoding.PEM), _pem_of(authority.key))
        for name, names in parties.items():
            _put(draft, name, *authority.issue(name, names, now - _EARLIER, ends))
    return list(parties)


def _put(folder: Path, name: str, cert: bytes, key: bytes) -> None:
    for suffix, content in (("crt", cert), ("key", key)):
        with atomic_write(folder / f"{name}.{suffix}", 0o600) as file:
            file.write(content)


def _told(names: list[str]) -> Iterator[str]:
    """The clients in short."""
    clients = [name for name in names if _CLIENT.match(name)]
    yield from (name for name in names if name not in clients)
    if clients:
        yield clients[0] if len(clients) == 1 else f"{len(clients)} clients"


def _names_in(path: Path, authority: Authority) -> list[str]:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        cert = x509.load_pem_x509_certificate(path.read_bytes())
        cert.verify_directly_issued_by(authority.cert)
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as err:
        raise ConfigError(
            "--renew takes certificates that fl-rec certs made, by the authority there. Received: "
            f"{path} ({str(err) or 'of another authority'}). Take it out of the folder."
        ) from err
    return [str(each.value) for each in names]


def _serial_of(folder: Path, name: str, authority: Authority) -> int:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        cert = x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())
        cert.verify_directly_issued_by(authority.cert)
    except (OSError, ValueError, TypeError, InvalidSignature) as err:
        raise ConfigError(
            f"--revoke takes names whose certificates, by the authority there, are in {folder}. Received: {name} "
            f"({str(err) or 'of another authority'})."
        ) from err
    return int(cert.serial_number)


def _general(names: Iterable[str]) -> Iterator[x509.GeneralName]:
    from cryptography import x509

    for name in names:
        try:
            yield x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            yield x509.DNSName(name)


def _named(name: str) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])


def _builder(
    name: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    from cryptography import x509

    builder = x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number(), begins, ends)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _usage(signs: bool) -> x509.KeyUsage:
    from cryptography import x509

    rest = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    never = dict.fromkeys((*rest, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, **never)


def _signed(builder: x509.CertificateBuilder, key: EllipticCurvePrivateKey) -> x509.Certificate:
    from cryptography.hazmat.primitives import hashes

    return builder.sign(key, hashes.SHA256())


def _pem_of(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization as form

    pem: bytes = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    return pem


def _require_library() -> None:
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError as err:
        raise ConfigError(
            "fl-rec certs needs the cryptography library. Received: none. Install it: pip install 'cryptography>=42'; "
            "or take certificates that other software made."
        ) from err
