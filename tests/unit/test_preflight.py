"""A job against its data: what fits is dealt to the workers, what does not is told before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest

from fl_rec.config import Config
from fl_rec.errors import ConfigError, DataError, FLRecError
from fl_rec.preflight import check_job

LoadJob = Callable[..., Config]


def refusal(config: Config, workers: int = 2, error: type[FLRecError] = ConfigError) -> str:
    with pytest.raises(error) as caught:
        check_job(config, workers)
    return str(caught.value)


def names(shards: tuple[tuple[Path, ...], ...]) -> list[list[str]]:
    return [[path.name for path in files] for files in shards]


# -- what fits ---------------------------------------------------------------------------------------------


def test_shard_k_is_for_worker_k(load_job: LoadJob) -> None:
    job = check_job(load_job(num_shards=3), 3)
    assert names(job.train_shards) == names(job.test_shards) == [["part-000.txt"], ["part-001.txt"], ["part-002.txt"]]
    assert {path.parent.name for (path,) in job.train_shards} == {"fl_train_data"}
    assert {path.parent.name for (path,) in job.test_shards} == {"fl_test_data"}
    assert job.train_rows == (2, 3, 4)
    assert (job.config.hyper_parameters.num_users, job.config.hyper_parameters.num_items) == (3, 4)


def test_every_worker_reads_all_if_told_so(load_job: LoadJob) -> None:
    job = check_job(load_job("runner.split_file_list=false", num_shards=3), 2)
    assert names(job.train_shards) == names(job.test_shards) == [["part-000.txt", "part-001.txt", "part-002.txt"]] * 2
    assert job.train_rows == (9, 9)


def test_no_test_data(load_job: LoadJob) -> None:
    assert check_job(load_job(test=False), 2).test_shards == ((), ())


def test_data_without_a_manifest(load_job: LoadJob) -> None:
    job = check_job(load_job("hyper_parameters.num_users=5", "hyper_parameters.num_items=6", manifest=False), 2)
    assert job.train_rows == (None, None)
    assert (job.config.hyper_parameters.num_users, job.config.hyper_parameters.num_items) == (5, 6)


def test_configured_sizes_may_be_larger(load_job: LoadJob) -> None:
    job = check_job(load_job("hyper_parameters.num_users=50"), 2)
    assert (job.config.hyper_parameters.num_users, job.config.hyper_parameters.num_items) == (50, 3)


def test_hidden_files_are_no_shards(load_job: LoadJob) -> None:
    config = load_job()
    (config.runner.train_data_dir / ".part-000.txt.swp").write_text("")
    assert names(check_job(config, 2).train_shards) == [["part-000.txt"], ["part-001.txt"]]


def test_manifest_among_the_shards_is_no_shard(load_job: LoadJob) -> None:
    config = load_job("runner.split_file_list=false", test=False)
    folder = config.runner.train_data_dir
    (folder.parent / "manifest.json").rename(folder / "manifest.json")
    assert names(check_job(config, 1).train_shards) == [["part-000.txt", "part-001.txt"]]


# -- settings that can't work ------------------------------------------------------------------------------


def test_sync_mode_sync(load_job: LoadJob) -> None:
    text = refusal(load_job("runner.sync_mode=sync"))
    assert text.startswith("runner.sync_mode=sync does not work: ")
    assert text.endswith("Set it to geo or async.")


def test_several_threads(load_job: LoadJob) -> None:
    text = refusal(load_job("runner.thread_num=2"))
    assert text.startswith("runner.thread_num must be 1: ")
    assert text.endswith("Received: 2. For more speed, use more workers.")


def test_gpu(load_job: LoadJob) -> None:
    text = refusal(load_job("runner.use_gpu=true"))
    assert text.startswith("runner.use_gpu must be false: ")
    assert text.endswith("Received: true.")


def test_csv_shards_need_a_reader(load_job: LoadJob) -> None:
    config = load_job(layout="csv")
    assert refusal(config) == (
        f"The shards in {config.runner.train_data_dir} are csv, and Paddle reads MultiSlot text. "
        'Received: runner.pipe_command=cat. Set it to a reader, such as "python queuedataset_reader.py", '
        "or write MultiSlot shards."
    )
    check_job(config.replace(**{"runner.pipe_command": "tr , ' '"}), 2)


def test_reader_that_is_not_there(load_job: LoadJob) -> None:
    assert "Received: 'shuot.py', looked for in" in refusal(load_job("runner.pipe_command=python shuot.py"))


def test_net_that_is_not_there(load_job: LoadJob) -> None:
    # Else ten workers are started, and each of them finds out.
    config = load_job("runner.model_path=fl_none.py")
    assert f"Received: {config.runner.model_path}" in refusal(config)


# -- data that does not fit --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["train_data_dir", "test_data_dir"])
def test_missing_folder(load_job: LoadJob, tmp_path: Path, key: str) -> None:
    assert refusal(load_job(f"runner.{key}=nowhere"), error=DataError) == (
        f"runner.{key} must be a folder of shards. Received: {tmp_path}/a job/nowhere, which does not exist. "
        "Make the shards with datasets/movielens/run.sh, or run ./fl_run.sh without -m for built-in data."
    )


def test_file_instead_of_a_folder(load_job: LoadJob) -> None:
    text = refusal(load_job("runner.train_data_dir=job.yaml"), error=DataError)
    assert text.startswith("runner.train_data_dir must be a folder of shards. Received: ")
    assert "does not exist" not in text


def test_empty_folder(load_job: LoadJob, tmp_path: Path) -> None:
    config = load_job("runner.test_data_dir=empty")
    (tmp_path / "a job" / "empty").mkdir()
    assert refusal(config, error=DataError) == (
        f"runner.test_data_dir must hold shard files. Received: {tmp_path}/a job/empty, which is empty."
    )


def test_empty_shard(load_job: LoadJob) -> None:
    config = load_job(manifest=False)
    for name in ("part-000.txt", "part-001.txt"):
        (config.runner.train_data_dir / name).write_text("")
    assert refusal(config, error=DataError) == (
        f"A shard must not be empty. Received: part-000.txt, part-001.txt in {config.runner.train_data_dir}. "
        "Make the shards again."
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_other_number_of_workers(load_job: LoadJob, workers: int) -> None:
    config = load_job()
    assert refusal(config, workers) == (
        "Shard k belongs to worker k, so there must be as many shards as workers. Received: 2 files in "
        f"{config.runner.train_data_dir} (runner.train_data_dir) and {workers} workers. Start 2 workers, or write "
        f"{workers} shards: gen_heter_data.py --num_shards {workers}"
    )


def test_other_number_of_test_shards(load_job: LoadJob) -> None:
    config = load_job("hyper_parameters.num_users=2", "hyper_parameters.num_items=3", manifest=False)
    (config.runner.test_data_dir / "part-001.txt").unlink()
    text = refusal(config)
    assert f"Received: 1 files in {config.runner.test_data_dir} (runner.test_data_dir) and 2 workers." in text


def test_shard_that_is_not_the_manifests(load_job: LoadJob) -> None:
    config = load_job()
    path = config.runner.train_data_dir / "part-001.txt"
    path.write_text("1 0 1 0 1 0\n")
    text = refusal(config, error=DataError)
    assert text.startswith(f"{path} must have ")
    assert "Received 12." in text


def test_manifest_that_is_not_json(load_job: LoadJob) -> None:
    config = load_job()
    (config.runner.train_data_dir.parent / "manifest.json").write_text("{")
    assert refusal(config, error=DataError).startswith("A manifest must be JSON. Received: ")


def test_sizes_that_the_data_contradicts(load_job: LoadJob) -> None:
    text = refusal(load_job("hyper_parameters.num_users=1", "hyper_parameters.num_items=2"))
    assert text.startswith("2 problems in the configuration:\n")
    assert "hyper_parameters.num_users must be at least 2" in text
    assert "Received: num_items=2. Set it to 3," in text


@pytest.mark.parametrize("given, missing", [("num_items", "num_users"), ("num_users", "num_items")])
def test_unknown_sizes(load_job: LoadJob, given: str, missing: str) -> None:
    config = load_job(f"hyper_parameters.{given}=9", manifest=False)
    assert refusal(config) == (
        f"hyper_parameters.{missing} can be left out only if the data has a manifest.json. Received: no manifest "
        f"in {config.runner.train_data_dir} or beside it. Set the key, or make the shards with gen_heter_data.py."
    )


def test_rows_come_from_the_manifest_and_not_from_the_files(load_job: LoadJob) -> None:
    config = load_job()
    path = config.runner.train_data_dir.parent / "manifest.json"
    manifest: dict[str, Any] = json.loads(path.read_text())
    manifest["shards"][1]["train"]["rows"] = 77
    path.write_text(json.dumps(manifest))
    assert check_job(config, 2).train_rows == (2, 77)
