"""Plays a manifest of deploy/kubernetes with the image and without Kubernetes: each pod is a network namespace.

python -m tests.pods ROOT jobs.yaml --kill fl-rec-worker-1

ROOT is the image's root, mounted. A pod has that read-only, volumes of its own, its containers' scripts, user and
variables, and the others' names; a container that fails is started again. Neither limits nor the policy are played.
`.ci/image` calls it; it needs root.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.integration.namespaces import Host, namespaces, run_in
from tests.manifests import named, pods

DEADLINE, RESTARTS = 400.0, 2
VOLUMES = ("scripts", "secret", "tls", "project", "runs", "tmp")
# What deploy/Dockerfile sets.
IMAGE = {"HOME": "/work", "PATH": "/opt/fl_rec/bin:/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
IMAGE |= {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": ""}
# What a kubelet does, in a mount namespace and a process namespace of the container's own.
KUBELET = """
root=$1 pod=$2 volumes=$3 command=$4; shift 4
hostname "$pod"
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
mount -t proc proc "$root/proc"
for each in null urandom random; do mount --bind "/dev/$each" "$root/dev/$each"; done
for each in scripts secret tls project runs tmp; do mount --bind "$volumes/$each" "$root/$each"; done
mount --bind "$volumes/hosts" "$root/etc/hosts"
cd /
exec chroot --userspec=10001:10001 "$root" env -i "$@" sh -euc "cd /work; $command"
"""


class Pod:
    """One pod, with volumes in a folder of its own."""

    def __init__(self, name: str, env: Mapping[str, str], host: Host, root: Path, folder: Path) -> None:
        self.name, self._host, self._root, self._folder = name, host, root, folder / name
        self._variables = [f"{each}={value}" for each, value in {**IMAGE, **env}.items()]
        for each in VOLUMES:
            (self._folder / each).mkdir(parents=True)
            (self._folder / each).chmod(0o777)
        for script, text in named("common.yaml", "ConfigMap", "fl-rec-scripts")["data"].items():
            (self._folder / "scripts" / script).write_text(text)
        self.restarts = -1

    def fill(self, secret: Path, names: str) -> None:
        """Gives it the certificates and the others' names."""
        for path in secret.iterdir():
            (self._folder / "secret" / path.name).write_bytes(path.read_bytes())
        (self._folder / "hosts").write_text(f"127.0.0.1 localhost\n{names}")

    def start(self) -> None:
        """Starts its containers: the first one alone the first time."""
        self.restarts += 1
        prepare = "" if self.restarts else "sh /scripts/prepare.sh; "
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "sh", "-euc", KUBELET, "sh"]
        arguments = [self._root, self.name, self._folder, f"{prepare}exec tini -- sh /scripts/start.sh"]
        with (self._folder / "log").open("a") as log:
            self.process = run_in(
                self._host, [*unshare, *arguments, *self._variables], stdout=log, stderr=subprocess.STDOUT
            )

    def kill(self) -> None:
        """Kills its container: the first process of the namespace, and with it all others."""
        for each in psutil.Process(self.process.pid).children():
            each.kill()

    def said(self) -> list[str]:
        return (self._folder / "log").read_text().splitlines()


def play(found: list[Pod], kill: str | None) -> None:
    """Until all have ended well, or one has failed too often."""
    deadline = time.monotonic() + DEADLINE
    for pod in found:
        pod.start()
    while time.monotonic() < deadline and any(pod.process.poll() != 0 for pod in found):
        for pod in found:
            if pod.name == kill and any(" epoch 2/" in line for line in pod.said()):
                pod.kill()
                print(f"{kill}: killed after its second epoch", flush=True)
                kill = None
        for pod in [each for each in found if each.process.poll()]:
            if pod.restarts == RESTARTS:
                return
            pod.start()
        time.sleep(0.2)


def main() -> int:
    """0 if every pod's job ended well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("manifest")
    parser.add_argument("--kill", metavar="POD", help="kills its container after the second epoch")
    options = parser.parse_args()
    variables = pods(options.manifest)
    domain = next(iter(variables.values()))["DOMAIN"]
    for each in VOLUMES:
        (options.root / each).mkdir(exist_ok=True)
    (options.root / "etc" / "hosts").touch()
    with tempfile.TemporaryDirectory(prefix="fl_rec-pods-") as folder, namespaces(len(variables)) as hosts:
        secret = Path(folder) / "certs"
        made = ["certs", secret, "--clients", "3", "--hosts", *(f"{pod}{domain}" for pod in variables)]
        subprocess.run([sys.executable, "-m", "fl_rec.cli", *made], check=True, stdout=subprocess.DEVNULL, timeout=60)
        (secret / "ca.key").unlink()
        found = [
            Pod(name, env, host, options.root, Path(folder)) for (name, env), host in zip(variables.items(), hosts)
        ]
        names = "".join(f"{host.address} {pod.name}{domain} {pod.name}\n" for pod, host in zip(found, hosts))
        for pod in found:
            pod.fill(secret, names)
        play(found, options.kill)
        for pod in found:
            code = pod.process.poll()
            told = [line for line in pod.said() if code or " result " in line or "resume" in line]
            print(f"{pod.name}: exit code {code}, started again {pod.restarts} times", *told[-30:], sep="\n    ")
    return int(any(pod.process.poll() != 0 for pod in found))


if __name__ == "__main__":
    sys.exit(main())
