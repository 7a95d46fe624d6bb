"""From YAML and overrides to a checked Config: values, types, paths, and what every refusal says."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from fl_rec import environment
from fl_rec.arguments import add_config_arguments
from fl_rec.config import ClientConfig, Config, load_from_args
from fl_rec.errors import ConfigError
from fl_rec.secure import Tls

# The keys of PaddleRec's models/recall/ncf/config_fl.yaml, with paths of this test.
PADDLEREC = """\
runner:
  sync_mode: "geo"
  #with_coodinator: 1
  geo_step: 100
  split_file_list: True
  thread_num: 1
  reader_type: "QueueDataset"
  pipe_command: "python queuedataset_reader.py"
  dataset_debug: False
  train_data_dir: "data/train"
  train_reader_path: "movielens_reader"
  train_batch_size: 512
  model_save_path: "output_model_ncf"
  use_gpu: False
  epochs: 2
  print_interval: 50
  test_data_dir: "../test"
  infer_reader_path: "movielens_reader"
  infer_batch_size: 1
  infer_load_path: "output_model_ncf"
  infer_start_epoch: 2
  infer_end_epoch: 3
  need_dump: True
  dump_fields_path: "dump"
  dump_fields: ['item_input', 'user_input']
  dump_param: []
  local_sparse: ['embedding_0.w_0']
  remote_sparse: ['embedding_1.w_0']
hyper_parameters:
  optimizer:
    class: adam
    learning_rate: 0.001
  num_users: 6040
  num_items: 3706
  mf_dim: 8
  mode: "NCF_MLP"
  fc_layers: [64, 32, 16, 8]
"""
MINIMAL = "runner: {train_data_dir: train}\n"

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: str) -> Path:
        path = tmp_path / "job.yaml"
        path.write_text(content, encoding="utf-8")
        return path

    return write


@pytest.fixture
def minimal(write: Write) -> Path:
    return write(MINIMAL)


def refusal(path: str | Path, *overrides: str) -> str:
    """The message of the error, with the file's folder left out."""
    with pytest.raises(ConfigError) as caught:
        Config.load(path, overrides)
    return str(caught.value).replace(f"{Path(path).parent}/", "")


