"""Clipping and noise, what an accountant makes of them, and settings that would share more than that."""

from __future__ import annotations

import builtins
import importlib.util
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_rec.config import Config, relations
from fl_rec.errors import ConfigError, DataError
from fl_rec.job.check import check_job
from fl_rec.privacy import accountant
from fl_rec.privacy.accountant import Ledger, Spent, epsilon
from fl_rec.privacy.mechanism import Change, add, add_noise, clipped, norm, notes_of
from fl_rec.privacy.one_worker_each import require_one_worker_each

LoadJob = Callable[..., Config]
PRIVATE = ("privacy.clip=0.5", "runner.exchanges_per_epoch=4", "hyper_parameters.optimizer.class=sgd")


def change(seed: int = 0, scale: float = 1.0) -> dict[str, Change]:
    """A user's change of three rows of a table of six, and of a bias."""
    random = np.random.default_rng(seed)
    rows = Change(np.array([1, 2, 5]), scale * random.normal(size=(3, 4)))
    return {"table": rows, "bias": Change(None, scale * random.normal(size=7))}


def nothing() -> dict[str, np.ndarray]:
    return {"table": np.zeros((6, 4)), "bias": np.zeros(7)}


# -- clipping, sums and noise ------------------------------------------------------------------------------


def test_the_norm_is_of_all_parameters_together() -> None:
    flat = np.concatenate([each.values.reshape(-1) for each in change().values()])
    assert norm(change()) == pytest.approx(np.linalg.norm(flat), rel=1e-12)


@pytest.mark.parametrize("clip", [1e-6, 0.3, 1.0])
def test_a_longer_change_is_scaled_to_the_clip(clip: float) -> None:
    scaled = clipped(change(), clip)
    assert norm(scaled) == pytest.approx(clip, rel=1e-12)
    for name, before in change().items():
        np.testing.assert_allclose(scaled[name].values, before.values * (clip / norm(change())), rtol=1e-12)
        np.testing.assert_array_equal(scaled[name].rows, before.rows)


@pytest.mark.parametrize("scale", [0.0, 0.01])
def test_a_shorter_change_is_left_alone(scale: float) -> None:
    for name, each in clipped(change(scale=scale), 1.0).items():
        np.testing.assert_array_equal(each.values, change(scale=scale)[name].values)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_change_that_is_not_finite_counts_as_none(value: float) -> None:
    broken = change()
    broken["bias"].values[3] = value
    total = nothing()
    add(total, clipped(broken, 1.0))
    assert not any(values.any() for values in total.values())


def test_rows_that_are_there_several_times_are_added_before_they_are_measured() -> None:
    rows, values = np.array([3, 1, 3]), np.array([[1.0, 2.0], [5.0, 6.0], [10.0, 20.0]])
    merged = Change.of_rows(rows, values)
    assert merged.rows is not None and merged.rows.tolist() == [1, 3]
    assert merged.values.tolist() == [[5.0, 6.0], [11.0, 22.0]]


def test_changes_of_users_add_up() -> None:
    total, users = nothing(), [change(seed) for seed in range(3)]
    for each in users:
        add(total, each)
    np.testing.assert_allclose(total["table"][[1, 2, 5]], sum(each["table"].values for each in users), rtol=1e-12)
    np.testing.assert_allclose(total["bias"], sum(each["bias"].values for each in users), rtol=1e-12)
    assert not total["table"][[0, 3, 4]].any()


def test_every_coordinate_gets_noise_of_its_own() -> None:
    total = {"table": np.full((200, 100), 3.0), "bias": np.zeros(10_000)}
    add_noise(total, 0.7, np.random.default_rng(1))
    noise = np.concatenate([(total["table"] - 3).reshape(-1), total["bias"]])
    assert len(np.unique(noise)) == len(noise)
    # Within four standard errors of mean and deviation.
    assert noise.mean() == pytest.approx(0, abs=4 * 0.7 / math.sqrt(len(noise)))
    assert noise.std() == pytest.approx(0.7, rel=4 / math.sqrt(2 * len(noise)))


# -- what it comes to --------------------------------------------------------------------------------------


