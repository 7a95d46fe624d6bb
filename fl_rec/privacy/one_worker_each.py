"""Whether each user is in one worker only, as the guarantee supposes. No Paddle is imported here.

A worker shall not learn whose users the others' are, so that neither ids nor hashes of them travel: whoever has a list
of ids can hash it. Each worker has a vector with a 1 for each of its users, and tells the sum of it and of masks that
it has agreed on with each other worker alone (Diffie and Hellman), which add up to 0 over all workers: the secure
aggregation of Bonawitz et al. (arXiv:1611.04482), without its way to do without a worker. So what all learn is in how
many workers a user is, and nothing else; of two workers, each knows the other's users then.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator

import numpy as np

from fl_rec.errors import DataError

# Group 14 of RFC 3526, 2048 bits, with the generator 2.
PRIME = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B"
    "302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE6"
    "49286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB9ED529077096966D"
    "670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718"
    "3995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF",
    16,
)
_BYTES = 256
# Users at a time.
_BLOCK = 1 << 16

Gather = Callable[[np.ndarray, str], np.ndarray]


def require_one_worker_each(users: np.ndarray, num_users: int, worker: int, gather: Gather) -> None:
    """Compares all workers' users; all workers call it.

    Args:
        users: ids of this worker's, int [n], from 0 to `num_users` - 1.
        worker: this worker's number.
        gather: every worker's float64 [n] as float64 [workers, n], of one's own and of what it is for.

    Raises:
        DataError: a user is in several workers.
    """
    here = np.zeros(num_users, np.uint32)
    here[users] = 1
    masks = _masks(worker, gather)
    several = 0
    for start in range(0, num_users, _BLOCK):
        block = here[start : start + _BLOCK] + next(masks)[: num_users - start]
        added = gather(block.astype(np.float64), "whether each user is in one worker").sum(axis=0)
        several += int(np.count_nonzero(added % 2.0**32 > 1))
    if several:
        raise DataError(
            "privacy.clip guarantees for a user what one worker shares of the user, and so needs each user's rows in "
            f"one training shard. Received: {several:,} users with rows in several. Deal the users out anew (fl-rec "
            "partition does it so), or leave privacy.clip out."
        )


def _masks(worker: int, gather: Gather) -> Iterator[np.ndarray]:
    """Of each block of users what this worker adds, uint32."""
    secret = secrets.randbits(512)
    public = pow(2, secret, PRIME).to_bytes(_BYTES, "big")
    everyone = gather(np.frombuffer(public, np.uint8).astype(np.float64), "a key with each other worker")
    keys = {
        other: pow(int.from_bytes(row.astype(np.uint8).tobytes(), "big"), secret, PRIME).to_bytes(_BYTES, "big")
        for other, row in enumerate(everyone)
        if other != worker
    }
    block = 0
    while True:
        mask = np.zeros(_BLOCK, np.uint32)
        for other, key in keys.items():
            stream = hashlib.shake_256(key + block.to_bytes(8, "big")).digest(4 * _BLOCK)
            mask += np.frombuffer(stream, np.uint32) * np.uint32(1 if worker < other else 2**32 - 1)
        yield mask
        block += 1
