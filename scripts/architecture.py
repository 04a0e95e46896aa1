#!/usr/bin/env python3
"""Writes the list of layers and their modules into docs/architecture.md.

    scripts/architecture.py            update the page
    scripts/architecture.py --check    fail if the page differs from the code

A layer is a folder of src/; its modules are the folders and files directly inside. The text of a
module is the first sentence of its `//!` comment. The order of the layers is that of the `LAYERS`
list in tests/architecture.rs.

Paths in backticks and links within the page must exist. A path is below src/, unless it begins
with one of `ROOT_FOLDERS` or is a file of the root. A bare file name after a path of the same
section is in the folder of that path. Patterns with `<…>` or `…` are not checked.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
LAYER_TEST = ROOT / "tests" / "architecture.rs"
BEGIN, END = "<!-- layers:begin -->", "<!-- layers:end -->"
ROOT_FOLDERS = ("config/", "tests/", "docs/", "bench/", "scripts/", "src/")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*/?")
# What tells a bare file name from other words in backticks, such as `stream.source`.
FILE_ENDINGS = (".rs", ".py", ".sql", ".toml", ".md", ".sh", ".json", ".example")


def layer_names():
    """Returns the layers from the highest to the lowest; exits if src/ has others."""
    declared = re.search(r"const LAYERS[^=]*=\s*\[([^\]]*)\]", LAYER_TEST.read_text(encoding="utf-8"))
    if declared is None:
        sys.exit(f"cannot read the layers: no LAYERS list in {LAYER_TEST.relative_to(ROOT)}")
    names = re.findall(r'"(\w+)"', declared.group(1))
    folders = {path.name for path in (ROOT / "src").iterdir() if path.is_dir()}
    if set(names) != folders:
        difference = ", ".join(sorted(set(names) ^ folders))
        sys.exit(f"src/ and LAYERS in {LAYER_TEST.relative_to(ROOT)} differ: {difference}")
    return names[::-1]


def description(path):
    """Returns the first sentence of the `//!` comment of a file; empty if there is none."""
    paragraph = []
    for line in path.read_text(encoding="utf-8").lstrip().splitlines():
        if not line.startswith("//!"):
            break
        text = line[3:].strip()
        if not text:
            break
        paragraph.append(text)
    sentence = re.split(r"(?<=[\w`)\]])\.(?=\s|$)", " ".join(paragraph), maxsplit=1)[0]
    return sentence.rstrip(".") + "." if sentence else ""


def modules(layer):
    """Returns the name and the file of each module of a layer, in alphabetical order."""
    for path in sorted(layer.iterdir(), key=lambda path: path.stem):
        if (path / "mod.rs").is_file():
            yield f"{path.name}/", path / "mod.rs"
        elif path.suffix == ".rs" and path.name != "mod.rs":
            yield path.name, path


def generated():
    """Returns the section and the files without a description."""
    missing, lines = [], []

    def described(path):
        text = description(path)
        if not text:
            missing.append(str(path.relative_to(ROOT)))
        return text.replace("|", "\\|")

    for name in layer_names():
        layer = ROOT / "src" / name
        lines += [f"### `{name}/`", "", "| module | |", "|---|---|"]
        for module, path in modules(layer):
            lines.append(f"| `{module}` | {described(path)} |".replace("|  |", "| |"))
        lines.append("")
    return "\n".join(lines), missing


def is_path(text):
    """Whether the text between backticks names a file or folder."""
    return PATH.fullmatch(text) is not None and ("/" in text or text.endswith(FILE_ENDINGS))


def missing_paths(text):
    """Returns the paths in backticks that do not exist."""
    missing, folder = [], None
    for line in re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines():
        if line.startswith("#"):
            folder = None
        for name in filter(is_path, re.findall(r"`([^`]+)`", line)):
            is_bare = "/" not in name
            if is_bare and (ROOT / name).exists():
                continue
            if is_bare and folder is not None:
                path = folder / name
            else:
                path = (ROOT if name.startswith(ROOT_FOLDERS) else ROOT / "src") / name
                folder = path if name.endswith("/") else path.parent
            if not path.exists():
                missing.append(name)
    return missing


def missing_anchors(text):
    """Returns the links to sections of the page that do not exist."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return [link for link in re.findall(r"\]\(#([^)]*)\)", text) if link not in anchors]


def main(arguments):
    if arguments not in ([], ["--check"]):
        sys.exit(__doc__)
    page = PAGE.read_text(encoding="utf-8")
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        sys.exit(f"expected one {BEGIN} and one {END} in {PAGE.relative_to(ROOT)}")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    section, missing = generated()
    updated = f"{before}{BEGIN}\n{section}\n{END}{after}"
    for path in missing:
        print(f"no `//!` comment: {path}", file=sys.stderr)
    # Modules in the generated list are relative to their layer.
    broken = [f"no such file: `{path}`" for path in missing_paths(before) + missing_paths(after)]
    broken += [f"no such section: #{anchor}" for anchor in missing_anchors(updated)]
    if updated != page and not arguments:
        PAGE.write_text(updated, encoding="utf-8")
    elif updated != page:
        broken.append("the list differs from the code: run `scripts/architecture.py` and commit the page")
    if broken:
        sys.exit("\n".join(f"{PAGE.relative_to(ROOT)}: {problem}" for problem in broken))


if __name__ == "__main__":
    main(sys.argv[1:])
