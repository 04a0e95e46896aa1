"""Java libraries, fetched by Maven with the settings of the user."""

import shutil
import subprocess

import pytest

# Pinned, because the default version of the plugin in Maven is years old.
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"


def fetch_jar(coordinates, folder):
    """Copies `group:artifact:version` to `folder/artifact.jar`, unless the file exists.

    Skips the test, with the reason, if Maven is not installed or its repository cannot be reached.
    Fails if the repository does not contain the artifact.
    """
    jar = folder / f"{coordinates.split(':')[1]}.jar"
    if jar.exists():
        return
    maven = shutil.which("mvn")
    if not maven:
        pytest.skip(f"SKIPPED: Maven (mvn), which fetches {coordinates}, is not installed")
    partial = folder / "partial-jars"
    options = [
        f"-Dartifact={coordinates}",
        f"-DoutputDirectory={partial}",
        "-Dmdep.stripVersion=true",
    ]
    command = [maven, "--quiet", "--batch-mode", COPY, *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode:
        assert "Could not find artifact" not in done.stdout, done.stdout
        reason = done.stdout.strip().partition("\n")[0]
        pytest.skip(f"SKIPPED: Maven cannot fetch {coordinates}: {reason}")
    (partial / jar.name).rename(jar)
