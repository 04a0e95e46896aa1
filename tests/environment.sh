# Sourced by tests/setup, tests/run, tests/bench and .ci/run, at the root of the repository.
# shellcheck shell=bash

# Outside the checkout, so that a second clone finds what the first one installed.
cache=${PINPIPE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pinpipe}
venv=$cache/venv

say() { printf '\n== %s\n' "$*"; }

# Builds the release binary and exports its path for the tests.
build() {
    cargo build --release --locked
    PINPIPE_BIN=$(cargo metadata --format-version 1 --no-deps --locked |
        "$venv/bin/python" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/release/pinpipe
    export PINPIPE_BIN
}
