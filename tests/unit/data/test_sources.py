"""Sources of data, and the tables of users and items."""

from __future__ import annotations

import csv
import gzip
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fl_rec.data.catalogue import read_users, write_items, write_users
from fl_rec.data.sources import Dataset, Items, Users, from_interactions
from fl_rec.data.sources.base import with_users
from fl_rec.data.sources.movielens import read_movielens_users
from fl_rec.data.sources.registry import SOURCES, load_source
from fl_rec.data.sources.synthetic import REGION_ROWS
from fl_rec.errors import DataError, FLRecError

EXAMPLE = Path(__file__).resolve().parents[3] / "datasets" / "movielens" / "fl_source_example.py"


ROWS = np.array([[0, 7, 1], [0, 12, 0], [3, 1, 0], [10, 0, 1]])


RATINGS = "5::30::4::100\n2::10::4::7\n5::10::3::90\n2::20::1::7\n5::40::1::80\n"
USERS = "2::F::1::10::48067\n5::M::56::16::T8H1N\n"
MOVIES = "10::Café (1995)::Comedy|Drama\n20::B::Drama\n30::C, D::Action\n40::D::Drama\n"


def negative_lines(*heads: str, count: int = 99) -> bytes:
    return "".join(head + "".join(f"\t{10 + n}" for n in range(count)) + "\n" for head in heads).encode()


def columns_of(dataset: Dataset) -> dict[str, list[str]]:
    return {name: column.tolist() for name, column in dataset.user_columns.items()}


def write_ml1m(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, text in (("ratings", RATINGS), ("users", USERS), ("movies", MOVIES)):
        (folder / f"{name}.dat").write_bytes(text.encode("latin-1"))
    return folder


def test_movielens_1m_ids_split_and_titles(tmp_path: Path) -> None:
    loaded = load_source(str(write_ml1m(tmp_path / "ml-1m")), seed=0)
    assert loaded.kind == "ml-1m" and (loaded.num_users, loaded.num_items) == (2, 4)
    assert loaded.items.original_id.tolist() == [30, 10, 20, 40]  # order of first appearance
    assert loaded.original_user.tolist() == [2, 5]
    assert columns_of(loaded) == {
        "gender": ["F", "M"],
        "age": ["1", "56"],
        "occupation": ["10", "16"],
        "zip_code": ["48067", "T8H1N"],
    }
    assert loaded.test.tolist() == [[0, 2], [1, 0]]
    assert loaded.train.tolist() == [[0, 1], [1, 3], [1, 1]]
    assert loaded.items.title[1] == "Café (1995)" and loaded.items.tags[1] == "Comedy|Drama"
    assert loaded.user_table().tag.tolist() == ["Comedy", "Drama"]
    assert loaded.user_table().activity.tolist() == [1, 2]


@pytest.mark.parametrize("inside", ["", "ml-1m/"])
def test_a_zip_equals_its_folder(tmp_path: Path, inside: str) -> None:
    folder = write_ml1m(tmp_path / "ml-1m")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, inside + path.name)
    packed, plain = (load_source(str(path), 0) for path in (tmp_path / "a.zip", tmp_path))
    np.testing.assert_array_equal(packed.train, plain.train)
    assert packed.items.title == plain.items.title


def test_a_repeated_rating_counts_once_at_its_latest_time(tmp_path: Path) -> None:
    folder = write_ml1m(tmp_path / "ml-1m")
    (folder / "ratings.dat").write_text("1::10::5::1\n1::20::5::2\n1::10::5::3\n2::20::5::1\n")
    loaded = load_source(str(folder), 0)
    assert loaded.test.tolist() == [[0, 0]] and loaded.train.tolist() == [[0, 1], [1, 1]]
    assert loaded.notes == {"repeated_interactions_dropped": 1, "users_without_test_item": 1}


