"""Compressed models that come from a job, and one that goes back into a job."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from .conftest import Commands, Finished, Job

MATRICES = ("mlp_fc_0.w", "mlp_fc_1.w", "mlp_fc_2.w")
# What a worker starts from: what is shared, and its own private part.
PARAMETERS = """
import sys, warnings
warnings.simplefilter("ignore")
from fl_rec import environment
environment.quiet_paddle()
from pathlib import Path
import numpy as np
from fl_rec.runs import models
np.savez(sys.argv[2], **models.load_parameters(Path(sys.argv[1]), 0))
"""


def parameters(commands: Commands, model: Path, to: Path) -> dict[str, np.ndarray]:
    commands.program(PARAMETERS, model, to)
    return dict(np.load(to))


def test_a_job_that_starts_from_a_pruned_model(
    commands: Commands, trained: Finished, shards: Path, tmp_path: Path
) -> None:
    """The zeros stay zeros in every worker and on the server, with GEO and with rounds, and all else is trained."""
    commands.succeed("compress", trained.model, "--out", tmp_path / "pruned", "--prune", 0.5)
    before = parameters(commands, tmp_path / "pruned", tmp_path / "before.npz")
    zeros = {name: before[name] == 0 for name in MATRICES}
    assert {name: each.sum() / each.size for name, each in zeros.items()} == dict.fromkeys(MATRICES, 0.5)
    for rounds in (0, 2):
        folder = tmp_path / f"rounds {rounds}"
        folder.mkdir()
        again = Job(folder, shards)
        again.runner.update(warmup_model_path=str(tmp_path / "pruned"), keep_zeros=True, exchanges_per_epoch=rounds)
        again.hyper_parameters["proximal"] = 0.01
        after = parameters(commands, again.succeed().model, folder / "after.npz")
        for name in MATRICES:
            assert not after[name][zeros[name]].any(), f"{name}, {rounds} rounds"
        for name, values in before.items():  # of layers of ReLU some units may be dead
            trained = after[name][~zeros[name]] != values[~zeros[name]] if name in zeros else after[name] != values
            assert trained.mean() > 0.3, f"{name}, {rounds} rounds"


def test_keep_zeros_without_a_model_to_start_from(job: Job) -> None:
    job.runner["keep_zeros"] = True
    finished = job.finish()
    assert finished.code == 2
    assert "runner.keep_zeros=true keeps the zeros of a model to start from" in finished.errors
    assert "Received: warmup_model_path=null, privacy.clip=null." in finished.errors


def test_an_exported_model_of_4_bits_is_used_like_any_other(
    commands: Commands, trained: Finished, tmp_path: Path
) -> None:
    exported, small = tmp_path / "exported", tmp_path / "small"
    commands.succeed("export", trained.run.path, "--out", exported)
    table = commands.succeed("compress", exported, "--out", small, "--bits", 4)
    record = json.loads((small / "model.json").read_text())["compression"]
    assert record["not_tested"] is None
    last = trained.result["last"]
    assert [record["before"][name] for name in ("hr", "ndcg")] == pytest.approx(
        [last["hr@10"], last["ndcg@10"]], abs=1e-9
    )
    evaluated = json.loads(commands.succeed("evaluate", small, "--format", "json"))
    assert [record["after"][name] for name in ("hr", "ndcg", "auc")] == [
        evaluated[name] for name in ("hr", "ndcg", "test_auc")
    ]
    assert f"{last['hr@10']:.4f}" in table
    assert record["after"]["auc"] == pytest.approx(record["before"]["auc"], abs=0.02)
    asked = [
        commands.succeed("recommend", "--model", model, "--user", 1, "--top", 5).splitlines()
        for model in (exported, small)
    ]
    assert len(asked[0]) == len(asked[1]) > 5
