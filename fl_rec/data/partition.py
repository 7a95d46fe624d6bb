"""Partitioners: which shard, and so which worker, each user belongs to.

A partitioner is a function ``(users: UserTable, num_shards: int, rng: np.random.Generator) -> shards``, where
``shards`` is an integer array [users] with a shard number from 0 to num_shards - 1, or -1 to leave the user
out; or a `Dealt`, which says more. Keyword-only parameters are options, set after a colon: ``dirichlet_tag:alpha=0.3``;
their types are checked. A user's own is named ``module:function`` or ``path/to/file.py:function``, options after a
second colon.
"""

from __future__ import annotations

import heapq
import logging
import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fl_rec.data.ids import ids_of
from fl_rec.data.tags import ItemTags
from fl_rec.errors import ConfigError, DataError, FLRecError
from fl_rec.plugins import Registry, did_you_mean, split_options, where_raised
from fl_rec.typed import Fraction, PositiveFloat, PositiveInt, options_of, read_options

log = logging.getLogger(__name__)

DEFAULT_SHARDS = 10
_MOST_VALUES = 100  # that become a shard each, and so a process, unless a number is given
_MOST_TAGS = 64  # that k-means goes by

# What is done with users who can't be placed.
Policy = Literal["spread", "drop", "error"]


@dataclass(frozen=True)
class UserTable:
    """Users, one per entry of each array [users]."""

    user: np.ndarray
    """int64, the id; entry n is user n."""
    activity: np.ndarray
    """int64, number of training positives."""
    columns: Mapping[str, np.ndarray]
    """str, what the source knows of users, by its own names; '' if unknown."""
    tag: np.ndarray
    """str, the most frequent tag among the training items; '' if unknown."""
    positives: Callable[[], np.ndarray] = lambda: np.empty((0, 2), np.int64)
    """gives the training positives (user, item), an int [n, 2]."""
    item_tags: ItemTags = field(default_factory=lambda: ItemTags.of(()))
    """what the items are tagged with."""

    def __len__(self) -> int:
        return len(self.user)

    def column(self, name: str) -> np.ndarray:
        """What the source knows of users under a name; see `require_column`."""
        require_column(name, self.columns)
        return self.columns[name]

    def tag_counts(self) -> np.ndarray:
        """How often the training items of each user have each tag, int64 [users, tags]."""
        user, item = self.positives().T
        return self.item_tags.counts(user, item, len(self))


def require_column(name: str, columns: Collection[str], table: str = "the table of users") -> None:
    """DataError, which lists all columns that there are, if none has this name."""
    if name not in columns:
        hint = f"{did_you_mean(name, columns)} The columns: {', '.join(columns)}.".strip()
        if not columns:
            hint = "There is no such table: prepare the data with --users FILE."
        raise DataError(f"A column must be one of {table}. Received: {name!r}. {hint}")


@dataclass(frozen=True)
class Dealt:
    """Users dealt out to shards.

    Attributes:
        shard: int64 [users], -1 for a user who is left out.
        clients: what each shard is called, such as its region; none if shards have no names.
        policy: what was done with users who can't be placed; None if every user can.
        unplaced: bool [users], who they are; None for nobody.
        num_shards: how many shards there are; filled in by `NamedPartitioner`.
    """

    shard: np.ndarray
    clients: Sequence[str] = ()
    policy: Policy | None = None
    unplaced: np.ndarray | None = None
    num_shards: int = 0


Partitioner = Callable[..., "np.ndarray | Dealt"]


