"""What a job leaves on the disk, and what a full one does to it: the right figures or an error, never other figures."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT, TIMEOUT, WORKERS, Commands, Finished, Job, SharedJob, clean_environment

# A small disk of its own for a command and all that it starts: the folder, its bytes, the command.
SMALL_DISK = 'mount -t tmpfs -o size="$1" none "$0" && shift && exec "$@"'


def test_a_full_tmpdir_changes_no_figure(job: Job, shared_job: SharedJob, tmp_path: Path) -> None:
    """Nothing of the model travels through it."""
    settings = {"exchanges_per_epoch": 2, "reproducible": True}
    expected = shared_job("in two exchanges", lambda usual: usual.runner.update(settings))
    job.runner.update(settings)
    small = tmp_path / "small"
    small.mkdir()
    command = ["unshare", "-Urm", "sh", "-c", SMALL_DISK, str(small), "16k"]
    if subprocess.run([*command, "true"], capture_output=True, timeout=TIMEOUT).returncode:
        pytest.skip("a user can't mount a disk here")
    started = subprocess.Popen(
        [*command, *job.command()],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**clean_environment(), "TMPDIR": str(small)},
    )  # fmt: skip
    finished = job.wait(started)
    assert finished.code == 0, finished.errors
    for name in ("test_auc", "hr", "train_loss"):
        assert finished.records("all")[0][name] == expected.records("all")[0][name]


def test_what_a_job_leaves_is_its_users_own(trained: Finished) -> None:
    run = trained.run
    assert run.path.stat().st_mode & 0o777 == 0o700
    models = sorted(run.model.iterdir())
    assert [path.name for path in models] == ["1", "2", "3"], "and no draft"
    for epoch, model in enumerate(models, 1):
        signature = json.loads((model / "model.json").read_text())
        identity = signature["identity"]
        assert identity == {**identity, "run": run.identity, "epoch": epoch} and len(identity["data"]) == 64
        parts = [model / "private" / f"{client}.npz" for client in range(WORKERS)]
        assert {path.stat().st_mode & 0o777 for path in parts} == {0o600}
        assert {str(path.relative_to(model)) for path in parts} <= set(signature["files"])
        for name in ("model.json", "rec_static.pdmodel"):
            content = (model / name).read_bytes()
            assert not any(str(path).encode() in content for path in (ROOT, run.path, Path.home()))
    logs = {"serverlog.0", "start", *(f"workerlog.{worker}" for worker in range(WORKERS))}
    assert {path.name for path in run.log.iterdir()} == logs, "nothing of Paddle's own"
    assert not any("failed" in (run.log / name).read_text(errors="replace") for name in logs)
    left = {path.name for path in run.path.iterdir()}
    assert not any(name.startswith(".") for name in left) and "rows" not in left, "no users' rows in clear"


def test_a_part_of_another_epoch_is_refused(trained: Finished, commands: Commands, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(trained.run.model / "3", model)
    shutil.copyfile(trained.run.model / "2" / "private" / "1.npz", model / "private" / "1.npz")
    for arguments in (
        ["evaluate", model, "-m", trained.run.config],
        ["compress", model, "--bits", 8, "--out", tmp_path / "small"],
    ):
        said = commands.refusal(*arguments)
        assert "A saved model is used as it was written, all of its files from one epoch." in said
        assert f"{model}/private/1.npz, " in said
