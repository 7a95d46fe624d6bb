"""Small mistakes, put into the code one at a time: do the tests see them?

    python tests/mutate.py              all mutants; a minute or two for ten of them
    python tests/mutate.py privacy auc  those whose file or text has one of these words

Works on a temporary copy of what git knows of this folder. A mutant is killed if a test of those it names fails; the
exit code is the number of the others. A mutant whose old text is not in its file exactly once is a mistake in this
list, and ends the run before it begins: the code has moved on, and so must the list.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
# Tests that take so long as the code is are in trouble; with a mutant, those that take this many times as long.
TIMEOUT, TIMES_AS_LONG = 900, 5
# Bytes of memory that they may have.
MEMORY = 8 << 30


class Mutant(NamedTuple):
    """In `file` of fl_rec/ `old` becomes `new`; `tests` are those of tests/ that should see it."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file}: {old}  ->  {new or '(nothing)'}"

    def put_into(self, root: Path) -> str:
        """Changes the file below `root`; returns what was in it."""
        path = root / "fl_rec" / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            sys.exit(f"mutate: {self.file} must have {self.old!r} once. Received: {text.count(self.old)} times.")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")
        return text


PLUGINS = ("unit/test_plugins.py",)
ROLES = ("unit/runs/test_roles.py",)
STATE = ("unit/runs/test_training_state.py",)
TYPED = ("unit/test_typed.py",)
CLI = ("unit/test_cli.py",)
MISTAKES = ("unit/test_mistakes.py",)
LISTING = ("unit/runs/test_listing.py",)
REMOVED = ("unit/commands/test_runs.py",)
COMPARE = ("unit/commands/test_compare.py",)
DOCTOR = ("unit/commands/test_doctor.py",)
NEW = ("unit/commands/test_new.py",)
TRACKERS = ("unit/trackers", "unit/job/test_tracking.py")
ROWS = ("unit/data/test_rows.py",)
READER = ("unit/data/test_reader.py",)
SAMPLING = ("unit/data/test_sampling.py", "unit/data/test_negatives.py")
TEXT = ("unit/data/test_text.py",)
SHARDS = ("unit/data/test_shards.py",)
RANKS = ("unit/data/test_ranks.py",)
PARTITION = ("unit/data/test_partition.py",)
DIFFERENCE = ("unit/data/test_difference.py",)
PREPARE = ("unit/data/test_prepare.py",)
TABULAR = ("unit/data/test_tabular.py",)
EVALUATION = ("unit/evaluation",)
SERVING = ("unit/serving/test_evaluate.py",)
PRIVACY = ("unit/privacy",)
ALIVE = ("unit/job/test_alive.py", "unit/job/test_judge.py", "unit/runs/test_activity.py", "unit/runs/test_roles.py")
FILES = ("unit/test_files.py",)
CHECK = ("unit/coordinator/test_check.py",)
LINK, ADDRESSES = ("unit/job/hosts/test_link.py",), ("unit/job/hosts/test_addresses.py",)
BAD_INPUT = ("unit/test_bad_input.py",)
MODELS = ("paddle/test_models.py",)
RECEIVED = ("unit/config/test_received.py",)
RESUME = ("unit/runs/test_training_state.py", "unit/job/test_attempts.py", "unit/trainer/test_away.py")
CHECKPOINTS = ("paddle/test_checkpoints.py",)
ROUNDS = ("unit/privacy/test_dp_training.py", "paddle/test_dp_training.py")
TRAINER = ("unit/trainer",)
PROGRAM = ("paddle/test_program.py",)
STEPS = ("paddle/test_steps.py",)
COMPILED = ("paddle/test_compiled_step.py",)
KERNELS = ("unit/kernels",)
KEPT = ("unit/kernels/test_compiled.py",)
FILES = ("unit/coordinator/test_check.py",)
OWN_USERS = ("unit/nets/test_own_users.py", "paddle/test_own_users.py")
RUNS = ("unit/runs", "unit/job/test_built_in.py")
OWN_FILES = ("unit/nets/test_contract.py",)
SAVING = ("paddle/test_saving.py",)
EXCHANGE = ("paddle/test_exchange.py",)
SECURE_SUM = ("unit/privacy/test_secure_sum.py",)
SECURE_EXCHANGE = ("paddle/test_secure_exchange.py",)
CHANGES = ("unit/test_changes.py",)
CLAIMS = ("unit/evaluation/test_claims.py",)
SERVICE = ("unit/coordinator/test_service.py",)
STRATEGIES = ("unit/coordinator/test_strategies.py",)
DOOR = ("unit/coordinator/test_door.py",)
SECURE = ("unit/secure", "unit/commands/test_certs.py")
AUDIT = ("unit/runs/test_audit.py",)
API = ("unit/test_api.py", "unit/evaluation/test_records.py")
DIRECTORY = ("unit/runs/test_directory.py",)
DOORS = ("paddle/test_doors.py", "integration/test_doors.py")
TERMINAL = ("unit/job/test_observers.py", "unit/terminal")

