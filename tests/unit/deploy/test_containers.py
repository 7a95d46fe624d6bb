"""deploy/Dockerfile and deploy/compose.yaml, as far as they can be looked at without an engine; .ci/image builds it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fl_rec.cli import parsers
from fl_rec.commands import certs

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = ROOT / "deploy" / "compose.yaml"
SCHEMA = json.loads((Path(__file__).parent / "schemas" / "compose.json").read_text())


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest) of the Dockerfile, in order."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8"))
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(each.split()[0], each.split(maxsplit=1)[1]) for each in lines if each]


def test_the_image_is_not_root_and_has_no_compiler() -> None:
    found = instructions()
    (_, last) = [position for position, (name, _) in enumerate(found) if name == "FROM"]
    assert found[0][1].split()[0] == found[last][1]  # one Python in both stages
    final = dict(found[last:])
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", final["USER"])
    assert json.loads(final["ENTRYPOINT"])[-1] == "fl-rec" and final["HEALTHCHECK"] == "NONE"
    (installed,) = (text for name, text in found[last:] if name == "RUN")
    assert not re.search(r"\b(gcc|g\+\+|build-essential|python3-(dev|pip|venv))\b", installed)
    for name, text in found:
        assert name != "ADD"
        if name == "RUN" and "apt-get install" in text:
            assert "--no-install-recommends" in text and "rm -rf /var/lib/apt/lists/*" in text
        if name == "RUN" and "pip install" in text:
            assert text.count("pip install --no-cache-dir --only-binary=:all:") == text.count("pip install")
    # What is compiled in one stage is looked for in the other by the same variables.
    cpu = [text for name, text in found if name in ("ARG", "ENV") and "CPU" in text]
    assert len(cpu) == 4 and cpu[0] == cpu[2] and cpu[3].startswith(cpu[1])


def test_the_image_is_built_from_all_that_the_package_has(tmp_path: Path) -> None:
    """What .dockerignore lets through makes the same wheel as the clone."""
    allowed = [each[1:] for each in (ROOT / ".dockerignore").read_text().splitlines() if each.startswith("!")]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
    for each in listed.stdout.splitlines():
        path = Path(each)
        if any(path.match(pattern) or Path(pattern) in (path, *path.parents) for pattern in allowed):
            target = tmp_path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / path).read_bytes())
    names = (
        "import json, setuptools; setuptools.setup = lambda **k: print(json.dumps([k['packages'], k['package_dir']]))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", f"{names}; exec(open('setup.py').read(), dict(__file__='setup.py'))"],
            **{"cwd": folder, "capture_output": True, "text": True, "check": True, "timeout": 60},
        ).stdout
        for folder in (ROOT, tmp_path)
    ]
    assert said[0] == said[1]
    packages, folders = json.loads(said[0])
    assert len(packages) > 20
    for folder in folders.values():
        assert (tmp_path / folder).is_dir(), folder
    assert not (tmp_path / "tests").exists()


def compose(environment: dict[str, str] | None = None) -> dict[str, Any]:
    """The file with the defaults of its variables, or what an environment says."""

    def value(found: re.Match[str]) -> str:
        return (environment or {}).get(found[1], found[2])

    # The first brace ends it, as Compose has it.
    text = re.sub(r"\$\{(\w+):-([^}]*)\}", value, COMPOSE.read_text(encoding="utf-8"))
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def test_compose_is_of_its_schema() -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(compose())
    wrong_fields: list[tuple[tuple[str, ...], str]] = [
        ((), "service"),
        (("services", "worker-1"), "read-only"),
        (("networks", "job"), "intern"),
    ]
    for path, field in wrong_fields:
        wrong = compose()
        place = wrong
        for each in path:
            place = place[each]
        place[field] = True
        with pytest.raises(jsonschema.ValidationError, match=f"^'{field}' does not match any of the regexes"):
            jsonschema.Draft202012Validator(SCHEMA).validate(wrong)


def test_composes_hosts_are_a_job() -> None:
    services = compose()["services"]
    setup, hosts = services.pop("setup"), services
    folder = Path("/certs")
    (script,) = setup["command"]
    made = shlex.split(next(line for line in script.splitlines() if "fl-rec certs" in line).rpartition("fl-rec ")[2])
    options = parsers(["certs"])[1]["certs"].parse_args(made[1:])
    assert options.folder == folder
    given = certs._parties(options.clients, options.hosts)
    addresses: set[tuple[str, ...]] = set()
    for name, service in hosts.items():
        program = [*shlex.split(service["entrypoint"]), *service["command"]]
        assert program[:4] == ["tini", "--", "fl-rec", "run"]
        options = parsers(["run"])[1]["run"].parse_args(program[4:])
        assert options.host == name and str(options.config_yaml) == "/project/shop/job.yaml"
        assert {"runner.run_dir=/runs/job", "tls.cert=/certs/{name}.crt"} <= set(options.opt)
        addresses.add((options.servers, options.workers, options.coordinators))
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["networks"] == ["job"]
        writable = [each for each in service["volumes"] if not each.endswith(":ro")]
        assert writable == [f"{name}:/runs"]
        assert name in given  # a certificate of its own
    ((servers, workers, coordinators),) = addresses
    named = [each.partition(":")[0] for each in f"{servers},{workers},{coordinators}".split(",")]
    assert sorted(named) == sorted(hosts)
    assert {f"client-{number}" for number in range(workers.count(",") + 1)} <= set(given)
    assert compose()["networks"]["job"] == {"internal": True}


def test_composes_run_is_resumed() -> None:
    service = compose({"RUN": "resume /runs/job"})["services"]["worker-1"]
    command, *arguments = [*shlex.split(service["entrypoint"]), *service["command"]][3:]
    options = parsers([command])[1][command].parse_args(arguments)
    assert (command, str(options.run), options.host) == ("resume", "/runs/job", "worker-1")
    assert options.opt[0] == "tls.cert=/certs/{name}.crt"
    assert str(options.config_yaml) == "/project/shop/job.yaml"  # a net of one's own is not taken from a run's folder
