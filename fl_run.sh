#!/usr/bin/env bash
# The main job, or the tests, in one command: environment, data, processes, result.
#
#   ./fl_run.sh                                          the main job on built-in synthetic data
#   ./fl_run.sh -m configs/NAME.yaml [-o key=value ...]  another configuration
#   ./fl_run.sh test [PYTEST OPTIONS]                    the tests
#   ./fl_run.sh lint                                     ruff, mypy, the import rule, the image, what the pages say of the code
#   ./fl_run.sh docs                                     the documentation as a site, in site/
#   ./fl_run.sh COMMAND ...                              any other command of fl-rec, as ./fl_run.sh recommend --user 7
#   ./fl_run.sh --help                                   these commands; ./fl_run.sh run --help what a run takes
#
# Options of a run: --worker_num N, --server_num N, --coordinator_num N, --servers HOST:PORT,..., --script FILE.
# Environment: FL_REC_PADDLE=2.6.2 takes that Paddle; FL_REC_PYTHON names the Python to build the environment with;
# FL_REC_START=spawn starts every role anew, by fleetrun, in place of forks of one process that has imported Paddle.
# `sh fl_run.sh`, where sh is another shell.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
paddle=${FL_REC_PADDLE:-3.0.0}
venv=$root/.venv-$paddle

die() { echo "fl_run.sh: $*" >&2; exit 2; }

case $paddle in
    3.0.0) extras=test highest=13 also= ;;
    2.6.2) extras=test,paddle2 highest=12 also='pyarrow<23' ;; # later ones need numpy 2
    *) die "FL_REC_PADDLE must be 3.0.0 or 2.6.2, the wheels that hold the parameter server. Received: $paddle." ;;
esac
rule="With Paddle $paddle, Python must be 3.10 to 3.$highest."

fits() { "$1" -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $highest))" 2>/dev/null; }

find_python() {
    local candidate
    if [ -n "${FL_REC_PYTHON:-}" ]; then
        fits "$FL_REC_PYTHON" && { echo "$FL_REC_PYTHON"; return; }
        die "$rule Received: FL_REC_PYTHON=$FL_REC_PYTHON, which is $("$FL_REC_PYTHON" -V 2>&1 || true)."
    fi
    for candidate in python3 python3.11 python3.12 python3.10 python3.13; do
        command -v "$candidate" >/dev/null && fits "$candidate" && { echo "$candidate"; return; }
    done
    die "$rule Found: $(python3 -V 2>&1 || echo none). Install one of them, or name it in FL_REC_PYTHON."
}

# On a terminal pip shows what it loads, for minutes.
install() {
    local quiet=--quiet
    [ ! -t 2 ] || quiet=
    "$venv/bin/python" -m pip install ${quiet:+"$quiet"} --disable-pip-version-check "$@" >&2
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
    install -e "$root[$extras]" "paddlepaddle==$paddle" ${also:+"$also"} ||
        die "the packages could not be installed; see pip's message above"
    echo "$wanted" >"$stamp"
    exec 9>&-
}

lint() {
    install "fl_rec[dev]" || die "the tools could not be installed; see pip's message above"
    PATH=$venv/bin:$PATH
    ruff check --quiet .
    ruff format --quiet --check .
    mypy
    lint-imports
    hadolint deploy/Dockerfile
    python docs/check_architecture.py
    python docs/configuration_pages.py
    python docs/check_languages.py
}

build_docs() {
    install "fl_rec[docs]" || die "mkdocs could not be installed; see pip's message above"
    NO_MKDOCS_2_WARNING=1 "$venv/bin/mkdocs" build --strict
    echo "site      $root/site/index.html"
}

fl_rec() { FL_REC_PROGRAM=./fl_run.sh exec "$venv/bin/python" -m fl_rec.cli "$@"; }

set_up
case ${1:-} in
    test)
        cd "$root"
        # Some tests are skipped without, and so they are on the older Paddle, whose numpy is to stay.
        [ "$paddle" = 2.6.2 ] || install "fl_rec[all]" || die "the packages could not be installed; see pip's message above"
        # As many files at a time as there are cores, and one, since jobs wait now and then; -n 0 for one. Each takes 1 GB.
        cores=$(nproc)
        exec "$venv/bin/python" -m pytest -n $((cores < 8 ? cores + 1 : 8)) --dist loadfile "${@:2}"
        ;;
    lint)
        cd "$root"
        lint
        ;;
    docs)
        cd "$root"
        build_docs
        ;;
    help | --help | -h) fl_rec --help ;;
    --version) fl_rec --version ;;
    # Options of a run, and what may be meant for one, which then tells of -m and -o.
    '' | -* | *.yaml | *.yml | *=*) fl_rec run "$@" ;;
    *) fl_rec "$@" ;;
esac
