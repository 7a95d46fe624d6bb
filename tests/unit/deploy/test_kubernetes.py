"""deploy/kubernetes: manifests of their kinds' schemas, which agree with each other and with the command line."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fl_rec.cli import parsers
from fl_rec.errors import RunError
from fl_rec.runs.roles import Role
from tests.manifests import FOLDER, named, objects, operators, pods, templates

DEFINITIONS = json.loads((Path(__file__).parent / "schemas" / "kubernetes.json").read_text())["$defs"]
KINDS = {
    ("v1", "ConfigMap"): "io.k8s.api.core.v1.ConfigMap",
    ("v1", "Service"): "io.k8s.api.core.v1.Service",
    ("batch/v1", "Job"): "io.k8s.api.batch.v1.Job",
    ("networking.k8s.io/v1", "NetworkPolicy"): "io.k8s.api.networking.v1.NetworkPolicy",
}
LABELS = {"app.kubernetes.io/instance": "fl-rec"}

# Of a pod's fields those that the operator's CRD knows, in release 0.3.5: others are dropped silently.
POD_FIELDS = (
    *("activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "containers", "dnsConfig", "dnsPolicy"),
    *("enableServiceLinks", "hostAliases", "hostIPC", "hostNetwork", "hostPID", "hostname", "imagePullSecrets"),
    *("initContainers", "nodeName", "nodeSelector", "os", "overhead", "preemptionPolicy", "priority"),
    *("priorityClassName", "readinessGates", "restartPolicy", "runtimeClassName", "schedulerName", "securityContext"),
    *("serviceAccount", "serviceAccountName", "setHostnameAsFQDN", "shareProcessNamespace", "subdomain"),
    *("terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints", "volumes"),
)


def paddle_job() -> dict[str, Any]:
    """The schema of a PaddleJob, by the operator's types."""

    def an_object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}

    whole, text = {"type": "integer", "minimum": 0}, {"type": "string"}
    roles = an_object(
        ("replicas", "template"),
        replicas=whole,
        requests=whole,
        limits=whole,
        template=an_object(
            ("spec",),
            metadata=ref("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"),
            spec={"allOf": [ref("io.k8s.api.core.v1.PodSpec"), {"propertyNames": {"enum": list(POD_FIELDS)}}]},
        ),
    )
    return an_object(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "batch.paddlepaddle.org/v1"},
        kind={"const": "PaddleJob"},
        metadata=ref("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"),
        spec=an_object(
            cleanPodPolicy={"enum": ["Always", "Never", "OnFailure", "OnCompletion"]},
            intranet={"enum": ["PodIP", "Service", "Host"]},
            withGloo={"enum": [0, 1, 2]},
            elastic=whole,
            schedulingPolicy=an_object(
                minAvailable=whole, queue=text, priorityClass=text, minResources={"type": "object"}
            ),
            ps=roles,
            worker=roles,
            heter=roles,
        ),
    )


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


def check(item: Mapping[str, Any]) -> None:
    """Raises ValidationError if an object is not of its kind's schema."""
    known = KINDS.get((item["apiVersion"], item["kind"]))
    jsonschema.Draft202012Validator({**(ref(known) if known else paddle_job()), "$defs": DEFINITIONS}).validate(item)


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir()))
def test_manifests_are_of_their_kinds_schemas(name: str) -> None:
    for item in objects(name):
        check(item)
        assert item["metadata"]["labels"] == LABELS


def test_a_wrong_field_is_found() -> None:
    def refused(item: Mapping[str, Any], match: str, *path: Any, **fields: Any) -> None:
        wrong = copy.deepcopy(item)
        place = wrong
        for each in path:
            place = place[each]
        place.update(fields)
        with pytest.raises(jsonschema.ValidationError, match=match):
            check(wrong)

    job, paddle = named("jobs.yaml", "Job", "fl-rec-worker"), named("paddlejob.yaml", "PaddleJob", "fl-rec")
    of_job, of_paddle = ("spec", "template", "spec"), ("spec", "worker", "template", "spec")
    refused(job, "'completion' was unexpected", "spec", completion=3)
    refused(job, "'3' is not of type 'integer'", "spec", completions="3")
    refused(job, "'readonlyRootFilesystem' was unexpected", *of_job, "containers", 0, "securityContext",
            readonlyRootFilesystem=True)  # fmt: skip
    refused(job, "'name' is a required property", *of_job, containers=[{"image": "fl_rec"}])
    refused(paddle, "'coordinator' was unexpected", "spec", coordinator={"replicas": 1})
    refused(paddle, "'PodIp' is not one of", "spec", intranet="PodIp")
    refused(paddle, "'hostnames' was unexpected", *of_paddle, hostnames=[])
    refused(paddle, "'schedulingGates' is not one of", *of_paddle, schedulingGates=[])  # which its CRD is too old for
    policy = named("common.yaml", "NetworkPolicy", "fl-rec")
    refused(policy, "'podselector' was unexpected", "spec", "ingress", 0, "from", 0, podselector={})
    refused(named("jobs.yaml", "Service", "fl-rec"), "was unexpected", "spec", headless=True)


