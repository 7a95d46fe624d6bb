"""The cryptography of a secure sum, put together from what others have written and tested."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fl_rec.errors import RunError

# Bytes of a seed, which is what Shamir's scheme of pycryptodome shares, and of a mask's key: 128 bits, as X25519 has.
SEED = 16
PUBLIC = 32
TAG = 16
# Numbers that are masked at a time, so that they stay in a processor's cache.
_BLOCK = 1 << 15


def key(secret: bytes, purpose: str, size: int = 32) -> bytes:
    """So many bytes for one purpose from a secret."""
    derived: bytes = HKDF(hashes.SHA256(), size, None, f"fl_rec secure sum: {purpose}".encode()).derive(secret)
    return derived


def private_key(seed: bytes) -> X25519PrivateKey:
    """The private key of a seed."""
    return X25519PrivateKey.from_private_bytes(key(seed, "private key"))


def public(own: X25519PrivateKey) -> bytes:
    """Its public key."""
    told: bytes = own.public_key().public_bytes_raw()
    return told


def agreed(own: X25519PrivateKey, other: bytes) -> bytes:
    """A secret of two, to be taken as `key` only, by the private key of one and the public key of the other.

    Raises:
        RunError: the other's is no key.
    """
    try:
        secret: bytes = own.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError as err:
        raise RunError("A secure sum needs a public key of each client. Received: one that is none.") from err
    return secret


def sealed(secret: bytes, text: bytes, about: bytes) -> bytes:
    """`text`, for who has the key `secret`, which seals nothing else; `about` is known to both."""
    closed: bytes = ChaCha20Poly1305(secret).encrypt(bytes(12), text, about)
    return closed


def opened(secret: bytes, text: bytes, about: bytes) -> bytes:
    """What was sealed. RunError if it was sealed with another key, about something else, or was altered."""
    try:
        read: bytes = ChaCha20Poly1305(secret).decrypt(bytes(12), text, about)
    except InvalidTag as err:
        raise RunError(
            "Shares of a secure sum must come as they were sealed, by who says so and for the same clients. Received: "
            "others. Look at what lies between the workers."
        ) from err
    return read


def shares(seed: bytes, threshold: int, holders: Sequence[int]) -> dict[int, bytes]:
    """One share for each holder, of which any `threshold` give the seed and fewer nothing."""
    dealt = Shamir.split(threshold, len(holders), seed)
    return {holder: share for holder, (_, share) in zip(holders, dealt)}


def from_shares(held: Mapping[int, bytes], threshold: int, holders: Sequence[int]) -> bytes:
    """The seed of which some holders have opened their shares, at least `threshold`."""
    places = {holder: place for place, holder in enumerate(holders, 1)}
    enough = sorted(held.items())[:threshold]
    seed: bytes = Shamir.combine([(places[holder], share) for holder, share in enough])
    return seed


def add_streams(values: np.ndarray, plus: Iterable[bytes], minus: Iterable[bytes]) -> None:
    """Adds to numbers modulo 2^32, in place, what keys of `SEED` bytes give, or takes it away; uint32 [n]."""
    streams = [
        (Cipher(algorithms.AES(secret), modes.CTR(bytes(16))).encryptor(), add)
        for keys, add in ((plus, np.add), (minus, np.subtract))
        for secret in keys
    ]
    nothing = bytes(4 * _BLOCK)
    buffer = bytearray(4 * _BLOCK + 15)
    drawn = np.frombuffer(buffer, "<u4", _BLOCK)
    for start in range(0, len(values), _BLOCK):
        part = values[start : start + _BLOCK]
        for stream, add in streams:
            stream.update_into(nothing, buffer)
            add(part, drawn[: len(part)], out=part)


def digest(parts: Collection[bytes]) -> bytes:
    """32 bytes that stand for some texts of known lengths."""
    made = hashes.Hash(hashes.SHA256())
    for part in parts:
        made.update(part)
    finished: bytes = made.finalize()
    return finished
