"""Tables of interactions, users and items in the layouts that they come in, and what is said of wrong ones."""

from __future__ import annotations

import gzip
import json
import logging
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.data.sources import Dataset
from fl_rec.data.sources.archive import table_file
from fl_rec.data.sources.columns import columns_of
from fl_rec.data.sources.interactions import Interactions, read_interactions
from fl_rec.data.sources.registry import load_source
from fl_rec.data.sources.tables import Table
from fl_rec.data.sources.tabular import read_items, read_users
from fl_rec.errors import DataError, FLRecError

HEADER = "userId,movieId,rating,timestamp\n"
RATINGS = "1,296,5.0,1147880044\n1,306,3.5,1147868817\n2,296,4.5,1141415820\n2,7,0.5,1141415828\n2,306,1.0,1141415799\n"


def pairs(dataset: Dataset) -> dict[str, list[list[Any]]]:
    """Training and test pairs by the data's own ids."""
    user, item = dataset.original_user, dataset.items.original_id
    return {
        name: [[user[who].item(), item[what].item()] for who, what in rows]
        for name, rows in (("train", dataset.train), ("test", dataset.test))
    }


EXPECTED = {"train": [[1, 306], [2, 306], [2, 296]], "test": [[1, 296], [2, 7]]}


def with_texts(expected: dict[str, list[list[Any]]]) -> dict[str, list[list[Any]]]:
    return {name: [[f"u-{who}", f"i {what}"] for who, what in rows] for name, rows in expected.items()}


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def load(source: object, **given: str) -> Dataset:
    return load_source(str(source), 0, given)


def refusal(source: object, **given: str) -> str:
    with pytest.raises(FLRecError) as caught:
        load(source, **given)
    return str(caught.value)


# -- MovieLens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("archive", [False, True])
def test_movielens_latest_and_32m(tmp_path: Path, archive: bool) -> None:
    folder = tmp_path / "ml-32m"
    write(folder / "ratings.csv", HEADER + RATINGS)
    movies = 'movieId,title,genres\n7,"Café, The (1995)",Comedy|Romance\n306,"Say ""Hi"", Red",(no genres listed)\n'
    write(folder / "movies.csv", movies)
    for other in ("tags.csv", "links.csv", "README.txt"):
        write(folder / other, "userId,movieId,tag\n")
    source = folder
    if archive:
        source = tmp_path / "ml-32m.zip"
        with zipfile.ZipFile(source, "w") as file:
            for path in folder.iterdir():
                file.write(path, f"ml-32m/{path.name}")
    loaded = load(source)
    assert loaded.kind == "movielens" and pairs(loaded) == EXPECTED
    assert loaded.items.original_id.tolist() == [296, 306, 7]
    assert loaded.items.title == ["", 'Say "Hi", Red', "Café, The (1995)"]
    assert loaded.items.tags == ["", "", "Comedy|Romance"]
    assert loaded.train.dtype == loaded.test.dtype == np.int32


def test_movielens_10m_has_half_stars_and_no_users(tmp_path: Path) -> None:
    write(tmp_path / "ratings.dat", RATINGS.replace(",", "::").replace(".0::", "::"))
    write(tmp_path / "movies.dat", "7::Amélie (2001)::Comedy|Romance\n306::Three Colors: Red (1994)::Drama\n")
    loaded = load(tmp_path)
    assert loaded.kind == "ml-10m" and pairs(loaded) == EXPECTED and loaded.user_columns == {}
    assert loaded.items.title == ["", "Three Colors: Red (1994)", "Amélie (2001)"]
    assert pairs(load(tmp_path, min_value="4.5")) == {"train": [[1, 296], [2, 296]], "test": []}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_titles_stay_as_they_are_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    write(tmp_path / "ratings.dat", "1::2::3::4\n")
    write(tmp_path / "movies.dat", "2::Fabuleux destin d'Amélie, Le::Comedy\n", encoding)
    assert load(tmp_path).items.title == ["Fabuleux destin d'Amélie, Le"]


# -- any table ----------------------------------------------------------------------------------------------------