@pytest.mark.parametrize("name", ["jobs.yaml", "paddlejob.yaml"])
def test_pods_may_do_as_little_as_can_be(name: str) -> None:
    every = list(templates(name))
    assert len(every) == 3
    for template in every:
        assert template["metadata"]["labels"] == LABELS  # or the policy would not hold for it
        spec = template["spec"]
        assert spec["restartPolicy"] == "OnFailure" and spec["automountServiceAccountToken"] is False
        user = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
        assert user.items() <= spec["securityContext"].items()
        volumes = {each["name"]: each for each in spec["volumes"]}
        for container in (*spec["initContainers"], *spec["containers"]):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
            mounted = {each["name"] for each in container["volumeMounts"]}
            assert mounted <= set(volumes)
            # Everybody's keys are seen by who takes its own alone.
            assert ("secret" in mounted) == (container["name"] == "prepare")
            writable = {each["name"] for each in container["volumeMounts"] if not each.get("readOnly")}
            assert all("emptyDir" in volumes[each] for each in writable)


def test_the_policy_lets_in_the_jobs_own_pods_alone() -> None:
    spec = named("common.yaml", "NetworkPolicy", "fl-rec")["spec"]
    own = {"podSelector": {"matchLabels": LABELS}}
    assert {"podSelector": spec["podSelector"]} == own and sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
    assert spec["ingress"] == [{"from": [own]}]
    names = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    assert spec["egress"] == [{"to": [own]}, {"ports": names}]


@pytest.mark.parametrize("name", ["jobs.yaml", "paddlejob.yaml"])
def test_every_address_is_a_pods(name: str) -> None:
    """And a Service gives each a name."""
    found = pods(name)
    (domain, servers, workers, coordinators), *others = {
        tuple(env[each] for each in ("DOMAIN", "SERVERS", "WORKERS", "COORDINATORS")) for env in found.values()
    }
    assert not others
    addresses = [each.rpartition(":")[0] for each in f"{servers},{workers},{coordinators}".split(",")]
    assert sorted(addresses) == sorted(f"{pod}{domain}" for pod in found)
    services = [each for each in objects(name) if each["kind"] == "Service"]
    for each in services:
        assert each["spec"]["clusterIP"] == "None" and each["spec"]["publishNotReadyAddresses"]
    if name == "jobs.yaml":
        assert [f".{each['metadata']['name']}" for each in services] == [domain]
        assert all(each["spec"]["subdomain"] == domain[1:] for each in templates(name))
        assert services[0]["spec"]["selector"] == LABELS
    else:  # the operator makes those of its own pods
        assert [each["metadata"]["name"] for each in services] == ["fl-rec-coordinator-0"]
        (job,) = (each["metadata"]["name"] for each in objects(name) if each["kind"] == "Job")
        assert services[0]["spec"]["selector"] == {"batch.kubernetes.io/job-name": job}


def test_a_role_comes_up_by_what_the_operator_sets() -> None:
    found = {pod: env for pod, env in pods("paddlejob.yaml").items() if "TRAINING_ROLE" in env}
    roles = {pod: Role.from_environment(env) for pod, env in found.items()}
    assert {pod: role.name for pod, role in roles.items()} == {
        "fl-rec-ps-0": "server.0",
        "fl-rec-ps-1": "server.1",
        "fl-rec-worker-0": "worker.0",
        "fl-rec-worker-1": "worker.1",
        "fl-rec-worker-2": "worker.2",
    }
    last = roles["fl-rec-worker-2"]
    assert (last.num_workers, last.own_workers, last.rendezvous) == (3, (2,), "fl-rec-ps-0:36018")
    assert last.server_endpoints == ("fl-rec-ps-0:36000", "fl-rec-ps-1:36000")
    # Which would have Paddle take a server for a worker.
    assert "PADDLE_TRAINER_ID" in roles["fl-rec-ps-1"].left_over(found["fl-rec-ps-1"])
    # Without the container's own PADDLE_PORT no server would find itself.
    job = named("paddlejob.yaml", "PaddleJob", "fl-rec")
    given, own = operators(job, "ps", 0)
    with pytest.raises(RunError, match=r"started by fleetrun.*ValueError"):
        Role.from_environment({**given, **own})


