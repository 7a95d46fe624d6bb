"""One client's part in one secure sum, and what the parts of all come to."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fl_rec.errors import RunError
from fl_rec.privacy.secure_sum import primitives
from fl_rec.privacy.secure_sum.primitives import PUBLIC, SEED, TAG

KEYS = 2 * PUBLIC
DEALT = 2 * SEED + TAG
VIEW = 32
# Who they are between is in them, so that whoever tells another's keys as its own has neither its masks nor its shares.
_MASK, _SHARES, _OWN = "mask of {} and {}", "shares of {} for {}", "own mask"


class Member:
    """A client: `keys`, `deal`, `masked`, `view` and `open`, each once and in this order.

    The sum needs at least a threshold of clients that go all the way; see `clients.threshold_of`. Who stops before
    `masked` isn't in it. Nobody ever has both a client's own mask and its key opened: a member opens once, of each
    client one of the two, and only when as many as the threshold say that they are about to open the same.

    Args:
        number: which client it is.

    Attributes:
        keys: round 0, for all: its two public keys, `KEYS` bytes.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._own, key = secrets.token_bytes(SEED), secrets.token_bytes(SEED)
        self._key, self._key_seed = primitives.private_key(key), key
        self._channel = primitives.private_key(secrets.token_bytes(SEED))
        self.keys = primitives.public(self._channel) + primitives.public(self._key)
        self._last = "keys"

    def deal(self, keys: Mapping[int, bytes], threshold: int) -> dict[int, bytes]:
        """Round 1: shares of this client's secrets.

        Args:
            keys: what each client has told, itself too.
            threshold: more than half of them, and the same for all.

        Returns:
            for each other client what only it can read, `DEALT` bytes.

        Raises:
            RunError: there are too few.
        """
        self._begin("deal", after="keys")
        if not len(keys) < 2 * threshold <= 2 * len(keys):
            raise RunError(
                f"A secure sum needs {threshold} clients or more. Received: {len(keys)}. Have more of them take part."
            )
        self._keys, self._threshold, self._holders = dict(keys), threshold, sorted(keys)
        self._secrets = {
            each: primitives.agreed(self._channel, keys[each][:PUBLIC]) for each in keys if each != self.number
        }
        own, key = (primitives.shares(each, threshold, self._holders) for each in (self._own, self._key_seed))
        self._held = {self.number: own[self.number] + key[self.number]}
        self._about = primitives.digest(
            [threshold.to_bytes(4, "big"), *(each.to_bytes(4, "big") + keys[each] for each in self._holders)]
        )
        return {
            other: primitives.sealed(_seal(secret, self.number, other), own[other] + key[other], self._about)
            for other, secret in self._secrets.items()
        }

    def masked(self, values: np.ndarray, dealt: Mapping[int, bytes]) -> np.ndarray:
        """Round 2: what the servers may see.

        Args:
            values: uint32 [n], to be added modulo 2^32.
            dealt: what each other client that is still there has dealt this one.

        Returns:
            uint32 [n], each number of which is as likely as any other to who lacks one of the masks.

        Raises:
            RunError: there are too few, or a share is not what it says.
        """
        self._begin("masked", after="deal")
        self._held |= {
            other: primitives.opened(_seal(self._secrets[other], other, self.number), text, self._about)
            for other, text in dealt.items()
        }
        self._require_enough(self._held)
        plus, minus = _signed(self._key, self.number, {other: self._keys[other] for other in dealt})
        masked: np.ndarray = values.astype(np.uint32)
        primitives.add_streams(masked, [*plus, _own_mask(self._own)], minus)
        return masked

    def view(self, senders: Collection[int]) -> bytes:
        """Round 3: what this client is about to open, for comparison.

        Args:
            senders: clients whose masked numbers are in the sum, itself among them.

        Returns:
            `VIEW` bytes.
        """
        self._begin("view", after="masked")
        self._senders = frozenset(senders)
        self._require_enough(self._senders)
        if not self._senders <= self._held.keys() or self.number not in self._senders:
            raise RunError(
                "A secure sum is of clients that have dealt their shares, and only who is in it opens any. Received: "
                f"{sorted(senders)} at client {self.number}, which has shares of {sorted(self._held)}."
            )
        members, sent = (
            b"".join(each.to_bytes(4, "big") for each in sorted(which)) for which in (self._held, self._senders)
        )
        self._view = primitives.digest([self._about, primitives.digest([members]), primitives.digest([sent])])
        return self._view

    def open(self, views: Mapping[int, bytes]) -> dict[int, bytes]:
        """Round 4: of each sender the share of its own mask, of each that was lost that of its key.

        Args:
            views: what each client that is still there has told, itself too.

        Returns:
            by client, `SEED` bytes; of itself its own mask's seed.

        Raises:
            RunError: others have another view. Nothing is opened then.
        """
        self._begin("open", after="view")
        self._require_enough(views)
        others = [client for client, view in views.items() if view != self._view]
        if others:
            raise RunError(
                "Who opens shares must do so of the same clients as all others. Received: another view than client "
                f"{self.number}'s of {len(others)} of {len(views)} clients. Nothing was opened."
            )
        opened = {
            other: share[:SEED] if other in self._senders else share[SEED:] for other, share in self._held.items()
        }
        return {**opened, self.number: self._own}

    def _begin(self, what: str, after: str) -> None:
        if self._last != after:
            raise RunError(
                f"A member's secrets are for one sum, and {what} comes once, after {after}. Received: it after "
                f"{self._last}."
            )
        self._last = what

    def _require_enough(self, clients: Collection[int]) -> None:
        require_enough(clients, self._threshold, len(self._keys))