class TestValues:
    def test_paddlerecs_configuration_loads(self, write: Write, tmp_path: Path) -> None:
        config = Config.load(write(PADDLEREC))
        runner, net = config.runner, config.hyper_parameters
        assert runner.train_data_dir == tmp_path / "data/train"
        assert runner.test_data_dir == tmp_path.parent / "test"
        assert runner.dump_fields == ("item_input", "user_input")
        assert runner.infer_epochs == range(2, 3)
        assert (runner.pipe_command, runner.need_dump) == ("python queuedataset_reader.py", True)
        assert (net.optimizer.class_, net.num_users, net.fc_layers) == ("adam", 6040, (64, 32, 16, 8))

    def test_defaults(self, minimal: Path) -> None:
        config = Config.load(minimal)
        runner, net = config.runner, config.hyper_parameters
        assert (runner.sync_mode, runner.geo_step, runner.reader_type) == ("geo", 100, "QueueDataset")
        assert (runner.train_batch_size, runner.infer_batch_size, runner.pipe_command) == (512, 8192, "cat")
        assert (runner.start_timeout, runner.barrier_timeout) == (120.0, 3600.0)
        assert (runner.seed, runner.top_k, runner.test_data_dir, runner.run_dir) == (2022, 10, None, None)
        assert (net.optimizer.class_, net.optimizer.learning_rate) == ("adam", 0.001)
        assert (net.mode, net.mf_dim, net.fc_layers, net.num_users) == ("NCF_MLP", 8, (64, 32, 16, 8), None)
        assert runner.infer_epochs == range(1, 2)

    @pytest.mark.parametrize(
        ("override", "key", "value"),
        [
            (
                "hyper_parameters.optimizer.learning_rate=1e-3",
                "hyper_parameters.optimizer.learning_rate",
                1e-3,
            ),
            (
                "hyper_parameters.optimizer.learning_rate='1e-3'",
                "hyper_parameters.optimizer.learning_rate",
                1e-3,
            ),
            ("hyper_parameters.extra.weight_decay=1e-4", "hyper_parameters.extra.weight_decay", 1e-4),
            ("hyper_parameters.optimizer={class: sgd}", "hyper_parameters.optimizer.class", "sgd"),
            ("hyper_parameters.fc_layers=[32, 16]", "hyper_parameters.fc_layers", [32, 16]),
            ("runner.epochs='5'", "runner.epochs", 5),
            ("runner.train_batch_size=1e3", "runner.train_batch_size", 1000),
            ("runner.start_timeout=30", "runner.start_timeout", 30.0),
            ("runner.dataset_debug='True'", "runner.dataset_debug", True),
            ("runner.split_file_list=0", "runner.split_file_list", False),
            ("runner.pipe_command=python r.py --sep==", "runner.pipe_command", "python r.py --sep=="),
            ("runner.model_save_path=", "runner.model_save_path", None),
        ],
    )
    def test_converts_types_once(self, minimal: Path, override: str, key: str, value: object) -> None:
        converted = Config.load(minimal, [override])[key]
        assert (converted, type(converted)) == (value, type(value))

    def test_an_override_wins_over_the_file_and_the_last_over_the_first(self, write: Write) -> None:
        path = write("runner: {train_data_dir: train, epochs: 0}\nhyper_parameters: {extra: {a: 1, b: 2}}")
        config = Config.load(path, ["runner.epochs=3", "runner.epochs=4", "hyper_parameters.extra.b=5"])
        assert config.runner.epochs == 4
        assert config.hyper_parameters.extra == {"a": 1, "b": 5}

    def test_is_frozen(self, minimal: Path) -> None:
        config = Config.load(minimal)
        with pytest.raises(ValidationError, match="frozen"):
            config.runner.epochs = 5  # type: ignore[misc]
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.runner = config.runner  # type: ignore[misc]

    def test_empty_sections_are_defaults(self, write: Write) -> None:
        config = Config.load(write("runner: {train_data_dir: train}\nhyper_parameters:\n  extra:\n"))
        assert config.hyper_parameters.extra == {}

    def test_paths_start_at_the_yamls_folder_not_at_the_shells(
        self, minimal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "shell").mkdir()
        monkeypatch.chdir(tmp_path / "shell")
        config = Config.load(Path("../job.yaml"), ["runner.run_dir=here"])
        assert config.runner.train_data_dir == tmp_path / "train"
        assert config.runner.run_dir == tmp_path / "here"

    def test_the_net_is_the_users_beside_the_yaml_or_the_projects(self, minimal: Path, tmp_path: Path) -> None:
        assert Config.load(minimal).runner.model_path == environment.shipped("models/ncf/static_model.py")
        (tmp_path / "static_model.py").touch()
        assert Config.load(minimal).runner.model_path == tmp_path / "static_model.py"
        named = Config.load(minimal, ["runner.model_path=fl_mine.py"])
        assert named.runner.model_path == tmp_path / "fl_mine.py"

    def test_the_main_job_loads(self) -> None:
        config = Config.load(environment.shipped("configs/config_fl.yaml"))
        assert config.runner.train_data_dir == environment.shipped("datasets/movielens/fl_data/fl_train_data")
        assert (config.runner.epochs, config.hyper_parameters.num_users) == (20, None)


