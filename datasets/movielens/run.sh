#!/usr/bin/env bash
# MovieLens 1M from the official archive to ten shards: download, check, prepare, cut by zip code.
# `sh run.sh`, where sh is another shell.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail

readonly URL="https://files.grouplens.org/datasets/movielens/ml-1m.zip"
readonly MD5="c4d9eecfca2ab87c1945afe126590906" # published beside the archive, as ml-1m.zip.md5
HERE="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)"
readonly HERE
# fl_run.sh's environment has numpy and pydantic; the system's Python may not.
venv="$HERE/../../.venv-3.0.0/bin/python"
[ -x "$venv" ] || venv=python3
readonly PYTHON="${PYTHON:-$venv}"

usage() {
  cat <<EOF
Usage: run.sh [--out DIR] [--public SHARE] [--no-checksum] [SOURCE]

Makes DIR/fl_data (10 shards by the first digit of the zip code) from MovieLens 1M.

  SOURCE         URL or path of the archive, or its unpacked folder
                 (default: $URL)
  --out DIR      folder to write (default: the folder of this script)
  --public SHARE share of the users who agree to be public, for distillation; see prepare.py --help
  --no-checksum  do not compare the archive with the published MD5
  --help         this text

A download whose checksum differs is an error, a local file that differs a warning.
The environment variable PYTHON names the interpreter, which needs numpy and pydantic (default: that of
fl_run.sh's environment, or python3).
EOF
}

fail() {
  echo "run.sh: error: $*" >&2
  exit 2
}

md5() { # no md5sum on macOS
  "$PYTHON" -c 'import hashlib, sys; print(hashlib.md5(open(sys.argv[1], "rb").read()).hexdigest())' "$1"
}

download() {
  if command -v curl >/dev/null; then
    curl --fail --location --show-error --connect-timeout 30 --output "$2" "$1"
  elif command -v wget >/dev/null; then
    wget --timeout=30 --output-document="$2" "$1"
  else
    fail "a download needs curl or wget. Found neither. Install one, or give the path of a local archive."
  fi
}

source="$URL"
out="$HERE"
checksum=yes
given=no
public=()
while (($#)); do
  case "$1" in
    -h | --help) usage && exit 0 ;;
    --no-checksum) checksum=no ;;
    --out)
      (($# > 1)) || fail "--out must be followed by a folder. Received nothing."
      out="$2"
      shift
      ;;
    --public)
      (($# > 1)) || fail "--public must be followed by a share, such as 0.03. Received nothing."
      public=(--public "$2")
      shift
      ;;
    -*) fail "an option must be one of --out, --public, --no-checksum, --help. Received: $1." ;;
    *)
      [[ $given == no ]] || fail "there can be one SOURCE. Received: $source and $1. Quote a path with spaces."
      source="$1"
      given=yes
      ;;
  esac
  shift
done

mkdir -p "$out" || fail "--out must be writable. Received: $out."
if [[ $source == *://* ]]; then
  archive="$out/ml-1m.zip"
  partial="$archive.part"
  trap 'rm -f "$partial"' EXIT
  echo "download $source" >&2
  download "$source" "$partial" ||
    fail "the archive must be downloadable. Received: $source. Check the network, or give a local path."
  if [[ $checksum == yes ]]; then
    actual="$(md5 "$partial")"
    [[ $actual == "$MD5" ]] ||
      fail "the archive must have the MD5 $MD5. Received: $actual. Download again, or use --no-checksum."
  fi
  mv "$partial" "$archive"
else
  archive="$source"
  [[ -e $archive ]] || fail "SOURCE must be a URL, a file or a folder. Received: $archive, which does not exist."
  if [[ $checksum == yes && -f $archive ]]; then
    actual="$(md5 "$archive")"
    [[ $actual == "$MD5" ]] ||
      echo "run.sh: warning: $archive has the MD5 $actual, the official archive $MD5" >&2
  fi
fi

"$PYTHON" "$HERE/prepare.py" --source "$archive" --out "$out" ${public[@]+"${public[@]}"}
"$PYTHON" "$HERE/gen_heter_data.py" --data "$out" --out "$out/fl_data"
