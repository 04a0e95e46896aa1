#!/usr/bin/env python3
"""Lists where terms that docs/style.md discourages are still used.

    scripts/discouraged_terms.py               counts per term and file
    scripts/discouraged_terms.py anew mend     every line with one of these terms

Reads strings and comments of src/ and tests/, and all text of config/, docs/ and the pages at
the root. Many terms are also plain English ("at most"), so the counts are a help for authors,
not a gate: the exit code is 0.
"""

import collections
import io
import pathlib
import re
import signal
import sys
import tokenize

ROOT = pathlib.Path(__file__).resolve().parent.parent
STYLE = ROOT / "docs" / "style.md"
# Snapshots repeat what src/ says, words.rs is data, and the style page lists the terms.
EXCLUDED = ("tests/snapshots", "src/stages/source/words.rs", "docs/style.md")
RUST_TEXT = re.compile(r'//[^\n]*|/\*.*?\*/|r(#+)".*?"\1|"(?:[^"\\]|\\.)*"|\'(?:[^\'\\\n]|\\.)\'', re.DOTALL)
HASH_COMMENT = re.compile(r"#[^\n]*")


def discouraged():
    """Returns the terms of the right column, each with its replacement."""
    table = STYLE.read_text(encoding="utf-8").split("<!-- terms:begin -->")[1].split("<!-- terms:end -->")[0]
    terms = {}
    for line in table.strip().splitlines()[2:]:
        preferred, avoided = (cell.strip() for cell in line.strip().strip("|").split("|"))
        terms.update(dict.fromkeys(re.findall(r"`([^`]+)`", avoided), preferred))
    return terms


def pattern(term):
    words = r"\s+".join(re.escape(word) for word in term.split())
    return re.compile(rf"(?<![\w-]){words}s?(?![\w-])", re.IGNORECASE)


def rust_text(source):
    return [(source.count("\n", 0, match.start()) + 1, match.group()) for match in RUST_TEXT.finditer(source)]


def python_text(source):
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    return [(token.start[0], token.string) for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type in kinds]


def toml_text(source):
    return [(source.count("\n", 0, match.start()) + 1, match.group()) for match in HASH_COMMENT.finditer(source)]


READERS = {".rs": rust_text, ".py": python_text, ".toml": toml_text}


def files():
    paths = sorted(ROOT.glob("*.md"))
    for folder, suffixes in (("docs", {".md"}), ("config", {".toml"}), ("src", {".rs", ".py", ".sql"}), ("tests", {".rs", ".py", ""})):
        paths += sorted(path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix in suffixes)
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(EXCLUDED) and "__pycache__" not in name:
            yield name, path


def found(terms):
    """Yields term, file, line number and line of each occurrence."""
    patterns = {term: pattern(term) for term in terms}
    for name, path in files():
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        texts = READERS[path.suffix](source) if path.suffix in READERS else [(1, source)]
        for first, text in texts:
            for term, expression in patterns.items():
                for match in expression.finditer(text):
                    number = first + text.count("\n", 0, match.start())
                    yield term, name, number, lines[number - 1].strip()


def show_counts(terms):
    counts = collections.defaultdict(collections.Counter)
    for term, name, _, _ in found(terms):
        counts[term][name] += 1
    for term, per_file in sorted(counts.items(), key=lambda item: -item[1].total()):
        print(f"{term}: {per_file.total()}   (use: {terms[term]})")
        for name, count in per_file.most_common():
            print(f"    {count:4}  {name}")
    print(f"{sum(counter.total() for counter in counts.values())} uses of {len(counts)} discouraged terms")


def main(arguments):
    terms = discouraged()
    if not arguments:
        show_counts(terms)
        return
    for term, name, number, line in found({argument: terms.get(argument, "") for argument in arguments}):
        print(f"{name}:{number}: {term}: {line}")


if __name__ == "__main__":
    # `… | head` ends the script without a traceback.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main(sys.argv[1:])
