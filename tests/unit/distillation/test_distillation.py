"""Federated distillation without Paddle: the proxy set, the rows of a round, and the strategy's decisions.

What needs Paddle is in tests/paddle.
"""

from __future__ import annotations

import hashlib
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.config import Config
from fl_rec.coordinator.messages import FINISH, JOIN, ClientReport, Decision
from fl_rec.coordinator.strategies import Fleet, Strategy, new_strategy
from fl_rec.data.rows import Rows
from fl_rec.data.sampling import FreshNegatives
from fl_rec.data.shards import write_public
from fl_rec.data.text import LAYOUTS
from fl_rec.distillation.proxy import FINGERPRINT, LARGEST_LOGIT, LOGITS, SOFT_TARGETS, ProxySet
from fl_rec.distillation.student import NO_TARGET, TARGET_UNIT, DistilledRows, to_logits
from fl_rec.errors import ConfigError, DataError, RunError
from fl_rec.job.check import check_job
from fl_rec.nets.own_users import ALL_USERS, OwnUsers

PROJECT = Path(__file__).parents[3]

USERS, ITEMS, NEGATIVES = 120, 1000, 3
# Three users of different appetite, one pair twice; the highest ids have more digits than most.
PAIRS = np.array(
    [[7, item] for item in range(0, 900, 90)]
    + [[110, 5], [110, 999]]
    + [[3, item] for item in range(30, 36)]
    + [[7, 0]]
)


# -- the proxy set -----------------------------------------------------------------------------------------


def proxy_set(group_size: int = 1, per_round: int = 5, seed: int = 11, pairs: np.ndarray = PAIRS) -> ProxySet:
    return ProxySet(pairs, ITEMS, NEGATIVES, group_size, per_round, seed)