MUTANTS = [
    # -- what a job opens to the network ---------------------------------------------------------------------
    Mutant("runs/directory.py", "if len(hosts) == 1 else", "if len(hosts) > 1 else", DIRECTORY),
    Mutant("runs/directory.py", "env.get(JOB_KEY) or (", "(", DIRECTORY),
    Mutant("runs/roles.py", "if not _of_host(each, host)", "if _of_host(each, host)", ROLES),
    Mutant("runs/roles.py", 'return host in ("", other) or', 'return host == "" or other.startswith(host) or', ROLES),
    Mutant("runs/roles.py", "return not self.lives if self.host else", "return", ROLES),
    Mutant("runs/training_state.py", "if epoch > (to.epoch if to else 0):", "if False:", STATE),
    Mutant("runs/training_state.py", 'glob("[!.]*")', 'glob("*")', STATE),
    Mutant("terminal/story.py", "if each.epoch < record.epoch]", "]", TERMINAL),
    Mutant("coordinator/checkpoints.py", "round + 1", "round", STATE),
    Mutant("coordinator/checkpoints.py", "runner.keep_checkpoints + 2", "runner.keep_checkpoints", STATE),
    Mutant("data/manifest.py", "if number in own}", "}", ("unit/job/test_check.py",)),
    Mutant(
        "data/manifest.py",
        "if own is not None and number not in own:",
        "if own is not None:",
        ("unit/data/test_catalogue.py",),
    ),
    Mutant(
        "trainer/checkpoints.py",
        "config.runner.keep_checkpoints + bool(role.elsewhere)",
        "config.runner.keep_checkpoints",
        ("paddle/test_checkpoints.py",),
    ),
    Mutant("job/exposed.py", "if not is_loopback(host)", "if is_loopback(host)", ("unit/job/test_exposed.py",)),
    Mutant("ps/native.py", "(value or 0) - link.base", "(value or 0)", DOORS),
    Mutant(
        "ps/doors.py",
        'self.path.split("/")[1:2] == [scope]',
        'self.path.split("/")[1:2] in ([scope], ["_worker"])',
        DOORS,
    ),
    Mutant("ps/doors.py", "self.server_address = (host, ", 'self.server_address = ("", ', DOORS),
    Mutant("ps/doors.py", ".status == 200", ".status != 403", DOORS),
    Mutant("ps/doors.py", "return len(left)", "return super().get_deleted_size(_scope)", DOORS),
    # -- several hosts ---------------------------------------------------------------------------------------
    Mutant("job/hosts/hub_judge.py", "and self._members.all_heard_since(self._failed)", "", LINK),
    Mutant(
        "job/hosts/members.py",
        "member.gone is not None or self.silence(member) > self._limit",
        "member.gone is not None",
        LINK,
    ),
    Mutant("job/hosts/hub_judge.py", "return not over and super()", "return super()", LINK),
    Mutant("job/hosts/hub.py", "return max(common", "return min(common", LINK),
    Mutant(
        "job/hosts/hub.py",
        "if name not in own:\n                    raise",
        "if False:\n                    raise",
        LINK,
    ),
    Mutant("job/hosts/hub.py", "wanted = {host} if host else", "wanted = names if host else", LINK),
    Mutant("job/hosts/hub.py", '"coordinator" in names', "False and names", LINK),
    Mutant("job/hosts/hub.py", "_MORE_CONNECTIONS + 2 * hosts", "9999", LINK),
    Mutant("job/hosts/messages.py", 'printable(content, but="\\n\\t")', "content", LINK),
    Mutant("job/hosts/members.py", "and silence < DOUBT * BEAT", "", LINK),
    Mutant("job/hosts/first_words.py", "self._silent[: -self._most]", "[]", LINK),
    Mutant("job/hosts/first_words.py", "        late.start()\n", "", LINK),
    Mutant("job/hosts/branch.py", "elif err.code() not in _GONE:", "elif False:", LINK),
    Mutant("job/hosts/branch.py", "bool(self._workers) and len(self._done()) == len(self._workers)", "False", LINK),
    Mutant("job/hosts/messages.py", "since=activity.since + time.monotonic()", "since=time.monotonic()", LINK),
    Mutant("job/hosts/addresses.py", "if loopback and len(found) > 1:", "if False:", ADDRESSES),
    Mutant("runs/hosts.py", "port = port % 65535 + 1", "break", ADDRESSES),
    # -- data ------------------------------------------------------------------------------------------------
    Mutant("data/rows.py", "self._pass += self._next == 0", "pass", ROWS),
    Mutant("data/rows.py", "self._next = stop % self.count", "self._next = stop", ROWS),
    Mutant("data/rows.py", "if taken == self.count else", "if stop == self.count else", ROWS),
    Mutant("data/rows.py", "if number != self._drawn:", "if self._drawn < 0:", ROWS),
    Mutant("data/reader.py", "expected not in (None, count)", "expected not in (None, count, count + 1)", READER),
    Mutant("data/reader.py", "if count < least or", "if", READER),
    Mutant("data/text.py", '1 + text.count(b"\\n", 0, start)', "1", TEXT),
    Mutant("data/rows.py", "highest <= np.iinfo(dtype).max", "highest <= np.iinfo(dtype).max + 1", TEXT),
    Mutant("data/rows.py", "(slot >= 0) & (slot < size)", "(slot > 0) & (slot < size)", TEXT),
    Mutant("data/rows.py", "(slot >= 0) & (slot < size)", "(slot >= 0) & (slot <= size)", TEXT),
    Mutant("data/rows.py", "line {line + row}", "line {row + 1}", TEXT),
    Mutant("data/rows.py", "slot.max() < size", "slot.max() <= size", BAD_INPUT),
    Mutant(
        "data/rows.py", "limit = LARGEST_ID + 1 if size is None else size", "limit = size or LARGEST_ID + 1", BAD_INPUT
    ),
    Mutant("data/reader.py", "self._verify(shard, content)", "pass", BAD_INPUT),
    Mutant("data/reader.py", "if (rows, positives) != expected:", "if rows != expected[0]:", BAD_INPUT),
    Mutant("data/manifest.py", "if total not in (None, added):", "if False:", BAD_INPUT),
    Mutant("data/meta.py", "if said != there:", "if said < there:", BAD_INPUT),
    Mutant("data/ids.py", '"\\0" not in joined and', "", BAD_INPUT),
    Mutant("data/sources/base.py", "if not len(self.train):", "if False:", BAD_INPUT),
    Mutant("outside.py", 'or ".." in path.parts', "", BAD_INPUT),
    Mutant("packed.py", "if self._size > largest_unpacked(self._packed.tell()):", "if False:", BAD_INPUT),
    Mutant("packed.py", "if member.file_size > largest_unpacked(member.compress_size):", "if False:", BAD_INPUT),
    Mutant("packed.py", "if claimed != there and not", "if not", BAD_INPUT),
    Mutant("packed.py", "if not stat.S_ISREG(kind):", "if False:", BAD_INPUT),
    Mutant("config/written.py", "if size is None or size > _MOST_VALUES:", "if size is None:", BAD_INPUT),
    Mutant("nets/check.py", "users * (1 if own else workers)", "users", ("unit/job/test_check.py",)),
    Mutant("data/reader.py", "if not _UNPACKS.match(self.shell):", "if self.shell == AS_IS:", READER),
    Mutant("data/text.py", "len(str(max(highest, -lowest)))", "len(str(highest))", TEXT),
    Mutant("steps/graph.py", "if rows is not self._written:", "if not self._written:", STEPS),
    Mutant("steps/graph.py", "self._trained() - counted, len", "self._trained(), len", STEPS),
    Mutant("steps/compiled_step.py", "if self._exchange.send_every:", "if False:", COMPILED),
    Mutant("steps/compiled_step.py", "if gap > 1e-5 else []", "if gap > 1e9 else []", COMPILED),
    Mutant("steps/compiled_step.py", "and not exchange.send_every:", ":", COMPILED),
    Mutant("nets/graph.py", "and all(_differentiates(each, gradient) for each in block.ops)", "", COMPILED),
    Mutant("nets/structure.py", 'and (name == "__init__" or not', "and (not", ("unit/nets/test_structure.py",)),
    Mutant("kernels/arrays.py", "values.min() < 0 or values.max() >= rows", "values.max() > rows", KERNELS),
    Mutant("kernels/training.py", "options = [1 / options[0]]", "pass", COMPILED),
    Mutant("kernels/training.py", "power[0] = value", "pass", COMPILED),
    Mutant("kernels/factorisation.py", "user_counts[i] = 0", "pass", COMPILED),
    Mutant("kernels/optimizers.py", "_ONE - powers[0]), betas[2] * root", "_ONE - powers[0]), betas[2]", COMPILED),
    Mutant(
        "kernels/losses.py",
        "1 if kind == SAMPLED_SOFTMAX else group - 1",
        "1 if kind == SAMPLED_SOFTMAX else group",
        COMPILED,
    ),
    Mutant("data/ids.py", 'text[0] != "0" or text == "0"', "True", TABULAR),
    Mutant("data/ids.py", "len(text) <= MAX_DIGITS", "len(text) <= 19", TABULAR),
    Mutant("data/sources/base.py", "test = last & ~np.insert(last[:-1], 0, True)", "test = last", TABULAR),
    Mutant("data/sources/base.py", "len(keys) - 1 - np.unique(keys[::-1]", "np.unique(keys", TABULAR),
    Mutant(
        "data/sources/base.py",
        "first[item[::-1]] = np.arange(len(item))[::-1]",
        "first[item] = np.arange(len(item))",
        TABULAR,
    ),
    Mutant("data/sources/base.py", "keys += (time - low).astype(np.int64)", "pass", TABULAR),
    Mutant("data/sources/interactions.py", "read.value >= min_value", "read.value > min_value", TABULAR),
    Mutant("data/sources/interactions.py", "count < min_interactions", "count <= min_interactions", TABULAR),
    Mutant("data/sources/interactions.py", "rank[order] = np.arange(", "rank[:] = np.arange(", TABULAR),
    Mutant("data/sources/interactions.py", 'b"+" in block or ', "", TABULAR),
    Mutant("data/sources/interactions.py", "bool(padded.any())", "False", TABULAR),
    Mutant("data/sources/interactions.py", "date.replace(tzinfo=timezone.utc)", "date", TABULAR),
    Mutant("data/output.py", "            _lock(folder, out)\n", "", ("unit/data/test_output.py",)),
    Mutant("data/sources/columns.py", "int(column) - 1 for", "int(column) for", TABULAR),
    Mutant("data/sources/tables.py", 'return "latin-1"', 'return "utf-8"', TABULAR),
    Mutant("data/sampling.py", "is_test = boundary[1:] & ~boundary[:-1]", "is_test = boundary[1:]", SAMPLING),
    Mutant("data/sampling.py", 'side="right"', 'side="left"', SAMPLING),
    Mutant("data/sampling.py", "preceding) <= wanted)", "preceding) < wanted)", SAMPLING),
    Mutant("data/sampling.py", "Stream.FRESH_NEGATIVES, number)", "Stream.FRESH_NEGATIVES)", SAMPLING),
    Mutant("data/text.py", "digits[end - 1 - place], 0), 10**place", "digits[end - 1 - place], 0), 100", TEXT),
    Mutant("data/text.py", "len(field) > _MAX_DIGITS", "len(field) >= _MAX_DIGITS", TEXT),
    Mutant("data/text.py", "part = block[start : start + _ROWS_PER_WRITE]", "part = block[start:]", TEXT),
    Mutant("data/text.py", "if highest >= len(self._table):", "if highest > len(self._table):", TEXT),
    Mutant("data/text.py", "str(path), sizes, 1 + count)", "str(path), sizes)", TEXT),
    Mutant("data/sampling.py", "pairs[start:stop] - [first, 0]", "pairs[start:stop] - [0, 0]", SAMPLING),
    Mutant("data/shards.py", "rest, line = rest[whole:], line + whole", "rest, line = rest[whole:], line", SHARDS),
    Mutant("data/shards.py", "seen[block[shard >= 0, 1]]", "seen[block[:, 1]]", SHARDS),
    Mutant("data/shards.py", "Stream.shard_order(k)", "Stream.shard_order(0)", SHARDS),
    Mutant(
        "data/sources/movielens.py", "astype(np.int64) * num_shards // 10", "astype(np.int64) % num_shards", PARTITION
    ),
    Mutant("data/partition.py", "2 * count > len(users)", "count > len(users)", PARTITION),
    Mutant("data/partition.py", "(total + weight[value], members", "(total, members", PARTITION),
    # -- checkpoints -----------------------------------------------------------------------------------------
    Mutant("runs/training_state.py", "epochs(run)[:-keep]", "epochs(run)[: -keep - 1]", RESUME),
    Mutant("runs/training_state.py", "reversed(epochs(run))", "epochs(run)", RESUME),
    Mutant("runs/training_state.py", "lengths.get(path.name, 0)", "len(path.read_bytes())", RESUME),
    Mutant("runs/training_state.py", "arrays, 0o600, sync=False)", "arrays, sync=False)", RESUME),
    Mutant("runs/training_state.py", "        path.unlink()\n", "        pass\n", RESUME),
    Mutant("runs/directory.py", "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH", RESUME),
    Mutant("job/attempts.py", "math.inf if again else 2 +", "2 +", RESUME),
    Mutant("job/attempts.py", "_OF_A_WORKER * by_loss", "_OF_A_WORKER", RESUME),
    Mutant("trainer/away.py", "epoch < self._until", "epoch <= self._until", RESUME),
    Mutant("runs/training_state.py", "or epoch == epochs", "", CHECKPOINTS),
    Mutant("trainer/checkpoints.py", "if name not in shared}", "}", CHECKPOINTS),
    Mutant("data/rows.py", "self._pass, self._next = number, row", "self._pass, self._next = number, 0", CHECKPOINTS),
    Mutant("steps/graph.py", "paddle.seed(int(", "(int(", CHECKPOINTS),
    # -- from Python -----------------------------------------------------------------------------------------
    Mutant("job/launch.py", "path if number == 1 else", "path if number else", API),
    Mutant("job/tails.py", "len(lines) <= self._workers and", "len(lines) < self._workers and", TERMINAL),
    Mutant(
        "job/tails.py",
        "self._offset += len(whole)\n        for written",
        "self._offset += len(text)\n        for written",
        TERMINAL,
    ),
    Mutant("job/observers.py", "if each.essential:", "if False:", TERMINAL),
    Mutant("terminal/passing.py", "and progress.epoch == epoch:", "and True:", TERMINAL),
    Mutant("terminal/passing.py", "if each.share < 1)", ")", TERMINAL),
    Mutant("terminal/words.py", "if gap > 0:", "if gap >= 0:", TERMINAL),
    Mutant("terminal/live.py", "[: room - 1]", "[:room]", TERMINAL),
    Mutant("terminal/live.py", "self._place.stop()", "pass", TERMINAL),
    Mutant("job/tails.py", "if table and not _EPOCH.match(table):", "if table:", TERMINAL),
    Mutant("terminal/story.py", "popularity is None", "popularity is not None", TERMINAL),
    Mutant("terminal/live.py", "self._console.lock = self._place._lock", "pass", TERMINAL),
    Mutant("terminal/live.py", "max(1, _OPENING_LINES - others)", "2", TERMINAL),
    Mutant("evaluation/table.py", "columns.remove(max(", "columns.remove(min(", EVALUATION),
    Mutant("evaluation/table.py", "if room >= min(needed, _NAME)", "if room >= needed", EVALUATION),
    Mutant("terminal/story.py", "record.hr - before", "before - record.hr", TERMINAL),
    Mutant("terminal/fleetrun.py", "from_start=True", "from_start=False", TERMINAL),
    Mutant("job/signals.py", "class Stopped(KeyboardInterrupt)", "class Stopped(Exception)", API),
    Mutant("job/launch.py", "except BaseException as err:", "except Exception as err:", API),
    Mutant("api.py", "(best.epoch, None)", "(best.epoch, there.client)", API),
    Mutant("evaluation/records.py", "tuple(of_epoch) if", "tuple(records) if", API),
    Mutant("data/partition.py", "(total + weight[value], members + 1, k)", "(total + weight[value], 0, k)", PARTITION),
    Mutant("data/partition.py", "if size[nearest[point]] > least:", "if True:", PARTITION),
    Mutant("data/tags.py", "tag[item] >= 0", "tag[item] > 0", DIFFERENCE),
    Mutant("data/difference.py", "(entropy + own) / 2", "entropy", DIFFERENCE),
    Mutant("data/difference.py", "pairs.sum(axis=1) - pairs.diagonal()", "pairs.sum(axis=1)", DIFFERENCE),
    Mutant("data/manifest.py", "if size != file.bytes:", "if size < file.bytes:", SHARDS),
    Mutant("data/prepare.py", "each[each[:, 2] == 1, :2]", "each[:, :2]", PREPARE),
    # -- evaluation ------------------------------------------------------------------------------------------
    Mutant("evaluation/auc.py", "(2 * above + self.positives)", "(2 * above)", EVALUATION),
    Mutant("evaluation/auc.py", "positives - np.cumsum(self.positives)", "np.cumsum(self.positives)", EVALUATION),
    Mutant("evaluation/auc.py", "(scores > 1)", "(scores >= 1)", EVALUATION),
    Mutant("data/ranks.py", "negatives >= least", "negatives > least", EVALUATION),
    Mutant("data/ranks.py", "scores[self._negatives] > best", "scores[self._negatives] >= best", EVALUATION),
    Mutant("data/ranks.py", "yield user, place + np", "yield user, np", EVALUATION),
    Mutant("data/ranks.py", "if place == 0 else (every,)", "", RANKS),
    Mutant("data/ranks.py", "min(self.positives, top_k)", "self.positives", RANKS),
    Mutant(
        "evaluation/ranking.py", "(self._lists.better(scores) < k)", "(self._lists.better(scores) <= k)", EVALUATION
    ),
    Mutant("evaluation/ranking.py", "np.where(ranks < k", "np.where(ranks <= k", EVALUATION),
    Mutant("evaluation/groups.py", 'side="right"', 'side="left"', EVALUATION),
    Mutant("evaluation/claims.py", "<= hits <= users for users", "<= hits for users", CLAIMS),
    Mutant("runs/result.py", "if from_zero and", "if", RUNS),
    Mutant("runs/result.py", 'and "validation_ndcg" in best', "", RUNS),
    Mutant("runs/renumber.py", "_counted_on(records[:upto])", "records[:upto]", RUNS),
    Mutant("runs/renumber.py", "    _renumber_result(run)\n    #", "    #", RUNS),
    Mutant("runs/activity.py", "    _enter(phase)\n", "", ALIVE),
    Mutant("evaluation/ranking.py", "np.log2(np.arange(k) + 2)", "np.log2(np.arange(k) + 3)", EVALUATION),
    Mutant("evaluation/ranking.py", "np.minimum(count, k) - 1", "0 * count", EVALUATION),
    Mutant("evaluation/table.py", "test_tied <= _MANY", "test_tied < _MANY", EVALUATION),
    Mutant("evaluation/metrics.py", "seconds=max(each", "seconds=sum(each", EVALUATION),
    Mutant("evaluation/metrics.py", "test.buckets is not None]", "test.users > 0]", EVALUATION),
    Mutant("evaluation/evaluator.py", "labels[:, 0] == 1)", "labels[:, 0] != 1)", EVALUATION),
    Mutant("serving/evaluate.py", "[shards[client]]", "[shards[0]]", SERVING),
    # -- privacy ---------------------------------------------------------------------------------------------
    Mutant("privacy/mechanism.py", "min(1.0, clip / length)", "clip / length", PRIVACY),
    Mutant("privacy/mechanism.py", "return math.sqrt(sum(", "return (sum(", PRIVACY),
    Mutant("privacy/mechanism.py", "np.add.at(added, where.reshape(-1), values)", "added[where] = values", PRIVACY),
    Mutant("privacy/mechanism.py", "deviation, values.shape)", "deviation, values.shape[-1:])", PRIVACY),
    Mutant("privacy/accountant.py", "compose(one, exchanges)", "compose(one, exchanges - 1)", PRIVACY),
    Mutant("privacy/accountant.py", "if exchanges == 0:", "if exchanges <= 1:", PRIVACY),
    Mutant(
        "privacy/accountant.py", "chance, exchanges, settings.delta)", "settings.delta, exchanges, chance)", PRIVACY
    ),
    Mutant("privacy/accountant.py", "return 1 / config.runner.exchanges_per_epoch", "return 1.0", PRIVACY),
    Mutant("privacy/dp_training.py", "len(self._edges) - 1) < chance", "len(self._edges) - 1) > chance", ROUNDS),
    Mutant("privacy/dp_training.py", "self._edges[user + 1])", "self._edges[-1])", ROUNDS),
    Mutant("privacy/dp_training.py", "noise_multiplier * self._clip * noise.share", "noise_multiplier", ROUNDS),
    Mutant("privacy/dp_training.py", "self.exchanges // self._config", "self.exchanges * self._config", ROUNDS),
    # -- trainer ---------------------------------------------------------------------------------------------
    Mutant("trainer/fl_trainer.py", "(part + 0.5) / len(portions)", "part / len(portions)", TRAINER),
    Mutant("trainer/fork_server.py", "        os._exit(self.code)", "        pass", TRAINER),
    Mutant("trainer/fl_trainer.py", "if portion != 0:", "if True:", TRAINER),
    Mutant("trainer/fl_trainer.py", "self.program.begin_epoch()\n", "pass\n", TRAINER),
    Mutant("trainer/local_training.py", "edges = [wanted * part // parts", "edges = [wanted // parts * part", PROGRAM),
    Mutant("trainer/local_training.py", "runner.seed + shards.client if", "runner.seed if", PROGRAM),
    Mutant("trainer/local_training.py", "runner.start_timeout, self.rows)", "runner.start_timeout)", PROGRAM),
    Mutant("trainer/saving.py", "not figure > self._best_figure", "not figure >= self._best_figure", SAVING),
    Mutant("trainer/saving.py", "epoch - self.best_epoch >= patience", "epoch - self.best_epoch > patience", SAVING),
    Mutant("trainer/private_params.py", "held.all(), self", "held.any(), self", TRAINER),
    Mutant("trainer/private_params.py", "Part(self.users.ids(rows), values)", "Part(rows, values)", OWN_USERS),
    Mutant("nets/own_users.py", 'mode="clip") != flat', 'mode="clip") > flat', OWN_USERS),
    Mutant("nets/own_users.py", "return table[self.all] if", "return table[: len(self.all)] if", OWN_USERS),
    Mutant("nets/graph.py", "if alone and len(readers) == len(found) and", "if alone and", OWN_USERS),
    Mutant(
        "nets/graph.py",
        "np.searchsorted(rows, start + size)] - start",
        "np.searchsorted(rows, start + size)]",
        OWN_USERS,
    ),
    Mutant("runs/directory.py", "(folder.parent if in_clone else folder) / RUNS", "folder.parent / RUNS", RUNS),
    Mutant("runs/saved.py", "not RunDirectory(path).metrics.is_file()", "True", RUNS),
    Mutant("job/built_in.py", "not in (Path.cwd(), *Path.cwd().parents)", "is None", RUNS),
    Mutant("kinds.py", "if isinstance(value, bool) or not finite:", "if not finite:", TYPED),
    Mutant("kinds.py", "bounds[Ge] = bounds.pop(Gt) + 1", "bounds[Ge] = bounds.pop(Gt)", TYPED),
    Mutant("typed.py", 'each["type"] not in _UNKNOWN', 'each["type"] in _UNKNOWN', TYPED),
    Mutant("plugins.py", "in _folders - {name}:", "in set():", OWN_FILES),
    Mutant("plugins.py", "if _is_a_users(each.filename)), None)", "), None)", PLUGINS),
    Mutant("cli.py", "for each in options), *keys])", "for each in options)])", MISTAKES),
    Mutant("cli.py", "if options.debug:", "if True:", CLI),
    Mutant("config/written.py", 'name.partition(".")[0] not in SECTIONS', "False", MISTAKES),
    Mutant(
        "data/partition.py",
        "except FLRecError:\n            raise",
        "except ZeroDivisionError:\n            raise",
        PARTITION,
    ),
    Mutant("job/launch.py", "0 < int(each[1]) < 65536", "0 < int(each[1])", MISTAKES),
    Mutant("runs/listing.py", "if ends[end] == 1", "if ends[end] >= 1", LISTING),
    Mutant("runs/listing.py", "TRAINING if goes_on(run) else KILLED", "KILLED", LISTING),
    Mutant("runs/listing.py", "max(validated", "min(validated", LISTING),
    Mutant("commands/runs.py", "if goes_on(RunDirectory(path)):", "if False:", REMOVED),
    Mutant("commands/runs.py", 'not in ("y", "yes")', 'in ("n", "no")', REMOVED),
    Mutant("commands/compare.py", "value - values[0]", "values[0] - value", COMPARE),
    Mutant("commands/compare.py", "any(value != each[0] for", "all(value != each[1] for", COMPARE),
    Mutant("commands/chart.py", "(high - y) / ", "(y - low) / ", COMPARE),
    Mutant("commands/doctor.py", "return int(fatal > 0)", "return 0", DOCTOR),
    Mutant("commands/doctor.py", "return Found(what, remedy, available < least)", "return Found(what, remedy)", DOCTOR),
    Mutant("plugins.py", "files.append(Path(spec.origin))", "pass", OWN_FILES),
    Mutant("plugins.py", 'if b"sys.path" in file.read_bytes():', "if False:", OWN_FILES),
    Mutant("runs/models.py", "net.users.whole(name, values.shape)", "values.shape", OWN_USERS),
    Mutant("runs/models.py", '"net": digest(shapes)', '"net": ""', MODELS),
    Mutant("runs/saved.py", 'where != "private" or client is None or', "client is None or", MODELS),
    Mutant("runs/private_parts.py", "self.rows[1:] > self.rows[:-1]", "self.rows[1:] >= self.rows[:-1]", MODELS),
    Mutant("nets/graph.py", "for block in program.blocks for op", "for block in program.blocks[:1] for op", MODELS),
    Mutant("nets/tensors.py", "if size < 0 or left < 0:", "if left < 0:", MODELS),
    Mutant("files.py", "found != size:", "False:", FILES),
    Mutant("files.py", '".." not in Path(file).parts', "True", FILES),
    Mutant("files.py", "elif _exchange(draft, folder):", "elif False:", FILES),
    Mutant("config/received.py", "or isinstance(config[name], Mapping)", "", RECEIVED),
    Mutant("config/received.py", "Path(path.name).absolute()", "path", RECEIVED),
    Mutant("runs/roles.py", "started(self.pid) == self.started and", "", ALIVE),
    Mutant("runs/roles.py", "time.monotonic())}", "time.time())}", ALIVE),
    Mutant("runs/activity.py", "time.sleep(BEAT)", "time.sleep(600 * BEAT)", ALIVE),
    Mutant("runs/activity.py", "    _change(what=before.what", "    dict(what=before.what", ALIVE),
    Mutant("job/alive.py", "min(now - self._asked, LONGEST_STEP)", "now - self._asked", ALIVE),
    Mutant("job/hosts/branch.py", "elif self.begin is None and (why", "elif False and (why", LINK),
    Mutant("job/alive.py", "(moved and not question.answers)", "moved", ALIVE),
    Mutant("job/judge.py", "self._is_stopped(name) or self._silence(name) > silent", "False", ALIVE),
    Mutant("job/judge.py", "each is not None and each.for_others", "each is not None", ALIVE),
    Mutant("job/judge.py", "self._missing() and self._signs", "self._signs", ALIVE),
    Mutant(
        "job/judge.py",
        "name not in self._statuses or (name not in self._ended and",
        "(name not in self._ended and",
        ALIVE,
    ),
    Mutant("trainer/private_params.py", "np.where(held, values, untrained)", "values", TRAINER),
    Mutant("nets/program.py", "max(0.0, 1 - epochs_done / epochs)", "1 - epochs_done / epochs", PROGRAM),
    Mutant("nets/program.py", 'if schedule == "linear" else 1.0', 'if schedule == "Linear" else 1.0', PROGRAM),
    Mutant("nets/program.py", "rows * paddle.cast(self._loss", "paddle.cast(self._loss", PROGRAM),
    Mutant("nets/program.py", "np.full_like(self.value(name), rate * factor)", "self.value(name) * factor", PROGRAM),
    # -- ps/exchange -----------------------------------------------------------------------------------------
    Mutant("ps/exchange.py", "1 / np.count_nonzero(everyone)", "1 / len(everyone)", EXCHANGE),
    Mutant("ps/exchange.py", "base *= np.float32(factor)", "base *= 1", EXCHANGE),
    Mutant("ps/exchange.py", "base[...] = graph.live(self._scope, name)", "pass", EXCHANGE),
    Mutant("ps/exchange.py", "False, not self._exchanging", "False, self._exchanging", EXCHANGE),
    Mutant(
        "ps/exchange.py",
        "            if rows:\n                self.push",
        "            if True:\n                self.push",
        EXCHANGE,
    ),
    Mutant("ps/exchange.py", "if worker == index:", "if True:", EXCHANGE),
    Mutant("ps/exchange.py", "everyone[refused] = 0", "pass", EXCHANGE),
    Mutant("ps/exchange.py", "self.share(rows, everyone) * clipped", "self.share(rows, everyone)", EXCHANGE),
    Mutant("ps/exchange.py", "np.nan if self._spoilt else", "", EXCHANGE),
    Mutant("ps/exchange.py", "_OWN if own else _RECEIVED", "_OWN", EXCHANGE),
    Mutant("ps/exchange.py", "            self._begin_anew()", "            pass", EXCHANGE),
    Mutant("ps/changes.py", "np.abs(length) <= LARGEST", "length <= LARGEST", CHANGES),
    Mutant("ps/changes.py", "(clients - 1) // 2)", "clients)", CHANGES),
    Mutant("ps/robust.py", "lengths[lying] = np.nan", "break", EXCHANGE),
    Mutant("evaluation/claims.py", "0 <= figures.hits <= figures.users", "True", CLAIMS),
    Mutant("evaluation/claims.py", "test.tied == test.users", "test.tied", CLAIMS),
    Mutant("evaluation/claims.py", "* self.FAR_BELOW < self._best", "< self._best", CLAIMS),
    Mutant("privacy/one_worker_each.py", "worker < other", "True", PRIVACY),
    Mutant("privacy/secure_sum/member.py", "(number < other) is adds", "adds", SECURE_SUM),
    Mutant("privacy/secure_sum/member.py", "[*plus, _own_mask(self._own)]", "plus", SECURE_SUM),
    Mutant("privacy/secure_sum/member.py", "if view != self._view]", "if False]", SECURE_SUM),
    Mutant(
        "privacy/secure_sum/member.py", "share[:SEED] if other in self._senders", "share[:SEED] if True", SECURE_SUM
    ),
    Mutant("privacy/secure_sum/member.py", "if each in opened else seed(each)", "if True else seed(each)", SECURE_SUM),
    Mutant("privacy/secure_sum/member.py", "len(keys) < 2 * threshold <=", "0 < 2 * threshold <=", SECURE_SUM),
    Mutant(
        "privacy/secure_sum/member.py", "if len(clients) < threshold:", "if len(clients) < threshold - 1:", SECURE_SUM
    ),
    Mutant(
        "privacy/secure_sum/primitives.py",
        "decrypt(bytes(12), text, about)",
        "decrypt(bytes(12), text, about[:0])",
        SECURE_SUM,
    ),
    Mutant("privacy/secure_sum/clients.py", "clients - clients // 3", "clients // 2", SECURE_SUM),
    Mutant(
        "privacy/secure_sum/fixed_point.py",
        "steps += generator.random",
        "steps += 0.5 + 0 * generator.random",
        SECURE_SUM,
    ),
    Mutant(
        "privacy/secure_sum/fixed_point.py", "np.clip(steps, -self.most", "np.clip(steps, -2 * self.most", SECURE_SUM
    ),
    Mutant("privacy/secure_sum/fixed_point.py", "if _within(steps, most) else None", "if True else None", SECURE_SUM),
    Mutant("privacy/dp_training.py", "mechanism.cut(total, self._room)", "pass", ROUNDS),
    Mutant("privacy/secure_sum/clients.py", "share = least**-0.5", "share = clients**-0.5", SECURE_SUM),
    Mutant("privacy/secure_sum/clients.py", '(1 if runner.aggregation == "sum" else least)', "least", SECURE_SUM),
    Mutant("ps/secure.py", "limb - self._there", "limb", SECURE_EXCHANGE),
    Mutant("ps/secure.py", "max(threshold_of(len(keys)), self._least)", "threshold_of(len(keys))", SECURE_EXCHANGE),
    Mutant("ps/secure.py", "self.share(rows, everyone) / self.share(rows, before)", "1.0", SECURE_EXCHANGE),
    Mutant("ps/secure.py", "changes.clip(length, runner.clip_update)", "1.0", SECURE_EXCHANGE),
    Mutant("ps/secure.py", "if self._spoilt or not", "if not", SECURE_EXCHANGE),
    Mutant("ps/secure.py", "self.push(self._by_name(-self._model))", "pass", SECURE_EXCHANGE),
    Mutant("privacy/accountant.py", "self.exchanges += 1", "pass", PRIVACY),
    Mutant("coordinator/service.py", "2 * alike > len(self._expected)", "True", SERVICE),
    Mutant("coordinator/service.py", "if sender not in (None, client):", "if False:", DOOR),
    Mutant("coordinator/reception.py", "if guest.certified and client not in guest.certified:", "if False:", DOOR),
    Mutant("coordinator/reception.py", "if not known and (token or not guest.certified):", "if False:", DOOR),
    Mutant("coordinator/reception.py", "(token or not guest.certified)", "not guest.certified", DOOR),
    Mutant("coordinator/reception.py", 'f"client-{client}".encode()', 'b"client"', DOOR),
    Mutant("coordinator/reception.py", "if answer is not self._last.get(client):", "if False:", DOOR),
    Mutant("coordinator/reception.py", "if not self._rates[client].take():", "if False:", DOOR),
    Mutant("coordinator/door.py", "if len(self._strangers) > self.bounds.strangers:", "if False:", DOOR),
    Mutant("coordinator/door.py", "if not self._comings.take(guest.origin):", "if False:", DOOR),
    Mutant("coordinator/door.py", "if len(own) > self.bounds.of_a_client:", "if False:", DOOR),
    Mutant("coordinator/door.py", "if guest.refusals == self.bounds.refusals:", "if False:", DOOR),
    Mutant("coordinator/guest.py", "self._sent > self._door.bounds.unshown", "False", DOOR),
    Mutant("coordinator/guest.py", "_CLIENT.fullmatch(each)", "_CLIENT.match(each)", DOOR),
    Mutant("coordinator/wire.py", '("grpc.http2.max_ping_strikes", 0)', '("grpc.http2.max_ping_strikes", 2)', DOOR),
    Mutant("coordinator/wire.py", "left -= 1 + len(found)", "left -= 0", ("unit/coordinator/test_messages.py",)),
    Mutant("coordinator/service.py", " and client in self._expected\n        if", "\n        if", SERVICE),
    Mutant("coordinator/client.py", "not connected and (why is None or over)", "not connected and over", SERVICE),
    Mutant("coordinator/guest.py", "            self._answer(lock)  # TLS's own word why\n", "", DOOR),
    Mutant("secure/tls.py", "context.verify_mode = ssl.CERT_REQUIRED", "context.verify_mode = ssl.CERT_OPTIONAL", DOOR),
    Mutant("secure/tls.py", "    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF\n", "", SECURE),
    Mutant("secure/tls.py", 'or after["x509"] != before:', "or False:", SECURE),
    Mutant(
        "coordinator/door.py", "            for guest in list(self._all):\n                guest.close()\n", "", DOOR
    ),
    Mutant(
        "commands/certs.py",
        "each.serial_number: each for each in old}",
        "each.serial_number: each for each in ()}",
        SECURE,
    ),
    Mutant("job/hosts/hub.py", "        refuse_revoked(self._tls, context.auth_context())\n", "", LINK),
    Mutant("job/judge.py", "if number in _CRASHES:", "if False:", ("unit/job/test_watch.py",)),
    Mutant("trainer/fork_server.py", "late or _naps() == naps", "True", TRAINER),
    Mutant("trainer/fork_server.py", "naps is None and not late", "False", TRAINER),
    Mutant("job/judge.py", "sorted(late, key=self._waits)", "late", ALIVE),
    Mutant("privacy/secure_sum/clients.py", "noise < _LEAST_NOISE * numbers.step", "False", PRIVACY),
    Mutant("trainer/fork_server.py", "    if killed:\n", "    if False:\n", TRAINER),
    Mutant("trainer/fork_server.py", "os.WNOHANG | os.WNOWAIT", "os.WNOHANG", TRAINER),
    Mutant("trainer/main.py", "                _stay_for_the_watch()\n", "                pass\n", TRAINER),
    Mutant("terminal/fleetrun.py", "if sys.argv[0] not in fleetrun.cmdline():", "if False:", TERMINAL),
    Mutant("terminal/fleetrun.py", '(mark / "told").mkdir()', "pass", TERMINAL),
    Mutant("secure/addresses.py", "tls is not None or is_loopback", "tls is not None or not is_loopback", SECURE),
    Mutant("secure/rates.py", "if self.left() < amount:", "if self.left() <= amount:", SECURE),
    Mutant("commands/certs.py", "if not _CLIENT.match(name):", "if True:", SECURE),
    Mutant("commands/certs.py", "drafted(folder.absolute(), 0o700)", "drafted(folder.absolute())", SECURE),
    Mutant("runs/audit.py", '            untold = self._untold.pop(kind, (0, "", ""))[0]\n', "", AUDIT),
    Mutant("runs/audit.py", "if not rate.take():", "if False:", AUDIT),
    Mutant("coordinator/strategies/base.py", "if client in self.excluded:", "if False:", STRATEGIES),
    Mutant("ps/exchange.py", "in range(3)", "in range(1)", EXCHANGE),
    Mutant("ps/exchange.py", "_sends(ops, self.k_steps - 1)", "_sends(ops, self.k_steps)", EXCHANGE),
    Mutant("ps/base.py", "    divisor = 1", "    divisor = 2", EXCHANGE),
    Mutant("ps/push.py", "change.any(axis=1)", "change.all(axis=1)", EXCHANGE),
    Mutant("ps/push.py", "change[rows[part]]", "change[part]", EXCHANGE),
    Mutant("ps/model.py", "min(start + step, rows)", "start + 1", EXCHANGE),
    Mutant("job/tracking.py", "record.epoch <= self._last", "False", TRACKERS),
    Mutant("job/tracking.py", "job.resumed or 0", "0", TRACKERS),
    Mutant("job/tracking.py", "each.epoch <= self._last", "True", TRACKERS),
    Mutant("trackers/__init__.py", "and math.isfinite(value)", "", TRACKERS),
    Mutant("trackers/tensorboard.py", "        shutil.rmtree(self._folder, ignore_errors=True)\n", "", TRACKERS),
    Mutant("trackers/visualdl.py", "        shutil.rmtree(self._folder, ignore_errors=True)\n", "", TRACKERS),
    Mutant("trackers/mlflow.py", "logged > max(epochs, default=0)", "False", TRACKERS),
    Mutant("trackers/mlflow.py", "if epoch > logged", "if True", TRACKERS),
    Mutant("trackers/mlflow.py", 'inside.parts[0] != "private"', "True", TRACKERS),
    Mutant("trackers/mlflow.py", "!= self.run.identity", "is None", TRACKERS),
    Mutant("kernels/compiled.py", "(folder / _DONE).exists() or os.access", "os.access", KEPT),
    Mutant("kernels/compiled.py", "if name and features is not None else None", "if name else None", KEPT),
    Mutant("coordinator/check.py", "if tls not in known:", "if not known:", CHECK),
    Mutant("coordinator/check.py", "and name not in others", "and len(others) > 1", CHECK),
    Mutant("commands/new.py", "os.path.lexists(folder)", "os.path.exists(folder)", NEW),
    Mutant("commands/new.py", "        shutil.rmtree(folder, ignore_errors=True)\n", "", NEW),
]