def test_movielens_100k(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text("196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t302\t3\t881250950\n")
    (tmp_path / "u.user").write_text("186|24|M|technician|85711\n196|53|F|other|94043\n")
    (tmp_path / "u.item").write_bytes("242|Kolya|1996||url|0|1|1\n302|L.A.|1997||url|0|0|1\n".encode("latin-1"))
    (tmp_path / "u.genre").write_text("unknown|0\nAction|1\nDrama|2\n\n")
    loaded = load_source(str(tmp_path), 0)
    assert loaded.kind == "ml-100k" and columns_of(loaded)["zip_code"] == ["85711", "94043"]
    assert loaded.test.tolist() == [[1, 1]] and loaded.train.tolist() == [[0, 1], [1, 0]]
    assert loaded.items.title == ["Kolya", "L.A."] and loaded.items.tags == ["Action|Drama", "Drama"]


@pytest.mark.parametrize("folders", [True, False])
def test_paddlerec_rows_are_kept_and_the_first_one_counts(tmp_path: Path, folders: bool) -> None:
    train, test = tmp_path / "big_train", tmp_path / "big_test"
    for folder in (train, test):
        folder.mkdir()
    train, test = (train, test) if folders else (tmp_path, tmp_path)
    (train / "train_data.csv").write_text("0,3,1\n0,1,0\n1,2,1\n")
    (test / "test_data.csv").write_text("1,4,0\n1,5,1\n0,2,1\n0,4,0\n0,3,0\n")
    loaded = load_source(str(tmp_path), 0)
    assert loaded.kind == "paddlerec" and (loaded.num_users, loaded.num_items) == (2, 6)
    assert loaded.train_rows is not None and loaded.test_rows is not None
    assert loaded.train_rows.tolist() == [[0, 3, 1], [0, 1, 0], [1, 2, 1]]
    assert loaded.test_rows.tolist() == [[0, 2, 1], [0, 4, 0], [0, 3, 0], [1, 5, 1], [1, 4, 0]]
    assert loaded.train.tolist() == [[0, 3], [1, 2]] and loaded.test.tolist() == [[0, 2], [1, 5]]
    assert columns_of(loaded) == {}
    (test / "test_data.csv").write_text("0,2,1\n1,4,0\n")
    with pytest.raises(DataError, match=r"must have exactly one positive. Received 0 for user 1"):
        load_source(str(tmp_path), 0)


def write_ncf(folder: Path, name: str = "ml") -> Path:
    (folder / f"{name}.train.rating").write_text("0\t1\t5\t9\n1\t0\t5\t9\n0\t4\t5\t9\n")
    (folder / f"{name}.test.rating").write_text("1\t3\t5\t9\n0\t2\t5\t9\n")
    (folder / f"{name}.test.negative.gz").write_bytes(gzip.compress(negative_lines("(0,2)", "(1,3)")))
    return folder / name


def test_ncf_files_by_prefix_or_folder(tmp_path: Path) -> None:
    prefix = write_ncf(tmp_path)
    for source in (prefix, tmp_path):
        loaded = load_source(str(source), 0)
        assert loaded.kind == "ncf" and (loaded.num_users, loaded.num_items) == (2, 109)
        assert loaded.train.tolist() == [[0, 1], [0, 4], [1, 0]] and loaded.test.tolist() == [[0, 2], [1, 3]]
        assert loaded.train_rows is None and loaded.test_rows is not None and len(loaded.test_rows) == 200
    write_ncf(tmp_path, "pinterest")
    with pytest.raises(DataError, match=r"one data set. Received: .* with ml, pinterest. Give the prefix"):
        load_source(str(tmp_path), 0)


def test_zip_codes_can_come_from_a_users_file(tmp_path: Path) -> None:
    loaded = load_source(str(write_ncf(tmp_path)), 0)
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n3::F::1::10::55555\n")
    users = read_movielens_users(tmp_path / "users.dat")
    assert users is not None
    assert columns_of(with_users(loaded, users))["zip_code"] == ["48067", ""]
    (tmp_path / "u.user").write_text("2|24|M|technician|85711\n")
    users = read_movielens_users(tmp_path / "u.user")
    assert users is not None
    assert columns_of(with_users(loaded, users))["zip_code"] == ["", "85711"]
    assert columns_of(with_users(loaded, users))["occupation"] == ["", "technician"]
    assert read_movielens_users(tmp_path / "customers.csv") is None


def test_an_id_with_one_digit_too_many_does_not_take_all_memory(tmp_path: Path) -> None:
    write_ncf(tmp_path)
    (tmp_path / "ml.train.rating").write_text("0\t99999999999\t5\t9\n")
    with pytest.raises(DataError, match=r"id must be below 50000000. Received: 99999999999"):
        load_source(str(tmp_path), 0)


@pytest.mark.parametrize("name", ["ratings.dat", "users.dat"])
def test_malformed_movielens_names_file_and_line(tmp_path: Path, name: str) -> None:
    folder = write_ml1m(tmp_path / "ml-1m")
    with open(folder / name, "a", encoding="latin-1") as file:
        file.write("x::1\n")
    line = (folder / name).read_text(encoding="latin-1").count("\n")
    with pytest.raises(DataError, match=f"{name}, line {line}: "):
        load_source(str(folder), 0)


def test_unknown_layouts_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"Looked for ratings.dat .*u.data.*ratings.csv.*.inter.*train_data.csv.*train.rating"
    ):
        load_source(str(tmp_path), 0)
    with pytest.raises(DataError, match=r"absent, which does not exist. Looked for"):
        load_source(str(tmp_path / "absent"), 0)
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match=r"must be a folder, a table or a zip. Received: .*bad.zip") as caught:
        load_source(str(tmp_path / "bad.zip"), 0)
    assert isinstance(caught.value.__cause__, zipfile.BadZipFile)