@pytest.mark.parametrize("group_size", [1, 1 + NEGATIVES])
def test_a_rounds_rows_are_positives_with_negatives_of_the_same_user(group_size: int) -> None:
    proxy = proxy_set(group_size)
    assert proxy.users.tolist() == [3, 7, 110]
    assert proxy.shape == (5 * (1 + NEGATIVES) // group_size, group_size)
    known = set(map(tuple, PAIRS.tolist()))
    drawn = []
    for round in range(200):
        rows = proxy.rows(round)
        assert rows.items.shape == rows.labels.shape == proxy.shape and rows.users.shape == proxy.shape[:1]
        assert rows.items.dtype == rows.users.dtype == rows.labels.dtype == np.int64
        labels = rows.labels.reshape(5, 1 + NEGATIVES)
        assert labels.tolist() == [[1, 0, 0, 0]] * 5
        users = np.broadcast_to(rows.users[:, None], rows.items.shape).reshape(5, -1)
        assert (users == users[:, :1]).all(), "a positive and its negatives are one user's"
        items = rows.items.reshape(5, -1)
        positives = set(zip(users[:, 0].tolist(), items[:, 0].tolist()))
        assert len(positives) == 5 and positives <= known, "drawn without putting back"
        negatives = set(zip(users[:, 1:].ravel().tolist(), items[:, 1:].ravel().tolist()))
        assert not negatives & known
        drawn += sorted(positives)
    counts = np.unique(np.array(drawn), axis=0, return_counts=True)[1]
    # 18 pairs, the repeated one once; each is in 5 of 18 rounds: 55.6 of 200, standard deviation 6.3.
    assert len(counts) == 18 and counts.min() > 55.6 - 4 * 6.3 and counts.max() < 55.6 + 4 * 6.3


def test_rows_are_the_same_for_all_who_share_set_and_round() -> None:
    shuffled = np.random.default_rng(0).permutation(PAIRS)
    mine, theirs = proxy_set(), proxy_set(pairs=shuffled)
    assert mine.fingerprint == theirs.fingerprint
    for round in (4, 0, 4):
        for ours, others in zip(mine.rows(round), theirs.rows(round)):
            assert ours.tolist() == others.tolist()
    assert mine.rows(0).items.tolist() != mine.rows(1).items.tolist()
    assert mine.rows(0).items.tolist() != proxy_set(seed=12).rows(0).items.tolist()
    everything = [proxy_set(per_round=99).rows(round).items for round in (0, 1)]
    assert everything[0][:: 1 + NEGATIVES].tolist() == everything[1][:: 1 + NEGATIVES].tolist()
    assert everything[0].tolist() != everything[1].tolist(), "the negatives are others"


def test_fewer_positives_than_asked_for() -> None:
    proxy = proxy_set(per_round=28_000)
    assert proxy.shape == (18 * (1 + NEGATIVES), 1)
    rows = proxy.rows(3)
    positives = np.column_stack([rows.users, rows.items[:, 0]])[rows.labels[:, 0] == 1]
    assert positives.tolist() == np.unique(PAIRS, axis=0).tolist()
    assert proxy.fingerprint == proxy_set(per_round=18).fingerprint, "it comes to the same rows"


def test_the_fingerprint_tells_sets_apart() -> None:
    sets = [
        proxy_set(),
        proxy_set(seed=12),
        proxy_set(per_round=6),
        proxy_set(group_size=1 + NEGATIVES),
        proxy_set(pairs=PAIRS[1:-1]),
        ProxySet(PAIRS, ITEMS + 1, NEGATIVES, 1, 5, 11),
        ProxySet(PAIRS, ITEMS, NEGATIVES + 1, 1, 5, 11),
    ]
    numbers = [each.fingerprint for each in sets]
    assert len(set(numbers)) == len(sets)
    assert all(0 <= number < 2**48 and int(float(number)) == number for number in numbers), "a report's number is exact"
    assert proxy_set().fingerprint == numbers[0]


def test_a_public_user_with_all_items() -> None:
    pairs = np.array([[0, 0], [2, 0], [2, 1], [2, 2]])
    with pytest.raises(DataError) as caught:
        ProxySet(pairs, 3, 1, 1, 4, 0)
    assert str(caught.value) == (
        "A public user must have an item that is not theirs, or no negative can be drawn. Received: user 2, who has "
        "all 3. Leave the user out of the proxy set."
    )
    assert set(ProxySet(pairs, 4, 5, 6, 4, 0).rows(0).items[1:, 1:].ravel().tolist()) == {3}, "the only one left"


def test_public_users_are_in_no_shard() -> None:
    proxy = proxy_set()
    proxy.require_no_overlap(np.array([0, 4, 109]), "the test shards")
    with pytest.raises(DataError) as caught:
        proxy.require_no_overlap(np.array([[110], [4], [7], [7]]), "the test shards")
    assert str(caught.value) == (
        "Public users must not be in the test shards. Received: 2 that are, the first 7. Make shards and proxy set "
        "together: fl-rec prepare --public, then fl-rec partition."
    )


LoadJob = Callable[..., Config]


def configured(load_job: LoadJob, folder: Path | None, *overrides: str) -> Config:
    proxy = [] if folder is None else [f"distillation.proxy_data_dir={folder}"]
    return load_job(
        *proxy,
        f"runner.resample_negatives={NEGATIVES}",
        f"hyper_parameters.num_users={USERS}",
        f"hyper_parameters.num_items={ITEMS}",
        "distillation.positives=5",
        "runner.seed=11",
        "runner.epochs=6",
        *overrides,
    )


def write_pairs(folder: Path, layout: str = "multislot", pairs: np.ndarray = PAIRS) -> Path:
    rows = np.concatenate([pairs, np.ones((len(pairs), 1), np.int64)], axis=1)
    write_public(folder, rows, LAYOUTS[layout])
    return folder / "fl_public_data"


def test_csv_and_multislot_files_are_the_same_set(load_job: LoadJob, tmp_path: Path) -> None:
    folders = [write_pairs(tmp_path / layout, layout) for layout in ("csv", "multislot")]
    # Several files, with rows of label 0, groups, and what is no data.
    several = tmp_path / "several"
    several.mkdir()
    lines = [f"1 {user} 1 {item} 1 1\n" for user, item in PAIRS[:4].tolist()]
    (several / "a.txt").write_text("1 3 1 999 1 0\n" + "".join(lines))
    (several / "b.txt").write_text("".join(f"1 {user} 2 {item} 888 2 1 0\n" for user, item in PAIRS[4:9].tolist()))
    (several / "c.csv").write_text("".join(f"{user},{item},1\n" for user, item in PAIRS[9:].tolist()) + "3,777,0\n")
    (several / "manifest.json").write_text("{}")
    (several / ".hidden").write_text("nothing")
    (several / "folder").mkdir()
    config = configured(load_job, None)
    for folder in (*folders, several):
        proxy = ProxySet.from_config(config.replace(**{"distillation.proxy_data_dir": str(folder)}))
        assert proxy is not None
        assert proxy.positives.tolist() == np.unique(PAIRS, axis=0).tolist()
        assert proxy.fingerprint == proxy_set().fingerprint
        assert proxy.rows(2).items.tolist() == proxy_set().rows(2).items.tolist()


def test_no_proxy_set_is_none(load_job: LoadJob, tmp_path: Path) -> None:
    assert ProxySet.from_config(configured(load_job, None)) is None


def refused(config: Config, folder: Path, **changes: Any) -> str:
    with pytest.raises(DataError) as caught:
        ProxySet.from_config(config.replace(**{"distillation.proxy_data_dir": str(folder), **changes}))
    return str(caught.value)


def test_folders_that_hold_no_proxy_set(load_job: LoadJob, tmp_path: Path) -> None:
    config = configured(load_job, None)
    folder = write_pairs(tmp_path)
    file = next(folder.iterdir())
    remedy = "Make it with fl-rec prepare --public and fl-rec partition."
    must = "distillation.proxy_data_dir must be a folder of public users' rows. Received: "
    absent = tmp_path / "absent"
    assert refused(config, absent) == f"{must}{absent}, which does not exist. {remedy}"
    assert refused(config, file) == f"{must}{file}, which is not a folder. {remedy}"
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / ".hidden").write_text("1 1 1 1 1 1\n")
    (empty / "manifest.json").write_text("{}")
    assert refused(config, empty) == f"distillation.proxy_data_dir must hold files. Received: {empty}, which is empty."
    (empty / "rows.csv").write_text("1,2,0\n1,3,0\n")
    assert refused(config, empty) == (
        f"A proxy set must hold rows with label 1. Received: 2 rows in {empty}, none."
    )  # fmt: skip
    (empty / "rows.csv").write_text("1,2\n")
    assert "rows.csv" in refused(config, empty)


