"""Where interactions come from: MovieLens 1M and 100K, PaddleRec's CSVs, the NCF paper's files, or made up.

Every source becomes a `Dataset`. Ids are 0-based: an item's is its order of first appearance in the ratings,
a user's is the rank of its original id, which is UserID - 1 when none is missing.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping

import numpy as np

from fl_rec.data import atomic_write, generator, parse_csv_rows, parse_table, read_bytes
from fl_rec.errors import DataError
from fl_rec.partition import UserTable
from fl_rec.sampling import leave_one_out, read_test_rows

SYNTHETIC = "synthetic"
_SYNTHETIC_STREAM = 3
_MAX_IDS = 50_000_000  # tables are as long as the highest id, so one wrong digit could take all memory
_RENUMBER = "Number users and items from 0 up without wide gaps."


@dataclass(frozen=True)
class Items:
    """A catalogue by item id: the source's own ids, titles ('' if unknown), and genres joined with ``|``."""

    original_id: np.ndarray
    title: list[str]
    genres: list[str]


@dataclass(frozen=True)
class Dataset:
    """Interactions, split, before any negative is sampled.

    ``train`` int64 [n, 2] and ``test`` int64 [m, 2] hold positives (user, item), by user; ``test`` has at
    most one per user. ``train_rows`` and ``test_rows``, int64 [rows, 3] of (user, item, label), are set when
    the source comes with negatives. ``original_user`` int64 and ``zip_code`` str are [users]. ``notes`` go to
    meta.json.
    """

    kind: str
    train: np.ndarray
    test: np.ndarray
    original_user: np.ndarray
    zip_code: np.ndarray
    items: Items
    train_rows: np.ndarray | None = None
    test_rows: np.ndarray | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_users(self) -> int:
        return len(self.original_user)

    @property
    def num_items(self) -> int:
        return len(self.items.original_id)

    def user_table(self) -> UserTable:
        """Return what partitioners see: the genre is the most frequent one among a user's training items."""
        names = sorted({name for genres in self.items.genres for name in genres.split("|") if name})
        counts: np.ndarray = np.zeros((self.num_users, 1 + len(names)), dtype=np.int64)
        for column, name in enumerate(names, 1):
            has_genre = np.array([name in genres.split("|") for genres in self.items.genres])
            counts[:, column] = np.bincount(self.train[has_genre[self.train[:, 1]], 0], minlength=self.num_users)
        # Column 0 stays zero, so that argmax gives the empty name to a user without any known genre.
        return UserTable(
            user=np.arange(self.num_users),
            zip_code=self.zip_code,
            activity=np.bincount(self.train[:, 0], minlength=self.num_users),
            genre=np.array(["", *names])[counts.argmax(axis=1)],
        )


def load_source(source: str, seed: int) -> Dataset:
    """Load ``source``: the word ``synthetic``, a folder, a zip, or the path prefix of the NCF paper's files.

    DataError if no known layout fits, saying which files were looked for, or if a file is malformed.
    """
    if source == SYNTHETIC:
        return synthetic(generator(seed, _SYNTHETIC_STREAM))
    path = Path(source)
    if path.exists():
        files = _Files(path)
        if files.find("ratings.dat") and files.find("users.dat"):
            return _movielens_1m(files)
        if files.find("u.data") and files.find("u.user"):
            return _movielens_100k(files)
        train = files.find("big_train/train_data.csv") or files.find("train_data.csv")
        test = files.find("big_test/test_data.csv") or files.find("test_data.csv")
        if train and test:
            return _paddlerec(files, train, test)
    paper = _ncf_files(_ncf_prefix(path))
    if paper:
        return _ncf(paper)
    raise DataError(
        f"--source must be '{SYNTHETIC}', or a folder or zip in a known layout. Received: {source}"
        f"{'' if path.exists() else ', which does not exist'}. Looked for ratings.dat and users.dat "
        "(MovieLens 1M); u.data and u.user (MovieLens 100K); big_train/train_data.csv and "
        "big_test/test_data.csv (PaddleRec); *.train.rating and *.test.rating (NCF paper, "
        "folder or path prefix, may be .gz)."
    )