def test_synthetic_is_as_uneven_as_movielens_and_the_same_for_a_seed() -> None:
    one, same, other = (load_source("synthetic", seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.train, same.train)
    assert len(one.train) != len(other.train) or (one.train != other.train).any()
    assert (one.num_users, one.num_items) == (600, 400)
    assert len(one.train) + len(one.test) == pytest.approx(30_000, rel=0.02)
    region = np.array([int(code[0]) for code in one.user_columns["zip_code"]])
    share = np.bincount(region[one.train[:, 0]], minlength=10) / len(one.train)
    np.testing.assert_allclose(share, np.array(REGION_ROWS) / sum(REGION_ROWS), atol=0.01)
    popularity = np.sort(np.bincount(one.train[:, 1]))[::-1]
    assert popularity[:40].sum() > 0.2 * len(one.train)  # a tenth of the items


def test_users_survive_writing_and_reading(tmp_path: Path) -> None:
    loaded = load_source(str(write_ml1m(tmp_path / "ml-1m")), 0)
    write_users(tmp_path / "users.csv", loaded)
    read, expected = read_users(tmp_path / "users.csv"), loaded.user_table()
    for name in ("user", "activity", "tag"):
        assert getattr(read, name).tolist() == getattr(expected, name).tolist()
    assert {name: column.tolist() for name, column in read.columns.items()} == columns_of(loaded)
    assert (tmp_path / "users.csv").read_text().splitlines()[0] == (
        "user,original_id,activity,tag,gender,age,occupation,zip_code"
    )
    write_items(tmp_path / "items.csv", loaded.items)
    with open(tmp_path / "items.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[:3] == [
            ["item", "original_id", "title", "tags"],
            ["0", "30", "C, D", "Action"],
            ["1", "10", "Café (1995)", "Comedy|Drama"],
        ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "user,original_id\n0,1\n",
            "line 1: the columns must be user, original_id, activity, tag, user and activity wh",
        ),
        ("user,original_id,activity,tag\n0,1,2,\n1,1,x,\n", "line 3: the columns must be"),
        ("user,original_id,activity,tag\n0,1,2,\n1,1,2\n", "line 3: the columns must be"),
        ("user,original_id,activity,tag\n1,1,2,\n", "must be numbered 0, 1, 2"),
    ],
)
def test_a_bad_users_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "users.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_users(tmp_path / "users.csv")