def place(
    users: UserTable, num_shards: int, shard: np.ndarray, policy: Policy, *, rule: str, others: str, option: str
) -> Dealt:
    """Deals users out of whom some can't be placed.

    Args:
        shard: int64 [users], -1 for those who can't.
        policy: ``spread`` them over all shards (user id modulo num_shards, which loses nothing), ``drop`` them, or
            raise an ``error``.
        rule: what a user needs to be placed, such as "a user {} have a value of region".
        others: what the others have, such as "have another".
        option: where the policy is set, such as "taste:missing".

    Raises:
        DataError: the policy is ``error``, or the shards would tell nothing apart: nobody can be placed, or most users
            would be spread.
    """
    unplaced = shard < 0
    count = int(unplaced.sum())
    must, found = rule[0].upper() + rule[1:].format("must"), f"{count} of {len(users)} users {others}"
    if count and policy == "error":
        same = re.split("[:,]", option)[-1]
        raise DataError(f"{must}. Received: {found}. Use {option}=spread or {same}=drop, or another partitioner.")
    if count == len(users) or (policy == "spread" and 2 * count > len(users)):
        raise DataError(
            f"{must}, or shards can't be told apart by it. Received: {found}. Use another partitioner: "
            f"by_column:column=NAME takes any column of the table of users ({', '.join(users.columns) or 'none'})."
        )
    if count:
        done = "left out" if policy == "drop" else "spread over all shards by user id"
        log.warning("warning: %s; %s; they are %s", rule.format("should"), found, done)
    elsewhere = -1 if policy == "drop" else users.user % num_shards
    return Dealt(np.where(unplaced, elsewhere, shard), policy=policy, unplaced=unplaced)


def by_column(
    users: UserTable, num_shards: int | None, rng: np.random.Generator, *, column: str, missing: Policy = "spread"
) -> Dealt:
    """Shard by a column of the table of users, such as a region: one value to a shard, or several.

    From the value with the most training positives down, each goes to the shard that has the fewest so far. Shards are
    in the order of their first values: by code point, whole numbers by size. ``missing`` is for users without a value;
    see `place`.

    Args:
        num_shards: None for as many as there are values.
    """
    texts = users.column(column)
    known = texts != ""
    values, value = np.unique(ids_of(texts[known].tolist()), return_inverse=True)
    names = list(map(str, values))
    if num_shards is None and len(names) > _MOST_VALUES:
        raise DataError(
            "Each value of a column becomes a shard, and so a process, unless they are grouped. Received: "
            f"{len(names):,} values of {column}. Say how many shards there should be: --num_shards {DEFAULT_SHARDS}"
        )
    num_shards = num_shards or max(len(names), 1)
    if num_shards > len(names) > 0:
        some = ", ".join(names[:5]) + ", ..." * (len(names) > 5)
        raise ConfigError(
            f"by_column fills at most one shard per value. Received: num_shards={num_shards}, and {len(names)} of "
            f"{column} ({some}). Use --num_shards {len(names)} or less, or leave it out."
        )
    group = _even_groups(np.bincount(value, users.activity[known], len(names)), num_shards)
    shard: np.ndarray = np.full(len(users), -1)
    shard[known] = group[value]
    dealt = place(
        *(users, num_shards, shard, missing),
        rule=f"a user {{}} have a value of {column}",
        others="have none",
        option=f"by_column:column={column},missing",
    )
    clients = [", ".join(name for name, k in zip(names, group) if k == shard) for shard in range(num_shards)]
    return replace(dealt, clients=clients)


def _even_groups(weight: np.ndarray, groups: int) -> np.ndarray:
    """The group of each value, int64 [values], by `by_column`'s rule; none is empty if there are enough values."""
    group: np.ndarray = np.zeros(len(weight), np.int64)
    lightest = [(0.0, 0, k) for k in range(groups)]  # weight, values, group
    for value in np.argsort(-weight, kind="stable"):
        total, members, k = lightest[0]
        group[value] = k
        heapq.heapreplace(lightest, (total + weight[value], members + 1, k))
    _, first = np.unique(group, return_index=True)
    return np.argsort(np.argsort(first))[group] if len(group) else group


