"""Files and notebooks of a workspace, kept in a folder."""

import base64
import binascii
import pathlib
import shutil

from .description import IMPORT_LIMIT
from .errors import Refused, invalid, missing

NOTEBOOK = b"# Databricks notebook source"
FORMATS = ("AUTO", "RAW", "SOURCE")


class Workspace:
    """The content of /Workspace."""

    def __init__(self, folder, user):
        self.folder = pathlib.Path(folder)
        self.notebooks = set()
        self.ids = {}
        (self.folder / "Users" / user).mkdir(parents=True)

    def local(self, path):
        """Returns the local path of a workspace path, with or without /Workspace."""
        if not path.startswith("/"):
            raise invalid(f"Path ({path}) doesn't start with '/'")
        local = self.folder / path.removeprefix("/Workspace/").strip("/")
        if not local.resolve().is_relative_to(self.folder.resolve()):
            raise invalid(f"Path ({path}) is invalid")
        return local

    def mkdirs(self, path):
        local = self.local(path)
        if local.is_file():
            raise Refused(400, "RESOURCE_ALREADY_EXISTS", f"Path ({path}) already exists.")
        local.mkdir(parents=True, exist_ok=True)
        return {}

    def import_(self, path, content="", format="SOURCE", language=None, overwrite=False):
        local = self.local(path)
        try:
            content = base64.b64decode(content, validate=True)
        except binascii.Error:
            raise invalid(f"The content of {path} is not base64") from None
        if len(content) > IMPORT_LIMIT:
            raise Refused(
                400,
                "MAX_NOTEBOOK_SIZE_EXCEEDED",
                (
                    f"File size imported is ({len(content)} bytes), exceeded max size "
                    f"({IMPORT_LIMIT} bytes)"
                ),
            )
        if format not in FORMATS:
            raise invalid(f"The stand-in imports {FORMATS}, not {format}")
        if format == "SOURCE" and not language:
            raise invalid("To import a single file as SOURCE, you must set the language field")
        if not local.parent.is_dir():
            raise missing(f"The parent folder ({path.rpartition('/')[0]}) does not exist.")
        # A file that looks like a notebook becomes one, and loses its extension.
        notebook = (
            format == "SOURCE"
            or format == "AUTO"
            and path.endswith(".py")
            and content.startswith(NOTEBOOK)
        )
        if notebook and format == "AUTO":
            local = local.with_suffix("")
        if local.is_dir() or local.exists() and not overwrite:
            raise Refused(400, "RESOURCE_ALREADY_EXISTS", f"Path ({path}) already exists.")
        local.write_bytes(content)
        (self.notebooks.add if notebook else self.notebooks.discard)(local)
        return {}

    def find(self, path):
        local = self.local(path)
        if not local.exists():
            raise missing(f"Path ({path}) doesn't exist.")
        return local

    def delete(self, path, recursive=False):
        local = self.find(path)
        if local.is_file():
            local.unlink()
        elif recursive:
            shutil.rmtree(local)
        elif any(local.iterdir()):
            raise Refused(400, "DIRECTORY_NOT_EMPTY", f"Folder ({path}) is not empty")
        else:
            local.rmdir()
        return {}

    def shown(self, local):
        kind = "DIRECTORY" if local.is_dir() else "NOTEBOOK" if local in self.notebooks else "FILE"
        found = {
            "object_type": kind,
            "path": f"/{local.relative_to(self.folder)}",
            "object_id": self.ids.setdefault(local, 1000 + len(self.ids)),
        }
        if kind == "NOTEBOOK":
            found["language"] = "PYTHON"
        elif kind == "FILE":
            found["size"] = local.stat().st_size
        return found

    def get_status(self, path):
        return self.shown(self.find(path))

    def list(self, path, notebooks_modified_after=None):
        local = self.find(path)
        return (
            {"objects": [self.shown(item) for item in sorted(local.iterdir())]}
            if local.is_dir()
            else {"objects": [self.shown(local)]}
        )

    def export(self, path, format="SOURCE", direct_download=False):
        local = self.find(path)
        if local.is_dir():
            raise invalid("The stand-in exports no folders")
        return (
            local.read_bytes()
            if direct_download
            else {
                "content": base64.b64encode(local.read_bytes()).decode(),
                "file_type": local.suffix.strip("."),
            }
        )
