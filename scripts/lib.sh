# What the scripts have in common; sourced, never run.
# shellcheck shell=bash

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "${0##*/}: to install packages, be root or have sudo; or install them yourself: $*" >&2
        return 1
    fi
}

install_packages() {
    if ! command -v apt-get >/dev/null; then
        echo "${0##*/}: this is no Debian or Ubuntu; install by your own means: $*" >&2
        return 1
    fi
    echo "installing: $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" >/dev/null
}

# Installs the packages of the programs that are missing. Each argument: a program, or a file by its whole path, and the package that
# brings it.
need() {
    local pair missing=()
    for pair in "$@"; do
        # /usr/sbin is not in everybody's PATH.
        if [ ! -e "${pair%% *}" ] && ! PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%% *}" >/dev/null; then
            missing+=("${pair#* }")
        fi
    done
    if [ "${#missing[@]}" -gt 0 ]; then
        install_packages "${missing[@]}"
    fi
}

# Puts a program of crates.io in PATH, of just this version, so that a new one is a change of ours. Called at the project's top; built
# once, outside of everybody's ~/.cargo/bin.
tool() {
    local name="$1" version="$2" tools="$PWD/target/tools"
    if [ "$("$tools/bin/$name" --version 2>/dev/null | awk '{ print $NF }')" != "$version" ]; then
        echo "building $name $version"
        cargo install --quiet --locked --root "$tools" --target-dir "$tools/build" --version "$version" "$name"
    fi
    PATH="$tools/bin:$PATH"
}

# Where Debian is fetched from, and whose signature counts. On Ubuntu the keys are a package to install.
# shellcheck disable=SC2034 # for those who source this
readonly debian_mirror="${BASTIOND_DEBIAN_MIRROR:-http://deb.debian.org/debian}"
readonly debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# shellcheck disable=SC2034 # for those who source this
readonly debian_tools=("mmdebstrap mmdebstrap" "$debian_keyring debian-archive-keyring")

# Sets `package` to the one that is to be tested: what BASTIOND_SYSTEM_PACKAGE names, or one of this very tree, built as the demo
# builds: minutes sooner than what is given away.
package_to_test() {
    package="${BASTIOND_SYSTEM_PACKAGE:-}"
    if [ -z "$package" ]; then
        cargo build --profile quick --quiet --locked -p bastiond -p bastiond-tunnel --bins
        scripts/deb --binaries target/quick
        # Those of earlier versions may lie there too.
        local built
        for built in target/deb/bastiond_*_"$(dpkg --print-architecture)".deb; do
            if [ -z "$package" ] || [ "$built" -nt "$package" ]; then package="$built"; fi
        done
    fi
    package="$(realpath "$package")"
}