class _Files:
    """A folder's or zip's files, at the top or one folder down (archives wrap theirs in a folder)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        if not path.is_dir():
            try:
                self._zip = zipfile.ZipFile(path)
            except (OSError, zipfile.BadZipFile) as err:
                raise DataError(
                    f"--source must be a folder or a zip. Received: {path} ({err}). Download it again."
                ) from err

    def find(self, name: str) -> str:
        """Return the file's path inside, '' if there is none."""
        if self._zip is None:
            found = [self.path / name, *sorted(self.path.glob(f"*/{name}"))]
            names = [path.relative_to(self.path).as_posix() for path in found if path.is_file()]
        else:
            depth = name.count("/")
            names = [n for n in self._zip.namelist() if n == name or n.endswith("/" + name)]
            names = sorted((n for n in names if n.count("/") <= depth + 1), key=lambda n: (n.count("/"), n))
        return names[0] if names else ""

    def where(self, name: str) -> str:
        return str(self.path / self.find(name))

    def read(self, name: str) -> bytes:
        if self._zip is None:
            return read_bytes(self.path / self.find(name))
        try:
            content = self._zip.read(self.find(name))
        # The last is what zipfile raises for a compression that it does not know.
        except (OSError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError) as err:
            raise DataError(
                f"A zip member must be readable. Received: {self.where(name)} ({err}). Download the archive again."
            ) from err
        if not content.strip():
            raise DataError(f"A data file must hold at least one row. Received: {self.where(name)}, which is empty.")
        return content

    def fields(self, name: str, separator: str, least: int) -> list[list[str]]:
        """Return `split_fields` of the file, [] if there is none."""
        if not self.find(name):
            return []
        return split_fields(self.read(name), separator, least, self.where(name))


def split_fields(content: bytes, separator: str, least: int, name: str) -> list[list[str]]:
    """Split lines into at least ``least`` fields, the first a whole number. DataError has the line number."""
    lines = content.decode("latin-1").split("\n")  # what older MovieLens files are written in
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = [text.strip() for text in line.split(separator)]
        if len(row) < least or not (row[0].isascii() and row[0].isdigit()):
            raise DataError(
                f"{name}, line {number}: a line must start with a whole number and have at least {least} "
                f"fields separated by {separator!r}. Received: {line[:60]!r}. Correct the line."
            )
        rows.append(row)
    return rows


# ---------------------------------------------------------------------------------------------- layouts


def _movielens_1m(files: _Files) -> Dataset:
    # One-byte separators parse fast; a stray comma or colon in a line still shows as a wrong number of
    # fields.
    ratings = parse_table(files.read("ratings.dat").replace(b"::", b","), 4, b",", files.where("ratings.dat"))
    users = {int(row[0]): row[4] for row in files.fields("users.dat", "::", 5)}
    movies = {int(row[0]): (row[1], row[2]) for row in files.fields("movies.dat", "::", 3)}
    return _from_ratings("ml-1m", ratings, users, movies)


def _movielens_100k(files: _Files) -> Dataset:
    ratings = parse_table(files.read("u.data"), 4, b"\t", files.where("u.data"))
    users = {int(row[0]): row[4] for row in files.fields("u.user", "|", 5)}
    names = []
    if files.find("u.genre"):
        names = [line.split("|")[0] for line in files.read("u.genre").decode("latin-1").split()]
    movies = {}
    for row in files.fields("u.item", "|", 5):
        movies[int(row[0])] = (row[1], "|".join(name for name, flag in zip(names, row[5:]) if flag == "1"))
    return _from_ratings("ml-100k", ratings, users, movies)


def _from_ratings(
    kind: str, ratings: np.ndarray, zip_codes: Mapping[int, str], movies: Mapping[int, tuple[str, str]]
) -> Dataset:
    """Number, de-duplicate and split int64 ratings [n, 4] of (user, item, rating, timestamp)."""
    original_user, user = np.unique(ratings[:, 0], return_inverse=True)
    by_value, first, rank = np.unique(ratings[:, 1], return_index=True, return_inverse=True)
    appearance = np.argsort(first)
    original_item = by_value[appearance]
    item = np.argsort(appearance)[rank]
    # Of a pair rated twice the latest counts: np.unique keeps the first it meets, so latest first.
    latest_first = np.lexsort((ratings[:, 3], user))[::-1]
    keys = user[latest_first] * len(original_item) + item[latest_first]
    kept = np.sort(latest_first[np.unique(keys, return_index=True)[1]])
    pairs = np.stack([user, item], axis=1)[kept]
    train, test = leave_one_out(pairs[:, 0], ratings[kept, 3])
    found = [movies.get(n, ("", "")) for n in original_item.tolist()]
    return Dataset(
        kind=kind,
        train=pairs[train],
        test=pairs[test],
        original_user=original_user,
        zip_code=np.array([zip_codes.get(n, "") for n in original_user.tolist()]),
        items=Items(original_item, [title for title, _ in found], [genres for _, genres in found]),
        notes={
            "repeated_ratings_dropped": len(ratings) - len(kept),
            "users_without_test_item": len(original_user) - len(test),
        },
    )