def test_a_user_without_known_tag_has_an_empty_one(tmp_path: Path) -> None:
    loaded = load_source(str(write_ml1m(tmp_path / "ml-1m")), 0)
    blank = replace(loaded, items=replace(loaded.items, tags=[""] * 4))
    assert blank.user_table().tag.tolist() == ["", ""]


def refusal(source: str) -> str:
    with pytest.raises(FLRecError) as caught:
        load_source(source, 0)
    return str(caught.value)


def test_a_layout_can_be_named_too(tmp_path: Path) -> None:
    folder = write_ml1m(tmp_path / "a=b: ml-1m")
    assert list(SOURCES) == [
        *("synthetic", "tabular", "recbole", "movielens-1m", "movielens-10m", "movielens-100k", "movielens-csv"),
        *("paddlerec", "ncf"),
    ]
    named, recognised = (load_source(source, 0) for source in (f"movielens-1m:path={folder}", str(folder)))
    np.testing.assert_array_equal(named.train, recognised.train)
    assert load_source(f"ncf:path={write_ncf(tmp_path)}", 0).kind == "ncf"
    for source, file in (
        ("movielens-100k", "u.data"),
        ("paddlerec", "big_train/train_data.csv"),
        ("ncf", ".train.rating and .test.rating"),
    ):
        text = f"This source must hold {file}. Received: {folder}, which does not."
        assert refusal(f"{source}:path={folder}") == text


def test_options_of_a_source() -> None:
    small = load_source("synthetic:num_users=20, num_items=30, positives=300", 1)
    assert (small.num_users, small.num_items) == (20, 30)
    assert 200 < len(small.train) + len(small.test) < 400
    assert refusal("synthetic:num_user=20") == ("--source synthetic: num_user: unknown key. Did you mean num_users?")
    assert refusal("synthetic:num_items=3") == (
        "--source synthetic: num_items must be an integer of at least 20. Received: num_items='3' (str). Set it to 20 "
        "or more."
    )
    assert refusal("ncf") == "--source ncf: path is missing. Set it to the path that ncf takes."


@pytest.mark.parametrize(("source", "hint"), [("synthetik", "Did you mean synthetic? "), ("my_source.py", "")])
def test_an_unknown_name(source: str, hint: str) -> None:
    assert refusal(source).startswith(
        "--source must be 'synthetic', a table, a folder or zip in a known layout, or file.py:function. "
        f"Received: {source}, which does not exist. {hint}Looked for ratings.dat"
    )