def require_enough(clients: Collection[int], threshold: int, began: int) -> None:
    """RunError if so many were lost that there is no sum."""
    if len(clients) < threshold:
        raise RunError(
            f"A secure sum needs {threshold} of the {began} clients that began it. Received: {len(clients)}. What they "
            "had is lost with the others; fl-rec resume RUN goes on from the last checkpoint."
        )


def unmask(
    total: np.ndarray,
    keys: Mapping[int, bytes],
    threshold: int,
    members: Collection[int],
    senders: Collection[int],
    opened: Mapping[int, Mapping[int, bytes]],
) -> None:
    """Makes of the sum of masked numbers that of the numbers, in place; anybody may.

    Args:
        total: uint32 [n].
        keys: what clients told in round 0.
        threshold: see `Member.deal`.
        members: the clients that have dealt shares.
        senders: those of them whose masked numbers are in the sum.
        opened: what senders have opened, by client.

    Raises:
        RunError: too few have opened, or what does not fit.
    """
    require_enough(opened, threshold, len(keys))
    holders = sorted(keys)

    def seed(client: int) -> bytes:
        held = {holder: shares[client] for holder, shares in opened.items()}
        return primitives.from_shares(held, threshold, holders)

    plus: list[bytes] = []
    minus = [_own_mask(opened[each][each] if each in opened else seed(each)) for each in senders]
    for lost in sorted(set(members) - set(senders)):
        key = primitives.private_key(seed(lost))
        if primitives.public(key) != keys[lost][PUBLIC:]:
            raise RunError(f"Shares of client {lost}'s key must give the key that it told. Received: another's.")
        # As if the lost one had sent zeros under these masks.
        added, taken = _signed(key, lost, {sender: keys[sender] for sender in senders})
        plus += added
        minus += taken
    primitives.add_streams(total, plus, minus)


def _seal(secret: bytes, dealer: int, reader: int) -> bytes:
    return primitives.key(secret, _SHARES.format(dealer, reader))


def _own_mask(seed: bytes) -> bytes:
    return primitives.key(seed, _OWN, SEED)


def _signed(own: X25519PrivateKey, number: int, others: Mapping[int, bytes]) -> tuple[list[bytes], list[bytes]]:
    """The masks that a client has with each of some others: those that it adds, and those that it takes away."""
    mine = {
        other: primitives.key(primitives.agreed(own, keys[PUBLIC:]), _MASK.format(*sorted((number, other))), SEED)
        for other, keys in others.items()
    }
    added, taken = ([each for other, each in mine.items() if (number < other) is adds] for adds in (True, False))
    return added, taken
