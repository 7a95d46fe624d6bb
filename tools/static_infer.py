"""Evaluates saved models on the whole test data, without fleet.

    python tools/static_infer.py -m configs/config_fl.yaml -o runner.infer_load_path=../runs/NAME/model

Keys: runner.infer_load_path, infer_start_epoch, infer_end_epoch, test_data_dir, infer_batch_size, top_k.
"""

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fl_rec.config import add_config_arguments, load_from_args
from fl_rec.errors import ConfigError, DataError, FLRecError
from fl_rec.metrics import AucBuckets, EpochMetrics
from fl_rec.preflight import list_shards
from fl_rec.reader import Reader


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_config_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        for figures in evaluate(load_from_args(options)):
            print(json.dumps(figures), flush=True)
    except FLRecError as err:
        print(f"static_infer.py: error: {err}", file=sys.stderr)
        return 2
    return 0


def evaluate(config):
    """Yields each saved epoch's figures on all test shards together."""
    import paddle

    from fl_rec import checkpoint
    from fl_rec.evaluation import TestRows

    runner = config.runner
    folder = runner.infer_load_path or runner.model_save_path
    if folder is None or runner.test_data_dir is None:
        raise ConfigError(
            "An evaluation needs saved models and test data. Received: "
            f"runner.infer_load_path={folder}, runner.test_data_dir={runner.test_data_dir}. Set both."
        )
    paddle.enable_static()
    reader = Reader.from_config(config, config.yaml_path, Path(os.devnull))
    rows: list[TestRows] = []
    for epoch in runner.infer_epochs:
        # A client's shard is scored with its own private part, if there are any.
        clients = checkpoint.clients(folder / str(epoch)) or [None]
        nets = [checkpoint.load(folder / str(epoch), client) for client in clients]
        if not rows:
            shards = list_shards(runner.test_data_dir, "test_data_dir")
            if len(nets) > 1 and len(nets) != len(shards):
                raise DataError(
                    "A model with private parts is evaluated on the test shards of the workers that have trained it. "
                    f"Received: {len(nets)} parts in {folder / str(epoch)} and {len(shards)} shards in "
                    f"{runner.test_data_dir}. Set runner.test_data_dir to the shards it was trained with."
                )
            portions = [shards] if len(nets) == 1 else [[shard] for shard in shards]
            rows = [TestRows.read(files, reader, len(nets[0].feeds) + 1, runner.start_timeout) for files in portions]
        measured = [each.measure(net, runner.infer_batch_size, runner.top_k) for each, net in zip(rows, nets)]
        metrics = EpochMetrics.total(
            [
                EpochMetrics(
                    client=None,
                    epoch=epoch,
                    rows=0,
                    seconds=0.0,
                    loss_sum=0.0,
                    train=AucBuckets.empty(),
                    test=buckets,
                    test_users=ranked.users,
                    hits=ranked.hits,
                    ndcg_sum=ranked.ndcg_sum,
                    top_k=runner.top_k,
                )
                for buckets, ranked in measured
            ]
        )
        record = metrics.to_record()
        yield {name: record[name] for name in ("epoch", "test_auc", "test_users", "hr", "ndcg", "top_k")}


if __name__ == "__main__":
    sys.exit(main())
