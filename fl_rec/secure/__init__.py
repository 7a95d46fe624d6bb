"""Who may come in: mutual TLS by files that a user names, and which addresses need it. No Paddle is imported here."""

from fl_rec.secure.addresses import INSECURE_KEY, is_insecure, is_loopback, require_safe
from fl_rec.secure.tls import Tls, channel_credentials, names_of, refuse_revoked, server_credentials, why_refused

__all__ = [
    "INSECURE_KEY",
    "Tls",
    "channel_credentials",
    "is_insecure",
    "is_loopback",
    "names_of",
    "refuse_revoked",
    "require_safe",
    "server_credentials",
    "why_refused",
]