@pytest.mark.parametrize(("name", "limit", "highest"), [("num_users", 110, 110), ("num_items", 999, 999)])
def test_ids_of_another_data_set(load_job: LoadJob, tmp_path: Path, name: str, limit: int, highest: int) -> None:
    folder = write_pairs(tmp_path)
    config = configured(load_job, folder)
    found = refused(config, folder, **{f"hyper_parameters.{name}": limit})
    assert f" below {name}={limit}. Received: {highest}. " in found
    assert found.startswith(f"{folder / 'part-000.txt'}, line ")
    assert ProxySet.from_config(config.replace(**{f"hyper_parameters.{name}": limit + 1})) is not None


# -- what a job with a proxy set is checked for --------------------------------------------------------------


def small_job(load_job: LoadJob, tmp_path: Path, *overrides: str, **job: Any) -> Config:
    """Two shards of users 0 and 1, and the proxy set of user 1, which only a worker would notice."""
    folder = write_pairs(tmp_path / "public", pairs=np.array([[1, 0], [1, 2]]))
    return load_job(
        "runner.resample_negatives=2", f"distillation.proxy_data_dir={folder}", "distillation.positives=1",
        *overrides, **job,
    )  # fmt: skip


def test_a_distilling_job_declares_its_fields(load_job: LoadJob, tmp_path: Path) -> None:
    config = small_job(
        load_job, tmp_path, "coordinator.strategy=distill", "coordinator.report_fields={mine: [2]}"
    )  # fmt: skip
    job = check_job(config, 2, 1)
    assert job.config.coordinator.report_fields == {"mine": (2,), LOGITS: (1, 3), FINGERPRINT: ()}
    assert not [note for note in job.notes if "distillation" in note]


def test_the_declared_shape_is_that_of_rows_of_one_item(load_job: LoadJob, tmp_path: Path) -> None:
    config = small_job(
        load_job, tmp_path, "coordinator.strategy=distill", "hyper_parameters.group_size=1"
    )  # fmt: skip
    assert check_job(config, 2, 1).config.coordinator.report_fields[LOGITS] == (3, 1)


@pytest.mark.parametrize(("coordinators", "strategy"), [(0, "distill"), (1, "join_all")])
def test_without_a_teacher_there_is_a_note(load_job: LoadJob, tmp_path: Path, coordinators: int, strategy: str) -> None:
    job = check_job(small_job(load_job, tmp_path, f"coordinator.strategy={strategy}"), 2, coordinators)
    assert (
        "distillation.proxy_data_dir: the public users' rows are trained with their labels alone. For soft targets "
        "start the job with --coordinator_num 1 and coordinator.strategy=distill." in job.notes
    )


@pytest.mark.parametrize(
    ("override", "received"),
    [
        ("runner.resample_negatives=null", "runner.resample_negatives=null. Set it, such as to 8, or leave"),
        ("privacy.clip=1.0", "privacy.clip. Leave it out, for it covers nothing that is public, or leave"),
    ],
)
def test_what_a_proxy_set_does_not_go_with(load_job: LoadJob, tmp_path: Path, override: str, received: str) -> None:
    rounds = (
        ["runner.exchanges_per_epoch=2", "privacy.delta=1e-5", "hyper_parameters.optimizer.class=sgd"]
        if "privacy" in override
        else []
    )
    with pytest.raises(ConfigError) as caught:
        check_job(small_job(load_job, tmp_path, override, *rounds), 2, 0)
    assert "distillation.proxy_data_dir has all clients draw the same rows of the public users" in str(caught.value)
    assert received in str(caught.value)


# -- a worker's rows -----------------------------------------------------------------------------------------

OWN = np.array([[0, 0, 1], [0, 11, 1], [99, 999, 1], [0, 4, 0]])  # the id of the highest user is not theirs


def distilled(group_size: int) -> tuple[DistilledRows, ProxySet, FreshNegatives]:
    own = FreshNegatives(OWN, ITEMS, NEGATIVES, group_size, 5)
    proxy = proxy_set(group_size)
    return DistilledRows(own, proxy, 5, ALL_USERS), proxy, own