def _paddlerec(files: _Files, train_name: str, test_name: str) -> Dataset:
    """Keep the rows, negatives included, as they are, but a user's test rows together, positive first."""
    train_rows = parse_csv_rows(files.read(train_name), files.where(train_name))
    test_rows = parse_csv_rows(files.read(test_name), files.where(test_name))
    test_rows = test_rows[np.lexsort((1 - test_rows[:, 2], test_rows[:, 0]))]
    users, positives = test_rows[:, 0], test_rows[test_rows[:, 2] == 1]
    _require_one_test_item(files.where(test_name), np.unique(users), positives[:, 0])
    both = np.concatenate([train_rows, test_rows])
    train = train_rows[train_rows[:, 2] == 1, :2]
    return _without_catalogue("paddlerec", train, positives[:, :2], both[:, :2], train_rows, test_rows)


def _ncf_prefix(path: Path) -> Path:
    """Return what stands before ``.train.rating``: the one prefix found in a folder, or ``path`` itself."""
    found = sorted({p.name.split(".train.rating")[0] for p in path.glob("*.train.rating*")})
    if len(found) > 1:
        raise DataError(
            f"A folder must hold one data set. Received: {path} with {', '.join(found)}. "
            f"Give the prefix, such as --source {path / found[0]}."
        )
    return path / found[0] if found else path


def _ncf_files(prefix: Path) -> dict[str, Path]:
    """Return the paper's files by kind, plain or gzip; none unless both rating files are there."""
    files = {}
    for kind in ("test.negative", "test.rating", "train.rating"):
        for ending in (kind + ".gz", kind):
            path = prefix.with_name(f"{prefix.name}.{ending}")
            if path.is_file():
                files[kind] = path
    return files if {"train.rating", "test.rating"} <= files.keys() else {}


def _ncf(files: Mapping[str, Path]) -> Dataset:
    train, test = _read_pairs(files["train.rating"]), _read_pairs(files["test.rating"])
    test = test[np.argsort(test[:, 0], kind="stable")]
    _require_one_test_item(str(files["test.rating"]), np.unique(test[:, 0]), test[:, 0])
    test_rows = None
    seen = np.concatenate([train, test])
    if "test.negative" in files:
        test_rows = read_test_rows(files["test.negative"], test, num_items=_MAX_IDS)
        seen = np.concatenate([seen, test_rows[:, :2]])
    return _without_catalogue("ncf", train, test, seen, None, test_rows)


def _read_pairs(path: Path) -> np.ndarray:
    content = read_bytes(path)
    columns = content.split(b"\n", 1)[0].count(b"\t") + 1
    if columns < 2:
        raise DataError(f"{path}, line 1: a line must have a user and an item, separated by a tab. Received one field.")
    return parse_table(content, columns, b"\t", str(path))[:, :2]


def _require_one_test_item(name: str, users: np.ndarray, positives: np.ndarray) -> None:
    if users[-1] >= _MAX_IDS:
        raise DataError(f"{name}: a user id must be below {_MAX_IDS}. Received: {users[-1]}. {_RENUMBER}")
    counts = np.bincount(positives, minlength=int(users[-1]) + 1)[users]
    if (counts != 1).any():
        worst = int(np.argmax(counts != 1))
        raise DataError(
            f"{name}: a tested user must have exactly one positive. Received {counts[worst]} for user "
            f"{users[worst]}. Use a leave-one-out test set."
        )


def _without_catalogue(
    kind: str,
    train: np.ndarray,
    test: np.ndarray,
    pairs: np.ndarray,
    train_rows: np.ndarray | None,
    test_rows: np.ndarray | None,
) -> Dataset:
    """Build a data set whose users are numbered by UserID - 1, and of whose items only the ids are known."""
    num_users, num_items = (int(n) + 1 for n in pairs.max(axis=0))
    if max(num_users, num_items) > _MAX_IDS:
        raise DataError(
            f"A user or item id must be below {_MAX_IDS}. Received: {max(num_users, num_items) - 1}. {_RENUMBER}"
        )
    return Dataset(
        kind=kind,
        train=train[np.argsort(train[:, 0], kind="stable")],
        test=test,
        original_user=np.arange(num_users) + 1,
        zip_code=np.full(num_users, "", dtype="U1"),
        items=Items(np.arange(num_items), [""] * num_items, [""] * num_items),
        train_rows=train_rows,
        test_rows=test_rows,
    )


def with_zip_codes(dataset: Dataset, path: Path) -> Dataset:
    """Return the data set with the zip codes of a ``users.dat`` or ``u.user`` file, looked up by UserID."""
    content = read_bytes(path)
    rows = split_fields(content, "::" if b"::" in content else "|", 5, str(path))
    zip_codes = {int(row[0]): row[4] for row in rows}
    return dataclasses.replace(
        dataset, zip_code=np.array([zip_codes.get(n, "") for n in dataset.original_user.tolist()])
    )


