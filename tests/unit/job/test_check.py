"""A job against its data: what fits is dealt to the workers, what does not is told before anything starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fl_rec.config import Config
from fl_rec.errors import ConfigError, DataError, FLRecError
from fl_rec.job.check import check_job

LoadJob = Callable[..., Config]


def refusal(config: Config, workers: int = 2, error: type[FLRecError] = ConfigError) -> str:
    with pytest.raises(error) as caught:
        check_job(config, workers)
    return str(caught.value)


def load_job_again(config: Config, *overrides: str) -> Config:
    return Config.load(config.yaml_path, overrides)


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


def test_only_this_hosts_shards_must_be_there(load_job: LoadJob) -> None:
    config = load_job(num_shards=4, validation=True)
    data = config.runner.train_data_dir.parent
    everything = check_job(config, 4)
    for folder in ("fl_train_data", "fl_test_data", "fl_valid_data"):
        (data / folder / "part-000.txt").unlink()
        (data / folder / "part-003.txt").unlink()
    here = check_job(config, 4, own_workers=(1, 2))
    assert here == everything, "each worker's shards, counts and limits are known all the same"
    assert "Missing" in refusal(config, 4, DataError)
    with pytest.raises(DataError) as caught:
        check_job(config, 4, own_workers=(2, 3))
    assert str(caught.value).startswith(
        "The shards of this host's workers must be in runner.train_data_dir. Missing: "
        f"{data}/fl_train_data/part-003.txt, worker 3's. Copy it from"
    )
    with pytest.raises(ConfigError, match="Received: 4 files in .* and 5 workers"):
        check_job(config, 5, own_workers=(1,))
    (data / "fl_test_data" / "part-002.txt").write_text("")
    with pytest.raises(DataError, match=r"A shard must not be empty. Received: part-002.txt in .*fl_test_data"):
        check_job(config, 4, own_workers=(1, 2))


def test_of_another_hosts_shard_that_is_there_the_size_counts(load_job: LoadJob) -> None:
    config = load_job(num_shards=3)
    with open(config.runner.train_data_dir / "part-002.txt", "a") as file:
        file.write("1 0 1 0 1 1\n")
    with pytest.raises(DataError, match="part-002.txt must have"):
        check_job(config, 3, own_workers=(0,))


def test_a_host_that_has_only_servers_needs_no_shard(load_job: LoadJob) -> None:
    config = load_job(num_shards=2)
    everything = check_job(config, 2)
    for folder in (config.runner.train_data_dir, config.runner.test_data_dir):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    assert check_job(config, 2, own_workers=()) == everything


def test_shards_on_several_hosts_need_a_manifest(load_job: LoadJob) -> None:
    sizes = ("hyper_parameters.num_users=5", "hyper_parameters.num_items=6")
    with pytest.raises(DataError, match=r"a manifest.json tells whose shard is whose. Received: none in"):
        check_job(load_job(*sizes, manifest=False), 2, own_workers=(0,))


def test_every_worker_reads_all_if_told_so(load_job: LoadJob) -> None:
    job = check_job(load_job("runner.split_file_list=false", num_shards=3), 2)
    assert names(job.train_shards) == names(job.test_shards) == [["part-000.txt", "part-001.txt", "part-002.txt"]] * 2
    assert job.train_rows == (9, 9)


def test_each_workers_users_have_a_popularity_of_their_own(load_job: LoadJob) -> None:
    config = load_job()
    path = config.runner.train_data_dir.parent / "manifest.json"
    ranked = [[{"positives": 1, "users": 1, "first": [hit], "every": [hit]}] for hit in (1, 0)]
    path.write_text(json.dumps({**json.loads(path.read_text()), "popularity": ranked}))
    job = check_job(load_job_again(config), 2)
    assert job.popularity is not None and job.popularity["hr@10"] == 0.5
    assert [each and each["hr@10"] for each in job.own_popularity] == [1.0, 0.0]
    together = check_job(load_job_again(config, "runner.split_file_list=false"), 2)
    assert together.own_popularity == (job.popularity,) * 2


def test_no_test_data(load_job: LoadJob) -> None:
    assert check_job(load_job(test=False), 2).test_shards == ((), ())


def test_validation_shards_are_dealt_too(load_job: LoadJob) -> None:
    job = check_job(load_job(validation=True, num_shards=3), 3)
    assert names(job.validation_shards) == names(job.test_shards)
    assert {path.parent.name for (path,) in job.validation_shards} == {"fl_valid_data"}
    assert check_job(load_job_again(job.config, "runner.validation_data_dir=null"), 3).validation_shards == ((),) * 3
    everything = check_job(load_job_again(job.config, "runner.split_file_list=false"), 2)
    assert names(everything.validation_shards) == [["part-000.txt", "part-001.txt", "part-002.txt"]] * 2


def test_validation_shards_of_other_data_are_dealt_unchecked(load_job: LoadJob, tmp_path: Path) -> None:
    config = load_job("runner.validation_data_dir=other")
    (tmp_path / "a job" / "other").mkdir()
    for name in "ab":
        (tmp_path / "a job" / "other" / name).write_text("1 0 1 0 1 1\n")
    assert names(check_job(config, 2).validation_shards) == [["a"], ["b"]]


def test_a_row_holds_what_the_shards_hold(load_job: LoadJob) -> None:
    job = check_job(load_job(group_size=3), 2)
    assert job.config.hyper_parameters.group_size == 3 and job.train_rows == (2, 3)
    assert check_job(load_job_again(job.config, "hyper_parameters.group_size=3"), 2).train_rows == (2, 3)


def test_a_row_holds_one_item_by_default(load_job: LoadJob) -> None:
    assert check_job(load_job(), 2).config.hyper_parameters.group_size == 1


@pytest.mark.parametrize("given, size", [("null", 1), ("4", 4)])
def test_without_a_manifest_the_configured_group_size_is_believed(load_job: LoadJob, given: str, size: int) -> None:
    sizes = ("hyper_parameters.num_users=5", "hyper_parameters.num_items=6", f"hyper_parameters.group_size={given}")
    assert check_job(load_job(*sizes, manifest=False), 2).config.hyper_parameters.group_size == size


@pytest.mark.parametrize("given, size", [("null", 5), ("5", 5), ("1", 1)])
@pytest.mark.parametrize("group_size", [1, 3])
def test_fresh_negatives_make_rows_of_their_own(load_job: LoadJob, given: str, size: int, group_size: int) -> None:
    overrides = ("runner.resample_negatives=4", f"hyper_parameters.group_size={given}")
    job = check_job(load_job(*overrides, group_size=group_size), 2)
    assert job.config.hyper_parameters.group_size == size
    assert job.train_rows == (2, 3), "which is what is read"
    assert job.notes == ()


def test_fresh_negatives_without_a_manifest(load_job: LoadJob) -> None:
    sizes = ("hyper_parameters.num_users=5", "hyper_parameters.num_items=6", "runner.resample_negatives=4")
    job = check_job(load_job(*sizes, manifest=False), 2)
    assert job.config.hyper_parameters.group_size == 5 and job.train_rows == (None, None)


def test_items_that_the_data_has_not_would_be_drawn(load_job: LoadJob) -> None:
    config = load_job("runner.resample_negatives=4", "hyper_parameters.num_items=30")
    assert check_job(config, 2).notes == (
        "runner.resample_negatives draws from hyper_parameters.num_items=30 items, of which the data has 3: negatives "
        "that nobody could like teach less. Leave num_items out.",
    )


def test_how_rounds_add_up_is_not_read_without_rounds(load_job: LoadJob) -> None:
    overrides = ("runner.aggregation=sum", "runner.server_learning_rate=0.5")
    config = load_job(*overrides)
    assert check_job(config, 2).notes == (
        "runner.aggregation=sum has no effect without synchronised exchanges: set runner.exchanges_per_epoch.",
        "runner.server_learning_rate=0.5 has no effect without synchronised exchanges: set runner.exchanges_per_epoch.",
    )
    assert check_job(load_job_again(config, *overrides, "runner.exchanges_per_epoch=2"), 2).notes == ()


def test_a_job_without_checkpoints_says_so(load_job: LoadJob) -> None:
    config = load_job("runner.sync_mode=async")
    (note,) = check_job(config, 2).notes
    assert note.startswith("With runner.sync_mode=async there are no checkpoints, since the servers' optimizers ")
    assert check_job(load_job_again(config, "runner.sync_mode=async", "runner.save_interval=0"), 2).notes == ()
    text = refusal(load_job_again(config, "runner.sync_mode=async", "runner.on_worker_loss=restart"))
    assert "runner.on_worker_loss=restart goes on from a checkpoint. Received: runner.sync_mode=async" in text


def test_a_keys_old_name_is_noted(load_job: LoadJob) -> None:
    config = load_job("runner.rounds_per_epoch=2", "hyper_parameters.mf_dim=4")
    assert check_job(config, 2).notes == (
        "runner.rounds_per_epoch is now runner.exchanges_per_epoch; the old name still works.",
    )


def test_every_rule_between_keys_at_once(load_job: LoadJob) -> None:
    text = refusal(load_job("runner.thread_num=2", "runner.use_gpu=true", "runner.early_stopping=1"))
    assert text.startswith("3 problems in the configuration:\nrunner.thread_num must be 1: ")
    assert "\nrunner.use_gpu must be false: " in text and "\nrunner.early_stopping needs validation shards" in text


@pytest.mark.parametrize(
    ("override", "text"),
    [
        (
            "runner.split_file_list=false",
            "runner.split_file_list must be true with a coordinator, which may have a client train a part of its own "
            "shard. Received: false.",
        ),
        (
            "coordinator.clients={7: {slow_down: 2}}",
            "coordinator.clients must name clients 0 to 1. Received: 7.",
        ),
    ],
)
def test_what_a_coordinator_needs(load_job: LoadJob, override: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_job(load_job(override), 2, 1)
    assert str(caught.value) == text


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


@pytest.mark.parametrize(
    "setting, other, text",
    [
        (
            "resample_negatives=4",
            "split_file_list=false",
            "runner.resample_negatives needs runner.split_file_list=true, because a worker draws for the positives of "
            "its shard. Received: false. Set runner.split_file_list=true, or leave runner.resample_negatives out.",
        ),
        (
            "exchanges_per_epoch=2",
            "sync_mode=async",
            "runner.exchanges_per_epoch needs runner.sync_mode=geo, because only GEO's workers have a model that they "
            "exchange. Received: async. Set runner.sync_mode=geo, or leave runner.exchanges_per_epoch out.",
        ),
        (
            "private_params=[embedding_0*]",
            "sync_mode=async",
            "runner.private_params needs runner.sync_mode=geo, because with async every parameter is the servers'. "
            "Received: async. Set runner.sync_mode=geo, or leave runner.private_params out.",
        ),
        (
            "warmup_model_path=a_model",
            "sync_mode=async",
            "runner.warmup_model_path needs runner.sync_mode=geo, because with async servers draw embeddings "
            "themselves, and take no others. Received: async. Set runner.sync_mode=geo, or leave "
            "runner.warmup_model_path out.",
        ),
        (
            "private_params=[embedding_0*]",
            "split_file_list=false",
            "runner.private_params needs runner.split_file_list=true, because a worker's own parameters know its own "
            "shard only. Received: false. Set runner.split_file_list=true, or leave runner.private_params out.",
        ),
    ],
)
def test_settings_that_need_others(load_job: LoadJob, setting: str, other: str, text: str) -> None:
    config = load_job(f"runner.{setting}", f"runner.{other}")
    assert refusal(config) == text
    check_job(load_job_again(config, f"runner.{setting}"), 2)
    check_job(load_job_again(config, f"runner.{other}"), 2)


def test_no_private_parameters_need_nothing(load_job: LoadJob) -> None:
    check_job(load_job("runner.private_params=[]", "runner.sync_mode=async", "runner.split_file_list=false"), 2)


def test_early_stopping_needs_validation_shards(load_job: LoadJob) -> None:
    config = load_job("runner.early_stopping=3", validation=True)
    check_job(config, 2)
    assert refusal(load_job_again(config, "runner.early_stopping=3", "runner.validation_data_dir=null")) == (
        "runner.early_stopping needs validation shards, by which the epochs are compared. Received: early_stopping=3 "
        "without runner.validation_data_dir. Set it to the folder that fl-rec prepare --validation and partition "
        "make, or leave runner.early_stopping out."
    )


@pytest.mark.parametrize("given", [2, 9])
def test_group_size_that_fresh_negatives_do_not_make(load_job: LoadJob, given: int) -> None:
    assert refusal(load_job("runner.resample_negatives=4", f"hyper_parameters.group_size={given}")) == (
        "hyper_parameters.group_size must be 5, a positive with its runner.resample_negatives=4, or 1. "
        f"Received: {given}. Leave it out for 5, or set it to 1 for a row per item."
    )


@pytest.mark.parametrize("there, given", [(1, 3), (3, 1), (3, 2)])
def test_group_size_that_the_shards_do_not_hold(load_job: LoadJob, there: int, given: int) -> None:
    config = load_job(f"hyper_parameters.group_size={given}", group_size=there)
    assert refusal(config) == (
        f"hyper_parameters.group_size must be {there}, which is what a row in {config.runner.train_data_dir.parent} "
        f"holds. Received: {given}. Leave it out, make other shards with fl-rec partition --group, or set "
        "runner.resample_negatives."
    )


def test_a_loss_is_looked_for_when_the_group_size_is_known(load_job: LoadJob) -> None:
    pointwise = load_job("hyper_parameters.loss=bpr")
    text = refusal(pointwise)
    assert text.startswith("hyper_parameters.loss=bpr compares a positive with the negatives of its own row")
    assert "Received: group_size=1." in text
    check_job(load_job_again(pointwise, "hyper_parameters.loss=bpr", "runner.resample_negatives=2"), 2)
    assert "Received: 'log_los'" in refusal(load_job_again(pointwise, "hyper_parameters.loss=log_los"))


# -- data that does not fit --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["train_data_dir", "test_data_dir"])
def test_missing_folder(load_job: LoadJob, tmp_path: Path, key: str) -> None:
    assert refusal(load_job(f"runner.{key}=nowhere"), error=DataError) == (
        f"runner.{key} must be a folder of shards. Received: {tmp_path}/a job/nowhere, which does not exist. "
        "Make the shards with fl-rec prepare and fl-rec partition, or leave -m out for built-in data."
    )


def test_missing_validation_folder(load_job: LoadJob, tmp_path: Path) -> None:
    assert refusal(load_job("runner.validation_data_dir=nowhere"), error=DataError) == (
        f"runner.validation_data_dir must be a folder of shards. Received: {tmp_path}/a job/nowhere, which does not "
        "exist. Make the shards with fl-rec prepare --validation and fl-rec partition."
    )


def test_validation_shard_that_is_not_the_manifests(load_job: LoadJob) -> None:
    config = load_job(validation=True)
    assert config.runner.validation_data_dir is not None
    path = config.runner.validation_data_dir / "part-001.txt"
    path.write_text("1 0 1 0 1 0\n")
    text = refusal(config, error=DataError)
    assert text.startswith(f"{path} must have ") and "Received 12." in text


def test_other_number_of_validation_shards(load_job: LoadJob, tmp_path: Path) -> None:
    config = load_job("runner.validation_data_dir=other")
    (tmp_path / "a job" / "other").mkdir()
    (tmp_path / "a job" / "other" / "a").write_text("1 0 1 0 1 1\n")
    text = refusal(config)
    assert f"Received: 1 files in {tmp_path}/a job/other (runner.validation_data_dir) and 2 workers." in text


def test_file_instead_of_a_folder(load_job: LoadJob) -> None:
    text = refusal(load_job("runner.train_data_dir=job.yaml"), error=DataError)
    assert text.startswith("runner.train_data_dir must be a folder of shards. Received: ")
    assert "does not exist" not in text


def test_empty_folder(load_job: LoadJob, tmp_path: Path) -> None:
    config = load_job("runner.test_data_dir=empty")
    (tmp_path / "a job" / "empty").mkdir()
    assert refusal(config, error=DataError) == (
        f"runner.test_data_dir must hold files. Received: {tmp_path}/a job/empty, which is empty."
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
        f"{workers} shards: fl-rec partition --num_shards {workers}"
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
        f"in {config.runner.train_data_dir} or beside it. Set the key, or let fl-rec shards FOLDER count "
        "the shards and write it."
    )


def test_first_rows_of_shards_without_a_manifest(load_job: LoadJob) -> None:
    sizes = "hyper_parameters.num_users=9", "hyper_parameters.num_items=9"
    config = load_job(*sizes, manifest=False)
    shard = config.runner.test_data_dir / "part-001.txt"
    shard.write_text("1 0 1 1 1 2\n" + shard.read_text())
    with pytest.raises(DataError, match="part-001.txt, line 1: a label must be 0 or 1. Received: 2. These are the col"):
        check_job(config, 2)


def test_shards_without_negatives(load_job: LoadJob) -> None:
    config = load_job()
    path = config.runner.train_data_dir.parent / "manifest.json"
    content = json.loads(path.read_text())
    for shard in content["shards"]:
        shard["train"]["positives"] = shard["train"]["rows"]
    path.write_text(json.dumps(content))
    assert refusal(config) == (
        "Training needs rows of label 0 beside those of label 1. Received: none in the shards in "
        f"{config.runner.train_data_dir}, as fl-rec prepare --num_neg 0 leaves them. Draw them: set "
        "runner.resample_negatives=4"
    )
    assert check_job(config.replace(**{"runner.resample_negatives": 4}), 2).train_rows == (2, 3)


def test_rows_come_from_the_manifest_and_not_from_the_files(load_job: LoadJob) -> None:
    config = load_job()
    path = config.runner.train_data_dir.parent / "manifest.json"
    manifest: dict[str, Any] = json.loads(path.read_text())
    manifest["shards"][1]["train"]["rows"] = 77
    manifest["totals"] = {}
    path.write_text(json.dumps(manifest))
    assert check_job(config, 2).train_rows == (2, 77)


def test_embeddings_that_no_memory_holds(load_job: LoadJob) -> None:
    """A claim of many users, before any process asks for their rows."""
    many = 10**12
    config = load_job()
    mlp = ("hyper_parameters.mode=NCF_MLP", "hyper_parameters.fc_layers=[64, 8]", f"hyper_parameters.num_users={many}")
    text = refusal(load_job_again(config, *mlp))
    assert text.startswith("The embeddings of all workers must fit into this machine's memory, ")
    assert f"Received: hyper_parameters.num_users={many}, num_items=3, which take 128000 GB in 2 workers." in text
    everybodys = refusal(load_job_again(config, *mlp, "runner.private_params=[]"))
    assert "which take 256000 GB in 2 workers." in everybodys
