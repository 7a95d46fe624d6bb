"""Sums of what clients have, of which nobody sees any one's: secure aggregation (arXiv:1611.04482).

No Paddle here, and nothing is sent: a `Member` says what one client tells the others in each round, and takes what
they tell. Its secrets are drawn anew for each sum. Agreements (X25519), keys (HKDF), streams (AES-128 in counter mode)
and seals (ChaCha20-Poly1305) are those of the package cryptography, shares (Shamir's) those of pycryptodome.

Beside the paper: who lives opens its own mask itself, in the round in which all open their shares of it. That tells
nobody more than the shares do, and spares putting them together, which takes 10 ms for each client and sum.
"""
