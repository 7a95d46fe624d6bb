"""Made-up interactions, for a job without a download."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from fl_rec.data.sampling import Stream, generator
from fl_rec.data.sources.base import Dataset, Items, Users, from_interactions
from fl_rec.typed import AtLeast, PositiveInt

# Training rows of MovieLens 1M by the first digit of the user's zip code, with 4 negatives per positive.
REGION_ROWS = (518095, 520165, 373605, 315550, 483780, 495635, 402810, 354590, 262710, 1243905)


_TAGS = ("Action", "Comedy", "Crime", "Drama", "Horror", "Musical", "Romance", "Western")


def synthetic(
    seed: int,
    *,
    num_users: PositiveInt = 600,
    num_items: Annotated[int, AtLeast(20)] = 400,
    positives: PositiveInt = 30_000,
) -> Dataset:
    """Make up interactions with a popularity skew, whose tastes differ by region, tag and person.

    A region is the first digit of the zip code and has MovieLens 1M's share of the users. A user's liking of
    an item is its popularity, plus the region's and the user's own liking of its tag, plus a product of
    latent factors. ``positives`` is the wanted number of interactions; rounding and the floor of 10 per user
    move it a little.
    """
    rng = generator(seed, Stream.SYNTHETIC)
    share = np.array(REGION_ROWS) / sum(REGION_ROWS)
    # Equal steps through the cumulative shares: the counts are exact, and only who lives where is drawn.
    region = rng.permutation(np.searchsorted(np.cumsum(share), (np.arange(num_users) + 0.5) / num_users))
    tag = rng.integers(0, len(_TAGS), num_items)
    popularity = rng.permutation(-0.8 * np.log(np.arange(num_items) + 10.0))
    shared, own = (rng.standard_normal((n, len(_TAGS))) for n in (10, num_users))
    taste = shared[region] + own
    latent = rng.standard_normal((num_users, 4)) @ rng.standard_normal((num_items, 4)).T
    liking = popularity + taste[:, tag] + latent
    # Gumbel noise and the largest values: sampling without replacement with softmax(liking) probabilities.
    order = np.argsort(-(liking + rng.gumbel(size=liking.shape)), axis=1)
    weight = rng.lognormal(0.0, 0.6, num_users)
    for k, part in enumerate(share):
        weight[region == k] *= positives * part / max(weight[region == k].sum(), 1e-9)
    activity = np.clip(np.rint(weight), 10, num_items // 2).astype(np.int64)
    user: np.ndarray = np.repeat(np.arange(num_users), activity)
    position = np.arange(len(user)) - np.repeat(np.cumsum(activity) - activity, activity)
    item = order[user, position]
    # The order of liking must not become the order of time, or the test item would always be the least liked.
    time = rng.permutation(len(user))
    street = rng.integers(0, 10_000, num_users)
    zip_code = np.array([f"{region[n]}{street[n]:04d}" for n in range(num_users)])
    tags = [_TAGS[n] for n in tag]
    titles = [f"Synthetic {name} {n}" for n, name in enumerate(tags, 1)]
    users = Users(np.arange(num_users) + 1, {"zip_code": zip_code}, "zip_first_digit")
    return from_interactions(
        "synthetic", user + 1, item + 1, time, users, Items(np.arange(num_items) + 1, titles, tags)
    )
