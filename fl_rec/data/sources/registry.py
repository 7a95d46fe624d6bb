"""Finding the layout of a source."""

from __future__ import annotations

from pathlib import Path

from fl_rec.data.sampling import Stream, generator
from fl_rec.data.sources.base import Dataset, Files
from fl_rec.data.sources.movielens import movielens_1m, movielens_100k
from fl_rec.data.sources.prepared import ncf, ncf_files, ncf_prefix, paddlerec
from fl_rec.data.sources.synthetic import SYNTHETIC, synthetic
from fl_rec.errors import DataError


def load_source(source: str, seed: int) -> Dataset:
    """Load ``source``: the word ``synthetic``, a folder, a zip, or the path prefix of the NCF paper's files.

    DataError if no known layout fits, saying which files were looked for, or if a file is malformed.
    """
    if source == SYNTHETIC:
        return synthetic(generator(seed, Stream.SYNTHETIC))
    path = Path(source)
    if path.exists():
        files = Files(path)
        if files.find("ratings.dat") and files.find("users.dat"):
            return movielens_1m(files)
        if files.find("u.data") and files.find("u.user"):
            return movielens_100k(files)
        train = files.find("big_train/train_data.csv") or files.find("train_data.csv")
        test = files.find("big_test/test_data.csv") or files.find("test_data.csv")
        if train and test:
            return paddlerec(files, train, test)
    paper = ncf_files(ncf_prefix(path))
    if paper:
        return ncf(paper)
    raise DataError(
        f"--source must be '{SYNTHETIC}', or a folder or zip in a known layout. Received: {source}"
        f"{'' if path.exists() else ', which does not exist'}. Looked for ratings.dat and users.dat "
        "(MovieLens 1M); u.data and u.user (MovieLens 100K); big_train/train_data.csv and "
        "big_test/test_data.csv (PaddleRec); *.train.rating and *.test.rating (NCF paper, "
        "folder or path prefix, may be .gz)."
    )