def test_rows_where_users_have_places() -> None:
    """The same rows, but for the numbers by which users go."""
    by_id, proxy, _ = distilled(1)
    users = OwnUsers([OWN[:, 0], proxy.users], {"users": 1_000_000})
    pairs = np.column_stack([users.places(OWN[:, 0]), OWN[:, 1:]])
    by_place = DistilledRows(FreshNegatives(pairs, ITEMS, NEGATIVES, 1, 5, users.ids), proxy, 5, users)
    for source in (by_id, by_place):
        source.begin(1, None)
    wanted, found = by_id.epoch(2), by_place.epoch(2)
    assert found[0].tolist() != wanted[0].tolist() and users.ids(found[0]).tolist() == wanted[0].tolist()
    assert [each.tolist() for each in found[1:]] == [each.tolist() for each in wanted[1:]]


def halves(slots: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Rows of (user, items, labels), and their targets, [rows, group]."""
    assert [slot.dtype for slot in slots] == [np.int32, np.int32, np.int8, np.int32]
    return np.hstack(slots[:3]).astype(np.int64), slots[3]


def of_proxy(rows: np.ndarray, proxy: ProxySet) -> np.ndarray:
    mask: np.ndarray = np.isin(rows[:, 0], proxy.users)
    return mask


@pytest.mark.parametrize("group", [1, 1 + NEGATIVES])
def test_the_rows_are_the_own_ones_and_those_of_the_proxy_set(group: int) -> None:
    source, proxy, own = distilled(group)
    targets = np.random.default_rng(3).normal(0, 4, proxy.shape)
    targets.flat[:4] = [40.0, -40.0, 0.0004, -0.0006]
    source.begin(2, targets.astype(np.float32))
    rows, soft = halves(source.epoch(1))
    assert len(rows) == source.count == own.count + proxy.shape[0]
    mine = of_proxy(rows, proxy)
    own_rows = np.hstack(own.epoch(1))
    assert sorted(rows[~mine].tolist()) == sorted(own_rows.tolist())
    assert (soft[~mine] == NO_TARGET).all()
    drawn = proxy.rows(2)
    wanted = np.concatenate([drawn.users[:, None], drawn.items, drawn.labels], axis=1)
    # A row and its targets stay together.
    expected = np.clip(targets, -LARGEST_LOGIT, LARGEST_LOGIT)
    order, other = (np.lexsort(each.T) for each in (wanted, rows[mine]))
    assert rows[mine][other].tolist() == wanted[order].tolist()
    assert len(np.unique(wanted, axis=0)) == len(wanted), "or the comparison of targets would not be one"
    found = soft[mine][other] * TARGET_UNIT
    assert np.abs(found - expected[order]).max() <= TARGET_UNIT / 2 + 1e-6
    assert (found.max(), found.min()) == (LARGEST_LOGIT, -LARGEST_LOGIT)
    assert (found == np.rint(expected[order] / TARGET_UNIT) * TARGET_UNIT).all()


@pytest.mark.parametrize("group", [1, 1 + NEGATIVES])
def test_without_a_teacher_there_are_no_targets(group: int) -> None:
    source, proxy, _ = distilled(group)
    for round, targets in ((0, None), (1, np.ones(proxy.shape)), (2, None)):
        source.begin(round, targets)
        rows, soft = halves(source.epoch(round))
        mine = of_proxy(rows, proxy)
        assert mine.sum() == proxy.shape[0]
        assert (soft[~mine] == NO_TARGET).all()
        assert (soft[mine] == (NO_TARGET if targets is None else 1000)).all()
        drawn = proxy.rows(round)
        assert sorted(rows[mine, 1:].tolist()) == sorted(np.hstack([drawn.items, drawn.labels]).tolist())


def test_the_order_of_the_rows_is_that_of_a_reading() -> None:
    source, proxy, _ = distilled(1)
    source.begin(0, None)
    readings = [np.hstack(source.epoch(reading)).tolist() for reading in (0, 1, 0)]
    assert readings[0] == readings[2] != readings[1]
    places = [np.flatnonzero(of_proxy(np.array(rows), proxy)) for rows in readings]
    assert places[0].tolist() != places[1].tolist()
    for each in places:
        assert each.tolist() != list(range(each[0], each[0] + len(each))), "the two kinds are mixed"
    other = DistilledRows(FreshNegatives(OWN, ITEMS, NEGATIVES, 1, 5), proxy, 6, ALL_USERS)
    other.begin(0, None)
    others = np.hstack(other.epoch(0)).tolist()
    assert sorted(others) == sorted(readings[0]) and others != readings[0], "workers have orders of their own"


@pytest.mark.parametrize(("group", "expected"), [(1, "9a58437c4f8e61a4"), (1 + NEGATIVES, "129a1bd38e4f6e5b")])
def test_the_rows_of_a_reading_are_what_they_always_were(group: int, expected: str) -> None:
    """As they were drawn, in text, by the release before."""
    source, proxy, _ = distilled(group)
    source.begin(2, np.random.default_rng(3).normal(0, 4, proxy.shape).astype(np.float32))
    digest = hashlib.sha256()
    for slot in source.epoch(1):
        digest.update(slot.astype(np.int64).tobytes())
    assert digest.hexdigest()[:16] == expected


# -- logits --------------------------------------------------------------------------------------------------


def test_to_logits_is_the_inverse_of_the_sigmoid() -> None:
    logits = np.linspace(-14.9, 14.9, 997)
    for dtype, tolerance in ((np.float64, 0.0), (np.float32, 0.2)):
        found = to_logits((1 / (1 + np.exp(-logits))).astype(dtype).reshape(-1, 1))
        assert found.dtype == np.float16 and found.shape == (997, 1)
        # A float16 of this size is at most 2^-11 of itself away; a float32 next to 1 can't tell more than 0.2.
        assert np.abs(found[:, 0] - logits).max() <= np.spacing(np.float16(14.9)) / 2 + tolerance
    half = to_logits(1 / (1 + np.exp(-logits)))
    assert (half == logits.astype(np.float16)).mean() > 0.99, "to the last bit, but for ties"


def test_to_logits_of_certainty_and_of_nothing() -> None:
    tiny = np.float32(1e-30)
    found = to_logits(np.array([[0.0, 1.0, tiny, np.nan, 0.5]], np.float32))
    assert found[0, [0, 1, 2, 4]].tolist() == [-LARGEST_LOGIT, LARGEST_LOGIT, -LARGEST_LOGIT, 0.0]
    assert np.isnan(found[0, 3])


# -- the strategy ----------------------------------------------------------------------------------------------


class FakeTeacher:
    """Remembers what it is taught; its logits are 10 for each round that it has learned, or has loaded."""

    def __init__(self, config: Config, learning_rate: float, label_weight: float, batch_size: int) -> None:
        self.config, self.settings = config, (learning_rate, label_weight, batch_size)
        self.lessons: list[tuple[Any, np.ndarray, int, float]] = []
        self.known = 0
        made.append(self)

    def train(self, rows: Any, probabilities: np.ndarray, epochs: int, rate_factor: float, round: int) -> None:
        self.lessons.append((rows, probabilities, epochs, rate_factor))
        self.known += 1

    def logits(self, rows: Any) -> np.ndarray:
        return rows.items + np.float32(0.25) * self.known

    def save(self, path: Path, round: int) -> None:
        path.write_text(f"{self.known} {round}")

    def load(self, path: Path) -> int:
        self.known, round = map(int, path.read_text().split())
        return round


made: list[FakeTeacher] = []


@pytest.fixture(autouse=True)
def fake_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("fl_rec.distillation.teacher")
    module.Teacher = FakeTeacher  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    made.clear()


@pytest.fixture
def distilling(load_job: LoadJob, tmp_path: Path) -> Callable[..., Strategy]:
    """`distilling(clients, option=value)`, for six epochs; each a new object with its files in the same folder."""
    config = configured(load_job, write_pairs(tmp_path))
    folder = tmp_path / "coordinator"
    folder.mkdir()

    def distilling(clients: int = 3, folder: Path | None = folder, **options: Any) -> Strategy:
        return new_strategy("distill", options, Fleet(clients, 6, 11, folder, config))

    return distilling


SHAPE = (5 * (1 + NEGATIVES), 1)


def told(round: int, *logits: float, rows: int = 100, **changes: Any) -> dict[int, ClientReport]:
    """What clients report who each give one logit to all; before round 0 there is nothing to tell."""
    fields: dict[str, Any] = {FINGERPRINT: float(proxy_set().fingerprint)}
    return {
        client: ClientReport(
            client=client,
            round=round,
            shard_rows=SHAPE[0] + rows * (client + 1),
            rows=rows if round else 0,
            seconds=1.0 if round else 0.0,
            extra={**fields, LOGITS: np.full(SHAPE, each, np.float16)} if round else fields,
            **changes,
        )
        for client, each in enumerate(logits)
    }


def targets_of(decisions: Mapping[int, Decision]) -> dict[int, np.ndarray]:
    found = {client: each.extra[SOFT_TARGETS] for client, each in decisions.items() if SOFT_TARGETS in each.extra}
    return {client: np.asarray(each) for client, each in found.items()}


def taught(round: int, rounds: int) -> list[list[float]]:
    """What the fake teacher says of a round's rows after so many lessons."""
    return (proxy_set().rows(round).items + 0.25 * rounds).astype(np.float16).tolist()


Distilling = Callable[..., Strategy]


def test_targets_come_from_start_on_and_not_after_the_last_epoch(distilling: Distilling) -> None:
    strategy = distilling(start=2, first_epochs=7, epochs=4, learning_rate=0.5, label_weight=0.25, batch_size=9)
    for round in range(7):
        decisions = strategy.next_round(told(round, 0.0, 0.0, 0.0), round)
        found = targets_of(decisions)
        assert sorted(found) == ([0, 1, 2] if 2 <= round < 6 else [])
        for each in found.values():
            assert each.dtype == np.float16 and each.shape == SHAPE
            assert each.tolist() == taught(round, round - 1)
        assert {each.next_state for each in decisions.values()} == {JOIN if round < 6 else FINISH}
    (teacher,) = made
    assert teacher.settings == (0.5, 0.25, 9)
    assert [(epochs, factor) for _, _, epochs, factor in teacher.lessons] == [
        (7, 1.0),
        (4, 1 / 2),
        (4, 1 / 3),
        (4, 1 / 4),
    ]
    for round, (rows, probabilities, _, _) in enumerate(teacher.lessons, 2):
        assert rows.items.tolist() == proxy_set().rows(round).items.tolist()
        assert probabilities.shape == SHAPE and (probabilities == 0.5).all()


def test_the_teachers_own_hyper_parameters(distilling: Distilling) -> None:
    strategy = distilling(start=1, teacher={"mf_dim": 3})
    strategy.next_round(told(1, 0.0, 0.0, 0.0), 1)
    assert strategy.fleet.config is not None
    assert (made[0].config.hyper_parameters.mf_dim, strategy.fleet.config.hyper_parameters.mf_dim) == (3, 8)


LN3 = np.log(3.0)  # of which the probability is 3/4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 0.625),
        ({"combine": "mean"}, 0.625),
        # Shards of 100 and 200 rows; those of the proxy set are everybody's, and nobody's merit.
        ({"combine": "rows"}, (1 * 0.5 + 2 * 0.75) / 3),
        # |2p - 1| + 0.001 is 0.001 and 0.501.
        ({"combine": "confidence"}, (0.001 * 0.5 + 0.501 * 0.75) / 0.502),
        # Of 0.625 and 0.375, divided by 0.1: 1 / (1 + exp(-2.5)).
        ({"combine": "entropy_reduction"}, 0.9241418),
        ({"combine": "entropy_reduction", "sharpness": 0.5}, 0.6224593),
    ],
)
def test_how_probabilities_become_one(distilling: Distilling, options: dict[str, Any], expected: float) -> None:
    distilling(2, start=1, **options).next_round(told(1, 0.0, LN3), 1)
    (lesson,) = made[0].lessons
    assert lesson[1] == pytest.approx(np.full(SHAPE, expected), abs=2e-4)