def taste(
    users: UserTable,
    num_shards: int,
    rng: np.random.Generator,
    *,
    least: Fraction = 0.25,
    missing: Policy = "spread",
) -> Dealt:
    """Shard by what users' training items are tagged with: k-means on the square roots of each user's shares of tags.

    Distances are then Hellinger's, in which rare tags count too; of many tags the 64 most frequent count. A shard that
    has less than ``least`` of an even share of the users takes those from larger ones who are nearest to it. Shards are
    called by the two tags that they have most more of than all users. ``missing`` is for users without any tag; see
    `place`.
    """
    counts = users.tag_counts()
    tags = np.sort(np.argsort(-counts.sum(axis=0), kind="stable")[:_MOST_TAGS])
    counts = counts[:, tags]
    known = counts.sum(axis=1) > 0
    if known.sum() < num_shards:
        raise DataError(
            f"taste needs a source whose items have tags, and a user with tagged items for each shard. Received: "
            f"{known.sum()} for {num_shards} shard(s). Prepare the data with --items FILE, or use dirichlet_activity."
        )
    share = counts[known] / counts[known].sum(axis=1, keepdims=True)
    nearest = _at_least(_distances(np.sqrt(share), num_shards, rng), int(least * known.sum() / num_shards) or 1)
    shard: np.ndarray = np.full(len(users), -1)
    shard[known] = nearest
    more = np.array([share[nearest == k].mean(axis=0) for k in range(num_shards)]) - share.mean(axis=0)
    names = np.array(users.item_tags.names)[tags]
    dealt = place(
        *(users, num_shards, shard, missing),
        rule="a user {} have tagged items",
        others="have none",
        option="taste:missing",
    )
    best = [np.argsort(-each, kind="stable")[: min(2, (each > 0).sum())] for each in more]
    return replace(dealt, clients=[", ".join(names[each]) for each in best])