class TestAsPaddleRecsMapping:
    def test_get_gives_plain_values(self, write: Write, tmp_path: Path) -> None:
        config = Config.load(write(PADDLEREC))
        assert config.get("hyper_parameters.fc_layers") == [64, 32, 16, 8]
        assert config["runner.train_data_dir"] == str(tmp_path / "data/train")
        assert config.get("config_abs_dir") == str(tmp_path)
        assert config["yaml_path"] == str(tmp_path / "job.yaml")

    def test_get_of_what_is_unknown_or_unset_is_the_default(self, minimal: Path) -> None:
        config = Config.load(minimal)
        assert config.get("runner.use_auc", False) is False
        assert config.get("runner.infer_load_path", "model_output") == "model_output"
        assert config.get("runner.epochs.deeper") is None
        with pytest.raises(KeyError, match=r"runner\.use_auc"):
            config["runner.use_auc"]

    def test_its_keys_are_dotted(self, minimal: Path) -> None:
        config = Config.load(minimal)
        assert len(config) == len(list(config)) == len(dict(config))
        assert "hyper_parameters.optimizer.class" in config
        assert "runner.use_auc" not in config


class TestCopies:
    def test_a_dumped_copy_equals_its_original(self, write: Write, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        config = Config.load(write(PADDLEREC), ["hyper_parameters.extra={note: '1e-3', größe: [1.5, null]}"])
        config.dump(tmp_path / "run/config.yaml")
        assert Config.load(tmp_path / "run/config.yaml") == config

    def test_dump_below_a_file_is_refused(self, minimal: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be saved: File exists") as caught:
            Config.load(minimal).dump(minimal / "config.yaml")
        assert isinstance(caught.value.__cause__, OSError)

    def test_replace_checks(self, minimal: Path) -> None:
        config = Config.load(minimal)
        changed = config.replace(**{"runner.epochs": 5, "hyper_parameters.extra.dropout": 0.5})
        assert (config.runner.epochs, changed.runner.epochs) == (1, 5)
        assert changed.get("hyper_parameters.extra.dropout") == 0.5
        with pytest.raises(ConfigError, match=r"Config\.replace: runner\.epoch: unknown key"):
            config.replace(**{"runner.epoch": 5})

    def test_to_dict_is_a_copy(self, minimal: Path) -> None:
        config = Config.load(minimal, ["hyper_parameters.extra.a=1"])
        config.to_dict()["hyper_parameters"]["extra"]["a"] = 2
        assert config["hyper_parameters.extra.a"] == 1

    def test_sizes_come_from_the_data_unless_set(self, minimal: Path) -> None:
        config = Config.load(minimal, ["hyper_parameters.num_items=4000"]).with_sizes(6040, 3706)
        assert (config.hyper_parameters.num_users, config.hyper_parameters.num_items) == (6040, 4000)

    def test_sizes_that_the_data_contradicts_are_refused_together(self, minimal: Path) -> None:
        config = Config.load(minimal, ["hyper_parameters.num_users=100", "hyper_parameters.num_items=5"])
        with pytest.raises(ConfigError) as caught:
            config.with_sizes(6040, 3706)
        assert str(caught.value) == (
            "2 problems in the configuration:\n"
            f"{minimal}: hyper_parameters.num_users must be at least 6040, or an id of the data falls "
            "outside the embedding. Received: num_users=100. "
            "Set it to 6040, or leave the key out to take it from the data.\n"
            f"{minimal}: hyper_parameters.num_items must be at least 3706, or an id of the data falls "
            "outside the embedding. Received: num_items=5. "
            "Set it to 3706, or leave the key out to take it from the data."
        )


class TestRefusedValues:
    @pytest.mark.parametrize(
        ("override", "message"),
        [
            (
                "runner.epochs=0",
                "runner.epochs must be an integer of at least 1. Received: epochs=0 (int). Set it to 1 or more.",
            ),
            ("runner.epochs=2.5", "Received: epochs=2.5 (float)."),
            ("runner.epochs=true", "Received: epochs=True (bool)."),
            ("runner.epochs=", "Received: epochs=None (NoneType)."),
            ("runner.epochs={a: 1}", "Received: epochs={'a': 1} (dict)."),
            ("runner.epochs=.inf", "Received: epochs=inf (float)."),
            (
                "hyper_parameters.optimizer.learning_rate=0",
                "hyper_parameters.optimizer.learning_rate must be a number above 0. "
                "Received: learning_rate=0 (int). Set it to a finite number above 0.",
            ),
            (
                "runner.use_gpu=2",
                "must be true or false. Received: use_gpu=2 (int). Set it to true or false.",
            ),
            ("runner.run_dir=''", "must be a path, or null. Received: run_dir='' (str)."),
            ("runner.pipe_command=' '", "must be a text that is not empty."),
            (
                "runner.dump_fields=label",
                "must be a list of texts. Received: dump_fields='label' (str). Write it as [first, second].",
            ),
            (
                "runner.sync_mode=GEO",
                "must be one of geo, async, sync. Received: sync_mode='GEO' (str). Choose",
            ),
            (
                "runner.sync_mode=heter",
                "It needs GPU workers, and the workers here are CPU processes. Set it to",
            ),
            ("hyper_parameters.mode=NCF_MPL", "Received: mode='NCF_MPL' (str). Did you mean NCF_MLP?"),
            (
                "hyper_parameters.fc_layers=[64]",
                "a list of at least 2 integers of at least 1, the first one even",
            ),
            ("hyper_parameters.fc_layers=[63, 32]", "each half of it: set it to 64."),
            ("hyper_parameters.extra=5", "must be a mapping of names to values. Received: extra=5 (int)."),
            (
                "hyper_parameters.optimizer=adam",
                "hyper_parameters.optimizer must be a mapping of keys. Received: optimizer='adam' (str). "
                "Write its keys indented under it.",
            ),
        ],
    )
    def test_says_rule_value_and_remedy(self, minimal: Path, override: str, message: str) -> None:
        assert message in refusal(minimal, override)

    @pytest.mark.parametrize("name", ["DataLoader", "RecDataset"])
    def test_paddlerecs_python_loaders_are_refused_with_the_reason(self, minimal: Path, name: str) -> None:
        message = refusal(minimal, f"runner.reader_type={name}")
        assert f"Received: reader_type='{name}' (str). It feeds batches from Python" in message
        assert "Set it to QueueDataset; a reader of your own becomes the pipe_command." in message

    def test_names_the_file_or_the_option(self, write: Write) -> None:
        path = write("runner: {train_data_dir: train, epochs: 0}")
        assert refusal(path).startswith("job.yaml:1: runner.epochs must be")
        assert refusal(path, "runner.epochs=-1").startswith("option -o: runner.epochs must be")

    def test_a_required_key_is_missed(self, write: Write) -> None:
        assert refusal(write("runner:\n  epochs: 1\n")) == (
            "job.yaml:1: runner.train_data_dir is missing. Set it to the folder of training shards, shard k for worker "
            "k."
        )

    def test_a_dump_needs_a_folder_and_a_folder_no_dump(self, minimal: Path) -> None:
        assert refusal(minimal, "runner.need_dump=true") == (
            "option -o: runner.need_dump=true needs a folder to dump into. "
            "Set runner.dump_fields_path, or runner.need_dump to false."
        )
        assert not Config.load(minimal, ["runner.dump_fields_path=dump"]).runner.need_dump

    def test_epochs_to_evaluate_need_an_end_above_their_start(self, minimal: Path) -> None:
        message = refusal(minimal, "runner.infer_start_epoch=3", "runner.infer_end_epoch=3")
        assert "Received: infer_start_epoch=3, infer_end_epoch=3." in message

    def test_reports_every_problem_at_once(self, write: Write) -> None:
        path = write("runner: {train_data_dir: train, epochs: 0, geo_stp: 5}\nhyper_parameters: {mf_dim: x}")
        assert refusal(path, "runner.top_k") == (
            "4 problems in the configuration:\n"
            "option -o: must be key=value. Received: 'runner.top_k'. Did you mean runner.top_k=VALUE?\n"
            "job.yaml:1: runner.geo_stp: unknown key. Did you mean runner.geo_step?\n"
            "job.yaml:1: runner.epochs must be an integer of at least 1. "
            "Received: epochs=0 (int). Set it to 1 or more.\n"
            "job.yaml:2: hyper_parameters.mf_dim must be an integer of at least 1. "
            "Received: mf_dim='x' (str). Set it to 1 or more."
        )


class TestUnknownKeys:
    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("runner.epoch=5", "option -o: runner.epoch: unknown key. Did you mean runner.epochs?"),
            ("epochs=5", "epochs: unknown key. Did you mean runner.epochs?"),
            ("runer={epochs: 5}", "runer: unknown key. Did you mean runner?"),
            ("optimizer.lr=1", "optimizer.lr: unknown key. Did you mean hyper_parameters.optimizer.learning_rate?"),
            ("hyper_parameters.optimizer.lr=1", "Did you mean hyper_parameters.optimizer.learning_rate?"),
            ("runner.learning_rate=1", "Did you mean hyper_parameters.optimizer.learning_rate?"),
            ("runner.zzz=5", "runner.zzz: unknown key. Remove it; fl-rec config lists all keys."),
            (
                "hyper_parameters.dropout=0.1",
                "hyper_parameters.dropout: unknown key. A key of your own net goes under hyper_parameters.extra.",
            ),
            (
                "runner.with_coodinator=1",
                "runner.with_coodinator is no key here. Remove it: fleetrun --coordinator_num=1 starts a coordinator.",
            ),
            (
                "runner.use_auc=true",
                "runner.use_auc is no key here. Remove it: AUC is always measured.",
            ),
        ],
    )
    def test_suggests_what_was_meant(self, minimal: Path, override: str, message: str) -> None:
        assert message in refusal(minimal, override)