def test_each_items_probability_is_its_own(distilling: Distilling) -> None:
    reports = told(1, 0.0, 0.0)
    mixed = np.zeros(SHAPE, np.float16)
    mixed[3] = LN3
    reports[0] = replace(reports[0], extra={**reports[0].extra, LOGITS: mixed})
    distilling(2, start=1, combine="confidence").next_round(reports, 1)
    probabilities = made[0].lessons[0][1]
    assert probabilities[3, 0] == pytest.approx((0.001 * 0.5 + 0.501 * 0.75) / 0.502, abs=2e-4)
    assert (np.delete(probabilities, 3) == 0.5).all()


def test_who_waits_gets_no_targets(distilling: Distilling) -> None:
    alone = new_strategy("random_k", {"k": 2}, Fleet(5, 6, 11))
    strategy = distilling(5, selection="random_k", selection_options={"k": 2}, start=2)
    drawn = set()
    for round in range(6):
        reports = told(round, *[0.0] * 5)
        decisions, others = strategy.next_round(reports, round), alone.next_round(reports, round)
        states = [decisions[client].next_state for client in range(5)]
        assert states == [others[client].next_state for client in range(5)]
        assert [each.reason for each in decisions.values()] == [each.reason for each in others.values()]
        joined = [client for client in range(5) if states[client] == JOIN]
        assert sorted(targets_of(decisions)) == (joined if round >= 2 else [])
        drawn |= set(joined)
        # All who reported are heard, also those who waited.
        assert len(made[0].lessons if made else []) == max(0, round - 1)
    assert len(drawn) > 2