def renyi(noise_multiplier: float, chance: float, rounds: int, delta: float) -> float:
    """The same bound without the library: theorem 4 of arXiv:1908.10530 for whole orders, and proposition 12 of
    arXiv:2004.00010 to get from there to epsilon."""
    best = math.inf
    for order in range(2, 257):
        terms = [
            math.lgamma(order + 1)
            - math.lgamma(k + 1)
            - math.lgamma(order - k + 1)
            + (k * math.log(chance))
            + ((order - k) * math.log1p(-chance) if k < order else 0.0)
            + k * (k - 1) / (2 * noise_multiplier**2)
            for k in range(order + 1)
        ]
        divergence = rounds * float(np.logaddexp.reduce(terms)) / (order - 1)
        best = min(best, divergence + math.log1p(-1 / order) - math.log(delta * order) / (order - 1))
    return best


@pytest.mark.parametrize(("noise", "chance", "rounds"), [(1.1, 0.01, 1000), (4.0, 0.01, 10_000), (2.0, 0.25, 48)])
def test_epsilon_by_another_computation(noise: float, chance: float, rounds: int) -> None:
    whole_orders = renyi(noise, chance, rounds, 1e-5)
    # The library has orders between the whole ones too.
    assert 0.98 * whole_orders < epsilon(noise, chance, rounds, 1e-5) <= whole_orders * (1 + 1e-9)


def test_epsilon_that_was_published() -> None:
    """1.26 by the moments accountant of arXiv:1607.00133, section 3.2, whose bound was not yet quite as good."""
    assert 1.0 < epsilon(4.0, 0.01, 10_000, 1e-5) <= 1.26


def test_epsilon_of_a_gaussian_without_sampling() -> None:
    """Against the exact one, theorem 8 of arXiv:1805.06530: never below it, and a tenth above it at most."""

    def normal(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    def delta_of(value: float) -> float:
        return normal(1 / 4 - 2 * value) - math.exp(value) * normal(-1 / 4 - 2 * value)

    # A noise of 2 in one round is that of 4 in four.
    low, high = 0.0, 10.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if delta_of(middle) < 1e-5 else (middle, high)
    assert high <= epsilon(2.0, 1.0, 1, 1e-5) < 1.1 * high
    assert epsilon(4.0, 1.0, 4, 1e-5) == pytest.approx(epsilon(2.0, 1.0, 1, 1e-5), rel=1e-6)


def test_epsilon_at_its_ends() -> None:
    assert epsilon(1.0, 0.5, 0, 1e-5) == 0
    assert epsilon(0.0, 0.5, 3, 1e-5) == math.inf
    assert epsilon(1.0, 0.5, 3, 1e-5) < epsilon(1.0, 0.5, 4, 1e-5) < epsilon(1.0, 0.6, 4, 1e-5)


def test_what_is_written_of_it(load_job: LoadJob) -> None:
    config = load_job(*PRIVATE)
    spent = Spent.of(config, 8)
    assert spent.to_record() == {
        "epsilon": epsilon(1.0, 0.25, 8, 1e-5),
        "delta": 1e-5,
        "exchanges": 8,
        "noise_multiplier": 1.0,
        "clip": 0.5,
        "users_per_exchange": 0.25,
    }
    assert str(spent) == f"epsilon {spent.epsilon:.3g} at delta 1e-05"
    config = config.replace(
        **{"privacy.users_per_exchange": 0.1, "privacy.noise_multiplier": 0, "privacy.delta": 0.001}
    )
    spent = Spent.of(config, 8)
    assert (spent.epsilon, spent.delta, spent.users_per_exchange) == (None, 0.001, 0.1)
    assert str(spent) == "no differential privacy without noise"


# -- settings ----------------------------------------------------------------------------------------------


def refusal(config: Config, coordinators: int = 0) -> str:
    with pytest.raises(ConfigError) as caught:
        check_job(config, 2, coordinators)
    return str(caught.value)


@pytest.mark.parametrize("key", ["delta", "users_per_exchange"])
@pytest.mark.parametrize("value", ["0", "1.5", "-0.1", "some"])
def test_a_chance_is_above_0_and_up_to_1(load_job: LoadJob, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"privacy.{key} must be a number above 0, up to 1") as caught:
        load_job(f"privacy.{key}={value}")
    assert "Set it to 1 or something between." in str(caught.value)


def test_a_private_job_is_accepted_as_it_is(load_job: LoadJob) -> None:
    job = check_job(load_job(*PRIVATE), 2)
    assert job.notes == ()
    assert job.config.privacy.clip == 0.5
    assert job.config.to_dict()["privacy"] == {
        "clip": 0.5,
        "noise_multiplier": 1.0,
        "delta": 1e-5,
        "public_start": False,
        "users_per_exchange": None,
    }


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (
            "runner.exchanges_per_epoch=0",
            "privacy.clip needs runner.exchanges_per_epoch: without it Paddle's communicator sends while a worker "
            "trains, and leaves no place for clipping and noise. Received: 0. Set it to 1 or more, or leave "
            "privacy.clip out.",
        ),
        (
            "hyper_parameters.optimizer.class=adam",
            "privacy.clip needs hyper_parameters.optimizer.class=sgd, because others carry one user's rows to the "
            "next. Received: adam. Set hyper_parameters.optimizer.class=sgd, or leave privacy.clip out.",
        ),
        (
            "runner.aggregation=weighted",
            "privacy.clip needs runner.aggregation=mean, because weights tell how many rows a worker has. Received: "
            "weighted. Set runner.aggregation=mean, or leave privacy.clip out.",
        ),
        (
            "runner.private_params=[mlp_*]",
            "privacy.clip needs runner.private_params=null, because only users' embeddings may be private. "
            "Received: ['mlp_*']. Set runner.private_params=null, or leave privacy.clip out.",
        ),
    ],
)
def test_settings_that_would_share_more(load_job: LoadJob, setting: str, text: str) -> None:
    config = load_job(*PRIVATE, setting)
    assert refusal(config) == text
    check_job(config.replace(**{"privacy.clip": None}), 2)