class TestUnreadableFiles:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "job.yaml: must hold a mapping of keys. Received: an empty file. Give a YAML file that"),
            ("- a\n- b\n", "job.yaml: must hold a mapping of keys. Received: a list."),
            ("runner:\n  epochs: [1,\n", "job.yaml: not valid YAML at line 3, column 1: "),
            (
                "runner:\n  epochs: 1\n  seed: 2\n  epochs: 3\n",
                "job.yaml: not valid YAML at line 4, column 3: the key epochs is there twice, remove one of them.",
            ),
            ("runner: 5\n", "job.yaml:1: runner must be a mapping of keys. Received: runner=5 (int)."),
            ("a: \x07\n", "job.yaml: not valid YAML: "),
        ],
    )
    def test_content(self, write: Write, content: str, message: str) -> None:
        assert message in refusal(write(content))

    def test_not_text(self, tmp_path: Path) -> None:
        (tmp_path / "job.yaml").write_bytes(b"\xff\xfe\x00")
        message = "job.yaml: cannot be read as a configuration: not UTF-8 text."
        assert message in refusal(tmp_path / "job.yaml")

    @pytest.mark.parametrize(
        ("name", "reason"), [("none.yaml", "No such file or directory"), ("folder", "Is a directory")]
    )
    def test_no_file(self, tmp_path: Path, name: str, reason: str) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(ConfigError) as caught:
            Config.load(tmp_path / name)
        assert f"{name}: cannot be read as a configuration: {reason}. Give a YAML file" in str(caught.value)
        assert isinstance(caught.value.__cause__, OSError)

    def test_an_override_that_is_no_yaml(self, minimal: Path) -> None:
        assert refusal(minimal, "runner.dump_fields=[a").startswith(
            "option -o runner.dump_fields=[a: not valid YAML at line 1, column 3: "
        )