OWN_SELECTION = """
from fl_rec.typed import Keys, PositiveInt, key
from fl_rec.coordinator import FINISH, JOIN, Decision, Strategy

class Options(Keys):
    last: PositiveInt = key(3, "round in which client 0 finishes")

class Sees(Strategy):
    '''Says what it sees; client 0 finishes in a round.'''
    Options = Options

    @property
    def report_fields(self):
        return {"mine": (2,)}

    def decide(self, reports, round):
        state = {0: FINISH if round == self.options.last else JOIN, 1: JOIN}
        return {
            client: Decision(
                state[client],
                local_epochs=0.5,
                reason=f"{self.standing[client].times_joined} times, {self.standing[client].report.round}, "
                f"{sorted(self.finished)}",
                extra={"told": float(round)},
            )
            for client in reports
        }
"""


def test_the_selection_sees_the_standings(distilling: Distilling, load_job: LoadJob, tmp_path: Path) -> None:
    (tmp_path / "a job" / "fl_sees.py").write_text(OWN_SELECTION)
    strategy = distilling(2, start=1, selection="fl_sees.py:Sees", selection_options={"last": 2})
    assert strategy.report_fields == {"mine": (2,), LOGITS: SHAPE, FINGERPRINT: ()}
    reasons = []
    for round in range(4):
        reports = told(round, 0.0, 0.0)
        if round == 3:
            del reports[0]  # who has finished reports no more
        decisions = strategy.next_round(reports, round)
        assert decisions[1].local_epochs == 0.5 and decisions[1].extra["told"] == round
        reasons.append(decisions[1].reason)
        assert sorted(targets_of(decisions)) == [[], [0, 1], [1], [1]][round]
    assert reasons == ["0 times, 0, []", "1 times, 1, []", "2 times, 2, []", "3 times, 3, [0]"]
    assert decisions[0].next_state == FINISH
    # What a run writes down is found from anywhere, and as the selection has it.
    assert strategy.options.selection == f"{tmp_path / 'a job' / 'fl_sees.py'}:Sees"
    assert strategy.options.selection_options == {"last": 2}