def packed(path: Path, how: str) -> Path:
    if how == "gz":
        other = path.with_name(path.name + ".gz")
        other.write_bytes(gzip.compress(path.read_bytes()))
    elif how == "zip":
        other = path.with_suffix(".zip")
        with zipfile.ZipFile(other, "w") as file:
            file.write(path, path.name)
            file.writestr("__MACOSX/._" + path.name, b"\x00")
    else:
        return path
    path.unlink()
    return other


@pytest.mark.parametrize("how", ["plain", "gz", "zip"])
@pytest.mark.parametrize("separator", [",", "\t", ";", "::", "|", " - "])
@pytest.mark.parametrize("texts", [False, True], ids=["numbers", "texts"])
def test_separators_and_archives(tmp_path: Path, how: str, separator: str, texts: bool) -> None:
    rows = [line.split(",") for line in (HEADER + RATINGS).splitlines()]
    if texts:
        rows = [rows[0]] + [["u-" + row[0], "i " + row[1], *row[2:]] for row in rows[1:]]
    path = write(tmp_path / "a table.csv", "".join(separator.join(row) + "\n" for row in rows))
    loaded = load(packed(path, how), **({"separator": separator} if separator == " - " else {}))
    assert loaded.kind == "table" and pairs(loaded) == (with_texts(EXPECTED) if texts else EXPECTED)


