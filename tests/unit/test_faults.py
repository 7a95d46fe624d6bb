"""The documented faults, and how a job is judged by them. Nothing is started."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PHASES = ["start", "training", "exchange", "evaluation", "save", "report", "finish"]


@pytest.fixture
def faults(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("faults")


def test_every_fault_has_a_documented_outcome_in_every_phase(faults: Any) -> None:
    text = faults.DOCUMENT.read_text()
    cells = faults.documented(text)
    legend = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")}
    assert {each for cell in cells for each in cell.outcome.split(" or ")} <= legend
    assert len({cell.name for cell in cells}) == len(cells)
    for fault in ("SIGKILL", "SIGSTOP"):
        for role in ("worker", "server", "coordinator", "starter"):
            assert [each.phase for each in cells if (each.fault, each.role) == (fault, role)] == PHASES
    assert {each.fault for each in cells if not each.role} > {"port taken", "full TMPDIR", "clock forth", "clock back"}
    assert {each.outcome for each in cells if each.quick} >= {"died", "frozen", "lost", "goes on", "ends", "stopped"}


@pytest.fixture
def job(faults: Any, tmp_path: Path) -> Any:
    made = faults.Job(tmp_path / "job", None, "worker.1", "training")
    made.run.path.mkdir()
    (made.folder / "errors").write_text("fl_rec: worker.1 failed: it ended\n")
    return made


def seen(faults: Any, job: Any, code: int | None, seconds: float = 1.0, **result: Any) -> str:
    job.run.result.write_text(json.dumps(result))
    cell = faults.Cell("SIGKILL", "worker", "training", "died", False)
    return faults.judge(job, cell, code, seconds, "worker.1", [(0, 9, 0.5, 0.6, 0.1, 0.2)]).outcome


def test_a_job_is_judged_by_its_promises(faults: Any, job: Any) -> None:
    assert seen(faults, job, None) == "hangs"
    assert seen(faults, job, 1, role="worker.1", kind="died") == "died"
    assert seen(faults, job, 1, role="worker.0", kind="died") == "died, but worker.0"
    assert seen(faults, job, 1, seconds=60, role="worker.1", kind="frozen").startswith("frozen after 60.")
    assert seen(faults, job, -signal.SIGKILL, error="the launcher was killed") == "ends"
    assert seen(faults, job, -signal.SIGKILL) == "ends without a result"
    assert seen(faults, job, 128 + signal.SIGINT) == "stopped"
    assert seen(faults, job, 1, role="worker.1", kind="failed") == "error"
    (job.folder / "errors").write_text("Traceback (most recent call last):")
    assert seen(faults, job, 1) == "unclear"
    (job.folder / "errors").write_text("The coordinator at a:1 could not be reached for 3 s")
    assert seen(faults, job, 1) == "lost"


def test_exit_code_0_with_other_figures_is_no_success(faults: Any, job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for figures, outcome in (
        ([(0, 9, 0.5, 0.6, 0.1, 0.2)], "goes on"),
        ([(0, 9, 0.501, 0.601, 0.1, 0.2)], "goes on"),
        ([(0, 8, 0.5, 0.6, 0.1, 0.2)], "other figures"),
        ([(0, 9, 0.5, 0.6, 0.1, 0.2), (1, 9, 0.5, 0.6, 0.1, 0.2)], "other figures"),
        ([(0, 9, 0.5, 0.5, 0.1, 0.2)], "other figures"),
        ([], "other figures"),
    ):
        monkeypatch.setattr(faults.Job, "figures", lambda self, figures=figures: figures)
        assert seen(faults, job, 0, state="done").startswith(outcome)
