"""The sources of data by name, and how `--source` says which is meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fl_rec.data.sources.base import Dataset, Files
from fl_rec.data.sources.movielens import movielens_1m, movielens_100k
from fl_rec.data.sources.prepared import PADDLEREC_FILES, ncf, ncf_files, ncf_prefix, paddlerec
from fl_rec.data.sources.synthetic import synthetic
from fl_rec.errors import DataError, FLRecError
from fl_rec.plugins import Registry, did_you_mean, split_options, where_raised
from fl_rec.typed import options_of, read_options

Source = Callable[..., Dataset]


SOURCES: Registry[Source] = Registry(
    "a source of data",
    "--source",
    {
        "synthetic": synthetic,
        "movielens-1m": movielens_1m,
        "movielens-100k": movielens_100k,
        "paddlerec": paddlerec,
        "ncf": ncf,
    },
)


# The files by which a folder or zip is recognised, each with the names that it may have.
_RECOGNISED_BY = {
    "movielens-1m": (("ratings.dat",), ("users.dat",)),
    "movielens-100k": (("u.data",), ("u.user",)),
    "paddlerec": PADDLEREC_FILES,
}


def load_source(source: str, seed: int) -> Dataset:
    """Load a source of data.

    Args:
        source: a folder, a zip, or the path prefix of the NCF paper's files, recognised by what it holds; one of
            `SOURCES`, ``module:function`` or ``file.py:function``, each with ``:key=value,...``.
        seed: of what is random in it.

    Raises:
        ConfigError: there is no such function, or it has no such options.
        DataError: no known layout fits, a file is malformed, or the function failed.
    """
    path = Path(source)
    known = "" if source == "synthetic" else _recognise(path)
    if known:
        return SOURCES.find(known)(seed, path=path)
    name, given = split_options(source)
    if name not in SOURCES and ":" not in name:
        near = did_you_mean(name, SOURCES)
        raise DataError(
            "--source must be 'synthetic', a folder or zip in a known layout, or file.py:function. Received: "
            f"{source}{'' if path.exists() else ', which does not exist'}. {near}{' ' * bool(near)}Looked for "
            "ratings.dat and users.dat (MovieLens 1M); u.data and u.user (MovieLens 100K); big_train/train_data.csv "
            "and big_test/test_data.csv (PaddleRec); *.train.rating and *.test.rating (NCF paper, folder or path "
            "prefix, may be .gz)."
        )
    function = SOURCES.find(name)
    options = read_options(options_of(function, name), given, f"--source {name}", Path())
    try:
        dataset = function(seed, **dict(options))
    except FLRecError:
        raise
    except Exception as err:  # a user's function may fail in any way
        raise DataError(f"The source {name} failed: {type(err).__name__}: {err} ({where_raised(err)})") from err
    if not isinstance(dataset, Dataset):
        raise DataError(f"The source {name} must return a Dataset. Received: {type(dataset).__name__}.")
    return dataset


def _recognise(path: Path) -> str:
    """The name of the source that a path's files are of; '' if they are of none."""
    if path.exists() and path.suffix != ".py":
        files = Files(path)
        for name, needed in _RECOGNISED_BY.items():
            if all(files.find(*names) for names in needed):
                return name
    return "ncf" if ncf_files(ncf_prefix(path)) else ""