def test_both_ways_of_reading_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids with gaps and of any size, repeats, equal times, in blocks of a few lines; once more with an odd line end."""
    rng = np.random.default_rng(1)
    ids = np.array([0, 3, 70, 10**9, 10**15])
    lines = [f"{u},{i},{t}\n" for u, i, t in zip(*(rng.choice(ids, 300) for _ in range(2)), rng.integers(0, 9, 300))]
    path = write(tmp_path / "a.csv", "user,item,time\n" + "".join(lines))
    monkeypatch.setattr("fl_rec.data.sources.interactions._BYTES_PER_READ", 100)
    fast = load(path)
    slow = load(write(tmp_path / "b.csv", "\ufeffuser,item,time\n\n" + "".join(lines).replace("\n", "\r\n") + " \n"))
    assert pairs(fast) == pairs(slow) and fast.notes == slow.notes
    assert fast.original_user.dtype == slow.original_user.dtype == np.int64
    assert fast.original_user.tolist() == ids.tolist()
    # And by the rule itself: of a pair the latest, of equal times the later line; the last of all is tested.
    latest: dict[tuple[int, int], tuple[int, int]] = {}
    for number, line in enumerate(lines):
        user, item, time = map(int, line.split(","))
        latest[user, item] = max(latest.get((user, item), (-1, -1)), (time, number))
    assert fast.notes["repeated_interactions_dropped"] == 300 - len(latest)
    expected: dict[str, list[list[int]]] = {"train": [], "test": []}
    for user in ids.tolist():
        ordered = [item for _, item in sorted((when, item) for (who, item), when in latest.items() if who == user)]
        expected["train"] += [[user, item] for item in ordered[:-1]]
        expected["test"].append([user, ordered[-1]])
    assert pairs(fast) == expected


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["7", "12"], [7, 12]),
        (["7", "007"], ["007", "7"]),
        (["7", "+7"], ["+7", "7"]),
        (["7", "-7"], ["-7", "7"]),
        (["7", "7.0"], ["7", "7.0"]),
        (["7", "1" * 19], ["1" * 19, "7"]),
        (["0", "00"], ["0", "00"]),
        (["7", "\uff17"], ["7", "\uff17"]),
    ],
)
def test_ids_stay_what_they_are(tmp_path: Path, ids: list[str], expected: list[Any]) -> None:
    path = write(tmp_path / "a.csv", "user,item\n" + "".join(f"{each},{each}\n" for each in ids))
    loaded = load(path)
    assert loaded.original_user.tolist() == expected and sorted(loaded.items.original_id.tolist()) == expected
    swapped = load(write(tmp_path / "b.csv", "time,item,user\n" + "".join(f"5,{each},{each}\n" for each in ids)))
    assert swapped.original_user.tolist() == expected


def test_quoted_fields_may_hold_separators_and_lines(tmp_path: Path) -> None:
    text = 'review,user,item,ts\n"good, ""really""\nyes",ann,"b,1",5\nbad,ann,c,6\n"",bob,"b,1",4\n'
    loaded = load(write(tmp_path / "a.csv", text))
    assert pairs(loaded) == {"train": [["ann", "b,1"], ["bob", "b,1"]], "test": [["ann", "c"]]}
    numbers = load(write(tmp_path / "b.csv", 'user,item,"ts"\n"1","2",3\n1,4,"2"\n'))
    assert pairs(numbers) == {"train": [[1, 4]], "test": [[1, 2]]}


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("978300000", "978300001"),
        ("978300000123", "978300000124"),
        ("978300000.25", "978300000.5"),
        ("9.5e8", "9.78e8"),
        ("2024-02-29", "2024-03-01"),
        ("2024-02-29 23:59:59", "2024-03-01T00:00:00"),
        ("2024-03-01T00:30:00+01:00", "2024-03-01T00:00:00Z"),
        ("2024-03-01 00:00:00.125 UTC", "2024-03-01 00:00:00.250"),
    ],
)
def test_times(tmp_path: Path, earlier: str, later: str) -> None:
    path = write(tmp_path / "a.csv", f"user,item,time\n1,10,{later}\n1,20,{earlier}\n")
    assert pairs(load(path)) == {"train": [[1, 20]], "test": [[1, 10]]}


def test_a_date_without_a_zone_is_utc_wherever_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XYZ+5")
    time.tzset()
    path = write(tmp_path / "a.csv", "user,item,time\n1,10,2024-03-01T00:45:00Z\n1,20,2024-03-01 00:30:00\n")
    try:
        assert pairs(load(path))["test"] == [[1, 10]]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_without_times_the_later_line_is_the_later(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "user,item\nx,1\nx,2\nx,1\ny,2\n")
    loaded = load(path)
    assert pairs(loaded) == {"train": [["x", 2], ["y", 2]], "test": [["x", 1]]}
    assert loaded.notes == {"repeated_interactions_dropped": 1, "users_without_test_item": 1}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("userId,movieId,rating,timestamp", "user=userId,item=movieId,time=timestamp,value=rating"),
        (
            "user_id:token,item_id:token,rating:float,timestamp:float",
            "user=user_id,item=item_id,time=timestamp,value=rating",
        ),
        ("reviewerID,asin,overall,unixReviewTime", "user=reviewerID,item=asin,time=unixReviewTime,value=overall"),
        (
            "rating,title,asin,parent_asin,user_id,timestamp",
            "user=user_id,item=parent_asin,time=timestamp,value=rating",
        ),
        ("Customer ID,SKU,Date,Stars", "user=Customer ID,item=SKU,time=Date,value=Stars"),
        ("user,book_id,value", "user=user,item=book_id,value=value"),
    ],
)
def test_columns_are_guessed_from_the_header(header: str, said: str) -> None:
    first = header.split(",")
    roles = ("user", "item", "time", "value")
    found = columns_of(first, {}, roles, ("user", "item"), "x")
    assert found.header and found.said(first).replace(":token", "").replace(":float", "") == said


def test_columns_are_named_or_numbered_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "when,who,what,how\n2,a,x,9\n1,a,y,3\n3,a,z,1\n"
    path = write(tmp_path / "clicks.csv", text)
    named = {"user": "who", "item": "what", "time": "when", "value": "how"}
    with caplog.at_level(logging.INFO):
        assert pairs(load(path, **named)) == {"train": [["a", "y"], ["a", "x"]], "test": [["a", "z"]]}
        assert pairs(load(path, **named, min_value="3")) == {"train": [["a", "y"]], "test": [["a", "x"]]}
        bare = write(tmp_path / "bare.csv", text.split("\n", 1)[1])
        numbered = load(bare, user="2", item="3", time="1")
        option = load(f"tabular:path={bare},user=2,item=3,time=1")
    assert pairs(numbered) == pairs(option) == {"train": [["a", "y"], ["a", "x"]], "test": [["a", "z"]]}
    assert [record.getMessage() for record in caplog.records][:3] == [
        "columns of clicks.csv: user=who,item=what,time=when",
        "columns of clicks.csv: user=who,item=what,time=when,value=how",
        "1 of 3 interactions have a value below 3: left out",
    ]
    assert "columns of bare.csv: user=2,item=3,time=1" in caplog.text


def test_users_with_few_items_are_left_out_after_low_values(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = ["a,x,5", "a,y,5", "a,y,4", "b,x,5", "b,y,1", "c,z,5", "c,x,5", "c,y,5"]
    path = write(tmp_path / "a.csv", "user,item,rating\n" + "\n".join(rows))
    with caplog.at_level(logging.INFO):
        loaded = load(path, min_value="2", min_interactions="2")
    assert loaded.original_user.tolist() == ["a", "c"] and loaded.items.original_id.tolist() == ["x", "y", "z"]
    assert loaded.notes == {
        "repeated_interactions_dropped": 1,
        "users_without_test_item": 0,
        "below_min_value": 1,
        "users_below_min_interactions": 1,
    }
    assert "1 of 3 users have fewer than 2 items: left out" in caplog.text
    assert refusal(path, min_interactions="4") == (
        "A user must have at least 4 different items. Received: none; the highest is 3. Ask for less."
    )
    assert refusal(path, min_value="6") == (
        "A value must be at least 6 for an interaction to count. Received: none; the highest is 5. Ask for less."
    )


# -- JSON lines, RecBole, Parquet ---------------------------------------------------------------------------------


def test_amazons_reviews(tmp_path: Path) -> None:
    """With what else is in them, and times in milliseconds; a value is read only if it is asked for."""
    first = {"rating": 4.0, "title": 'A, "lovely"', "images": [], "asin": "B1", "parent_asin": "P1", "user_id": "AG"}
    reviews = [
        {**first, "timestamp": 1588687728923},
        {**first, "asin": "B2", "parent_asin": "P2", "timestamp": 1588615855070, "images": [{"u": 1}], "title": "a\nb"},
        {"title": "?", "parent_asin": "P2", "user_id": "AF", "timestamp": 1589665266052, "rating": None},
    ]
    path = write(tmp_path / "All_Beauty.jsonl", "".join(json.dumps(each) + "\n" for each in reviews) + "\n")
    for how in ("plain", "gz"):
        source = packed(path, how)
        loaded = load(source)
        assert pairs(loaded) == {"train": [["AF", "P2"], ["AG", "P2"]], "test": [["AG", "P1"]]}
    assert "All_Beauty.jsonl.gz, line 3: a value must be a number. Received ''" in refusal(source, min_value="4")


def test_recboles_atomic_files(tmp_path: Path) -> None:
    write(
        tmp_path / "ml.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu1\t7\t3\t2.0\nu1\t8\t4\t1.0\n",
    )
    write(tmp_path / "ml.user", "user_id:token\tage:token\tzip_code:token\nu1\t24\t85711\n")
    write(
        tmp_path / "ml.item",
        'item_id:token\tmovie_title:token_seq\tclass:token_seq\n7\t"Toy" Story\tAnimation Comedy\n',
    )
    loaded = load(tmp_path)
    assert loaded.kind == "recbole" and pairs(loaded) == {"train": [["u1", 8]], "test": [["u1", 7]]}
    assert {name: column.tolist() for name, column in loaded.user_columns.items()} == {
        "age": ["24"],
        "zip_code": ["85711"],
    }
    assert loaded.items.original_id.tolist() == [7, 8] and loaded.items.tags == ["Animation|Comedy", ""]
    assert loaded.items.title == ['"Toy" Story', ""]
    write(tmp_path / "other.inter", "user_id:token\titem_id:token\n")
    assert refusal(tmp_path).endswith(f"must hold one .inter file. Received: {tmp_path} with ml.inter, other.inter.")


def test_parquet_by_any_type_of_column(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="Parquet is an extra: pip install 'fl_rec[parquet]'")
    from pyarrow import parquet

    columns = {"customer": ["b", "a", "b"], "sku": [70, 3, 3], "rating": [1.0, 2.0, 3.0]}
    for kind, times in (
        ("int64", [5, 1, 4]),
        ("float64", [0.5, 0.1, 0.4]),
        ("timestamp[ms]", [5, 1, 4]),
        ("string", list("514")),
    ):
        table = pa.table(
            {**columns, "ts": pa.array(times, getattr(pa, kind)() if "[" not in kind else pa.timestamp("ms"))}
        )
        parquet.write_table(table, tmp_path / "a.parquet")
        loaded = load(tmp_path / "a.parquet")
        assert pairs(loaded) == {"train": [["a", 3], ["b", 3]], "test": [["b", 70]]}, kind
        assert pairs(load(tmp_path / "a.parquet", min_value="2")) == {"train": [["a", 3], ["b", 3]], "test": []}
    parquet.write_table(pa.table({**columns, "ts": pa.array([1, None, 2])}), tmp_path / "a.parquet")
    assert refusal(tmp_path / "a.parquet").endswith(
        "every row must have a time. Received: 1 without, in the column ts. Remove them."
    )
    write(tmp_path / "b.parquet", "PAR")
    assert "A Parquet file must be readable. Received: " in refusal(tmp_path / "b.parquet")


def test_parquet_of_few_bytes_and_many_rows(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="Parquet is an extra: pip install 'fl_rec[parquet]'")
    from pyarrow import parquet

    path, rows = tmp_path / "t.parquet", (1 << 22) + 1
    parquet.write_table(pa.table({"user": pa.array(np.zeros(rows, np.int8)), "item": np.zeros(rows, np.int8)}), path)
    assert f"Received: {path}, 4,194,305 rows in {path.stat().st_size:,} bytes." in refusal(path)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    path = write(tmp_path / "a.parquet", "PAR1")
    assert refusal(path) == f"Parquet is read by pyarrow. Received: {path}. pip install 'fl_rec[parquet]'"


# -- users and items ----------------------------------------------------------------------------------------------


def test_tables_of_users_and_items(tmp_path: Path) -> None:
    users = read_users(Table(table_file(write(tmp_path / "u.csv", "region,customer,plan\nnorth,u-1,\n,u-2,gold\n"))))
    assert users.original_id.tolist() == ["u-1", "u-2"]
    assert {k: v.tolist() for k, v in users.columns.items()} == {"region": ["north", ""], "plan": ["", "gold"]}
    for text, tags in (("a|b c", "a|b c"), ("a; b", "a|b"), ("a,b,", "a|b"), ("", "")):
        table = Table(table_file(write(tmp_path / "i.tsv", f'sku\tname\tprice\tcategory\n007\tA "B" C\t1\t{text}\n')))
        items = read_items(table)
        assert (items.original_id.tolist(), items.title, items.tags) == (["007"], ['A "B" C'], [tags])
    named = read_items(table, {"title": "price", "tags": "name", "user": "who"}, " ")
    assert (named.title, named.tags) == (["1"], ['A|"B"|C'])
    write(
        tmp_path / "i.jsonl", json.dumps({"parent_asin": "P1", "title": "T", "categories": [["x", "y"], ["z"]]}) + "\n"
    )
    items = read_items(Table(table_file(tmp_path / "i.jsonl")))
    assert (items.original_id.tolist(), items.title, items.tags) == (["P1"], ["T"], ["x|y|z"])


def test_a_table_of_users_or_items_that_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "u.csv", "user,region\n1,north\n2\n")
    with pytest.raises(DataError) as caught:
        read_users(Table(table_file(path)))
    assert str(caught.value) == (
        f"{path}, line 3: a line must have 2 fields separated by ','. Received 1: '2'. Correct the line."
    )
    path = write(tmp_path / "i.csv", "name,price\nA,1\n")
    with pytest.raises(
        DataError, match=r"i.csv: its first line must name the column of the item. Received: 'name', 'pri"
    ):
        read_items(Table(table_file(path)))


# -- what is wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,x", "a line must have 4 fields separated by ','. Received 2: 'a,x'."),
        ("a,x,3,4,5", "a line must have 4 fields separated by ','. Received 5: 'a,x,3,4,5'."),
        (",x,3,4", "a user must have an id. Received '': ',x,3,4'."),
        ("a, ,3,4", "an item must have an id. Received '': 'a, ,3,4'."),
        (
            "1,2,3,soon",
            "a time must be a number of seconds or milliseconds, or in all lines a date such as 2024-05-01 12:30:00. "
            "Received 'soon': '1,2,3,soon'.",
        ),
        ("1,2,3,2024-05-01", "a time must be a number of seconds"),
        ("1,2,3,nan", "a time must be a number of seconds"),
        ("1,2,3,", "a time must be a number of seconds"),
        ("1,2,good,4", "a value must be a number. Received 'good': '1,2,good,4'."),
        ("1,2,inf,4", "a value must be a number. Received 'inf'"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.csv", HEADER + "\n" + RATINGS + line + "\n" + RATINGS)
    text = refusal(path, min_value="1")
    assert text.startswith(f"{path}, line 8: {message}") and text.endswith("Correct or remove the line.")


def test_a_value_that_nobody_uses_may_be_anything(tmp_path: Path) -> None:
    assert pairs(load(write(tmp_path / "a.csv", HEADER + RATINGS.replace("4.5", "good")))) == EXPECTED


def test_a_table_that_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x,y,z\n1,2,3\n")
    assert refusal(path) == (
        f"{path}: its first line must name the column of the user and of the item. Received: 'x', 'y', 'z'. Say which "
        "it is: --columns user=NAME,item=NAME; where there is no such line, by number, such as user=1,item=2."
    )
    assert refusal(path, user="xx", item="y").endswith(
        "must have the column user=xx. Received: x, y, z. Did you mean x?"
    )
    assert refusal(path, user="1", item="4").endswith(
        "the number of a column must be from 1 to 3. Received: 4. Correct --columns."
    )
    assert refusal(path, user="x", item="y", min_value="3").startswith(
        f"{path}: its first line must name the column of the value"
    )
    empty = write(tmp_path / "empty.csv", "\n \n")
    assert refusal(empty) == f"A data file must hold at least one row. Received: {empty}, which is empty."
    header = write(tmp_path / "header.csv", "user,item\n")
    assert refusal(header).endswith(f"Received: {header}, which has none below its header.")
    one = write(tmp_path / "one.csv", "user\n1\n")
    assert "the first line must have several fields, separated by one of '::', '\\t', ',', ';', '|'. Rec" in refusal(
        one
    )
    broken = write(tmp_path / "a.jsonl", '{"user": 1, "item": 2}\n{"user": 1,\n')
    assert f"{broken}, line 2: a line must be one JSON object. Received: " in refusal(broken)
    listed = write(tmp_path / "b.json", '[{"user": 1, "item": 2}]\n')
    assert refusal(listed).endswith("(it is a list). Write the file as JSON lines.")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress((HEADER + RATINGS * 99).encode())[:-20])
    assert "A data file must be readable. Received: " in refusal(tmp_path / "cut.csv.gz")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as file:
        for name in ("one.csv", "two.csv"):
            file.writestr(name, HEADER)
    assert refusal(tmp_path / "two.zip").endswith(
        "with one.csv, two.csv. Unpack it, and name the file with the interactions."
    )
    assert refusal("synthetic", min_value="3").startswith("--source synthetic: min_value: unknown key.")


def test_numbers_are_read_the_fast_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or 32 million of them take minutes."""
    monkeypatch.setattr("fl_rec.data.sources.interactions._read_rows", lambda *_: pytest.fail("the slow way"))
    for text, given in ((HEADER + RATINGS, {}), (RATINGS.replace(",", "::"), {"user": "1", "item": "2", "time": "4"})):
        found: Interactions = read_interactions(Table(table_file(write(tmp_path / "a.csv", text))), given, False)
        assert found.user.code.dtype == found.item.code.dtype == np.int32 and found.time is not None