class TestCommandLine:
    def parse(self, *arguments: str) -> Config:
        parser = argparse.ArgumentParser("tool")
        add_config_arguments(parser)
        return load_from_args(parser.parse_args(arguments))

    def test_options_repeat_and_take_several(self, minimal: Path) -> None:
        options = ["-o", "runner.epochs=5", "runner.seed=1", "--opt", "runner.top_k=3"]
        runner = self.parse("-m", str(minimal), *options).runner
        assert (runner.epochs, runner.seed, runner.top_k) == (5, 1, 3)

    def test_parsers_do_not_share_overrides(self, minimal: Path) -> None:
        self.parse("-m", str(minimal), "-o", "runner.epochs=5")
        assert self.parse("--config_yaml", str(minimal)).runner.epochs == 1

    def test_what_is_not_as_by_default(self, minimal: Path) -> None:
        plain = Config.load(minimal).changed()
        config = Config.load(minimal, ["runner.epochs=7", "runner.seed=2022", "hyper_parameters.fc_layers=[8, 4]"])
        assert config.changed() == {**plain, "runner.epochs": 7, "hyper_parameters.fc_layers": [8, 4]}
        assert set(plain) == {"runner.train_data_dir"}


@pytest.mark.parametrize(
    ("written", "read"),
    [("0.5", {"*": 0.5}), ("{a*: 1e-3, b: 0}", {"a*": 0.001, "b": 0.0}), ("", {})],
)
def test_weights_by_name(minimal: Path, written: str, read: dict[str, float]) -> None:
    config = Config.load(minimal, [f"hyper_parameters.l2={written}"])
    assert config.hyper_parameters.l2 == read


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("runner.rounds_per_epoch", "runner.exchanges_per_epoch", 3),
        ("privacy.users_per_round", "privacy.users_per_exchange", 0.5),
    ],
)
def test_a_keys_old_name_still_works(write: Write, old: str, new: str, value: float) -> None:
    section, name = old.split(".")
    lines = {"runner": ["  train_data_dir: train"], "privacy": []}
    lines[section].append(f"  {name}: {value}")
    path = write("\n".join([each for key in lines for each in (f"{key}:", *lines[key])]))
    for config in (
        Config.load(path),
        Config.load(write(MINIMAL), [f"{old}={value}"]),
        Config.load(write(MINIMAL)).replace(**{old: value}),
    ):
        assert config[new] == config[old] == config.get(old) == value
        assert old not in list(config)
        assert config.notes == (f"{old} is now {new}; the old name still works.",)
        assert config.replace(**{"runner.epochs": 2}).notes == config.notes


