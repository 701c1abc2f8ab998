# Shared functions of the scripts. This file is sourced, not run.
# shellcheck shell=bash

# Where the scripts keep what they build once: tools, test clients, Debian systems. CI sets it to a directory that outlives the checkout.
cache="${BASTIOND_CACHE:-$PWD/target}"

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "${0##*/}: installing packages needs root or sudo; or install them yourself: $*" >&2
        return 1
    fi
}

install_packages() {
    if ! command -v apt-get >/dev/null; then
        echo "${0##*/}: this system is not Debian or Ubuntu; install these packages with its package manager: $*" >&2
        return 1
    fi
    echo "installing: $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" >/dev/null
}

# Installs the packages of missing programs. Each argument is a program, or a file with its absolute path, and the package that
# contains it.
need() {
    local pair missing=()
    for pair in "$@"; do
        # The PATH of ordinary users lacks /usr/sbin.
        if [ ! -e "${pair%% *}" ] && ! PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%% *}" >/dev/null; then
            missing+=("${pair#* }")
        fi
    done
    if [ "${#missing[@]}" -gt 0 ]; then
        install_packages "${missing[@]}"
    fi
}

# Adds a program from crates.io to PATH, with exactly this version. It is built once, in the cache and not in ~/.cargo/bin.
tool() {
    local name="$1" version="$2" tools="$cache/tools"
    if [ "$("$tools/bin/$name" --version 2>/dev/null | awk '{ print $NF }')" != "$version" ]; then
        echo "building $name $version"
        cargo install --quiet --locked --root "$tools" --target-dir "$tools/build" --version "$version" "$name"
    fi
    PATH="$tools/bin:$PATH"
}

# The keys that sign Debian's archive, and the packages that building a Debian system needs.
readonly debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# shellcheck disable=SC2034 # used by the scripts that source this file
readonly debian_tools=("mmdebstrap mmdebstrap" "$debian_keyring debian-archive-keyring")

# The URI of the archive with a label, Debian or Ubuntu, in this machine's apt configuration; empty if it has none or has not been
# updated yet.
archive_of_apt() {
    # shellcheck disable=SC2016 # apt-get expands these fields
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Label: $1" 'Component: main' | sed -n '1 s,/*$,,p'
}

# Sets `debian_mirror` to the Debian archive that this machine's apt uses, or to BASTIOND_DEBIAN_MIRROR.
find_debian_mirror() {
    debian_mirror="${BASTIOND_DEBIAN_MIRROR:-}"
    if [ -z "$debian_mirror" ]; then debian_mirror="$(archive_of_apt Debian)"; fi
    if [ -z "$debian_mirror" ]; then
        # apt knows the labels of archives after an update.
        as_root apt-get -qq -o DPkg::Lock::Timeout=300 update
        debian_mirror="$(archive_of_apt Debian)"
    fi
    if [ -z "$debian_mirror" ]; then
        echo "${0##*/}: the apt configuration of this machine has no Debian archive; set BASTIOND_DEBIAN_MIRROR to the URI of one" >&2
        return 1
    fi
}

# Builds a Debian system from `debian_mirror`, reached as this machine's apt reaches it: with its proxies and credentials.
# Usage: build_debian MODE RELEASE DIRECTORY [OPTION...]; MODE and OPTION are those of mmdebstrap, and MODE root needs root.
build_debian() {
    local mode="$1" release="$2" tree="$3"
    shift 3
    bootstrap "$mode" --keyring="$debian_keyring" "$@" "$release" "$tree" "deb $debian_mirror $release main"
}

