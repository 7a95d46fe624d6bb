from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = next(
    line.split('"')[1]
    for line in (here / "fl_rec" / "__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)

# The accountant of differential privacy. From 0.4.1 on it does not run on Python 3.8, whatever its wheels say.
dp = ["dp-accounting>=0.4.3; python_version>='3.9'", "dp-accounting==0.4.0; python_version<'3.9'"]

# Two at a time: jobs of the integration tests mostly wait.
test = ["pytest>=7", "pytest-xdist>=3", *dp]

setup(
    name="fl_rec",
    version=version,
    description="Federated training of recommenders on PaddlePaddle's parameter server",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["fl_rec", "fl_rec.*"]),
    python_requires=">=3.8,<3.14",
    install_requires=[
        # Later wheels of PyPI were built without the parameter server.
        "paddlepaddle>=2.6.2,<3.1",
        # 7 breaks DistributedStrategy, 3.20 breaks the repr of Paddle 3.0.0's.
        "protobuf>=4.21,<7",
        # The coordinator's service, and its messages. Code that protoc generates would tie them to one protobuf.
        "grpcio>=1.60",
        "msgpack>=1.0",
        "numpy>=1.21",
        "pyyaml>=5.4",
        "pydantic>=2.7,<3",
        "scikit-learn>=1.0",
        # Which processes belong to a job, and whether they live.
        "psutil>=5.9",
        # Paddle imports it without saying so (pkg_resources, distutils) on Python 3.12 and later.
        "setuptools<81",
    ],
    extras_require={
        "paddle2": ["paddlepaddle==2.6.2", "numpy<2"],
        "dp": dp,
        "test": test,
        "dev": [*test, "pre-commit", "ruff", "mypy", "types-PyYAML", "types-psutil"],
    },
    entry_points={"console_scripts": ["fl-rec=fl_rec.cli:main"]},
)
