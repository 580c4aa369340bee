#!/usr/bin/env bash
# Sets this checkout up: Debian packages, uv, Python 3.11, the environment in .venv.
#
#   deployments/setup.sh environment [EXTRAS [STAMP]]   libraries and .venv with the locked packages
#   deployments/setup.sh tests                          Chromium and a Blender executable, for the tests
#   deployments/setup.sh lock [uv options]              resolve pyproject.toml anew into requirements.lock
#
# Needs bash and either uv or any python3 >= 3.8. SYSTEM_PACKAGES=skip leaves Debian packages alone (for
# machines whose libraries come another way). Tests source this file to try its functions one by one.
set -euo pipefail

# open3d fails to import without libusb and libegl1; bpy and open3d link the X11 and GL ones even when headless.
LIBRARIES="libusb-1.0-0 libegl1 libgl1 libgomp1 libx11-6 libxrender1 libxfixes3 libxi6 libxkbcommon0 libsm6 libice6 libxext6"
PYTHON_VERSION=3.11

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }
runs() { "$@" >/dev/null 2>&1; }

# ---------------------------------------------------------------- Debian packages

is_debian() { command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; }
is_root() { [[ $(id -u) == 0 ]]; }

# Those of the named packages that are not installed. (`dpkg -s` also succeeds for removed ones.)
missing_packages() {
    local package missing=()
    for package in "$@"; do
        [[ $(dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null) == *"install ok installed"* ]] || missing+=("$package")
    done
    echo "${missing[*]-}"
}

# Installs what is missing as root; otherwise prints the line to run and stops.
need_packages() {
    local missing
    [[ ${SYSTEM_PACKAGES:-check} == skip ]] && return 0
    if ! is_debian; then
        say "not a Debian or Ubuntu machine: this needs what Debian calls $*"
        return 0
    fi
    missing=$(missing_packages "$@")
    [[ -n $missing ]] || return 0
    if ! is_root; then
        say "these Debian packages are missing; please run this line, then the same command again:"
        printf '\n    sudo apt-get update && sudo apt-get install -y --no-install-recommends %s\n\n' "$missing" >&2
        exit 1
    fi
    say "installing $missing"
    # shellcheck disable=SC2086  # a list of words
    apt_install $missing
}

# The package lists are fetched only where apt does not know the packages yet.
apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    local options=(-y -q --no-install-recommends -o DPkg::Lock::Timeout=300)
    runs apt-get install "${options[@]}" "$@" && return 0
    apt-get update -q >&2 && apt-get install "${options[@]}" "$@" >&2 ||
        die "apt-get could not install $*: see its message above"
}

has_browser() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

need_browser() {
    runs has_browser && return 0
    if is_debian && [[ -z $(apt-cache madison chromium 2>/dev/null) ]] && . /etc/os-release && [[ $ID == ubuntu ]]; then
        # Ubuntu ships Chromium as a snap, which containers and services cannot start.
        say "no Chromium here, and Ubuntu has no Debian package of it: the browser tests will be skipped"
        say "(to run them: snap install chromium, or install google-chrome)"
        return 0
    fi
    need_packages chromium
}

# The second engine of the samples' liquor; the first, the bpy wheel, comes with the environment.
need_blender() {
    runs command -v "${TOMOFORGE_BLENDER:-blender}" && return 0
    need_packages blender python3-numpy
}

# ---------------------------------------------------------------- the user's package indexes

# The value of one pip setting (index-url, find-links, ...), from PIP_* or pip's configuration files.
pip_setting() {
    local variable name=$1 config section
    variable=PIP_$(tr a-z- A-Z_ <<<"$name")
    if [[ -n ${!variable:-} ]]; then
        echo "${!variable}"
        return
    fi
    config=$(pip config list 2>/dev/null || python3 -m pip config list 2>/dev/null || true)
    for section in install global; do
        # pip prints Python literals: name='one two' or 'one\ntwo' for values over several lines.
        if grep -q "^$section\.$name=" <<<"$config"; then
            sed -n "s/^$section\.$name=//p" <<<"$config" | sed -e "s/^['\"]//; s/['\"]\$//" -e 's/\\n/ /g' | xargs
            return
        fi
    done
}

# True where uv's own configuration names indexes: then pip's have no say.
uv_is_configured() {
    grep -Eqs 'index|find-links' "${XDG_CONFIG_HOME:-$HOME/.config}/uv/uv.toml" /etc/uv/uv.toml
}

