"""The protocol of secure sums: what it adds up, what it hides, and who may be lost."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fl_rec.config import Config, relations
from fl_rec.config.notes import notes_of
from fl_rec.errors import ConfigError, RunError
from fl_rec.privacy import mechanism
from fl_rec.privacy.secure_sum import primitives
from fl_rec.privacy.secure_sum.clients import check, noise_part, threshold_of
from fl_rec.privacy.secure_sum.fixed_point import MOST_CLIENTS, FixedPoint
from fl_rec.privacy.secure_sum.member import DEALT, KEYS, VIEW, Member, _signed, unmask
from fl_rec.privacy.secure_sum.primitives import SEED

NUMBERS = 40_000  # more than are masked at a time


def values_of(clients: Collection[int], numbers: int = 50) -> dict[int, np.ndarray]:
    return {each: np.random.default_rng(each).integers(0, 2**32, numbers, np.uint32) for each in clients}


class Everyone:
    """Clients of one sum, and what they have told so far; `lost` are gone after so many rounds that they have done."""

    def __init__(self, clients: Sequence[int], lost: Mapping[int, int] | None = None, threshold: int = 0) -> None:
        self.members = {each: Member(each) for each in clients}
        self.lost, self.threshold = dict(lost or {}), threshold or threshold_of(len(clients))

    def there(self, round_: int) -> list[int]:
        return [each for each in self.members if self.lost.get(each, 9) > round_]

    def sum(self, values: Mapping[int, np.ndarray]) -> tuple[list[int], np.ndarray]:
        """Who is in the sum, and the sum."""
        self.keys = {each: self.members[each].keys for each in self.there(0)}
        self.dealt = {each: self.members[each].deal(self.keys, self.threshold) for each in self.there(1)}
        self.masked = {
            each: self.members[each].masked(
                values[each], {other: self.dealt[other][each] for other in self.dealt if other != each}
            )
            for each in self.there(2)
        }
        senders = list(self.masked)
        views = {each: self.members[each].view(senders) for each in self.there(3)}
        self.opened = {each: self.members[each].open(views) for each in self.there(4)}
        total: np.ndarray = np.add.reduce(list(self.masked.values()), dtype=np.uint32)
        unmask(total, self.keys, self.threshold, self.dealt, senders, self.opened)
        return senders, total


def test_what_is_told_has_the_length_that_it_says() -> None:
    everyone = Everyone([0, 3, 5])
    everyone.sum(values_of([0, 3, 5]))
    assert {len(each) for each in everyone.keys.values()} == {KEYS}
    assert {len(each) for dealt in everyone.dealt.values() for each in dealt.values()} == {DEALT}
    assert {len(each) for opened in everyone.opened.values() for each in opened.values()} == {SEED} and VIEW == 32


@pytest.mark.parametrize("clients", [[0, 1, 2], [7, 2, 9, 4], list(range(10))])
def test_the_sum_is_the_plain_one(clients: list[int]) -> None:
    values = values_of(clients, NUMBERS)
    senders, total = Everyone(clients).sum(values)
    assert senders == clients
    np.testing.assert_array_equal(total, sum(values.values()))


# After how many rounds a client is gone: keys, shares, masked numbers, comparison.
STEPS = range(5)


@pytest.mark.parametrize("gone", [{0: a, 3: b} for a, b in itertools.product(STEPS, STEPS)], ids=str)
def test_a_third_may_be_lost_at_any_step(gone: dict[int, int]) -> None:
    clients = range(6)
    values = values_of(clients)
    everyone = Everyone(clients, gone)
    senders, total = everyone.sum(values)
    assert senders == [each for each in clients if gone.get(each, 9) > 2]
    np.testing.assert_array_equal(total, sum(values[each] for each in senders))
    for opened in everyone.opened.values():
        assert opened.keys() == everyone.dealt.keys(), "of each that has dealt one thing, its mask's or its key's"


@pytest.mark.parametrize("step", range(1, 5))
def test_more_than_a_third_is_a_failure_by_name(step: int) -> None:
    with pytest.raises(RunError, match=r"A secure sum needs 4 of the 6 clients that began it. Received: 3\."):
        Everyone(range(6), {0: step, 3: step, 5: step}).sum(values_of(range(6)))


def test_too_few_from_the_start() -> None:
    with pytest.raises(RunError, match=r"A secure sum needs 4 clients or more. Received: 3\."):
        Everyone(range(6), {0: 0, 3: 0, 5: 0}).sum(values_of(range(6)))


# --- What is hidden ------------------------------------------------------------------------------------


def uniform(numbers: np.ndarray) -> bool:
    """Whether numbers may be drawn uniformly from 32 bits: chi-squared of each byte, and of each with the next."""
    for shift in range(0, 32, 8):
        counts = np.bincount((numbers >> np.uint32(shift)) & np.uint32(255), minlength=256)
        expected = len(numbers) / 256
        # 255 degrees of freedom: 6 standard deviations above the mean, a chance of about 1e-8.
        if ((counts - expected) ** 2 / expected).sum() > 255 + 6 * np.sqrt(2 * 255):
            return False
    halves = (numbers / 2**32).reshape(-1)
    return bool(abs(np.corrcoef(halves[:-1], halves[1:])[0, 1]) < 6 / np.sqrt(len(halves)))


def test_what_a_client_sends_is_uniform_without_the_others_masks() -> None:
    changes = np.random.default_rng(1).normal(0, 0.01, NUMBERS).astype(np.float32)
    changes[::3] = 0  # rows that it has not touched
    plain = FixedPoint.of(3).encoded(changes, 1.0, np.random.default_rng(2))
    assert not uniform(plain), "the test would see what is not masked"
    everyone = Everyone([0, 1, 2])
    everyone.sum(dict.fromkeys(range(3), plain))
    sent = everyone.masked[0]
    assert uniform(sent)
    assert uniform(sent[::3]) and uniform(sent[1::3]), "the rows that it has not touched look like those that it has"
    assert uniform(sent - plain), "the mask"

    # Its own mask is opened after a sum, and a colluding client knows one of its pairs': the other's still hides all.
    own = primitives.key(everyone.opened[0][0], "own mask", SEED)
    peeled = sent.copy()
    primitives.add_streams(peeled, [], [own])
    assert uniform(peeled)
    pair = primitives.key(primitives.agreed(everyone.members[1]._key, everyone.keys[0][32:]), "mask of 0 and 1", SEED)
    primitives.add_streams(peeled, [], [pair])
    assert uniform(peeled)
    last = primitives.key(primitives.agreed(everyone.members[2]._key, everyone.keys[0][32:]), "mask of 0 and 2", SEED)
    primitives.add_streams(peeled, [], [last])
    np.testing.assert_array_equal(peeled, plain), "who colluded with all others would see it"


def test_two_sums_share_no_mask() -> None:
    zeros = dict.fromkeys(range(3), np.zeros(NUMBERS, np.uint32))
    first, second = Everyone(range(3)), Everyone(range(3))
    first.sum(zeros), second.sum(zeros)
    assert uniform(first.masked[0] - second.masked[0]) and uniform(first.masked[0] + second.masked[0])


def test_fewer_than_the_threshold_learn_nothing_of_a_secret() -> None:
    """For shares of k - 1 holders there is a last share that gives any secret: they go with each as well."""
    threshold, holders = 4, [2, 3, 5, 7, 8, 9]
    secret, wanted = b"what is dealt...", b"any other secret"
    held = primitives.shares(secret, threshold, holders)
    assert primitives.from_shares(held, threshold, holders) == secret
    for some in itertools.combinations(holders, threshold):
        assert primitives.from_shares({each: held[each] for each in some}, threshold, holders) == secret
    colluding = holders[: threshold - 1]
    # A share at 0 is the secret itself: put it in a share's place, and see which share another holder would have.
    known = {each: held[each] for each in colluding}
    last = share_for(wanted, known, holders.index(8) + 1, holders)
    assert primitives.from_shares({**known, 8: last}, threshold, holders) == wanted
    assert last != held[8]


def share_for(secret: bytes, known: Mapping[int, bytes], place: int, holders: Sequence[int]) -> bytes:
    """The share at a place that gives a secret with some known ones.

    A share is added up of each known one and the last, times what hangs on their places alone; so the secret moves
    linearly with the last share, and each bit of that moves it by what it would alone.
    """
    holder = holders[place - 1]

    def with_last(last: int) -> int:
        held = {**known, holder: last.to_bytes(SEED, "big")}
        return int.from_bytes(primitives.from_shares(held, len(held), holders), "big")

    nothing = with_last(0)
    wanted = nothing ^ int.from_bytes(secret, "big")
    # Gaussian elimination over GF(2): which bits of the last share come to what is wanted.
    basis: list[tuple[int, int]] = []
    for bit in range(8 * SEED):
        moves, by = with_last(1 << bit) ^ nothing, 1 << bit
        for other, its in basis:
            if moves ^ other < moves:
                moves, by = moves ^ other, by ^ its
        assert moves, "each bit tells something that the others don't: no secret is left out"
        basis = sorted([*basis, (moves, by)], reverse=True)
    found = 0
    for moves, by in basis:
        if wanted ^ moves < wanted:
            wanted, found = wanted ^ moves, found ^ by
    assert not wanted
    return found.to_bytes(SEED, "big")


# --- What nobody does ----------------------------------------------------------------------------------


def begun(clients: Sequence[int]) -> Everyone:
    """Clients that have sent, and compared nothing."""
    everyone = Everyone(clients, dict.fromkeys(clients, 3))
    with pytest.raises(RunError):
        everyone.sum(values_of(clients))
    return everyone


def test_nobody_opens_a_mask_and_a_key_of_the_same_client() -> None:
    everyone = begun(range(6))
    one, other = everyone.members[0], everyone.members[1]
    views = {0: one.view(range(6)), 1: other.view(range(5))}
    told = {**views, **dict.fromkeys(range(2, 6), views[0])}
    for member, differ in ((one, 1), (other, 5)):
        says = f"the same clients as all others. Received: another view than client {member.number}'s of {differ} of 6"
        with pytest.raises(RunError, match=says):
            member.open(told)
        with pytest.raises(RunError, match="open comes once, after view. Received: it after open"):
            member.open(dict.fromkeys(range(6), views[member.number]))


def test_who_is_alone_with_a_view_opens_nothing() -> None:
    member = begun(range(6)).members[2]
    view = member.view(range(6))
    with pytest.raises(RunError, match="needs 4 of the 6 clients that began it. Received: 3"):
        member.open(dict.fromkeys([2, 3, 4], view))


def test_who_is_told_of_another_sum_alone_opens_nothing() -> None:
    members = begun(range(6)).members
    others = members[0].view(range(6))
    members[2].view(range(5))
    with pytest.raises(RunError, match="Received: another view than client 2's of 5 of 5 clients. Nothing was opened"):
        members[2].open({each: others for each in range(6) if each != 2})


@pytest.mark.parametrize("senders", [[0, 1, 3, 4], [0, 1, 2, 3, 99]])
def test_a_client_opens_for_sums_that_it_knows_of(senders: list[int]) -> None:
    with pytest.raises(RunError, match="is of clients that have dealt their shares, and only who is in it opens any"):
        begun(range(6)).members[2].view(senders)


def test_a_mask_is_used_once() -> None:
    member = begun(range(3)).members[0]
    with pytest.raises(RunError, match="masked comes once, after deal. Received: it after masked"):
        member.masked(np.zeros(3, np.uint32), {})


def test_a_threshold_that_two_halves_could_reach_is_none() -> None:
    member = Member(0)
    with pytest.raises(RunError, match="A secure sum needs 2 clients or more. Received: 4"):
        member.deal({0: member.keys, **{each: Member(each).keys for each in (1, 2, 3)}}, 2)


def test_shares_that_somebody_has_altered_or_changed_about() -> None:
    everyone = Everyone(range(3), {1: 2, 2: 2})
    with pytest.raises(RunError, match="needs 3 of the 3"):
        everyone.sum(values_of(range(3)))
    for spoil in (lambda text: text[:-1] + bytes([text[-1] ^ 1]), lambda text: everyone.dealt[1][2]):
        member = Member(0)
        keys = {**everyone.keys, 0: member.keys}
        member.deal(keys, 2)
        with pytest.raises(RunError, match="must come as they were sealed"):
            member.masked(np.zeros(3, np.uint32), {1: spoil(everyone.dealt[1][0]), 2: everyone.dealt[2][0]})


def test_who_tells_anothers_keys_as_its_own_has_nothing_of_it() -> None:
    """Client 2 would pass client 1's shares off as its own and be lost: so the others would open client 1's key."""
    zero, one = Member(0), Member(1)
    keys = {0: zero.keys, 1: one.keys, 2: one.keys}
    zero.deal(keys, 2)
    dealt = one.deal(keys, 2)
    with pytest.raises(RunError, match="must come as they were sealed, by who says so"):
        zero.masked(np.zeros(3, np.uint32), {1: dealt[0], 2: dealt[0]})
    (added,), (taken,) = _signed(one._key, 1, {0: zero.keys, 2: zero.keys})
    assert added != taken, "or client 1's masks would cancel out"


def test_shares_of_another_key_than_was_told() -> None:
    everyone = Everyone(range(6), {5: 2})
    everyone.sum(values_of(range(6)))
    for opened in everyone.opened.values():
        opened[5] = opened[0]
    with pytest.raises(RunError, match="Shares of client 5's key must give the key that it told. Received: another's"):
        unmask(np.zeros(3, np.uint32), everyone.keys, 4, everyone.dealt, range(5), everyone.opened)


def test_a_key_that_is_none() -> None:
    member = Member(0)
    keys = {0: member.keys, 1: bytes(KEYS), 2: Member(2).keys}
    with pytest.raises(RunError, match="needs a public key of each client. Received: one that is none"):
        member.deal(keys, 2)


def test_how_many_must_stay() -> None:
    assert [threshold_of(clients) for clients in (3, 4, 6, 10, 256)] == [3, 3, 4, 7, 171]
    assert all(2 * threshold_of(n) > n for n in range(1, 300)), "two sums can't be opened by different halves"


# --- Numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clients", "step", "most"),
    [(3, 2**-16, 8), (10, 2**-16, 8), (16, 2**-16, 8), (17, 2**-22, 256), (256, 2**-22, 256)],
)
def test_a_sum_is_off_by_less_than_a_step_for_each_client(clients: int, step: float, most: float) -> None:
    numbers, generator = FixedPoint.of(clients), np.random.default_rng(clients)
    largest = numbers.most * numbers.step
    assert numbers.step == step and most - 4 * clients * step < clients * largest <= most
    values = [generator.uniform(-largest, largest, 1000).astype(np.float32) for _ in range(clients)]
    values[0][:3] = largest, largest * 3, -largest * 3  # of which two are cut off
    values[1][:3] = -largest
    for each in values:
        each[3:5] = largest * 3, -largest * 3
    steps = [numbers.encoded(each, 1.0, generator) for each in values]
    values[0][1:3] = largest, -largest
    for each in values:
        each[3:5] = largest, -largest
    total = np.zeros(1000, np.uint32)
    for place in range(numbers.limbs):
        sums = sum(numbers.limb(each, place) for each in steps)
        assert sums.dtype == np.float32 and numbers.add_limb(total, sums, place)
    decoded, exact = numbers.decoded(total, 1.0), np.add.reduce(values, dtype=np.float64)
    assert decoded is not None and decoded.dtype == np.float32
    error = np.abs(decoded - exact)
    assert error.max() < clients * step + 2.0**-17, "and what float32 rounds of a sum of up to 256"
    assert error[np.abs(exact) < 1].max() < clients * step


def test_rounding_is_right_on_average_and_the_same_by_the_same_seed() -> None:
    numbers = FixedPoint.of(10)
    tenth = np.full(100_000, numbers.step / 10, np.float32)
    steps = numbers.encoded(tenth, 1.0, np.random.default_rng(1)).view(np.int32)
    assert set(np.unique(steps)) == {0, 1} and steps.mean() == pytest.approx(0.1, abs=0.005)
    again = numbers.encoded(-tenth, -1.0, np.random.default_rng(1)).view(np.int32)
    np.testing.assert_array_equal(steps, again)


@pytest.mark.parametrize("clients", [16, MOST_CLIENTS])
def test_limbs_of_all_clients_add_up_exactly_in_any_order(clients: int) -> None:
    numbers = FixedPoint.of(clients)
    extremes = np.array([1 << (numbers.bits - 1), (1 << (numbers.bits - 1)) - 1], np.uint32)
    extremes = extremes * np.uint32(1 if numbers.limbs == 1 else 65537)
    for place in range(numbers.limbs):
        limb, total = numbers.limb(extremes, place), np.zeros(2, np.float32)
        for _ in range(clients):
            total += limb
        assert np.abs(total).max() <= 2**24
        np.testing.assert_array_equal(total.astype(np.int64), limb.astype(np.int64) * clients)


def test_limbs_are_the_number() -> None:
    values = np.random.default_rng(1).integers(0, 2**32, 1000, np.uint32)
    two = FixedPoint.of(17)
    low, high = (two.limb(values, place).astype(np.int64) for place in range(2))
    np.testing.assert_array_equal((low + high * 65536) % 2**32, values)
    assert low.min() >= -(2**15) and high.max() < 2**15 and low.min() < 0 < low.max()
    (one,) = (FixedPoint.of(16).limb(values, place).astype(np.int64) for place in range(1))
    np.testing.assert_array_equal(one % 2**21, values % 2**21)


@pytest.mark.parametrize("received", [-3 * 2**20 - 1, 3 * 2**20 + 1, np.nan, np.inf])
def test_limbs_that_are_no_sums(received: float) -> None:
    numbers, total = FixedPoint.of(3), np.zeros(1, np.uint32)
    assert not numbers.add_limb(total, np.array([received], np.float32), 0)
    assert numbers.add_limb(total, np.array([-3 * 2**20], np.float32), 0) and total.view(np.int32) == -3 * 2**20


@pytest.mark.parametrize("clients", [3, 17])
def test_sums_that_are_none(clients: int) -> None:
    numbers = FixedPoint.of(clients)
    beyond = clients * numbers.most + 1
    for total in (beyond, 2**32 - beyond):
        assert numbers.decoded(np.array([total], np.uint32), 1.0) is None
    garbage = np.random.default_rng(1).integers(0, 2**32, 64, np.uint32)
    assert numbers.decoded(garbage, 1.0) is None, "a mask that is still there shows"
    assert numbers.decoded(np.array([2**32 - 2**16], np.uint32), 2.0) == np.float32(-(2**17) * numbers.step)


# --- What a job needs ----------------------------------------------------------------------------------

LoadJob = Callable[..., Config]
SECURE = ("runner.secure_aggregation=true", "runner.exchanges_per_epoch=2")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            ["runner.exchanges_per_epoch=0"],
            "runner.secure_aggregation needs synchronised exchanges, in which all clients' changes are added up at "
            "once: without them each sends its own when it comes to it. Received: runner.exchanges_per_epoch=0. Set it "
            "to 1 or more, or leave runner.secure_aggregation out.",
        ),
        *(
            (
                [f"runner.aggregation={robust}"],
                f"runner.secure_aggregation gives sums alone, and runner.aggregation={robust} has to see each client's "
                "changes. Received: both. Set aggregation to mean, weighted or sum, with runner.clip_update for a "
                "bound on what one client can do, or leave runner.secure_aggregation out.",
            )
            for robust in ("median", "trimmed_mean")
        ),
        (
            ["privacy.clip=1", "hyper_parameters.optimizer.class=sgd", "runner.clip_update=2"],
            "runner.secure_aggregation with privacy.clip has all clients' noise hide each one's changes, and "
            "runner.clip_update would scale a client's down. Received: runner.clip_update=2.0. Leave it out: "
            "privacy.clip bounds each user's change.",
        ),
        *(
            (
                ["runner.on_worker_loss=continue", *without],
                "runner.secure_aggregation has the exchanges since the last checkpoint done again by all clients: "
                "without one that was lost, the difference of both sums would be what that one has changed. Received: "
                "runner.on_worker_loss=continue. Set it to restart, or add noise to each sum (privacy.clip, with a "
                "privacy.noise_multiplier above 0).",
            )
            for without in (
                [],
                ["privacy.clip=0.1", "privacy.noise_multiplier=0", "hyper_parameters.optimizer.class=sgd"],
            )
        ),
        *(
            (
                [f"runner.exchange={exchange}", f"runner.secure_aggregation={secure}"],
                f"runner.secure_aggregation is what the exchange secure_geo does, and no other. Received: {secure}, "
                f"with runner.exchange={exchange}. Leave runner.exchange out, and secure_aggregation too if it is not "
                "wanted.",
            )
            for exchange, secure in (("synchronous_geo", "true"), ("secure_geo", "false"))
        ),
    ],
)
def test_settings_that_do_not_go_with_it(load_job: LoadJob, settings: Sequence[str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        relations.check(relations.TRAINING, load_job(*SECURE, *settings))
    assert str(caught.value) == says


@pytest.mark.parametrize(
    "settings",
    [
        ["runner.aggregation=sum"],
        ["runner.aggregation=weighted"],
        ["runner.exchange=secure_geo"],
        ["runner.seed=1"],
        ["runner.on_worker_loss=restart"],
        ["runner.on_worker_loss=continue", "privacy.clip=0.1", "hyper_parameters.optimizer.class=sgd"],
    ],
)
def test_settings_that_do(load_job: LoadJob, settings: Sequence[str]) -> None:
    config = load_job(*SECURE, *settings)
    relations.check(relations.TRAINING, config)
    assert check(config, SimpleNamespace(workers=3)) is config  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [1, 2, MOST_CLIENTS + 1])
def test_so_many_workers_are_too_few_or_too_many(load_job: LoadJob, workers: int) -> None:
    job: Any = SimpleNamespace(workers=workers)
    with pytest.raises(ConfigError, match=rf"needs 3 to 512 workers: .* Received: {workers}\."):
        check(load_job(*SECURE), job)


@pytest.mark.parametrize(
    ("missing", "names"), [(["Crypto"], "pycryptodome"), (["cryptography", "Crypto"], "cryptography and pycryptodome")]
)
def test_without_the_packages(
    load_job: LoadJob, monkeypatch: pytest.MonkeyPatch, missing: Sequence[str], names: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name in missing else found(name, *more)
    )
    job: Any = SimpleNamespace(workers=3)
    with pytest.raises(ConfigError) as caught:
        check(load_job(*SECURE), job)
    assert str(caught.value) == (
        "runner.secure_aggregation needs the packages cryptography and pycryptodome. Received: a Python without "
        f'{names}. Install them with pip install "fl_rec[secure]", or leave runner.secure_aggregation out.'
    )


@pytest.mark.parametrize(("aggregation", "factor"), [("mean", 0.5 / 7), ("sum", 0.5)])
def test_any_threshold_of_them_add_all_of_the_noise_and_none_is_cut_off(
    load_job: LoadJob, aggregation: str, factor: float
) -> None:
    config = load_job(*SECURE, f"runner.aggregation={aggregation}", "runner.server_learning_rate=0.5")
    assert noise_part(config, 10) == (1, np.inf)
    config = config.replace(**{"privacy.clip": 0.1, "privacy.noise_multiplier": 2.0})
    noise = noise_part(config, 10)
    assert 7 * noise.share**2 == pytest.approx(1)
    assert factor * (noise.room + 8 * 0.2 * noise.share) == pytest.approx(0.8, abs=1e-4), "of seven, the mean's share"
    job: Any = SimpleNamespace(workers=10)
    assert check(config, job) is config
    config = config.replace(**{"privacy.clip": 3.0})
    if aggregation == "mean":
        assert check(config.replace(**{"runner.server_learning_rate": 0.1}), job)
    with pytest.raises(
        ConfigError, match=r"numbers of up to 0.8, within which 8 .* Received: .*clip=3 with .*the mean"
    ):
        check(config, job)


@pytest.mark.parametrize(
    ("workers", "aggregation", "least"),
    # Of seven of ten, or 20 of 30, who add all of it: 2 steps of 2^-16, or of 2^-22; of the mean each has a tenth.
    [(10, "mean", 20 * 2**-16 * 7**0.5), (10, "sum", 2 * 2**-16 * 7**0.5), (30, "mean", 60 * 2**-22 * 20**0.5)],
)
def test_noise_is_never_below_what_it_is_rounded_to(
    load_job: LoadJob, workers: int, aggregation: str, least: float
) -> None:
    job: Any = SimpleNamespace(workers=workers)
    config = load_job(*SECURE, f"runner.aggregation={aggregation}").replace(**{"privacy.noise_multiplier": 0.5})
    enough = config.replace(**{"privacy.clip": 2.001 * least})
    assert check(enough, job) is enough
    with pytest.raises(ConfigError, match=r"to multiples of .* deviation of 2 of these for epsilon .* Raise one"):
        check(config.replace(**{"privacy.clip": 1.999 * least}), job)
    without = config.replace(**{"privacy.clip": 1.999 * least, "privacy.noise_multiplier": 0.0})
    assert check(without, job) is without, "no epsilon is told"


def test_nothing_that_every_job_imports_needs_them() -> None:
    program = "import sys; sys.modules.update(cryptography=None, Crypto=None); import fl_rec.job.check, fl_rec.cli"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_what_people_are_told(load_job: LoadJob) -> None:
    off = {"runner.secure_aggregation": False}
    job: Any = SimpleNamespace(workers=10)
    config = load_job(*SECURE)
    assert mechanism.notes_of(config, job) == [] and check(config.replace(**off), SimpleNamespace(workers=1))
    config = config.replace(**{"privacy.clip": 1.0})
    (note,) = mechanism.notes_of(config, job)
    assert note.startswith("epsilon supposes that of the workers that a sum is of, 7 of 10 at least are honest")
    assert mechanism.notes_of(config.replace(**off), job) == []
    (note,) = notes_of(config.replace(**{"runner.reproducible": True}), 0)
    assert "runner.reproducible has no effect with runner.secure_aggregation" in note
