"""Starting a job, from the command line to the result: a stand-in for fleetrun, no Paddle."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import fl_rec
from fl_rec import cli, environment
from fl_rec.config import Config
from fl_rec.job import launch
from fl_rec.job.hosts.company import Alone, NotMet
from fl_rec.job.launch import LaunchOptions
from fl_rec.job.observers import Observers
from fl_rec.job.signals import Stopped, signals_as_exceptions
from fl_rec.job.watch import (
    Failure,
    Mark,
)
from fl_rec.runs.directory import RunDirectory
from fl_rec.runs.result import RunResult, figures

DEADLINE = 30.0
ROLES = ("server.0", "worker.0", "worker.1")
pytestmark = pytest.mark.usefixtures("fast")
ALL_DONE = [(role, "done", "") for role in ROLES]
FIGURES = ("seconds", "rows_per_second", "train_loss", "train_auc", "test_auc", "hr", "ndcg")

Spawn = Callable[..., subprocess.Popen]
SetStatus = Callable[..., None]
Watch = Callable[..., "Failure | None"]


def ended(process: subprocess.Popen) -> bool:
    """Whether it comes to an end. Its exit code is lost where psutil has waited for it, so it is not looked at."""
    return process.wait(DEADLINE) is not None


# -- from the command line to the result -------------------------------------------------------------------


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("no process may be started")

    monkeypatch.setattr(subprocess, "Popen", start)


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `fl-rec run`."""
    try:
        code: Any = cli.main(["run", *map(str, arguments)])
    except SystemExit as err:
        code = err.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_job_that_ends_well(
    make_job: Callable[..., Path], fleetrun: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fleetrun(ALL_DONE)
    code, out, err = run_cli(capsys, "-m", make_job())
    run = RunDirectory(tmp_path / "run")
    assert (code, err) == (0, "")
    assert re.findall(r"(?m)^\d\d:\d\d:\d\d (job|data|run|model) +(.*)", out) == [
        ("job", "job.yaml: 1 epoch, 2 workers, 1 server, geo"),
        ("data", "5 rows, 2 to 3 a client"),
        ("run", str(run.path)),
        ("model", f"{run.path}/the/model"),
    ]
    assert "AUC 0.7" not in out, "its table, which only --verbose shows"
    assert (run.log / "start").read_text() == "this is fleetrun\n"
    assert Config.load(run.config).hyper_parameters.num_users == 2


def test_notes_are_kept_in_full(
    make_job: Callable[..., Path], fleetrun: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fleetrun(ALL_DONE)
    code, out, _ = run_cli(capsys, "-m", make_job(), "-o", "runner.trim=0.2")
    note = "note: runner.trim=0.2 has no effect: set runner.aggregation=trimmed_mean.\n"
    assert code == 0 and out.count(note) == 1
    assert RunDirectory(tmp_path / "run").tables.read_text().startswith(f"{note}\n")


def test_a_process_may_start_several(make_job: Callable[..., Path], fleetrun: Callable[..., None]) -> None:
    """Two jobs of one configuration in one second have a run each."""
    fleetrun(ALL_DONE)
    options = LaunchOptions(make_job(), ("runner.run_dir=",))
    first, second = (launch.launch(options) for _ in range(2))
    assert first.path != second.path and first.path.parent == second.path.parent == options.config_yaml.parent / "runs"


def test_job_that_fails(
    make_job: Callable[..., Path], fleetrun: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fleetrun([*ALL_DONE[:2], ("worker.1", "failed", "the reader exited with 1")], seconds=60)
    code, out, err = run_cli(capsys, "-m", make_job())
    log = tmp_path / "run" / "log" / "workerlog.1"
    assert code == 1
    assert err == f"fl_rec: worker.1 failed: the reader exited with 1\n  its log: {log}\n"
    assert "done  " not in out
    result = RunDirectory(tmp_path / "run").read_result()
    assert (result.state, result.role, result.kind) == ("failed", "worker.1", "failed")
    assert (result.error, result.log) == ("the reader exited with 1", "log/workerlog.1")
    assert (result.workers, result.servers, result.model, result.epochs) == (2, 1, None, [])
    assert result.data is not None and (tmp_path / "run" / result.data.folder).resolve().is_relative_to(
        tmp_path / "a job"
    )
    assert result.started is not None and result.ended is not None and result.started <= result.ended
    assert result.seconds is not None and 0 < result.seconds < DEADLINE and result.start_seconds is None
    assert result.command == shlex.join(psutil.Process().cmdline())
    assert result.versions is not None and result.versions.fl_rec == fl_rec.__version__
    assert Mark("FL_REC_RUN_DIR", str(tmp_path / "run")).processes() == []


def test_a_run_goes_on(
    make_job: Callable[..., Path], fleetrun: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = {"epoch": 1, "client": "all", **dict.fromkeys(FIGURES, 0.5), "rows": 5, "test_users": 2, "top_k": 10}
    fleetrun([*ALL_DONE[:2], ("worker.1", "failed", "why")], metrics=[line])
    assert run_cli(capsys, "-m", make_job(), "--server_num", 1)[0] == 1
    run = RunDirectory(tmp_path / "run")
    broken = json.loads(run.result.read_text())
    assert broken["epochs"] == [figures(line)] and broken["error"] == "why"
    fleetrun(ALL_DONE)
    for arguments in (["resume", run.path, "-o", "runner.epochs=7"], ["run", "--resume", run.path]):
        assert cli.main([*map(str, arguments)]) == 0
        out = capsys.readouterr().out
        assert " job       config.yaml: 7 epochs, 2 workers, 1 server, geo\n" in out
        assert " resumed   from the beginning: there is no checkpoint yet\n" in out
        assert run.tables.read_text() == "epoch 1: AUC 0.7\n\n" and run.metrics.read_text() == ""
        assert Config.load(run.config).runner.epochs == 7
        assert run.read_result()["state"] == "done"
        run.result.write_text(json.dumps(broken))
    for number in (1, 2):
        assert json.loads((run.log / f"before-{number}" / "result.json").read_text()) == broken


@pytest.mark.parametrize(("lost", "most", "code"), [(1, 1, 0), (2, 2, 0), (2, 1, 1), (1, 0, 1)])
def test_a_job_that_lost_a_process_goes_on_by_itself(
    make_job: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    lost: int,
    most: int,
    code: int,
) -> None:
    failures = [Failure("server.0", "it ended without a word", tmp_path, "died")] * lost

    def play(options: LaunchOptions, workers: int, job: Any, run: RunDirectory, *_others: Any) -> Failure | None:
        (run.log / "start").write_text("")
        run.write_result(RunResult(state="failed") if failures else RunResult(state="done", model="the/model"))
        return failures.pop() if failures else None

    monkeypatch.setattr(launch, "_play", play)
    found, out, err = run_cli(capsys, "-m", make_job(), "--max_restarts", most)
    assert found == code and ("server.0 failed: it ended without a word" in err) == bool(code)
    assert [f"\nrestart {number} of {most}, from the beginning" in out for number in (1, 2)] == [most > 0, most > 1]
    assert len(list((tmp_path / "run" / "log").glob("before-*"))) == min(lost, most)


@pytest.mark.parametrize("interrupted", [False, True])
def test_hosts_that_do_not_meet_leave_no_run(
    make_job: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    interrupted: bool,
) -> None:
    def meet(*_arguments: Any) -> None:
        if interrupted:
            raise Stopped(signal.SIGINT)
        raise NotMet(Failure("worker.1", "its host must come", None))

    monkeypatch.setattr(Alone, "meet", meet)
    monkeypatch.setattr(Alone, "is_new", True)
    path, told = make_job(), "fl_rec: worker.1 failed: its host must come\n  nothing has begun: mend it, and give the "
    for _ in range(2):
        code, _, err = run_cli(capsys, "-m", path)
        assert code == (128 + signal.SIGINT if interrupted else 1)
        assert err == ("" if interrupted else f"{told}same command again\n")
        assert not (tmp_path / "run").exists()


def test_failure_is_told_though_the_disk_is_full(
    make_job: Callable[..., Path],
    fleetrun: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunDirectory, "write_result", full)
    fleetrun([("worker.0", "failed", "a shard is missing")])
    code, _, err = run_cli(capsys, "-m", make_job())
    assert code == 1
    assert "worker.0 failed: a shard is missing" in err


def test_failure_of_fleetrun_itself_is_quoted(
    make_job: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    bare_python: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    # As with --servers 127.0.0.1, of which fleetrun dies before it starts a role.
    command = [*bare_python, "raise IndexError('list index out of range')"]
    monkeypatch.setattr(launch, "_start_command", lambda *_arguments: command)
    code, _, err = run_cli(capsys, "-m", make_job())
    assert code == 1
    assert "IndexError: list index out of range" in err


@pytest.mark.usefixtures("nothing_starts")
def test_run_directory_that_had_its_run(make_job: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = make_job()
    RunDirectory.claim(path.parent.parent / "run", "an earlier job")
    code, _, err = run_cli(capsys, "-m", path)
    assert code == 2
    assert err.startswith("fl-rec: error: A run directory holds one run, and this one has had its own. Received: ")


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "runner.epoch=5"], "option -o: runner.epoch: unknown key. Did you mean runner.epochs?"),
        (["-o", "runner.epochs"], "option -o: must be key=value. Received: 'runner.epochs'."),
        (["-o", "runner.train_data_dir=nowhere"], "runner.train_data_dir must be a folder of shards. Received: "),
        (["--worker_num", "3"], "Shard k belongs to worker k, so there must be as many shards as workers. "),
        (
            ["--script", "no_such.py"],
            "--script must name a training script. Received: no_such.py, which is not a file.",
        ),
        (
            ["--coordinator_num", "1", "--script", str(launch.DEFAULT_SCRIPTS[0])],
            "--coordinator_num must be 0 with static_fl_trainer.py. Received: 1.",
        ),
        (
            ["--script", str(launch.DEFAULT_SCRIPTS[1])],
            "--coordinator_num must be 1 with static_fl_trainer_with_coordinator.py. Received: 0.",
        ),
        (["--coordinator_num", "1", "-o", "coordinator.strategy=randomk"], "coordinator.strategy must be one of "),
        (["--coordinator_num", "1", "-o", "coordinator.options={k: 3}"], "coordinator.options: k: unknown key."),
        (
            ["--coordinator_num", "1", "-o", *(f"tls.{name}=./{{name}}.pem" for name in ("cert", "key", "ca"))],
            "tls.cert must be a file. Received: ",
        ),
        (
            ["--servers", "a:1,b:2"],
            "--servers must name one host:port per server, with ports from 1 to 65535. Received: a:1,b:2 for "
            "--server_num 1.",
        ),
        (
            ["--server_num", "2", "--servers", "a:1"],
            "--servers must name one host:port per server, with ports from 1 to 65535. Received: a:1 ",
        ),
    ],
)
def test_mistake_is_one_message(
    make_job: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    code, out, err = run_cli(capsys, "-m", make_job(), *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"fl-rec: error: {message}")
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists(), "a mistake leaves no run directory"


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("what", "arguments"),
    [("net", ["-o", "runner.model_path={}"]), ("training script", ["--script", "{}"])],
)
def test_import_of_what_is_not_there(
    make_job: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path, what: str, arguments: list[str]
) -> None:
    (tmp_path / "mine.py").write_text("import sys\nfrom static_modell import StaticModel\n")
    code, out, err = run_cli(capsys, "-m", make_job(), *(each.format(tmp_path / "mine.py") for each in arguments))
    assert (code, out) == (2, "")
    assert err.startswith(
        f"fl-rec: error: The {what} must be importable. Received: {tmp_path / 'mine.py'}, line 2: there is no module "
        "'static_modell'. Put it beside the file, "
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("servers", ["127.0.0.1", "127.0.0.1:", "127.0.0.1:http", ":7001"])
def test_server_without_a_port(make_job: Callable[..., Path], capsys: pytest.CaptureFixture[str], servers: str) -> None:
    code, _, err = run_cli(capsys, "-m", make_job(), "--servers", servers)
    assert code == 2
    assert f"Received: {servers}" in err


@pytest.mark.usefixtures("nothing_starts")
def test_relative_name_of_the_default_script(
    make_job: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = launch.DEFAULT_SCRIPTS[0]
    monkeypatch.chdir(script.parent)
    arguments = ("--script", script.name, "--coordinator_num", "1")
    code, _, err = run_cli(capsys, "-m", make_job(), *arguments)
    assert code == 2
    assert "--coordinator_num must be 0 with static_fl_trainer.py" in err


@pytest.mark.usefixtures("nothing_starts")
def test_starter_that_is_none(
    make_job: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FL_REC_START", "forked")
    code, _, err = run_cli(capsys, "-m", make_job())
    assert code == 2
    assert "FL_REC_START must be fork, or spawn for fleetrun" in err and "Received: forked." in err


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--worker_num", "0"], "argument --worker_num: must be at least 1, received 0"),
        (["--server_num", "-1"], "argument --server_num: must be at least 1, received -1"),
        (["--coordinator_num", "2"], "argument --coordinator_num: invalid choice: 2 (choose from 0, 1)"),
        (["--workers", "2"], "Received: 2. How many workers there are is --worker_num."),
    ],
)
def test_option_that_is_refused(
    make_job: Callable[..., Path], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = run_cli(capsys, "-m", make_job(), *arguments)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.usefixtures("nothing_starts")
def test_number_that_is_none(make_job: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run_cli(capsys, "-m", make_job(), "--worker_num", "ten")
    assert code == 2
    assert "ten" in err and "_count" not in err


def test_command_as_a_process(tmp_path: Path) -> None:
    main = "import sys; from fl_rec import cli, environment; environment.check = lambda: None; sys.exit(cli.main())"
    done = subprocess.run(
        [sys.executable, "-c", main, "run", "-m", "no_such.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(environment.CLONE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    text = done.stderr.decode()
    assert text.startswith("fl-rec: error: no_such.yaml: cannot be read as a configuration: No such file or directory.")
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("starter", "command"),
    [
        ("spawn", "tools/fleetrun.py"),
        ("fork", "tools/fork_server.py"),
        ("", "tools/fork_server.py"),
    ],
)
def test_command_that_starts_the_roles(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starter: str, command: str
) -> None:
    monkeypatch.setenv("FL_REC_START", starter)
    monkeypatch.chdir(tmp_path)
    options = LaunchOptions(
        Path("a job.yaml"), ("runner.epochs=5", "runner.seed=1"), None, 2, 1, "a:1,b:2", Path("my trainer.py")
    )
    here = tmp_path.resolve()
    assert launch._start_command(options, 10, run, None) == [
        *(sys.executable, "-u", str(environment.shipped(command))),
        # Not the folder's name, which fleetrun gives to a shell.
        *("--log_dir=.", "--worker_num=10", "--server_num=2"),
        *("--servers=a:1,b:2", "--coordinator_num=1", f"{here}/my trainer.py", "-m", f"{here}/a job.yaml"),
        *("-o", "runner.epochs=5", "-o", "runner.seed=1"),
    ]


def test_variables_of_another_job_are_kept_from_this_one(
    make_job: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bare_python: tuple[str, ...],
    tmp_path: Path,
) -> None:
    command = [*bare_python, "import json, os; print(json.dumps(dict(os.environ)))"]
    monkeypatch.setattr(launch, "_start_command", lambda *_arguments: command)
    for name, value in {"PADDLE_TRAINER_ID": "3", "POD_IP": "10.1.2.3", "FLAGS_check_nan_inf": "0"}.items():
        monkeypatch.setenv(name, value)
    _, out, _ = run_cli(capsys, "-m", make_job(), "--log-level", "debug", "--insecure")
    assert "note: variables of another Paddle job are kept from this one: PADDLE_TRAINER_ID, POD_IP\n" in out
    found = json.loads((tmp_path / "run" / "log" / "start").read_text())
    assert "PADDLE_TRAINER_ID" not in found and "POD_IP" not in found
    assert (found["FLAGS_check_nan_inf"], found["FL_REC_RUN_DIR"]) == ("0", str(tmp_path / "run"))
    assert (found["FL_REC_LOG_LEVEL"], found["FL_REC_INSECURE"]) == ("debug", "1")


# -- signals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_job_and_nothing_else(
    make_job: Callable[..., Path],
    fleetrun: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    sleeper: Spawn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    bystander = sleeper(FL_REC_RUN_DIR=str(tmp_path / "another run"))
    fleetrun([("worker.0", "done", "")], seconds=60)
    polls: list[int] = []

    def poll(_observer: Observers, _roles: object) -> None:
        polls.append(1)
        if (tmp_path / "run" / "result.json").exists() and len(polls) > 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Observers, "poll", poll)
    before = signal.getsignal(number)
    code, out, _ = run_cli(capsys, "-m", make_job())
    assert code == 128 + number
    assert f"note: stopped by {number.name}: ending the job's processes\n" in out
    assert "ended     0 epochs in " in out and "next" not in out
    content = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (content["state"], content["error"]) == ("interrupted", f"stopped by {number.name}")
    assert Mark("FL_REC_RUN_DIR", str(tmp_path / "run")).processes() == []
    assert bystander.poll() is None
    assert signal.getsignal(number) is before


def test_second_signal_does_not_interrupt_the_clearing_up() -> None:
    with pytest.raises(launch.Stopped, match="stopped by SIGTERM"), signals_as_exceptions():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(DEADLINE)
        finally:
            os.kill(os.getpid(), signal.SIGINT)


def test_signal_in_the_moment_of_the_start(
    make_job: Callable[..., Path],
    fleetrun: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = subprocess.Popen

    def start_interrupted(*arguments: Any, **options: Any) -> subprocess.Popen:
        process = start(*arguments, **options)
        os.kill(os.getpid(), signal.SIGINT)
        return process

    monkeypatch.setattr(subprocess, "Popen", start_interrupted)
    fleetrun([], seconds=60)
    path = make_job()
    mark = Mark("FL_REC_RUN_DIR", str(path.parent.parent / "run"))
    try:
        code, _, _ = run_cli(capsys, "-m", path)
        assert mark.processes() == []
        assert code == 128 + signal.SIGINT
    finally:
        mark.end()


def test_ignored_signal_stays_ignored() -> None:
    # nohup ./fl_run.sh & ... and the terminal is closed.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_as_exceptions():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_while_a_failed_job_is_being_ended(
    make_job: Callable[..., Path],
    fleetrun: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = Mark.end

    def end_interrupted(mark: Mark) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        ended(mark)

    monkeypatch.setattr(Mark, "end", end_interrupted)
    fleetrun([("worker.0", "failed", "a shard is missing")], seconds=60)
    path = make_job()
    mark = Mark("FL_REC_RUN_DIR", str(path.parent.parent / "run"))
    try:
        code, _, err = run_cli(capsys, "-m", path)
        assert mark.processes() == []
        assert code == 1 and "worker.0 failed: a shard is missing" in err
    finally:
        ended(mark)
