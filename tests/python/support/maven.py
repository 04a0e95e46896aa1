"""Java libraries by their Maven coordinates, fetched by Maven itself with its own settings."""

import shutil
import subprocess

import pytest

# Pinned: the version that an installation of Maven takes by default is years old.
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"


def fetch_jar(coordinates, folder):
    """Copies `group:artifact:version` to `folder/artifact.jar`, unless it is there.

    Skips the test where there is no Maven or its repository cannot be reached, and says so; fails
    where the repository does not have the artifact.
    """
    jar = folder / f"{coordinates.split(':')[1]}.jar"
    if jar.exists():
        return
    maven = shutil.which("mvn")
    if not maven:
        pytest.skip(f"LEFT OUT: there is no Maven (mvn) to fetch {coordinates} with")
    draft = folder / "draft-jars"
    options = [
        f"-Dartifact={coordinates}",
        f"-DoutputDirectory={draft}",
        "-Dmdep.stripVersion=true",
    ]
    command = [maven, "--quiet", "--batch-mode", COPY, *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode:
        assert "Could not find artifact" not in done.stdout, done.stdout
        reason = done.stdout.strip().partition("\n")[0]
        pytest.skip(f"LEFT OUT: Maven cannot fetch {coordinates}: {reason}")
    (draft / jar.name).rename(jar)
