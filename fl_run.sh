#!/usr/bin/env bash
# The main job, or the tests, in one command: environment, data, processes, result.
#
#   ./fl_run.sh                                          the main job on built-in synthetic data
#   ./fl_run.sh -m configs/NAME.yaml [-o key=value ...]  another configuration
#   ./fl_run.sh test [PYTEST OPTIONS]                    the tests
#   ./fl_run.sh --help                                   every option and every configuration key
#
# Options of a run: --worker_num N, --server_num N, --coordinator_num N, --servers HOST:PORT,..., --script FILE.
# Environment: FL_REC_PADDLE=2.6.2 takes that Paddle; FL_REC_PYTHON names the Python to build the environment with.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
paddle=${FL_REC_PADDLE:-3.0.0}
venv=$root/.venv-$paddle

die() { echo "fl_run.sh: $*" >&2; exit 2; }

case $paddle in
    3.0.0) extras=test highest=13 ;;
    2.6.2) extras=test,paddle2 highest=12 ;;
    *) die "FL_REC_PADDLE must be 3.0.0 or 2.6.2, the wheels that hold the parameter server. Received: $paddle." ;;
esac

fits() { "$1" -c "import sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, $highest))" 2>/dev/null; }

find_python() {
    local candidate
    if [ -n "${FL_REC_PYTHON:-}" ]; then
        fits "$FL_REC_PYTHON" && { echo "$FL_REC_PYTHON"; return; }
        die "Paddle $paddle has wheels for Python 3.8 to 3.$highest. Received: FL_REC_PYTHON=$FL_REC_PYTHON, which is $("$FL_REC_PYTHON" -V 2>&1 || true)."
    fi
    for candidate in python3 python3.11 python3.12 python3.10 python3.9 python3.8 python3.13; do
        command -v "$candidate" >/dev/null && fits "$candidate" && { echo "$candidate"; return; }
    done
    die "Paddle $paddle has wheels for Python 3.8 to 3.$highest. Found: $(python3 -V 2>&1 || echo none). Install one of them, or name it in FL_REC_PYTHON."
}

# The environment is made once, and again when setup.py changes.
set_up() {
    local stamp=$venv/fl_rec.stamp wanted
    wanted="$(cksum <"$root/setup.py") ${FL_REC_PYTHON:-}"
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return
    local python
    python=$(find_python)
    # One set-up at a time: a second run started meanwhile waits for the first.
    exec 9>"$root/.fl_rec.lock"
    flock 9 2>/dev/null || true
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && { exec 9>&-; return; }
    echo "fl_run.sh: making $venv with $("$python" -V 2>&1) and Paddle $paddle (once; a few minutes)" >&2
    rm -rf "$venv"
    "$python" -m venv "$venv" || die "python -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$root[$extras]" "paddlepaddle==$paddle" >&2 ||
        die "the packages could not be installed; see pip's message above"
    echo "$wanted" >"$stamp"
    exec 9>&-
}

# Built-in data is made once, into a folder of its own.
prepare_synthetic() {
    local data=$root/datasets/movielens/synthetic
    [ -f "$data/fl_data/manifest.json" ] && return
    "$venv/bin/python" "$root/datasets/movielens/prepare.py" --source synthetic --out "$data"
    "$venv/bin/python" "$root/datasets/movielens/gen_heter_data.py" --data "$data" --out "$data/fl_data"
}

set_up
if [ "${1:-}" = test ]; then
    shift
    cd "$root"
    # Two files at a time; -n 0 for one.
    exec "$venv/bin/python" -m pytest -n 2 --dist loadfile "$@"
fi
config_given=no
for argument in "$@"; do
    case $argument in -m | --config_yaml | --config_yaml=* | -h | --help) config_given=yes ;; esac
done
if [ "$config_given" = no ]; then
    prepare_synthetic
    set -- -m "$root/configs/config_synthetic.yaml" "$@"
fi
exec "$venv/bin/python" -m fl_rec.cli run "$@"
