#!/bin/sh
# Builds the wheel of this checkout.
#
#   wheel.sh FOLDER                 the wheel, and constraints.txt: the versions that its dependencies are tested with
#   OFFLINE=1 wheel.sh FOLDER       and the dependencies' wheels, in FOLDER/wheels, for this machine's Python
#   OFFLINE=3.13 wheel.sh FOLDER    … for another Python, of x86-64
#
# Equal code gives an equal file. PYTHON is any Python 3 with pip; by default that of `make setup`, if it was run.
set -eu
umask 022 # the files' modes are in the wheel too

root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
target=$(cd "$1" && pwd)
if [ -z "${PYTHON:-}" ] && [ -x "$root/.venv/bin/python" ]; then
    PYTHON=$root/.venv/bin/python
fi
PYTHON=${PYTHON:-python3}

# From a copy: setuptools leaves its work in the folder, and would pack again what it finds there.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/checkout" "$work/wheel"
cd "$root"
cp -R pyproject.toml README.md LICENSE "$work/checkout"
cp -RP shoal "$work/checkout"
for link in shoal/*; do
    if [ -L "$link" ]; then cp -R "$(basename "$link")" "$work/checkout"; fi
done
find "$work/checkout" -name __pycache__ -type d -prune -exec rm -rf {} +

# Where setuptools is at hand (make setup puts it there) nothing has to be fetched.
isolation=
if "$PYTHON" -c 'import setuptools' 2> /dev/null; then isolation=--no-build-isolation; fi
export SOURCE_DATE_EPOCH=1767225600 # the files' times in the wheel: those of the checkout would make each differ
# shellcheck disable=SC2086 # no word where it is empty
"$PYTHON" -m pip wheel -qq --disable-pip-version-check --no-deps --ignore-requires-python $isolation \
    --wheel-dir "$work/wheel" "$work/checkout"

wheel=$(basename "$work"/wheel/shoal-*.whl)
"$PYTHON" -c '
import sys, zipfile
names = set(zipfile.ZipFile(sys.argv[1]).namelist())
missing = [name for name in sys.argv[2:] if name + "/__init__.py" not in names]
sys.exit(f"the wheel lacks the code of {missing}: does the checkout have the links in shoal/?" if missing else 0)
' "$work/wheel/$wheel" shoal/api shoal/cli shoal/daemon shoal/engine shoal/manager shoal/overlay shoal/worker

rm -f "$target"/shoal-*.whl
mv "$work/wheel/$wheel" "$target/$wheel"
sed -n 's/^\([a-zA-Z0-9._-]*==[^ ]*\).*/\1/p' requirements.lock > "$target/constraints.txt"
stamp="$(cksum < "$target/constraints.txt") for ${OFFLINE:-} $("$PYTHON" --version)"
if [ -n "${OFFLINE:-}" ] && [ "$(cat "$target/wheels/stamp" 2> /dev/null)" != "$stamp" ]; then
    rm -rf "$target/wheels"
    set -- -qq --disable-pip-version-check --constraint "$target/constraints.txt"
    "$PYTHON" -m pip wheel "$@" --wheel-dir "$work/wheels" "$target/$wheel"
    own=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    case ${OFFLINE#"$own"} in
        *.*)
            # What has no wheel anywhere is there by now: it is pure Python.
            for each in manylinux2014 manylinux_2_17 manylinux_2_28 manylinux_2_34; do
                set -- "$@" --platform ${each}_x86_64
            done
            "$PYTHON" -m pip download "$@" --python-version "$OFFLINE" --implementation cp --only-binary :all: \
                --find-links "$work/wheels" --dest "$target/wheels" "$target/$wheel"
            ;;
        *) mv "$work/wheels" "$target/wheels" ;;
    esac
    rm -f "$target"/wheels/shoal-*.whl
    echo "$stamp" > "$target/wheels/stamp"
elif [ -z "${OFFLINE:-}" ]; then
    rm -rf "$target/wheels"
fi
echo "$target/$wheel"