def test_no_coordinator(load_job: LoadJob) -> None:
    assert refusal(load_job(*PRIVATE), coordinators=1) == (
        "privacy.clip works without a coordinator: which clients wait, and for how long, is decided by figures that no "
        "noise protects. Received: --coordinator_num=1. Leave one of them out."
    )


def test_without_the_accountant(load_job: LoadJob, monkeypatch: pytest.MonkeyPatch) -> None:
    found, imported = importlib.util.find_spec, builtins.__import__

    def find(name: str, *others: Any) -> Any:
        return None if name == "dp_accounting" else found(name, *others)

    def load(name: str, *others: Any, **more: Any) -> Any:
        if name == "dp_accounting":
            raise ImportError(name)
        return imported(name, *others, **more)

    config = load_job(*PRIVATE)
    monkeypatch.setattr(importlib.util, "find_spec", find)
    monkeypatch.setattr(builtins, "__import__", load)
    text = (
        "privacy.clip needs dp-accounting, which computes epsilon. Received: no such package in this Python. Install "
        'it with pip install "fl_rec[dp]", or leave privacy.clip out.'
    )
    assert refusal(config) == text
    with pytest.raises(ConfigError) as caught:
        accountant.epsilon(1.0, 0.5, 1, 1e-5)
    assert str(caught.value) == text
    check_job(config.replace(**{"privacy.noise_multiplier": 0}), 2)


def test_settings_without_an_effect(load_job: LoadJob) -> None:
    config = load_job("privacy.noise_multiplier=2")
    assert check_job(config, 2).notes == ("privacy.* has no effect without privacy.clip: set it, such as to 1.",)
    others = {"runner.train_batch_size": 32, "runner.need_dump": True, "hyper_parameters.proximal": 0.1}
    private = {"privacy.clip": 0.5, "runner.exchanges_per_epoch": 4, "hyper_parameters.optimizer.class": "sgd"}
    config = config.replace(**others, **private, **{"runner.dump_fields_path": "dump"})
    assert check_job(config, 2).notes == tuple(
        f"{name}={value} has no effect with privacy.clip: between two exchanges each user drawn makes one step, with "
        "all of the user's rows, from the model exchanged last."
        for name, value in others.items()
    )


# -- what the guarantee assumes -----------------------------------------------------------------------------


