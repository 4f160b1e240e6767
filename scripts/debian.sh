# Sourced by scripts that take packages from Debian without installing them: the archive, and settings for an apt of its
# own. Not a command.

# The address of a Debian archive among the machine's package sources.
debian_archive() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m 1 '/debian/$'
}

# apt_settings DIRECTORY [SOURCES]: let apt work below DIRECTORY in place of the machine's own lists and cache. With
# SOURCES, a file of package sources, apt knows only these and takes nothing for installed: everything comes along. Else
# it knows the machine's sources and what the machine has: only what is missing comes along.
apt_settings() {
    local below="$1" sources="${2:-}"
    mkdir -p "$below/lists/partial" "$below/archives/partial" "$below/empty"
    # A copy, because apt locks the directory where it reads what is installed.
    [ -n "$sources" ] || cp /var/lib/dpkg/status "$below/status"
    cat >"$below/apt.conf" <<CONF
Dir::State "$below";
Dir::State::status "$([ -n "$sources" ] && echo /dev/null || echo "$below/status")";
Dir::State::extended_states "$below/extended_states";
Dir::Cache "$below";
APT::Install-Recommends "false";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
APT::Update::Error-Mode "any";
CONF
    [ -z "$sources" ] || cat >>"$below/apt.conf" <<CONF
Dir::Etc::sourcelist "$sources";
Dir::Etc::sourceparts "$below/empty";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "$below/empty";
CONF
    export APT_CONFIG="$below/apt.conf"
}

# taken DIRECTORY ROOT PACKAGE...: unpack the packages, and whatever they need, into ROOT; apt works below DIRECTORY.
taken() {
    local below="$1" root="$2" package
    shift 2
    apt-get -qq update
    apt-get -qq --yes --download-only install "$@" >/dev/null
    for package in "$below"/archives/*.deb; do
        dpkg-deb --extract "$package" "$root"
    done
}