def test_both_names_of_a_key(write: Write) -> None:
    keys = "runner:\n  train_data_dir: a\n  exchanges_per_epoch: 2\n  rounds_per_epoch: 3\n"
    assert refusal(write(keys)) == (
        "job.yaml:4: runner.rounds_per_epoch is the old name of runner.exchanges_per_epoch. Received: both. Remove the "
        "old one."
    )
    # An option goes before the file, whichever name each of them has.
    path = write(keys.replace("  rounds_per_epoch: 3\n", ""))
    assert Config.load(path, ["runner.rounds_per_epoch=5"]).runner.exchanges_per_epoch == 5


def test_tls_of_the_coordinator_is_that_of_all(write: Write, tmp_path: Path) -> None:
    files = "{cert: 'c/{name}.crt', key: c/k, ca: c/a, crl: c/l}"
    config = Config.load(write(f"{MINIMAL}tls: {files}\n"))
    assert config.tls.cert == tmp_path / "c" / "{name}.crt" and config["tls.key"] == str(tmp_path / "c" / "k")
    own = Tls.of(config.tls, "client-3")
    assert own is not None and (own.cert, own.crl) == (tmp_path / "c" / "client-3.crt", tmp_path / "c" / "l")
    assert Config.load(write(f"{MINIMAL}coordinator: {{round_timeout: 60, tls: {files}}}\n")) == config
    assert Config.load(write(MINIMAL), [f"coordinator.tls={files}"]) == config
    config.dump(tmp_path / "copy.yaml")
    assert Config.load(tmp_path / "copy.yaml") == config
    assert refusal(write(f"{MINIMAL}coordinator:\n  tls: {{certs: c}}\n")) == (
        "job.yaml:3: tls.certs: unknown key. Did you mean tls.cert?"
    )
    assert refusal(write(MINIMAL), "coordinator.tls.cert=c") == (
        "option -o: tls.cert, tls.key and tls.ca go together. Received: cert=c, key=null, ca=null. Set the others too, "
        "or leave all of them out."
    )
    assert refusal(write(MINIMAL), "tls.crl=c") == (
        "option -o: tls.crl has certificates that are not taken any more. Received: crl=c, cert=null. Set tls.cert, "
        "tls.key and tls.ca too, or leave it out."
    )