def test_a_client_whose_logits_are_not_finite_is_left_out(distilling: Distilling) -> None:
    strategy = distilling(start=1)
    decisions = strategy.next_round(told(1, LN3, np.nan, np.inf), 1)
    assert made[0].lessons[0][1] == pytest.approx(np.full(SHAPE, 0.75), abs=2e-4)
    assert [decisions[client].reason for client in range(3)] == [
        "logits of clients 1, 2 not finite, left out",
        "its logits not finite, left out",
        "its logits not finite, left out",
    ]
    assert sorted(targets_of(decisions)) == [0, 1, 2], "they may learn of the others"
    one = told(2, LN3, LN3, 0.0)
    logits = np.zeros(SHAPE, np.float16)
    logits[7] = np.nan
    one[2] = replace(one[2], extra={**one[2].extra, LOGITS: logits})
    decisions = strategy.next_round(one, 2)
    assert made[0].lessons[1][1] == pytest.approx(np.full(SHAPE, 0.75), abs=2e-4), "one NaN is enough"
    assert decisions[0].reason == "logits of client 2 not finite, left out"
    assert strategy.next_round(told(3, 0.0, 0.0, 0.0), 3)[0].reason == ""
    drawing = distilling(start=1, folder=None, selection="random_k", selection_options={"k": 3})
    decisions = drawing.next_round(told(1, 0.0, 0.0, np.nan), 1)
    assert decisions[1].reason == "drawn; logits of client 2 not finite, left out"


def test_nobodys_logits_are_finite(distilling: Distilling) -> None:
    strategy = distilling(start=1)
    decisions = strategy.next_round(told(1, np.nan, np.nan, np.nan), 1)
    assert targets_of(decisions) == {} and not made[0].lessons, "it has never learned anything"
    assert {each.next_state for each in decisions.values()} == {JOIN}
    assert {each.reason for each in decisions.values()} == {"its logits not finite, left out"}
    strategy.next_round(told(2, 0.0, 0.0, 0.0), 2)
    decisions = strategy.next_round(told(3, np.nan, np.nan, np.nan), 3)
    assert [each.tolist() for each in targets_of(decisions).values()] == [taught(3, 1)] * 3, "it stays as it is"
    assert [(epochs, factor) for _, _, epochs, factor in made[0].lessons] == [(20, 1 / 2)]


def test_another_proxy_set_is_an_error(distilling: Distilling) -> None:
    mine = proxy_set().fingerprint
    for round in (0, 3):
        reports = told(round, 0.0, 0.0, 0.0)
        reports[1] = replace(reports[1], extra={**reports[1].extra, FINGERPRINT: float(mine - 1)})
        with pytest.raises(RunError) as caught:
            distilling().next_round(reports, round)
        assert (
            f"All must hold the same proxy set. Received: {mine - 1} from client 1, and the coordinator's is {mine}. "
            "Compare distillation.proxy_data_dir, runner.seed and distillation.positives of both." in str(caught.value)
        )