# ---------------------------------------------------------------------------------------------- synthetic

# Training rows of MovieLens 1M by the first digit of the user's zip code, with 4 negatives per positive.
REGION_ROWS = (518095, 520165, 373605, 315550, 483780, 495635, 402810, 354590, 262710, 1243905)
_GENRES = ("Action", "Comedy", "Crime", "Drama", "Horror", "Musical", "Romance", "Western")


def synthetic(rng: np.random.Generator, num_users: int = 600, num_items: int = 400, positives: int = 30_000) -> Dataset:
    """Make up interactions with a popularity skew, whose tastes differ by region, genre and person.

    A region is the first digit of the zip code and has MovieLens 1M's share of the users. A user's liking of
    an item is its popularity, plus the region's and the user's own liking of its genre, plus a product of
    latent factors. ``positives`` is the wanted number of interactions; rounding and the floor of 10 per user
    move it a little.
    """
    share = np.array(REGION_ROWS) / sum(REGION_ROWS)
    # Equal steps through the cumulative shares: the counts are exact, and only who lives where is drawn.
    region = rng.permutation(np.searchsorted(np.cumsum(share), (np.arange(num_users) + 0.5) / num_users))
    genre = rng.integers(0, len(_GENRES), num_items)
    popularity = rng.permutation(-0.8 * np.log(np.arange(num_items) + 10.0))
    shared, own = (rng.standard_normal((n, len(_GENRES))) for n in (10, num_users))
    taste = shared[region] + own
    latent = rng.standard_normal((num_users, 4)) @ rng.standard_normal((num_items, 4)).T
    liking = popularity + taste[:, genre] + latent
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
    ratings = np.stack([user + 1, item + 1, np.ones_like(user), rng.permutation(len(user))], axis=1)
    street = rng.integers(0, 10_000, num_users)
    zip_codes = {n + 1: f"{region[n]}{street[n]:04d}" for n in range(num_users)}
    movies = {n + 1: (f"Synthetic {_GENRES[genre[n]]} {n + 1}", _GENRES[genre[n]]) for n in range(num_items)}
    return _from_ratings(SYNTHETIC, ratings, zip_codes, movies)


# ---------------------------------------------------------------------------------------------- tables

_USER_COLUMNS = ("user", "original_id", "zip_code", "activity", "genre")
_ITEM_COLUMNS = ("item", "original_id", "title", "genres")


def write_users(path: Path, dataset: Dataset) -> None:
    """Write ``user,original_id,zip_code,activity,genre`` with a header line, UTF-8."""
    table = dataset.user_table()
    columns = (table.user, dataset.original_user, table.zip_code, table.activity, table.genre)
    _write_csv(path, _USER_COLUMNS, [column.tolist() for column in columns])


def write_items(path: Path, items: Items) -> None:
    """Write ``item,original_id,title,genres`` with a header line, UTF-8; genres are joined with ``|``."""
    number = list(range(len(items.title)))
    _write_csv(path, _ITEM_COLUMNS, [number, items.original_id.tolist(), items.title, items.genres])


def _write_csv(path: Path, header: tuple[str, ...], columns: list[list[Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns))
    with atomic_write(path) as file:
        file.write(text.getvalue().encode("utf-8"))


def read_users(path: Path) -> UserTable:
    """Read what `write_users` wrote. DataError, with the line number, if a column is missing or no number."""
    reader = csv.DictReader(io.StringIO(read_bytes(path).decode("utf-8", "replace"), newline=""))
    columns: dict[str, list[Any]] = {name: [] for name in ("user", "zip_code", "activity", "genre")}
    try:
        for row in reader:
            for name, values in columns.items():
                values.append(int(row[name]) if name in ("user", "activity") else row[name] or "")
    except (KeyError, TypeError, ValueError) as err:
        raise DataError(
            f"{path}, line {reader.line_num}: the columns must be {', '.join(_USER_COLUMNS)}, user and "
            f"activity whole numbers. Received something else ({err!r}). Run prepare.py again."
        ) from err
    if columns["user"] != list(range(len(columns["user"]))):
        raise DataError(f"{path}: users must be numbered 0, 1, 2, ... in order. Run prepare.py again.")
    return UserTable(
        user=np.array(columns["user"], dtype=np.int64),
        zip_code=np.array(columns["zip_code"], dtype=np.str_),
        activity=np.array(columns["activity"], dtype=np.int64),
        genre=np.array(columns["genre"], dtype=np.str_),
    )
