"""Plays a manifest of deploy/kubernetes with the image and without Kubernetes: each pod is a network namespace.

python -m tests.pods ROOT jobs.yaml

ROOT is the image's root, mounted. A pod has that read-only, volumes of its own, its containers' scripts, user and
variables, and the others' names; neither limits nor the policy are played. `.ci/image` calls it; it needs root.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.integration.namespaces import namespaces, run_in
from tests.manifests import named, pods

DEADLINE = 300.0
VOLUMES = ("scripts", "secret", "tls", "project", "runs", "tmp")
# What deploy/Dockerfile sets.
IMAGE = {"HOME": "/work", "PATH": "/opt/fl_rec/bin:/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
IMAGE |= {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": ""}
# What a kubelet does, in a mount namespace and a process namespace of the pod's own.
KUBELET = """
root=$1 pod=$2 volumes=$3; shift 3
hostname "$pod"
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
mount -t proc proc "$root/proc"
for each in null urandom random; do mount --bind "/dev/$each" "$root/dev/$each"; done
for each in scripts secret tls project runs tmp; do mount --bind "$volumes/$each" "$root/$each"; done
mount --bind "$volumes/hosts" "$root/etc/hosts"
cd /
exec chroot --userspec=10001:10001 "$root" env -i "$@" \
    sh -euc "cd /work; sh /scripts/prepare.sh; exec tini -- sh /scripts/start.sh"
"""


def main() -> int:
    """0 if every pod's job ended well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("manifest")
    options = parser.parse_args()
    found = pods(options.manifest)
    domain = next(iter(found.values()))["DOMAIN"]
    for each in VOLUMES:
        (options.root / each).mkdir(exist_ok=True)
    (options.root / "etc" / "hosts").touch()
    with tempfile.TemporaryDirectory(prefix="fl_rec-pods-") as folder, namespaces(len(found)) as hosts:
        names = "".join(f"{host.address} {pod}{domain} {pod}\n" for pod, host in zip(found, hosts))
        secret = Path(folder) / "certs"
        made = ["certs", secret, "--clients", "3", "--hosts", *(f"{pod}{domain}" for pod in found)]
        subprocess.run([sys.executable, "-m", "fl_rec.cli", *made], check=True, stdout=subprocess.DEVNULL, timeout=60)
        (secret / "ca.key").unlink()
        started = {}
        for (pod, env), host in zip(found.items(), hosts):
            own = Path(folder) / pod
            for each in VOLUMES:
                (own / each).mkdir(parents=True)
                (own / each).chmod(0o777)
            (own / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
            for name, text in named("common.yaml", "ConfigMap", "fl-rec-scripts")["data"].items():
                (own / "scripts" / name).write_text(text)
            for path in secret.iterdir():
                (own / "secret" / path.name).write_bytes(path.read_bytes())
            command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "sh", "-euc", KUBELET, "sh"]
            variables = [f"{name}={value}" for name, value in {**IMAGE, **env}.items()]
            with (own / "log").open("w") as log:
                arguments = [options.root, pod, own, *variables]
                started[pod] = run_in(host, [*command, *arguments], stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + DEADLINE
        codes = {}
        for pod, process in started.items():
            try:
                codes[pod] = process.wait(max(1.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                codes[pod] = -1
        for pod in found:
            lines = (Path(folder) / pod / "log").read_text().splitlines()
            last = [line for line in lines if " result " in line or codes[pod]]
            print(f"{pod}: exit code {codes[pod]}", *last[-30:], sep="\n    ")
    return int(any(codes.values()))


if __name__ == "__main__":
    sys.exit(main())