def test_a_file_that_is_named_without_its_function(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    assert f"or file.py:function. Received: {tmp_path}/mine.py. Looked for" in refusal(f"{tmp_path}/mine.py")


def test_the_example_is_a_source_with_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 25
    (tmp_path / "likes.txt").write_text("ben: tea, rye\nann: rye, oil, tea, jam\n")
    monkeypatch.chdir(tmp_path)  # where a relative path starts
    loaded = load_source(f"{EXAMPLE}:likes:path=likes.txt", 0)
    assert (loaded.kind, loaded.num_users, loaded.num_items) == ("likes", 2, 4)
    assert loaded.original_user.tolist() == ["ann", "ben"]
    assert loaded.items.original_id.tolist() == ["tea", "rye", "oil", "jam"]
    assert loaded.test.tolist() == [[0, 3], [1, 1]] and loaded.train.tolist() == [[0, 1], [0, 2], [0, 0], [1, 0]]
    assert load_source(f"{EXAMPLE}:likes:path=likes.txt", 0, {"header_lines": "1"}).num_users == 1
    assert loaded.items.title == [""] * 4 and columns_of(loaded) == {}
    assert refusal(f"{EXAMPLE}:likes:path=likes.txt,header_lines=no").endswith(
        "header_lines must be an integer. Received: header_lines='no' (str). Write it as 0."
    )
    text = refusal(f"{EXAMPLE}:likes:path=none.txt")
    assert text.startswith(f"The source {EXAMPLE}:likes failed: FileNotFoundError: [Errno 2] No such file")


def test_a_source_that_fails_or_returns_something_else(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def f(seed):\n    return seed\n\ndef g(seed):\n    return 1 / seed\n\nTHREE = 3\n")
    assert refusal(f"{path}:f") == f"The source {path}:f must return a Dataset. Received: int."
    assert refusal(f"{path}:g") == (
        f"The source {path}:g failed: ZeroDivisionError: division by zero (mine.py, line 5)"
    )
    assert refusal(f"{path}:THREE") == f"A source of data must be a function. Received: '{path}:THREE', int."
    assert refusal("none.py:f").startswith("A source of data must be importable. Received: 'none.py:f'; there is no ")


@pytest.mark.parametrize(
    ("columns", "received"),
    [
        (([], [], []), "float64 [0], float64 [0], float64 [0]"),
        (([1, 2], [1, 2], [1]), "int64 [2], int64 [2], int64 [1]"),
        (([[1]], [[1]], [[1]]), "int64 [1, 1], int64 [1, 1], int64 [1, 1]"),
        (([0.5], [1], [1]), "float64 [1], int64 [1], int64 [1]"),
        ((["a", "b"], [1], [1]), "<U1 [2], int64 [1], int64 [1]"),
        (([True], [1], [1]), "bool [1], int64 [1], int64 [1]"),
    ],
)
def test_interactions_that_are_none(columns: tuple[list[int], ...], received: str) -> None:
    with pytest.raises(DataError) as caught:
        from_interactions("mine", *map(np.array, columns))
    assert str(caught.value) == (
        "Interactions must be users and items, whole numbers or texts, and times, of one length of at least 1. "
        f"Received: {received}."
    )


def test_interactions_may_have_times_with_a_fraction() -> None:
    made = from_interactions("mine", np.array([7, 7]), np.array([3, 4]), np.array([0.5, 0.25]))
    assert made.test.tolist() == [[0, 0]] and made.train.tolist() == [[0, 1]]


def test_without_times_the_later_line_is_the_later() -> None:
    made = from_interactions("mine", np.array([7, 7, 7]), np.array([3, 4, 3]))
    assert made.test.tolist() == [[0, 0]] and made.train.tolist() == [[0, 1]] and made.train.dtype == np.int32


def test_ids_may_be_texts() -> None:
    """Users by code point, items by first appearance; what a table knows of others is nobody's."""
    user, item = np.array(["u-b", "u-Z", "u-b", "ü"]), np.array(["sku9", "sku10", "sku10", "sku9"])
    users = Users(np.array(["ü", "nobody", "u-b"]), {"region": np.array(["north", "west", "south-east"])})
    items = Items(np.array(["sku10", "sku11"]), ["Ten", "Eleven"], ["a|b", "c"])
    made = from_interactions("mine", user, item, np.array([1, 2, 3, 4]), users, items)
    assert made.original_user.tolist() == ["u-Z", "u-b", "ü"] and made.items.original_id.tolist() == ["sku9", "sku10"]
    assert columns_of(made) == {"region": ["", "south-east", "north"]}
    assert made.items.title == ["", "Ten"] and made.items.tags == ["", "a|b"]
    assert made.test.tolist() == [[1, 1]] and made.train.tolist() == [[0, 1], [1, 0], [2, 0]]


@pytest.mark.parametrize("texts", [["7", "x"], ["7", "007"]])
def test_numbers_and_texts_of_one_id_are_the_same(texts: list[str]) -> None:
    """A table with one odd id has texts, and the interactions numbers."""
    made = from_interactions("mine", np.array([7, 8]), np.array([3, 4]))
    assert columns_of(with_users(made, Users(np.array(texts), {"a": np.array(["yes", "no"])}))) == {"a": ["yes", ""]}


def test_a_column_of_users_has_a_name_of_its_own() -> None:
    users = Users(np.array([7]), {"region": np.array(["north"]), "tag": np.array(["x"])})
    with pytest.raises(DataError) as caught:
        from_interactions("mine", np.array([7]), np.array([3]), users=users)
    assert str(caught.value) == (
        "A column of users must have a name of its own, and none of user, original_id, activity, tag. Received: tag. "
        "Rename the column."
    )