def refused_options(distilling: Distilling, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        distilling(**options)
    return str(caught.value)


def test_selections_that_are_none(distilling: Distilling) -> None:
    assert refused_options(distilling, selection="distill") == (
        "coordinator.options.selection must be another strategy. Received: distill."
    )
    assert refused_options(distilling, selection="random_k", selection_options={"kk": 1}) == (
        "coordinator.options.selection_options: kk: unknown key. Did you mean k?"
    )
    assert "Received: 'random'. Did you mean random_k?" in refused_options(distilling, selection="random")
    assert refused_options(distilling, selection_option={}) == (
        "coordinator.options: selection_option: unknown key. Did you mean selection_options?"
    )
    assert "combine must be" in refused_options(distilling, combine="median")
    assert "start must be an integer of at least 1. Received: start=0" in refused_options(distilling, start=0)


def test_the_teachers_hyper_parameters_are_checked(distilling: Distilling) -> None:
    assert refused_options(distilling, teacher={"mf_dims": 3}) == (
        "coordinator.options.teacher: hyper_parameters.mf_dims: unknown key. Did you mean hyper_parameters.mf_dim?"
    )
    assert refused_options(distilling, teacher={"mf_dim": 0}).startswith(
        "coordinator.options.teacher: hyper_parameters.mf_dim must be an integer of at least 1. Received: mf_dim=0"
    )


@pytest.mark.parametrize(
    ("compression", "group", "size"),
    # Of 18 * 60 values 2 bytes each; of int8 1 byte each, and 4 for each row, unless that is more.
    [("none", 1, 2160), ("none", 60, 2160), ("float16", 60, 2160), ("int8", 1, 2160), ("int8", 60, 1080 + 4 * 18)],
)
def test_logits_that_are_too_long_for_a_message(
    load_job: LoadJob, tmp_path: Path, compression: str, group: int, size: int
) -> None:
    config = load_job(
        f"distillation.proxy_data_dir={write_pairs(tmp_path)}",
        "runner.resample_negatives=59",
        f"hyper_parameters.num_users={USERS}",
        f"hyper_parameters.num_items={ITEMS}",
        f"hyper_parameters.group_size={group}",
        f"runner.compress_report={compression}",
    )
    size += 1024
    small, large = (config.replace(**{"coordinator.max_message_bytes": limit}) for limit in (size - 1, size))
    new_strategy("distill", {}, Fleet(2, 3, config=large))
    with pytest.raises(ConfigError) as caught:
        new_strategy("distill", {}, Fleet(2, 3, config=small))
    assert str(caught.value) == (
        f"A round's logits must fit coordinator.max_message_bytes={size - 1}. Received: {1080 // group:,} rows of "
        f"{group}, {size:,} bytes with the rest. Lower distillation.positives, or raise the limit."
    )


def test_students_have_nets_of_their_own(load_job: LoadJob, tmp_path: Path) -> None:
    students = 'distillation.students={"1": {mf_dim: 3}, "*": {mf_dim: 5}}'
    job = check_job(small_job(load_job, tmp_path, students, 'runner.private_params=["*"]'), 2, 0)
    assert [job.config.for_client(client).hyper_parameters.mf_dim for client in range(3)] == [5, 3, 5]
    assert job.config.hyper_parameters.mf_dim == 8
    assert ProxySet.from_config(job.config.for_client(1)).fingerprint == ProxySet.from_config(job.config).fingerprint


@pytest.mark.parametrize(
    ("students", "private_params", "text"),
    [
        ("{2: {mf_dim: 3}}", '["*"]', "distillation.students must name clients 0 to 1. Received: 2."),
        (
            "{0: {mf_dim: 3}}", "null",
            "distillation.students has clients train different nets, which can't share parameters. Received: "
            "runner.private_params=null. Set it to ['*'], or leave students out.",
        ),
        (
            "{1: {mf_dims: 3}}", '["*"]',
            "distillation.students of client 1: hyper_parameters.mf_dims: unknown key. Did you mean "
            "hyper_parameters.mf_dim?",
        ),
    ],
)  # fmt: skip
def test_students_that_are_none(
    load_job: LoadJob, tmp_path: Path, students: str, private_params: str, text: str
) -> None:
    config = small_job(
        load_job, tmp_path, f"distillation.students={students}", f"runner.private_params={private_params}"
    )  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        check_job(config, 2, 0)
    assert str(caught.value) == text


def test_the_strategy_needs_a_proxy_set(load_job: LoadJob) -> None:
    text = (
        "coordinator.strategy=distill needs a proxy set, which the coordinator and all clients hold. Received: no "
        "distillation.proxy_data_dir. Make it with fl-rec prepare --public and fl-rec partition."
    )
    for config in (None, configured(load_job, None)):
        with pytest.raises(ConfigError) as caught:
            new_strategy("distill", {}, Fleet(2, 2, config=config))
        assert str(caught.value) == text


def test_started_again_the_teacher_goes_on(distilling: Distilling) -> None:
    first = distilling(start=1)
    for round in range(3):
        first.next_round(told(round, 0.0, 0.0, 0.0), round)
    again = distilling(start=1)
    for round in range(3):
        again.propose(told(round, 0.0, 0.0, 0.0), round)
    assert len(made) == 2 and made[1].lessons == [], "what is past is not learned twice"
    decisions = again.next_round(told(3, 0.0, 0.0, 0.0), 3)
    assert targets_of(decisions)[0].tolist() == taught(3, 3), "two rounds before, and this one"
    assert [(epochs, factor) for _, _, epochs, factor in made[1].lessons] == [(3, 1 / 3)], "it is not the first"
    # Without a folder everything is learned anew, as on a recorded run.
    dry = distilling(start=1, folder=None)
    for round in range(4):
        dry.next_round(told(round, 0.0, 0.0, 0.0), round)
    assert len(made[2].lessons) == 3