# Builds an Ubuntu system, from BASTIOND_UBUNTU_MIRROR or the Ubuntu archive of this machine's apt. Without either, mmdebstrap
# knows the public one. Usage: as build_debian; it needs `debian_mirror`, for Ubuntu's keys.
build_ubuntu() {
    local mode="$1" release="$2" tree="$3" mirror="${BASTIOND_UBUNTU_MIRROR:-}" sources=()
    shift 3
    if [ -z "$mirror" ]; then mirror="$(archive_of_apt Ubuntu)"; fi
    if [ -n "$mirror" ]; then
        sources=("deb $mirror $release main universe" "deb $mirror $release-updates main universe")
    fi
    find_ubuntu_keyring || return 1
    bootstrap "$mode" --keyring="$ubuntu_keyring" --components=main,universe "$@" "$release" "$tree" "${sources[@]}"
}

# Whether the archive answers that build_ubuntu uses. Usage: ubuntu_answers RELEASE
ubuntu_answers() {
    local nowhere status=0
    nowhere="$(mktemp -d)"
    build_ubuntu root "$1" "$nowhere/tree" --simulate --variant=extract --include=base-files >/dev/null 2>&1 || status=1
    as_root rm -rf "$nowhere"
    return "$status"
}

# Sets `ubuntu_keyring` to the keys that sign Ubuntu's archive. Debian 12 has no package with them; Debian 13's is unpacked then.
find_ubuntu_keyring() {
    ubuntu_keyring=/usr/share/keyrings/ubuntu-archive-keyring.gpg
    if [ -e "$ubuntu_keyring" ]; then return; fi
    local tree="$cache/ubuntu-keyring"
    ubuntu_keyring="$tree$ubuntu_keyring"
    if [ -e "$ubuntu_keyring" ]; then return; fi
    rm -rf "$tree"
    mkdir -p "$cache"
    build_debian chrootless trixie "$tree" --variant=extract --include=ubuntu-keyring
}

# Runs mmdebstrap with apt's settings of this machine. Usage: bootstrap MODE OPTION... RELEASE DIRECTORY [SOURCE...]
bootstrap() {
    local mode="$1" marker="# while this system is built" settings status=0 run=()
    shift
    if [ "$mode" = root ]; then run=(as_root); fi
    settings="$(mktemp)"
    {
        echo "$marker"
        apt-config dump | grep -E '^Acquire::(https?(::|-)|Retries|ForceIPv|Check-)' || true
        # mmdebstrap runs apt on this machine, with the new system as its directory.
        echo 'Dir::Etc::netrc "/etc/apt/auth.conf";'
        echo 'Dir::Etc::netrcparts "/etc/apt/auth.conf.d";'
    } >"$settings"
    "${run[@]}" timeout 1200 mmdebstrap --quiet --mode="$mode" \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' --aptopt="$settings" \
        --customize-hook="sed -i '/^$marker/,\$d' \"\$1/etc/apt/apt.conf.d/99mmdebstrap\"" "$@" || status=$?
    rm -f "$settings"
    return "$status"
}

# Builds the programs with the demo's profile. The demo and the system tests select the same packages, because cargo would build
# the dependencies of another selection again, with other features. Arguments: further options of cargo build.
build_quick() {
    cargo build --profile quick --quiet --locked -p bastiond -p bastiond-tunnel -p sandbox --bins "$@"
}

# Sets `package` to the package to test: BASTIOND_SYSTEM_PACKAGE, or one built from this tree with the demo's profile, which takes
# minutes less than the release profile.
package_to_test() {
    package="${BASTIOND_SYSTEM_PACKAGE:-}"
    if [ -z "$package" ]; then
        build_quick -p manual
        # No test reads the debug symbols or counts the bytes, and packing them well takes a minute.
        DEB_BUILD_OPTIONS="noautodbgsym ${DEB_BUILD_OPTIONS:-}" DPKG_DEB_COMPRESSOR_TYPE=gzip DPKG_DEB_COMPRESSOR_LEVEL=1 \
            scripts/deb --binaries target/quick
        # The directory may contain packages of earlier versions too.
        local built
        for built in target/deb/bastiond_*_"$(dpkg --print-architecture)".deb; do
            if [ -z "$package" ] || [ "$built" -nt "$package" ]; then package="$built"; fi
        done
    fi
    package="$(realpath "$package")"
}
