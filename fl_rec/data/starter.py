"""The configuration that a job on data of one's own starts from."""

from __future__ import annotations

from pathlib import Path

from fl_rec.files import atomic_write

JOB_NAME = "job.yaml"

_TEXT = """\
# A job to start from: clients, each with its own shard of the data, train one model of all items. What a client learns
# of its users stays with it.
#
#   fl-rec run -m job.yaml          another value: -o runner.epochs=5; all keys: fl-rec config
#   fl-rec recommend --user ID      in this folder; elsewhere with --model FOLDER
#
# Paths start at this file's folder.

runner:
  # Data
  train_data_dir: {data}/fl_train_data  # shard k belongs to client k
  test_data_dir: {data}/fl_test_data    # evaluated after every epoch
{validation}  resample_negatives: 4         # for each item that a user has had, others, drawn anew in every epoch

  # Training
  sync_mode: geo
  exchanges_per_epoch: 5        # how often in an epoch the clients share what they have learnt of items
  epochs: 20
  train_batch_size: 32          # rows of a step; with millions of rows 256 is faster

hyper_parameters:
  optimizer:
    class: adam
    learning_rate: 0.005
  mode: NCF_GMF                 # a user's vector times an item's; NCF_MLP and NCF_NeuMF have layers over them
  mf_dim: 16                    # length of a vector; more for more data
"""
_VALIDATION = "  validation_data_dir: {data}/fl_valid_data  # by which the best epoch is chosen\n"


def write_starter(path: Path, data: Path, validated: bool) -> bool:
    """Writes it, unless somebody has changed what is there.

    Args:
        path: of the file.
        data: the folder of the shards, relative to the file's.
        validated: whether there are validation shards.

    Returns:
        whether it was written.

    Raises:
        OSError: it can't be.
    """
    without, given = (_TEXT.format(data=data, validation=line.format(data=data)).encode() for line in ("", _VALIDATION))
    if path.exists() and path.read_bytes() not in (without, given):
        return False
    with atomic_write(path) as file:
        file.write(given if validated else without)
    return True
