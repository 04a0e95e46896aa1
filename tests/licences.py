"""Fails if the licence of a dependency is not permissive. Reads `cargo metadata` from stdin."""

import json
import re
import sys

PERMISSIVE = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "NCSA",
    "OpenSSL",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
}


def is_permissive(expression):
    """Whether an SPDX expression is permissive: OR requires one side, AND both."""
    tokens = re.findall(
        r"\(|\)|\bOR\b|\bAND\b|[^\s()]+(?: WITH [^\s()]+)?", expression.replace("/", " OR ")
    )

    def either():
        value = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            other = both()
            value = value or other
        return value

    def both():
        value = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            other = one()
            value = value and other
        return value

    def one():
        token = tokens.pop(0)
        if token == "(":
            value = either()
            tokens.pop(0)
            return value
        return token in PERMISSIVE

    return either()


assert (
    is_permissive("(MIT OR GPL-2.0) AND ISC")
    and not is_permissive("MIT AND GPL-2.0")
    and is_permissive("Apache-2.0 WITH LLVM-exception OR X")
)
metadata = json.load(sys.stdin)
bad = [
    (p["name"], p["version"], p["license"] or f"file {p['license_file']}")
    for p in metadata["packages"]
    if not (p["license"] and is_permissive(p["license"]))
]
for name, version, licence in bad:
    print(f"not permissive: {name} {version}: {licence}")
print(f"{len(metadata['packages'])} packages, {len(bad)} with a licence that is not permissive")
sys.exit(bool(bad))