@pytest.mark.parametrize("name", ["jobs.yaml", "paddlejob.yaml"])
def test_the_scripts_give_each_pod_its_own(name: str, tmp_path: Path) -> None:
    """With commands that say how they are called; the folders of a pod are in one of the test's."""
    programs = {
        "fl-rec": 'printf "%s\\n" "$@" >>"$SAID"; '
        '[ "$1" != partition ] || ! rm "${0%/*}/killed" 2>/dev/null || exit 137; '
        "for k in 0 1 2; do for each in train test; do "
        'case $1 in new) mkdir -p "$2" ;; partition) mkdir -p data/fl_data/fl_${each}_data; '
        "touch data/fl_data/manifest.json data/fl_data/fl_${each}_data/part-00$k.txt ;; esac; done; done",
        "getent": '[ -e "$SAID.known" ] || { touch "$SAID.known"; exit 2; }',  # not at once
        "sleep": "exit 0",
        "hostname": 'echo "$POD"',
    }
    for program, text in programs.items():
        path = tmp_path / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    scripts = named("common.yaml", "ConfigMap", "fl-rec-scripts")["data"]
    secret = tmp_path / "secret"
    secret.mkdir()
    found = pods(name)
    domain = next(iter(found.values()))["DOMAIN"]
    for each in ("ca.crt", *(f"{pod}{domain}.{kind}" for pod in found for kind in ("crt", "key"))):
        (secret / each).touch()
    for each in ("client-0", "client-1", "client-2", "coordinator"):
        (secret / f"{each}.crt").touch()
        (secret / f"{each}.key").touch()
    worker, other = "fl-rec-worker-2", next(pod for pod in found if "worker" not in pod)
    for pod in (worker, other):
        folder = tmp_path / pod
        for each in ("tls", "runs", "project"):
            (folder / each).mkdir(parents=True)

        def play(script: str, pod: str = pod, folder: Path = folder) -> list[str]:
            text = scripts[script].replace("/secret/", f"{secret}/").replace("/tls", f"{folder}/tls")
            for each in ("runs", "project"):
                text = text.replace(f"/{each}/", f"{folder}/{each}/")
            env = {**found[pod], "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "POD": pod, "SAID": f"{folder}/said"}
            subprocess.run(["sh", "-c", text], env=env, check=True, timeout=20, stdout=subprocess.PIPE, text=True)
            said = (folder / "said").read_text().splitlines()
            (folder / "said").unlink()
            return said

        # Killed in the middle, as without memory: the kubelet starts it again, and nothing is left half done.
        (tmp_path / "bin" / "killed").touch()
        with pytest.raises(subprocess.CalledProcessError) as killed:
            play("prepare.sh")
        assert f"waiting for the name {next(iter(found.values()))['SERVERS'].partition(':')[0]}" in killed.value.stdout
        (folder / "said").unlink()
        assert [each for each in play("prepare.sh") if each in ("new", "prepare", "partition")] == [
            "new", "prepare", "partition"
        ]  # fmt: skip
        keys = {f"{pod}{domain}.crt", f"{pod}{domain}.key", "ca.crt"}
        keys |= {"client-2.crt", "client-2.key"} if pod == worker else set()
        keys |= {"coordinator.crt", "coordinator.key"} if "coordinator" in pod else set()
        assert {path.name for path in (folder / "tls").iterdir()} == keys
        assert all(path.stat().st_mode & 0o077 == 0 for path in (folder / "tls").iterdir())
        data = folder / "project" / "shop" / "data" / "fl_data"
        shards = {f"fl_{each}_data/part-002.txt" for each in ("train", "test")} if pod == worker else set()
        files = {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}
        assert files == {"manifest.json", *shards}

        command, *arguments = play("start.sh")
        options = parsers([command])[1][command].parse_args(arguments)
        assert command == "run" and options.host == f"{pod}{domain}"
        assert (options.servers, options.workers, options.coordinators) == (
            found[pod]["SERVERS"], found[pod]["WORKERS"], found[pod]["COORDINATORS"]
        )  # fmt: skip
        assert f"runner.run_dir={folder}/runs/job" in options.opt
        (folder / "runs" / "job").mkdir()
        (folder / "runs" / "job" / "launch.json").touch()
        command, *arguments = play("start.sh")
        resumed = parsers([command])[1][command].parse_args(arguments)
        assert (command, resumed.run) == ("resume", folder / "runs" / "job")
        # What is code, or names it, is not taken from a run's folder.
        assert (resumed.config_yaml, resumed.script) == (options.config_yaml, options.script)
        assert set(options.opt) - set(resumed.opt) == {f"runner.run_dir={folder}/runs/job"}