def is_killed(root: Path, mutant: Mutant, seconds: float) -> bool:
    """Whether a test fails, or hangs, with the mutant in the copy at `root`; without it they take some seconds."""
    before = mutant.put_into(root)
    try:
        return not passes(root, mutant.tests, 10 + TIMES_AS_LONG * seconds)
    finally:
        (root / "fl_rec" / mutant.file).write_text(before, encoding="utf-8")


def passes(root: Path, tests: tuple[str, ...], timeout: float = TIMEOUT) -> bool:
    # A file that changes twice within a second must not be taken from a cache.
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += [str(Path("tests") / each) for each in tests]
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=timeout, preexec_fn=_limit
        )
    except subprocess.TimeoutExpired:
        return False
    if done.returncode > 1:  # below 0 a signal has ended it, for which there was a reason
        sys.exit(f"mutate: pytest must run {' '.join(tests)}. It said:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def _limit() -> None:
    """A bound that a mutant has taken away must not take the machine's memory."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def copy(root: Path) -> None:
    """What git knows of this folder, and what is new in it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=TIMEOUT).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)


def main(words: list[str]) -> int:
    chosen = [each for each in MUTANTS if not words or any(word in str(each) for word in words)]
    with tempfile.TemporaryDirectory(prefix="mutate_") as folder:
        root = Path(folder)
        copy(root)
        for mutant in chosen:
            (root / "fl_rec" / mutant.file).write_text(mutant.put_into(root), encoding="utf-8")
        seconds = {}
        for tests in dict.fromkeys(each.tests for each in chosen):
            start = time.perf_counter()
            if not passes(root, tests):
                sys.exit(f"mutate: {' '.join(tests)} must pass as the code is. It does not.")
            seconds[tests] = time.perf_counter() - start
        survivors = 0
        for mutant in chosen:
            killed = is_killed(root, mutant, seconds[mutant.tests])
            survivors += not killed
            print(f"{'killed  ' if killed else 'SURVIVED'}  {mutant}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} killed")
    return survivors


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
