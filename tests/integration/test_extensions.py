"""What users write themselves, as the documentation shows it: net, loss, reader, source, partitioner, trainer."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_rec.data.manifest import load_manifest
from fl_rec.runs.directory import RunDirectory
from tests.documented import snippet

from .conftest import ROOT, WORKERS, Job, run_script

STYLE = Path(__file__).parent / "paddlerec_style"


def test_a_paddlerec_style_model_as_it_is(job: Job) -> None:
    job.runner.update(epochs=2, train_batch_size=64, geo_step=100, model_path=str(STYLE / "static_model.py"))
    finished = job.succeed()
    first, last = finished.records("all")
    assert last["train_loss"] < first["train_loss"]
    assert last["train_auc"] > first["train_auc"]
    assert last["test_auc"] > 0.55


def test_a_net_that_geo_would_never_exchange(job: Job, tmp_path: Path) -> None:
    for name in ("net.py", "static_model.py"):
        (tmp_path / name).write_text((STYLE / name).read_text().replace("sparse=True", "sparse=False"))
    job.runner["model_path"] = str(tmp_path / "static_model.py")
    finished = job.finish()
    assert finished.code == 1
    assert "GEO needs a net with at least one paddle.nn.Embedding(..., sparse=True)" in finished.errors
    # A synchronous exchange sends by itself.
    job.runner.update(epochs=2, exchanges_per_epoch=1, private_params=[], run_dir=str(tmp_path / "together"))
    job.run = RunDirectory(tmp_path / "together")
    first, last = job.succeed().records("all")
    assert first["test_auc"] != last["test_auc"], "the servers' model has moved"


@pytest.fixture(scope="module")
def csv_shards(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("csv")
    run_script(
        "datasets/movielens/gen_heter_data.py", "--data", prepared, "--out", out, "--num_shards", WORKERS,
        "--format", "csv",
    )  # fmt: skip
    return out


def test_a_paddlerec_configuration_and_a_users_reader(job: Job, csv_shards: Path, shards: Path, tmp_path: Path) -> None:
    """Every key of PaddleRec's config_fl.yaml for NCF, with its paths changed.

    The example reader over CSV shards trains and evaluates the rows that the MultiSlot shards hold.
    """
    job.coordinator = {"strategy": "random_k"}
    job.runner = {
        "sync_mode": "geo",
        "geo_step": 100,
        "split_file_list": True,
        "thread_num": 1,
        "reader_type": "QueueDataset",
        "pipe_command": "python queuedataset_reader.py",
        "dataset_debug": False,
        "train_data_dir": str(csv_shards / "fl_train_data"),
        "train_reader_path": "movielens_reader",
        "train_batch_size": 512,
        "model_save_path": "output_model_ncf",
        "use_gpu": False,
        "epochs": 1,
        "print_interval": 50,
        "test_data_dir": str(csv_shards / "fl_test_data"),
        "infer_reader_path": "movielens_reader",
        "infer_batch_size": 1000,
        "infer_load_path": "output_model_ncf",
        "infer_start_epoch": 2,
        "infer_end_epoch": 3,
        "need_dump": True,
        "dump_fields_path": "dumped",
        "dump_fields": ["item_input", "user_input"],
        "dump_param": [],
        "local_sparse": ["embedding_0.w_0"],
        "remote_sparse": ["embedding_1.w_0"],
        "run_dir": str(job.run.path),
        "model_path": str(ROOT / "models" / "ncf" / "static_model.py"),
    }
    job.hyper_parameters = {
        "optimizer": {"class": "adam", "learning_rate": 0.001},
        "num_users": 6040,
        "num_items": 3706,
        "mf_dim": 8,
        "mode": "NCF_MLP",
        "fc_layers": [64, 32, 16, 8],
    }
    finished = job.succeed()
    assert "note: runner.infer_reader_path=movielens_reader is not read" in finished.output
    assert "note: runner.local_sparse and runner.remote_sparse have no effect" in finished.output
    assert (tmp_path / "output_model_ncf" / "1" / "rec_static.pdmodel").is_file()
    assert any((tmp_path / "dumped" / "epoch_1").iterdir())
    assert "note: coordinator.* has no effect without a coordinator" in finished.output
    manifest = load_manifest(shards)
    assert manifest is not None
    for worker, shard in enumerate(manifest.shards):
        (record,) = finished.records(worker)
        assert (record["rows"], record["test_users"]) == (shard.train.rows, shard.test.users)


def test_a_users_partitioner_and_run_worker(job: Job, prepared: Path, tmp_path: Path) -> None:
    example = ROOT / "datasets" / "movielens" / "fl_partitioner_example.py"
    function = next(line.split("(")[0][4:] for line in example.read_text().splitlines() if line.startswith("def "))
    out = tmp_path / "parts"
    run_script(
        "datasets/movielens/gen_heter_data.py", "--data", prepared, "--out", out, "--num_shards", 2,
        "--partitioner", f"{example}:{function}",
    )  # fmt: skip
    manifest = load_manifest(out)
    assert manifest is not None
    assert manifest.partitioner["name"].endswith(function)
    assert manifest.shards[0].train.rows > manifest.shards[1].train.rows, "the most active users share the first shard"
    (tmp_path / "my_trainer.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n" + snippet("stop_early.py").replace("0.85", "0.6")
    )
    job.runner.update(train_data_dir=str(out / "fl_train_data"), test_data_dir=str(out / "fl_test_data"), epochs=50)
    finished = job.succeed("--script", tmp_path / "my_trainer.py")
    assert finished.result["workers"] == 2
    aucs = [record["test_auc"] for record in finished.records("all")]
    assert aucs[-1] > 0.6
    assert all(auc <= 0.6 for auc in aucs[:-1])
    assert len(aucs) < 50


def test_a_users_source(job: Job, tmp_path: Path) -> None:
    example = ROOT / "datasets" / "movielens" / "fl_source_example.py"
    lines = [f"{user}: " + ", ".join(str((user * 7 + k * k) % 150) for k in range(12)) for user in range(60)]
    (tmp_path / "likes.txt").write_text("\n".join(lines))
    data, shards = tmp_path / "rows", tmp_path / "shards"
    run_script(
        "datasets/movielens/prepare.py", "--source", f"{example}:likes:path={tmp_path}/likes.txt", "--out", data
    )  # fmt: skip
    run_script(
        "datasets/movielens/gen_heter_data.py", "--data", data, "--out", shards, "--num_shards", 2,
        "--partitioner", "iid",
    )  # fmt: skip
    job.runner.update(train_data_dir=str(shards / "fl_train_data"), test_data_dir=str(shards / "fl_test_data"))
    finished = job.succeed()
    (record,) = finished.records("all")
    assert (record["rows"], record["test_users"]) == (60 * 11 * 5, 60)
