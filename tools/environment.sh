# Sourced by tools/demo, tools/test and tools/check: the checkout's own virtual environment, in .venv.
#
#   make_environment [EXTRA]     makes it, installs blobflow with EXTRA, and sets $python to its interpreter
#
# What is there and up to date is used as it is. With CI=true the versions are those of tools/constraints.txt,
# elsewhere the newest that pyproject.toml allows.

top=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
venv=$top/.venv

complain() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The first Python that is new enough, by the names that systems give it.
find_python() {
    local name
    for name in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v -- "$name"
            return
        fi
    done
    return 1
}

# What an installation depends on: another answer means that it has to be made again.
fingerprint() {
    { "$1" --version; cat "$top/pyproject.toml"; [ "${CI:-}" != true ] || cat "$top/tools/constraints.txt"; } | cksum
}

make_environment() {
    local extra=${1:-} system stamp want
    system=$(find_python) || complain "blobflow needs Python 3.11 or newer, and no python3 on PATH is one."
    python=$venv/bin/python
    want=$(fingerprint "$system")
    for stamp in "$venv/installed${extra:+-$extra}" "$venv/installed-test"; do
        if [ "$want" = "$(cat "$stamp" 2>/dev/null)" ] && "$python" -P -c "import blobflow" 2>/dev/null; then return; fi
    done
    "$system" -c 'import ensurepip, venv' 2>/dev/null ||
        complain "$system can't make virtual environments; install its venv module (Debian: apt-get install python3-venv)."
    printf 'Making a virtual environment in %s.\n' "$venv" >&2
    "$system" -m venv --clear "$venv" || complain "$system could not make a virtual environment in $venv."
    install_blobflow "$extra" || complain "pip could not install blobflow and what it needs; its own words are above."
    printf '%s\n' "$want" >"$venv/installed${extra:+-$extra}"
}

# setuptools comes first and by itself, so that the build uses the version that the constraints say.
install_blobflow() {
    local pip=("$python" -m pip --disable-pip-version-check install --quiet)
    [ "${CI:-}" != true ] || pip+=(--constraint "$top/tools/constraints.txt")
    "${pip[@]}" 'setuptools>=77.0.3' && "${pip[@]}" --no-build-isolation --editable "$top${1:+[$1]}"
}

# Copies what a wheel is built of into the folder $1, so that the build leaves nothing behind here.
copy_source() {
    mkdir -p "$1"
    tar -C "$top" --exclude=__pycache__ -cf - blobflow tools setup.py pyproject.toml README.md LICENSE MANIFEST.in |
        tar -C "$1" -xf -
}