class Meeting:
    """Workers in threads, and everything that they told."""

    def __init__(self, workers: int) -> None:
        self._barrier, self._row, self.told = threading.Barrier(workers, timeout=30), [None] * workers, []

    def of(self, worker: int) -> Callable[[np.ndarray, str], np.ndarray]:
        def gather(values: np.ndarray, _what: str) -> np.ndarray:
            self._row[worker] = values.copy()
            self._barrier.wait()
            everyone = np.array(self._row)
            if self._barrier.wait() == 0:
                self.told.append(everyone)
            return everyone

        return gather


def compared(*users: Sequence[int], num_users: int) -> tuple[list[str], list[np.ndarray]]:
    meeting = Meeting(len(users))

    def play(worker: int) -> str:
        try:
            require_one_worker_each(np.array(users[worker], int), num_users, worker, meeting.of(worker))
        except DataError as err:
            return str(err)
        return ""

    with ThreadPoolExecutor(len(users)) as pool:
        return list(pool.map(play, range(len(users)))), meeting.told


def test_users_in_several_workers_are_found() -> None:
    users = num_users = 70_000  # two blocks
    found, _ = compared(range(0, 30), range(30, users), [], num_users=num_users)
    assert found == [""] * 3
    found, told = compared([5, 66_000, 3], [66_000, 9], [5, 66_000], num_users=num_users)
    assert len(set(found)) == 1 and "Received: 2 users with rows in several. Deal" in found[0]
    # What travels looks like chance: as good as no user tells a 0 or a 1.
    masked = np.concatenate([each.ravel() for each in told if each.shape[1] > 1000])
    assert np.count_nonzero(masked < 2) < 5 and 0.49 < np.mean(masked > 2**31) < 0.51
    # The same users tell something else the next time.
    assert not np.array_equal(told[1], compared([5, 66_000, 3], [66_000, 9], [5, 66_000], num_users=num_users)[1][1])


def test_what_was_spent_is_not_forgotten(tmp_path: Path) -> None:
    config = privacy_config(tmp_path)
    path = tmp_path / "privacy" / "3.json"
    for paid in range(3):
        ledger = Ledger(path, config)
        assert ledger.exchanges == paid
        ledger.pay()
    with pytest.raises(ConfigError, match=r"this run has had 3 with .*Received: .*'noise_multiplier': 0.5"):
        Ledger(path, config.replace(**{"privacy.noise_multiplier": 0.5}))
    for content in ('{"exchanges": 3}', path.read_text().replace('"exchanges": 3', '"exchanges": -3')):
        path.write_text(content)
        with pytest.raises(DataError, match=r"^What privacy was spent is as a worker wrote it\. Received: .*3\.json"):
            Ledger(path, config)


def test_a_delta_that_is_none(tmp_path: Path) -> None:
    config = privacy_config(tmp_path).replace(**{"privacy.delta": 1.0})
    with pytest.raises(ConfigError, match="privacy.delta must be above 0 and below 1: with 1, nothing at all"):
        relations.check(relations.TRAINING, config)
    told = privacy_config(tmp_path).replace(**{"privacy.delta": 1e-2, "hyper_parameters.num_users": 1000})
    (note,) = notes_of(told, None)  # type: ignore[arg-type]
    assert note.startswith("privacy.delta=0.01 is above 1 / 1,000 users: publishing all rows of one user in 100 would")
    assert notes_of(told.replace(**{"privacy.delta": 1e-3}), None) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "others"),
    [
        ("runner.warmup_model_path", {}),
        ("hyper_parameters.pretrained_gmf", {"pretrained_mlp": "there", "mode": "NCF_NeuMF"}),
    ],
)
def test_a_model_to_start_from_is_said_to_be_public(tmp_path: Path, key: str, others: dict[str, str]) -> None:
    given = {f"hyper_parameters.{name}": value for name, value in others.items()}
    config = privacy_config(tmp_path).replace(**{key: tmp_path, **given})
    with pytest.raises(ConfigError, match=f"privacy.clip can't say what {key} has cost the users"):
        relations.check(relations.TRAINING, config)
    relations.check(relations.TRAINING, config.replace(**{"privacy.public_start": True}))


def privacy_config(tmp_path: Path) -> Config:
    path = tmp_path / "job.yaml"
    path.write_text("runner: {train_data_dir: data}\n", encoding="utf-8")
    keys = {"privacy.clip": 1.0, "runner.exchanges_per_epoch": 2, "hyper_parameters.optimizer.class": "sgd"}
    return Config.load(path).replace(**keys)
