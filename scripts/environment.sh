# Sourced by the other scripts: an interpreter, a virtual environment, and what has to be in it. Not a command.
#
#   PYTHON   the interpreter to use: a path, or python3.13, which is also looked for among those kept by pyenv and those
#            that scripts/pythons has made; the environment is then .venv-<its version>, else .venv
#   VENV     the directory of the environment, if it should be another one

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1

# The versions that are supported, the newest first.
VERSIONS=(3.15 3.14 3.13 3.12 3.11)
PYTHONS="${KOUPLELESS_PYTHONS:-${XDG_CACHE_HOME:-$HOME/.cache}/koupleless/pythons}"

# A file stays in one process, for what its tests share; tests/conftest.py says which file begins.
HOW_TO_TEST=(-n auto --dist loadfile --no-loadscope-reorder --random-order --durations=10)

say() { printf '%s\n' "$*" >&2; }

# A name may be a shim that runs nothing, and an interpreter may lack what makes environments, or the lock: ask it.
usable() {
    "$1" - "${VERSIONS[@]}" >/dev/null 2>&1 <<'PYTHON'
import ensurepip, sys, sysconfig, venv
is_supported = "%d.%d" % sys.version_info[:2] in sys.argv[1:] and sys.implementation.name == "cpython"
sys.exit(not is_supported or bool(sysconfig.get_config_var("Py_GIL_DISABLED")))
PYTHON
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

# Every interpreter that could serve, for the versions given, the best first: those on PATH, then those kept by pyenv,
# then those that scripts/pythons has made.
candidates() {
    local version
    for version in "$@"; do
        echo "python$version"
        ls -d "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python 2>/dev/null | sort -rV || true
        echo "$PYTHONS/$version/usr/bin/python$version"
    done
}

find_python() {
    local candidate
    while IFS= read -r candidate; do
        if usable "$candidate"; then
            # A shim stands for whatever is selected at the moment; the environment needs the interpreter behind it.
            "$candidate" -c 'import sys; print(sys.executable)'
            return 0
        fi
    done < <(candidates "$@")
    return 1
}

# The interpreter that a value of PYTHON means.
interpreter_of() {
    case "$1" in
        python3.1[1-5]) find_python "${1#python}" || echo "$1" ;;
        *) echo "$1" ;;
    esac
}

# Prints the requirements named by the arguments ("dev", "demo"), read from pyproject.toml.
requirements() {
    "$PY" - "$@" <<'PYTHON'
import sys, tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)
wanted = project["build-system"]["requires"] + project["project"]["dependencies"]
for group in sys.argv[1:]:
    wanted += project["dependency-groups"].get(group) or project["project"]["optional-dependencies"][group]
print("\n".join(wanted))
PYTHON
}

# One digest of the files given, and of those below the directories given: their names and what is in them.
digest_of() {
    "$PY" - "$@" <<'PYTHON'
import hashlib, pathlib, sys
files = [file for path in map(pathlib.Path, sys.argv[1:]) for file in ([path] if path.is_file() else path.rglob("*"))]
parts = [f"{file}\0{hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files if file.is_file() and file.suffix != ".pyc"]
print(hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest())
PYTHON
}

# set_up GROUP...: after it, $PY is an interpreter with the package installed as users get it, and the groups beside it.
set_up() {
    local interpreter="${PYTHON:-}" venv="${VENV:-}" stamp state
    if [ -n "$interpreter" ]; then
        interpreter="$(interpreter_of "$interpreter")"
        usable "$interpreter" || { say "PYTHON=$interpreter is no CPython 3.11 to 3.15 with venv and pip"; exit 2; }
        venv="${venv:-.venv-$(version_of "$interpreter")}"
    fi
    venv="${venv:-.venv}"
    PY="$PWD/$venv/bin/python"
    if ! usable "$PY"; then
        if [ -z "$interpreter" ]; then
            interpreter="$(find_python "${VERSIONS[@]}" || { usable python3 && echo python3; } || true)"
        fi
        if [ -z "$interpreter" ]; then
            say "no CPython 3.11 to 3.15 with venv and pip was found; set PYTHON to one"
            say "(Debian and Ubuntu keep them apart: apt install python3-venv; scripts/pythons makes the newest)"
            exit 2
        fi
        say "making $venv with $interpreter"
        "$interpreter" -m venv --clear "$venv"
        # Debian's pip may be of a version that the index does not have, to which what is built for a base would be held.
        case "$("$PY" -c 'import sys; print(sys.base_prefix)')" in
            "$PYTHONS"/*) "$PY" -m pip install --quiet --upgrade --force-reinstall pip ;;
        esac
    fi
    state="$(digest_of pyproject.toml constraints.txt)"
    stamp="$venv/.installed-$(IFS=-; echo "$*")"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$state" ]; then
        say "installing what is needed into $venv"
        requirements "$@" >"$venv/requirements.txt"
        # To compile all that comes takes longer than the rest; Python compiles what is imported.
        "$PY" -m pip install --quiet --no-compile --constraint constraints.txt --requirement "$venv/requirements.txt"
        echo "$state" >"$stamp"
    fi
    state="$(digest_of pyproject.toml README.md LICENSE src)"
    stamp="$venv/.installed-package"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$state" ]; then
        rm -f "$stamp"
        "$PY" -m pip install --quiet --no-deps --no-build-isolation --force-reinstall .
        echo "$state" >"$stamp"
    fi
}
