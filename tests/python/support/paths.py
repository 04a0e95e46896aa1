"""Files of the repository that tests read. All paths below `src/` are defined here."""

import pathlib

TESTS = pathlib.Path(__file__).resolve().parents[1]
REPOSITORY = TESTS.parents[1]
# Files that `pinpipe provision` sends to AWS: policies, mapping templates, client machine scripts.
TEMPLATES = REPOSITORY / "src" / "provision" / "aws" / "templates"
