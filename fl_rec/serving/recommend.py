"""`fl-rec recommend`, and `Recommender` for Python: what an exported model would show its users.

from pathlib import Path

model = Recommender(Path("runs/NAME/exported"))
for each in model.recommend(user=42, top=10):
    print(each.rank, each.title, each.score)
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fl_rec import environment
from fl_rec.arguments import count
from fl_rec.data.catalogue import Catalogue
from fl_rec.errors import DataError
from fl_rec.runs.saved import SavedModel, is_project, newest_export, newest_run
from fl_rec.serving.export import export
from fl_rec.tables import RULE, column_widths, cut, format_table, shown_json

# Rows of one run of the program: all items of MovieLens, and of a larger catalogue no more than memory is for.
_ROWS = 1 << 16


@dataclass(frozen=True)
class Recommendation:
    """An item for a user.

    Attributes:
        rank: from 1.
        item: the data set's own id.
        title, tags: "" and () if the data has none.
        score: the model's, higher is better.
    """

    rank: int
    item: int | str
    title: str
    tags: tuple[str, ...]
    score: float


class Recommender:
    """An exported model, opened once. Whatever else uses Paddle in this process finds it as it was.

    Args:
        folder: what `fl-rec export` wrote.

    Attributes:
        catalogue: users, items, and what each user has had.

    Raises:
        DataError: the folder holds no exported model, or one that is cut off or was changed.
    """

    def __init__(self, folder: str | Path) -> None:
        saved = SavedModel.open(Path(folder))
        if not saved.exported:
            raise DataError(
                "Recommendations need an exported model, which has the names of users and items. Received: "
                f"{saved.folder}, which is a run's own. Export it: fl-rec export {folder}"
            )
        self.catalogue = Catalogue.read(saved.folder, saved.signature["ids"].get("sha256", {}))
        with environment.static_paddle():
            from fl_rec.runs import models

            self._net = models.load(saved.folder)
        if len(self._net.feeds) != 2:
            raise DataError(
                "Recommendations are made by a model that scores a user and an item. Received: "
                f"{saved.folder}, whose inputs are {', '.join(self._net.feeds)}. Load it with "
                "fl_rec.runs.models.load."
            )
        self._items = np.arange(len(self.catalogue.items.title))[:, None]

    def user(self, text: str) -> int | str:
        """The data set's own id of a user whose id was written so. DataError if the model does not know the user."""
        own: int | str = self.catalogue.original_users[self.catalogue.position(text)].item()
        return own

    def recommend(self, user: int | str, top: int = 10) -> list[Recommendation]:
        """The best items for a user, without those that the user has had.

        Args:
            user: the data set's own id, or its text.
            top: how many.

        Raises:
            DataError: the model does not know the user, or there are fewer items than `top`.
        """
        position = self.catalogue.position(user)
        scores = self.scores(user)
        seen = self.catalogue.seen(position)
        left = len(scores) - len(seen)
        if not 1 <= top <= left:
            raise DataError(
                f"As many items can be recommended as the user has not had: 1 to {left:,} for user {user}, of "
                f"{len(scores):,} in all. Received: top={top}."
            )
        scores[seen] = -np.inf
        return self._ranked(scores, top)

    def history(self, user: int | str) -> list[Recommendation]:
        """All that the user has had, as the model would rank it. DataError as above."""
        seen = self.catalogue.seen(self.catalogue.position(user))
        scores = np.full(len(self._items), -np.inf, np.float32)
        scores[seen] = self.scores(user)[seen]
        return self._ranked(scores, len(seen))

    def scores(self, user: int | str) -> np.ndarray:
        """The model's scores of all items by their ids in the model, float32. DataError as above."""
        number = self.catalogue.users[self.catalogue.position(user)]
        with environment.static_paddle():
            scores = self._net.predict([np.full_like(self._items, number), self._items], _ROWS)
        strange = np.count_nonzero(~np.isfinite(scores))
        if strange:
            raise DataError(
                f"A score must be a number. Received: {strange:,} of {len(scores):,} that are not, for user {user}. A "
                "training that diverges ends so: lower the learning rate."
            )
        return scores

    def _ranked(self, scores: np.ndarray, top: int) -> list[Recommendation]:
        items = self.catalogue.items
        best = np.argsort(-scores, kind="stable")[:top].tolist()
        return [
            Recommendation(
                rank,
                items.original_id[item].item(),
                items.title[item],
                tuple(filter(None, items.tags[item].split("|"))),
                float(scores[item]),
            )
            for rank, item in enumerate(best, 1)
        ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fl-rec recommend`."""
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", nargs="+", action="extend", metavar="ID", help="the data set's own id; may be repeated")
    who.add_argument("--users", metavar="FILE", help="a file with one id per line; - is standard input")
    parser.add_argument("--top", type=count, default=10, metavar="N", help="items for each user; default: 10")
    parser.add_argument(
        "--history",
        type=count,
        default=0,
        metavar="N",
        help="show N items of the user's history too, those that the model ranks first; default: none",
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="an exported model, or a project's folder: its newest run's, exported first if need be; default: the "
        "current folder",
    )
    parser.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help="json: one object per line and user, as soon as it is known; default: table",
    )


def command(options: argparse.Namespace) -> int:
    """Plays `fl-rec recommend`."""
    asked = _users(options)
    folder = options.model
    if folder is None or is_project(folder):
        project = folder or Path()
        folder = newest_export(project) or export_newest(project)
        print(f"model {folder}", file=sys.stderr)  # standard output is for the answers
    model = Recommender(folder)
    users: Iterable[int | str] = (_known(model, text, where) for text, where in asked)
    if options.users != "-":
        users = list(users)  # all are known before the first is answered
    for number, user in enumerate(users):
        recommended = model.recommend(user, options.top)
        if options.format == "json":
            history = model.history(user)[: options.history] if options.history else []
            text = shown_json(to_record(user, recommended, history))
        else:
            width = shutil.get_terminal_size().columns
            text = "\n\n" * bool(number) + to_text(user, recommended, model.history(user), options.history, width)
        print(text, flush=True)
    return 0


def export_newest(project: Path) -> Path:
    """Exports the best model of a project's newest run, and says so. Errors as of `export` and `newest_run`."""
    run = newest_run(project)
    print(f"exporting the best model of {run}", file=sys.stderr, flush=True)
    return export(SavedModel.open(run))


def _users(options: argparse.Namespace) -> Iterable[tuple[str, str]]:
    """The users asked for, and where each is written; those on standard input as they come."""
    if options.user is not None:
        return [(text, "--user") for text in options.user]
    if options.users == "-":
        return _lines(sys.stdin, "standard input")
    try:
        text = Path(options.users).read_text(encoding="utf-8", errors="replace")
    except OSError as err:
        raise DataError(
            f"--users must be a file with one id per line, or - for standard input. Received: {options.users} "
            f"({err.strerror})."
        ) from err
    return _lines(text.splitlines(), options.users)


def _lines(lines: Iterable[str], name: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield line.strip(), f"{name}, line {number}"


def _known(model: Recommender, text: str, where: str) -> int | str:
    try:
        return model.user(text)
    except DataError as err:
        raise DataError(f"{where}: {err}") from err


def to_record(
    user: int | str, recommended: Sequence[Recommendation], history: Sequence[Recommendation]
) -> dict[str, Any]:
    """A user's recommendations as JSON has them; the history only if there is any."""
    record: dict[str, Any] = {"user": user, "recommendations": [_plain(each) for each in recommended]}
    if history:
        record["history"] = [_plain(each) for each in history]
    return record


def _plain(each: Recommendation) -> dict[str, Any]:
    return {**vars(each), "tags": list(each.tags), "score": round(each.score, 6)}


def to_text(
    user: int | str, recommended: Sequence[Recommendation], history: Sequence[Recommendation], shown: int, width: int
) -> str:
    """A user's recommendations for people.

    Args:
        history: all of it.
        shown: how many of its items to show.
        width: of the terminal; titles and tags that are too long for it are cut off.
    """
    times = Counter(tag for each in history for tag in each.tags)
    shares = ", ".join(f"{tag} {100 * count / len(history):.0f} %" for tag, count in times.most_common(3))
    lists = {"history": history[:shown], "recommended": recommended}
    rows = {
        title: [
            (str(each.rank), f"{each.score:.4f}", each.title or f"item {each.item}", ", ".join(each.tags))
            for each in some
        ]
        for title, some in lists.items()
        if some
    }
    needed = column_widths(row for some in rows.values() for row in some)
    widths = [max(narrowest, each) for narrowest, each in zip((4, 6, len("recommended"), len("tags")), needed)]
    # Two spaces between columns. Tags give way first, down to half of what is there for both.
    room = max(width - widths[0] - widths[1] - 6, 20)
    widths[2] = min(widths[2], max(room - widths[3], room * 3 // 5))
    widths[3] = min(widths[3], room - widths[2])
    lines = [cut(f"user {user}, {len(history):,} items in the history" + (f": {shares}" if shares else ""), width)]
    tags = "tags" if any(each.tags for some in lists.values() for each in some) else ""
    for title, some in rows.items():
        header = ("rank", "score", title, tags)
        lines += ["", format_table([header, RULE, *some], left=(2, 3), widths=widths)]
    return "\n".join(lines)