# uv does not read pip's settings: hand them over, unless uv has settings of its own.
export_index_settings() {
    local value
    [[ -n ${SSL_CERT_FILE:-} ]] || { value=$(pip_setting cert); [[ -z $value ]] || export SSL_CERT_FILE=$value; }
    # Like pip, trust the certificates of this machine (a proxy's among them), not uv's own list.
    [[ ! -e /etc/ssl/certs/ca-certificates.crt || -n ${UV_SYSTEM_CERTS:-}${UV_NATIVE_TLS:-} ]] || export UV_SYSTEM_CERTS=true
    uv_is_configured && return 0
    [[ -n ${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-}} ]] ||
        { value=$(pip_setting index-url); [[ -z $value ]] || export UV_DEFAULT_INDEX=$value; }
    if [[ -z ${UV_INDEX:-${UV_EXTRA_INDEX_URL:-}} ]]; then
        value=$(pip_setting extra-index-url)
        if [[ -n $value ]]; then
            export UV_INDEX=$value
            # pip looks for a version in all its indexes. uv by default stops at the first index that has the
            # package at all, and an extra index that holds other versions of a locked package ends the set-up.
            export UV_INDEX_STRATEGY=${UV_INDEX_STRATEGY:-unsafe-best-match}
        fi
    fi
    [[ -n ${UV_FIND_LINKS:-} ]] ||
        { value=$(pip_setting find-links); [[ -z $value ]] || export UV_FIND_LINKS=${value// /,}; }
    [[ -n ${UV_INSECURE_HOST:-} ]] ||
        { value=$(pip_setting trusted-host); [[ -z $value ]] || export UV_INSECURE_HOST=$value; }
    [[ -n ${UV_NO_INDEX:-} ]] ||
        { value=$(pip_setting no-index); [[ ! $value =~ ^(1|true|True|yes|on)$ ]] || export UV_NO_INDEX=1; }
}

# ---------------------------------------------------------------- uv and Python

# A uv of 0.5 or later that runs (a pyenv shim may not); older ones lack UV_INDEX.
usable_uv() {
    local version
    version=$("$1" --version 2>/dev/null) || return 1
    [[ $version =~ ^uv\ ([0-9]+)\.([0-9]+) ]] && ((BASH_REMATCH[1] > 0 || BASH_REMATCH[2] >= 5))
}

# Any Python that runs and can install uv.
any_python() {
    local candidate
    for candidate in python3 /usr/bin/python3 "python$PYTHON_VERSION" python; do
        if runs "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 8))'; then
            echo "$candidate"
            return
        fi
    done
}

# Sets $uv: from PATH, else installed into .venv-uv by pip.
find_uv() {
    local python
    for uv in uv "$PWD/.venv-uv/bin/uv"; do
        usable_uv "$uv" && return 0
    done
    [[ -n $(any_python) ]] || need_packages python3
    python=$(any_python)
    [[ -n $python ]] || die "needs uv, or a python3 of 3.8 or later: install one, then run the same command again"
    if ! runs "$python" -c 'import ensurepip, venv'; then
        is_debian || die "$python has no ensurepip: install uv, or python3's venv module"
        need_packages python3-venv
    fi
    say "installing uv into .venv-uv"
    rm -rf .venv-uv
    "$python" -m venv .venv-uv
    .venv-uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5' ||
        die "pip could not install uv: check its index settings, or install uv yourself"
    uv=$PWD/.venv-uv/bin/uv
}

# A Python of the right version that runs, else its number: uv then looks further, or fetches one.
find_python() {
    local candidate
    while IFS= read -r candidate; do
        if runs "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$PYTHON_VERSION')"; then
            echo "$candidate"
            return
        fi
    done < <(type -ap "python$PYTHON_VERSION" python3 python)
    echo "$PYTHON_VERSION"
}

# ---------------------------------------------------------------- the environment

# True if .venv runs the right Python, was made in this place (its scripts hold absolute paths), and no
# set-up was killed while it wrote packages (a half-written package looks installed).
environment_is_sound() {
    [[ ! -e .venv/.installing ]] &&
        runs .venv/bin/python -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$PYTHON_VERSION')" &&
        grep -qF "$PWD/.venv" .venv/bin/activate
}

make_environment() {
    local extras=$1 stamp=$2 python ready=""
    need_packages $LIBRARIES
    find_uv
    export_index_settings
    if ! environment_is_sound; then
        [[ ! -e .venv ]] || say "the environment in .venv is broken or incomplete: making it again"
        rm -rf .venv
        python=$(find_python)
        say "making .venv with Python $python"
        "$uv" venv --quiet --python "$python" .venv ||
            die "no Python $PYTHON_VERSION here and uv could not fetch one: install python$PYTHON_VERSION, then run the same command again"
    fi
    say "installing the packages of requirements.lock (extras: $extras)"
    # Stamps of the same files with other extras stay true, because installing takes nothing away.
    [[ -z $stamp ]] || ready=$(ls .venv/"${stamp%-*}"-* 2>/dev/null || true)
    rm -f .venv/.ready-*
    touch .venv/.installing
    "$uv" pip install --python .venv/bin/python --constraint requirements.lock --editable ".[$extras]" ||
        die "the installation failed (see above); the same command tries again"
    rm .venv/.installing
    # shellcheck disable=SC2086  # a list of words
    [[ -z $stamp ]] || touch ".venv/$stamp" $ready
    say "ready"
}

lock() {
    find_uv
    export_index_settings
    # The lock is a list of constraints for any machine: no hosts, no hashes, no builds of one processor (+cpu).
    "$uv" pip compile pyproject.toml --all-extras --python-version "$PYTHON_VERSION" \
        --python-platform x86_64-manylinux_2_35 --no-annotate --no-header --quiet --output-file requirements.lock "$@" >/dev/null
    sed -i 's/+[a-z0-9.]*$//' requirements.lock
}

# Two makes at once wait for each other. The lock goes with the last process that holds it.
one_at_a_time() {
    command -v flock >/dev/null || return 0
    exec 9>.setup.lock
    flock -n 9 || { say "waiting for another set-up of this checkout"; flock 9; }
}

main() {
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    local command=${1:-environment}
    shift || true
    one_at_a_time
    case $command in
        environment)
            # Another set-up may have finished while this one waited.
            [[ -n ${2:-} && -e .venv/$2 ]] || make_environment "${1:-train,dev}" "${2:-}"
            ;;
        tests) need_browser && need_blender ;;
        lock) lock "$@" ;;
        *) die "unknown command '$command': environment, tests or lock" ;;
    esac
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then main "$@"; fi