def test_a_rule_between_keys_is_told_where_one_of_them_was_written(write: Write) -> None:
    path = write("hyper_parameters: {mode: NCF_NeuMF}\nrunner: {train_data_dir: a}\n")
    assert refusal(path, "hyper_parameters.pretrained_mlp=b").startswith("option -o: hyper_parameters.pretrained_gmf")


LINES = """\
runner:
  train_data_dir: train
  # a comment
  epochs: 0

  keep_zeros: true
coordinator:
  clients:
    1: {slow_down: 5}
    "2":
      slow_down: 0.5
      bandwith: 3
    x: {}
hyper_parameters:
  optimizer: {class: sgd,
    learning_rate: fast}
  pretrained_gmf: there
  mode: NCF_NeuMF
distillation: {students: {0: 3}}
"""


def test_every_problem_has_its_place(write: Write) -> None:
    assert refusal(write(LINES), "privacy.clip=1", "coordinator.clients.1.slow_down=0").splitlines() == [
        "9 problems in the configuration:",
        "job.yaml:12: coordinator.clients.2.bandwith: unknown key. Did you mean bandwidth?",
        "job.yaml:4: runner.epochs must be an integer of at least 1. Received: epochs=0 (int). Set it to 1 or more.",
        "job.yaml:16: hyper_parameters.optimizer.learning_rate must be a number above 0. Received: "
        "learning_rate='fast' (str). Set it to a finite number above 0.",
        "job.yaml:11: coordinator.clients.2.slow_down must be a number of at least 1. Received: slow_down=0.5 (float). "
        "Set it to a finite number of at least 1.",
        "job.yaml:8: coordinator.clients must be a mapping of client numbers to type, slow_down, bandwidth. Received: "
        "clients={1: {'slow_down': 5}, '2': {'slow_down': 0.5, 'bandwith': 3}, 'x': {}, '1': {'slow_down': 0}} (dict). "
        "Write it as 3: {slow_down: 5}; * is all others.",
        "option -o: coordinator.clients.1.slow_down must be a number of at least 1. Received: slow_down=0 (int). "
        "Set it to a finite number of at least 1.",
        "job.yaml:19: distillation.students must be a mapping of client numbers to mappings. Received: "
        "students={0: 3} (dict). Write it as 3: {mf_dim: 8}; * is all others.",
        # Rules between keys, where none of the keys is refused itself.
        "job.yaml:17: hyper_parameters.pretrained_gmf and pretrained_mlp go together: NCF_NeuMF starts from both nets. "
        "Received: pretrained_gmf=there, pretrained_mlp=null. Set the other one too, or leave both out.",
        "job.yaml:6: runner.keep_zeros=true keeps the zeros of a model to start from, and noise for privacy would fall "
        "on them. Received: warmup_model_path=null, privacy.clip=1.0. Name a model that `fl-rec compress --prune` "
        "wrote in runner.warmup_model_path and leave privacy.clip out, or leave keep_zeros out.",
    ]


def test_devices_are_typed(minimal: Path) -> None:
    config = Config.load(minimal, ["coordinator.clients={3: {slow_down: '5'}, '*': {type: phone}}"])
    devices = config.coordinator
    assert (devices.client(3), devices.client(4)) == (ClientConfig(slow_down=5.0), ClientConfig(type="phone"))
    assert config["coordinator.clients.3"] == {"type": "machine", "slow_down": 5.0, "bandwidth": None}
    assert Config.load(minimal).coordinator.client(0) == ClientConfig()


def test_what_is_read_is_a_copy(minimal: Path) -> None:
    config = Config.load(minimal, ["hyper_parameters.extra.a=[1]"])
    config["hyper_parameters.extra.a"].append(2)
    config.get("hyper_parameters.fc_layers").append(2)
    assert config["hyper_parameters.extra.a"] == [1] and config["hyper_parameters.fc_layers"] == [64, 32, 16, 8]
