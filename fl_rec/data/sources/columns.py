"""Which column of a table is the user, the item, the time: as somebody says it, or as the header names it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fl_rec.errors import DataError
from fl_rec.plugins import did_you_mean

# Names that headers have, in small letters and digits only; of two that are there the first here counts.
KNOWN: Mapping[str, Sequence[str]] = {
    "user": ("userid", "user", "uid", "reviewerid", "customerid", "customer", "visitorid", "visitor", "memberid"),
    "item": ("parentasin", "asin", "itemid", "item", "iid", "productid", "product", "sku", "articleid", "article"),
    "time": ("timestamp", "time", "ts", "unixreviewtime", "datetime", "date"),
    "value": ("rating", "value", "overall", "stars", "score"),
    "title": ("title", "name", "itemname", "productname", "producttitle"),
    "tags": ("tags", "tag", "genres", "genre", "categories", "category", "class"),
}


# Else the one other column whose name ends so.
_ENDINGS: Mapping[str, str | tuple[str, ...]] = {"item": "id", "title": ("title", "name")}


class NoColumn(DataError):
    """A table lacks a column that somebody named.

    Attributes:
        role: what the column was to be.
        has: the columns that there are.
    """

    def __init__(self, message: str, role: str, has: Sequence[str]) -> None:
        super().__init__(message)
        self.role, self.has = role, has


@dataclass(frozen=True)
class Columns:
    """Places of a table's columns, from 0, by what they are; and whether the first line is a header."""

    at: Mapping[str, int]
    header: bool

    def said(self, first: Sequence[str]) -> str:
        """Which is which, as --columns would say it."""
        named = {role: first[place] if self.header else str(place + 1) for role, place in self.at.items()}
        return ",".join(f"{role}={name}" for role, name in named.items())


def columns_of(
    first: Sequence[str], given: Mapping[str, str], roles: Sequence[str], needed: Sequence[str], name: str
) -> Columns:
    """Find the columns of these roles.

    Args:
        first: fields of the first line.
        given: names by role, or numbers from 1 for a table without a header.
        roles: those that the table may have.
        needed: those that it must have.
        name: of the table, for errors.

    Raises:
        NoColumn: a column that is given is not there.
        DataError: nor is the number of one, or one that is needed is neither given nor known by its name.
    """
    given = {role: column for role, column in given.items() if role in roles and column}
    if given and all(map(str.isdigit, given.values())):
        at = {role: int(column) - 1 for role, column in given.items()}
        beyond = next((column for column in given.values() if not 1 <= int(column) <= len(first)), None)
        if beyond:
            raise DataError(
                f"{name}: the number of a column must be from 1 to {len(first)}. Received: {beyond}. Correct --columns."
            )
        header = False
    else:
        plain = [re.sub(r"[^a-z0-9]", "", column.split(":")[0].lower()) for column in first]
        at, header = {}, True
        for role in roles:
            if role in given:
                at[role] = _place(first, given[role], role, name)
            else:
                found = [plain.index(each) for each in KNOWN[role] if each in plain]
                at.update({role: found[0]} if found else {})
        for role, endings in _ENDINGS.items():
            others = [n for n, each in enumerate(plain) if each.endswith(endings) and n not in at.values()]
            if role in roles and role not in at and len(others) == 1:
                at[role] = others[0]
    lacking = [role for role in needed if role not in at]
    if lacking:
        example = ",".join(f"{role}=NAME" for role in needed)
        raise DataError(
            f"{name}: its first line must name the column of the {' and of the '.join(lacking)}. Received: "
            f"{', '.join(map(repr, first[:12]))}. Say which it is: --columns {example}; where there is no such "
            f"line, by number, such as {example.replace('NAME', '1', 1).replace('NAME', '2')}."
        )
    return Columns({role: at[role] for role in roles if role in at}, header)


def _place(first: Sequence[str], column: str, role: str, name: str) -> int:
    """Where a column is; a type after a colon is no part of its name, as in RecBole's files."""
    short = [each.split(":")[0] for each in first]
    for names in (list(first), short):
        if column in names:
            return names.index(column)
    remedy = "--client_column, or give the table of --users that has it" if role == "client" else "--columns"
    hint = did_you_mean(column, short) or f"Correct {remedy}."
    message = f"{name} must have the column {role}={column}. Received: {', '.join(first[:12])}. {hint}"
    raise NoColumn(message, role, short)
