"""The job that `fl-rec run` runs without a configuration."""

from __future__ import annotations

import argparse
from pathlib import Path

from fl_rec import environment
from fl_rec.data import prepare, shards
from fl_rec.data.manifest import MANIFEST_NAME
from fl_rec.files import atomic_write, locked

# As config_synthetic.yaml names it.
_DATA = "../datasets/movielens/synthetic"


def built_in() -> Path:
    """The configuration of the built-in job, whose data is made unless it is there.

    Inside a clone both are the clone's. Elsewhere they are made here, the data in `fl_rec_data`, and so runs land in
    `runs` here.

    Raises:
        FLRecError: something can't be written.
    """
    config = environment.shipped("configs/config_synthetic.yaml")
    data = (config.parent / _DATA).resolve()
    if environment.CLONE not in (Path.cwd(), *Path.cwd().parents):
        data = Path("fl_rec_data") / "synthetic"
        text = config.read_text(encoding="utf-8").replace(_DATA, str(data))
        config = Path(config.name)
        if not config.exists():  # it may have been changed since
            with atomic_write(config) as file:
                file.write(text.encode())
    made = data / "fl_data" / MANIFEST_NAME
    if made.is_file():
        return config
    with locked(data / ".lock"):
        if made.is_file():
            return config
        parser = argparse.ArgumentParser()
        prepare.add_arguments(parser)
        prepare.command(parser.parse_args(["--source", "synthetic", "--out", str(data)]))
        parser = argparse.ArgumentParser()
        shards.add_arguments(parser, data)
        shards.command(parser.parse_args([]))
    return config
