"""The manifests of deploy/kubernetes, and what their pods have in their environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "kubernetes"


def objects(*names: str) -> list[dict[str, Any]]:
    documents = [each for name in names for each in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8"))]
    return [item for each in documents for item in (each["items"] if each["kind"] == "List" else [each])]


def named(name: str, kind: str, title: str) -> dict[str, Any]:
    (found,) = (each for each in objects(name) if (each["kind"], each["metadata"]["name"]) == (kind, title))
    return found


def templates(name: str) -> Iterator[dict[str, Any]]:
    for each in objects(name):
        if each["kind"] == "Job":
            yield each["spec"]["template"]
        if each["kind"] == "PaddleJob":
            yield from (each["spec"][kind]["template"] for kind in ("ps", "worker"))


def pods(name: str) -> dict[str, dict[str, str]]:
    """What a file's pods have in their environment, by their hostnames: as an indexed Job's or as the operator's."""
    found: dict[str, dict[str, str]] = {}
    for item in objects(name):
        if item["kind"] == "Job":
            for index in range(item["spec"]["completions"]):
                template = item["spec"]["template"]
                own = {"JOB_COMPLETION_INDEX": str(index)}
                found[f"{item['metadata']['name']}-{index}"] = environment(name, template, {}, own)
        if item["kind"] == "PaddleJob":
            for kind in ("ps", "worker"):
                for index in range(item["spec"][kind]["replicas"]):
                    pod = f"{item['metadata']['name']}-{kind}-{index}"
                    given, own = operators(item, kind, index)
                    found[pod] = environment(name, item["spec"][kind]["template"], given, own)
    return found


def environment(
    name: str, template: Mapping[str, Any], given: Mapping[str, str], own: Mapping[str, str]
) -> dict[str, str]:
    """A container's variables. Those of its own come before those of a ConfigMap, as Kubernetes has it."""
    (container,) = template["spec"]["containers"]
    addresses = named(name, "ConfigMap", container["envFrom"][0]["configMapRef"]["name"])["data"]
    return {**given, **addresses, **{each["name"]: each["value"] for each in container.get("env", [])}, **own}


def operators(job: Mapping[str, Any], kind: str, index: int) -> tuple[dict[str, str], dict[str, str]]:
    """What the operator 0.3.5 gives a pod where pods have Services: by its ConfigMap, and by the container itself."""
    name, spec = job["metadata"]["name"], job["spec"]
    assert spec["intranet"] == "Service" and spec["withGloo"] == 1

    def addresses(kind: str, port: int = 36000) -> list[str]:
        return [f"{name}-{kind}-{number}:{port}" for number in range(spec[kind]["replicas"])]

    role = {"ps": "PSERVER", "worker": "TRAINER"}[kind]
    given = {
        "TRAINER_PORTS_NUM": "20",
        "PADDLE_PORT": "48113",  # of its choice, from 36000 on
        "PADDLE_PSERVERS_IP_PORT_LIST": ",".join(addresses("ps")),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(addresses("worker")),
        "PADDLE_TRAINERS": ",".join(each.partition(":")[0] for each in addresses("worker")),
        "PADDLE_TRAINERS_NUM": str(spec["worker"]["replicas"]),
        "PADDLE_WITH_GLOO": "1",
        "PADDLE_GLOO_RENDEZVOUS": "3",
        "PADDLE_GLOO_HTTP_ENDPOINT": addresses("ps", 36018)[0],
    }
    own = {"POD_IP": f"{name}-{kind}-{index}", "PADDLE_TRAINER_ID": str(index), "TRAINING_ROLE": role}
    return given, {**own, "PADDLE_TRAINING_ROLE": role}