def _distances(points: np.ndarray, centres: int, rng: np.random.Generator) -> np.ndarray:
    """Distances float64 [points, centres] to the centres that k-means finds."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    # Sums depend on how many threads add them, and so may shards.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # of fewer different points than centres
        found = KMeans(centres, n_init=4, random_state=int(rng.integers(2**31))).fit(points)
        distances: np.ndarray = found.transform(points)
    return distances


def _at_least(distance: np.ndarray, least: int) -> np.ndarray:
    """The nearest centre of each point, int64, but that each centre has `least` of them: those that lose the least."""
    nearest: np.ndarray = distance.argmin(axis=1)
    for centre in range(distance.shape[1]):
        size = np.bincount(nearest, minlength=distance.shape[1])
        loss = distance[:, centre] - distance[np.arange(len(nearest)), nearest]
        for point in np.argsort(loss, kind="stable"):
            if size[centre] >= least:
                break
            if size[nearest[point]] > least:
                size[nearest[point]] -= 1
                size[centre] += 1
                nearest[point] = centre
    return nearest


def iid(users: UserTable, num_shards: int, rng: np.random.Generator) -> np.ndarray:
    """Deal the users out at random, as many to each shard as to any other, give or take one."""
    return rng.permutation(np.arange(len(users)) % num_shards)


def dirichlet_activity(
    users: UserTable,
    num_shards: int,
    rng: np.random.Generator,
    *,
    alpha: PositiveFloat = 0.5,
    classes: PositiveInt = 10,
) -> np.ndarray:
    """Spread each of ``classes`` activity quantiles over the shards in Dirichlet(alpha) proportions."""
    rank = np.argsort(np.argsort(users.activity, kind="stable"))
    return _dirichlet(rank * classes // max(len(users), 1), num_shards, rng, alpha)


def dirichlet_tag(
    users: UserTable, num_shards: int, rng: np.random.Generator, *, alpha: PositiveFloat = 0.5
) -> np.ndarray:
    """Spread the users of each dominant tag over the shards in Dirichlet(alpha) proportions."""
    if not (users.tag != "").any():
        raise DataError(
            "dirichlet_tag needs a source whose items have tags. Received: none for any user. "
            "Prepare the data with --items FILE, or use dirichlet_activity."
        )
    return _dirichlet(np.unique(users.tag, return_inverse=True)[1], num_shards, rng, alpha)


def _dirichlet(label: np.ndarray, num_shards: int, rng: np.random.Generator, alpha: float) -> np.ndarray:
    """Draw each user's shard from its class's proportions (as arXiv:1909.06335 does with samples)."""
    proportions = rng.dirichlet(np.full(num_shards, alpha), size=int(label.max(initial=0)) + 1)
    uniform = rng.random(len(label))
    bounds = np.cumsum(proportions, axis=1)
    bounds[:, -1] = 1.0  # a sum may end a rounding error below, where a draw could fall
    shard: np.ndarray = (bounds[label] < uniform[:, None]).sum(axis=1)
    return shard


PARTITIONERS: Registry[Partitioner] = Registry(
    "a partitioner",
    "--partitioner",
    {
        **{each.__name__: each for each in (by_column, taste, iid, dirichlet_activity, dirichlet_tag)},
        "zip_first_digit": "fl_rec.data.sources.movielens:zip_first_digit",
    },
)


@dataclass(frozen=True)
class NamedPartitioner:
    """A partitioner with its name and every option's value; calling it checks what it returns."""

    name: str
    options: Mapping[str, Any]
    function: Partitioner

    def __call__(self, users: UserTable, num_shards: int | None, rng: np.random.Generator) -> Dealt:
        """Deals users out.

        Args:
            num_shards: None for what the partitioner makes of the users, if it does so, or `DEFAULT_SHARDS`.

        Raises:
            DataError: the function does not give one shard number, or -1, per user.
        """
        if num_shards is None and self.function is not by_column:
            num_shards = DEFAULT_SHARDS
        if num_shards is not None and num_shards < 1:
            raise ConfigError(f"num_shards must be at least 1. Received: {num_shards}. The usual value is 10.")
        try:
            returned = self.function(users, num_shards, rng, **self.options)
        except FLRecError:
            raise
        except Exception as err:
            what = f"{type(err).__name__}: {err}{where_raised(err)}"
            raise DataError(f"Partitioner {self.name} failed: {what}. Mend it, or name another.") from err
        dealt = returned if isinstance(returned, Dealt) else Dealt(np.asarray(returned))
        shard = dealt.shard
        if shard.shape != (len(users),):
            self._reject(f"one shard number per user, shape ({len(users)},)", f"shape {shard.shape}")
        if shard.dtype.kind not in "iu":
            self._reject("whole numbers", f"dtype {shard.dtype}")
        num_shards = num_shards or len(dealt.clients)
        if len(dealt.clients) not in (0, num_shards):
            self._reject(f"a name for each of {num_shards} shards, or none", f"{len(dealt.clients)} names")
        outside = np.flatnonzero((shard < -1) | (shard >= num_shards))
        if outside.size:
            received = f"{shard[outside[0]]} for user {outside[0]}"
            self._reject(f"numbers from 0 to {num_shards - 1}, or -1 to leave a user out", received)
        return replace(dealt, shard=shard.astype(np.int64), num_shards=num_shards)

    def _reject(self, rule: str, received: str) -> None:
        raise DataError(f"Partitioner {self.name} must return {rule}. Received: {received}. Correct its return value.")


def find_partitioner(spec: str) -> NamedPartitioner:
    """Return the partitioner called ``name``, ``module:function`` or ``file.py:function``, each with
    ``:key=value,...``.

    ConfigError if there is no such thing, suggesting the nearest name, or if an option is unknown or
    malformed.
    """
    name, given = split_options(spec)
    function = PARTITIONERS.find(name)
    options = read_options(options_of(function, name), given, f"--partitioner {name}", Path())
    return NamedPartitioner(name, dict(options), function)
