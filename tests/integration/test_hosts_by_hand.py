"""A job on several hosts that Paddle's own fleetrun has started on each; see test_hosts.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fl_rec.runs.directory import Launch
from fl_rec.secure import INSECURE_KEY

from .conftest import ROOT, TIMEOUT, SharedJob, clean_environment
from .namespaces import namespaces, run_in
from .test_hosts import Place, Spread
from .test_resume import figures, together


def start(place: Place, options: list[str]) -> subprocess.Popen[str]:
    """The same command on each host; POD_IP is how Paddle's fleetrun is told which of them it is."""
    script = ROOT / "tools" / "static_fl_trainer.py"
    fleetrun = Path(sys.executable).parent / "fleetrun"
    words: list[Any] = [fleetrun, *options, script, "-m", place.folder / "job.yaml"]
    env = {**clean_environment(), "PYTHONPATH": str(ROOT), INSECURE_KEY: "1", "POD_IP": place.host.address}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
    return run_in(place.host, words, cwd=place.folder, env=env, **pipes)


@pytest.mark.skipif("FL_REC_EVERY_CUT" not in os.environ, reason="half a minute: FL_REC_EVERY_CUT=1, as CI has it")
def test_fleetrun_on_each_host(tmp_path: Path, shards: Path, shared_job: SharedJob) -> None:
    unbroken = shared_job("unbroken", together)
    with namespaces(2) as hosts:
        spread = Spread(hosts, tmp_path, shards, [0, 1], [0, 1, 1], change=together)
        names = {host.name: host.address for host in hosts}
        options = [_numbered(word, names) for word in spread.options]
        started = [start(place, options) for place in spread.places]
        try:
            told = [each.communicate(timeout=TIMEOUT)[0] for each in started]
        finally:
            spread.end(started)
    assert [each.returncode for each in started] == [0, 0], told
    for place, said in zip(spread.places, told):
        assert figures(place.run) == figures(unbroken.run) and place.result["state"] == "done"
        assert "epoch 1/" in said, "fleetrun's terminal shows the job"
        begun = Launch.read(place.run)
        assert begun.hosts is not None and begun.hosts.here == place.host.address
    hub, other = spread.places
    assert hub.run.identity == other.run.identity
    assert [json.loads(line)["what"] for line in hub.run.audit.read_text().splitlines()] == ["joined"]
    # fleetrun numbers a host's own logs from 0; what comes to the hub has the roles' numbers.
    assert (hub.run.log / "workerlog.2").read_bytes() == (other.folder / "log" / "workerlog.1").read_bytes()


def _numbered(word: str, names: dict[str, str]) -> str:
    for name, address in names.items():
        word = word.replace(name, address)
    return word
