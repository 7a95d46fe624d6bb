"""The sources of data by name, and how `--source` says which is meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from fl_rec.data.sources.archive import Files
from fl_rec.data.sources.base import Dataset
from fl_rec.data.sources.movielens import movielens_100k, movielens_csv, movielens_dat
from fl_rec.data.sources.prepared import PADDLEREC_FILES, ncf, ncf_files, ncf_prefix, paddlerec
from fl_rec.data.sources.synthetic import synthetic
from fl_rec.data.sources.tabular import recbole, tabular
from fl_rec.errors import DataError, FLRecError
from fl_rec.plugins import Registry, did_you_mean, split_options, where_raised
from fl_rec.typed import options_of, read_options

Source = Callable[..., Dataset]


SOURCES: Registry[Source] = Registry(
    "a source of data",
    "--source",
    {
        "synthetic": synthetic,
        "tabular": tabular,
        "recbole": recbole,
        "movielens-1m": movielens_dat,
        "movielens-10m": movielens_dat,
        "movielens-100k": movielens_100k,
        "movielens-csv": movielens_csv,
        "paddlerec": paddlerec,
        "ncf": ncf,
    },
)


# The files by which a folder or zip is recognised, each with the names that it may have.
_RECOGNISED_BY = {
    "movielens-1m": (("ratings.dat",),),
    "movielens-100k": (("u.data",),),
    "movielens-csv": (("ratings.csv",), ("movies.csv",)),
    "paddlerec": PADDLEREC_FILES,
}


def load_source(source: str, seed: int, given: Mapping[str, str] = MappingProxyType({})) -> Dataset:
    """Load a source of data.

    Args:
        source: a table, a folder, a zip, or the path prefix of the NCF paper's files, recognised by what it holds; one
            of `SOURCES`, ``module:function`` or ``file.py:function``, each with ``:key=value,...``.
        seed: of what is random in it.
        given: more options.

    Raises:
        ConfigError: there is no such function, or it has no such options.
        DataError: no known layout fits, a file is malformed, or the function failed.
    """
    path = Path(source)
    name = "" if source == "synthetic" else recognise(path)
    options: dict[str, str] = {"path": source}
    if not name:
        name, options = split_options(source)
    if name not in SOURCES and ":" not in name:
        near = did_you_mean(name, SOURCES)
        raise DataError(
            "--source must be 'synthetic', a table, a folder or zip in a known layout, or file.py:function. Received: "
            f"{source}{'' if path.exists() else ', which does not exist'}. {near}{' ' * bool(near)}Looked for "
            "ratings.dat (MovieLens 1M, 10M); u.data (MovieLens 100K); ratings.csv and movies.csv (MovieLens 20M and "
            "later); NAME.inter (RecBole); big_train/train_data.csv and big_test/test_data.csv (PaddleRec); "
            "*.train.rating and *.test.rating (NCF paper, folder or path prefix, may be .gz)."
        )
    function = SOURCES.find(name)
    keys = read_options(options_of(function, name), {**options, **given}, f"--source {name}", Path())
    try:
        dataset = function(seed, **dict(keys))
    except FLRecError:
        raise
    except Exception as err:  # a user's function may fail in any way
        raise DataError(f"The source {name} failed: {type(err).__name__}: {err}{where_raised(err)}") from err
    if not isinstance(dataset, Dataset):
        raise DataError(f"The source {name} must return a Dataset. Received: {type(dataset).__name__}.")
    return dataset


def recognise(path: Path) -> str:
    """The name of the source that a path's files are of; '' if they are of none."""
    if path.is_dir() or (path.suffix == ".zip" and path.exists()):
        files = Files(path)
        for name, needed in _RECOGNISED_BY.items():
            if all(files.find(*names) for names in needed):
                return name
        if files.ending(".inter"):
            return "recbole"
        if path.suffix == ".zip":
            return "tabular"
    elif path.is_file() and path.suffix != ".py":
        return "tabular"
    return "ncf" if ncf_files(ncf_prefix(path)) else ""
