"""A sandbox for the scripts of the client machine: a separate root folder, with stubs for commands
that change the system.

The scripts write to folders like /etc. They run in a mount namespace with another root, in which
the programs of the system are mounted read-only. Therefore the scripts need no test mode.
"""

import hashlib
import io
import os
import pathlib
import shutil
import subprocess
import tarfile
import zipfile

import pytest

from support.templates import VALUES

SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
WRITTEN = ("etc", "home", "opt", "run", "var")

ENTER = r"""
set -e
root=$1
shift
for folder in usr $(cd "$root" && for name in bin sbin lib lib32 lib64 libx32; do [ -d "$name" ] && [ ! -L "$name" ] && echo "$name"; done); do
  mount --bind "/$folder" "$root/$folder"
  mount -o remount,bind,ro "$root/$folder"
done
mount --bind /dev/null "$root/dev/null"
exec env -i PATH=/stubs:/usr/bin:/bin:/usr/sbin:/sbin LC_ALL=C chroot "$root" "$@"
"""  # noqa: E501

# Scripts of the stubs. Each stub records its calls; an empty script does nothing else.
STUBS = {
    "yum": "",
    "chown": "",
    "mkswap": "",
    "swapon": "",
    "sleep": "",
    "useradd": "echo kafka-rest:x:990:990::/opt/pinpipe:/sbin/nologin >>/etc/passwd",
    "dd": 'for word; do case $word in of=*) echo swap >"${word#of=}" ;; esac; done',
    "systemctl": '[ "$1" != is-active ] || cat /answers/active',
    "journalctl": "cat /answers/journal",
    "aws": (
        "[ -e /answers/secret ] || { echo 'ParameterNotFound' >&2; exit 254; }\ncat /answers/secret"
    ),
    "curl": r"""
while [ $# -gt 1 ]; do
  case $1 in
    --output) output=$2 ;;
    --config) cat >/answers/config; asked=yes ;;
  esac
  shift
done
if [ -n "${asked:-}" ]; then
  [ "$(cat /answers/status)" = 000 ] || cp /answers/body "$output"
  cat /answers/status
else
  cp "/downloads/$(basename "$1")" "$output" 2>/dev/null || { echo "curl: (22) The requested URL returned error: 404" >&2; exit 22; }
fi
""",  # noqa: E501
}


def tar_gz(folder, files):
    """Returns an archive in the layout of published releases, with all files in one folder."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mode = len(text), 0o755
            archive.addfile(entry, io.BytesIO(text.encode()))
    return whole.getvalue()


def jar():
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("software/amazon/msk/auth/iam/IAMLoginModule.class", "class")
    return whole.getvalue()


def apache_sum(name, content):
    """Returns a checksum in the layout of `gpg --print-md SHA512`, which Apache publishes."""
    digits = hashlib.sha512(content).hexdigest().upper()
    groups = [digits[i : i + 8] for i in range(0, len(digits), 8)]
    return f"{name}: {' '.join(groups[:8])}\n{' ' * len(name)}  {' '.join(groups[8:])}\n".encode()


class Machine:
    def __init__(self, root):
        self.root = pathlib.Path(root)
        for folder in (
            "usr",
            "dev",
            "tmp",
            "stubs",
            "downloads",
            "answers",
            "etc/systemd/system",
            "etc/profile.d",
            "home",
            "opt",
            "run",
            "var/lib",
            "var/log",
        ):
            (self.root / folder).mkdir(parents=True)
        for name in SYSTEM:
            if pathlib.Path("/", name).is_symlink():
                (self.root / name).symlink_to(os.readlink(f"/{name}"))
            elif pathlib.Path("/", name).is_dir():
                (self.root / name).mkdir()
        (self.root / "dev/null").touch()
        for name, does in STUBS.items():
            script = self.root / "stubs" / name
            script.write_text(f'#!/bin/sh\necho "{name} $*" >>/calls\n{does}\n')
            script.chmod(0o755)
        kafka = tar_gz("kafka_2.12-2.8.1", {"bin/kafka-topics.sh": "#!/bin/bash\n"})
        self.publish("kafka_2.12-2.8.1.tgz", kafka)
        self.publish("kafka_2.12-2.8.1.tgz.sha512", apache_sum("kafka_2.12-2.8.1.tgz", kafka))
        self.publish("aws-msk-iam-auth-1.1.5-all.jar", jar())
        self.publish(
            "confluent-community-7.2.0.tar.gz",
            tar_gz("confluent-7.2.0", {"bin/kafka-rest-start": "#!/bin/sh\n"}),
        )

    def path(self, path):
        return self.root / path.lstrip("/")

    def text(self, path):
        return self.path(path).read_text()

    def publish(self, name, content):
        (self.root / "downloads" / name).write_bytes(content)

    def withdraw(self, name):
        (self.root / "downloads" / name).unlink()

    def answer(self, **answers):
        """Sets the output of the stubs."""
        for name, text in answers.items():
            (self.root / "answers" / name).write_text(text)

    def calls(self, *beginnings):
        """Returns the recorded calls that start with these texts, and clears the record."""
        file = self.root / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [line for line in lines if line.startswith(beginnings or ("",))]

    def run(self, *command, text=None):
        """Runs a command, or the text of a script with the given shell."""
        if text is not None:
            (self.root / "script").write_text(text)
            command = (*command, "/script")
        whole = [
            "unshare",
            "--mount",
            *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]),
            "sh",
            "-c",
            ENTER,
            "sh",
            str(self.root),
            *command,
        ]
        return subprocess.run(whole, capture_output=True, text=True, timeout=120)

    def snapshot(self):
        """Returns mode and content (or target) of every written file by path, except log files,
        which differ after each run.
        """
        found = {}
        for folder in WRITTEN:
            for path in sorted((self.root / folder).rglob("*")):
                if path.suffix == ".log":
                    continue
                kept = (
                    os.readlink(path)
                    if path.is_symlink()
                    else path.read_bytes()
                    if path.is_file()
                    else None
                )
                found["/" + str(path.relative_to(self.root))] = (oct(path.lstat().st_mode), kept)
        return found

    def files_with(self, text):
        """Returns the files of the machine that contain a text, except the output of the stubs."""
        return [
            "/" + str(path.relative_to(self.root))
            for folder in (*WRITTEN, "tmp", "calls", "script")
            for path in [self.root / folder, *(self.root / folder).rglob("*")]
            if path.is_file() and not path.is_symlink() and text.encode() in path.read_bytes()
        ]


def make(root):
    """Returns a machine. Skips the test if this system does not permit mount namespaces."""
    missing = [
        name
        for name in ("unshare", "chroot", "unzip", "tar")
        if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    ]
    if missing:
        pytest.skip(f"SKIPPED: commands are missing: {', '.join(missing)}")
    machine = Machine(root)
    tried = machine.run("true")
    if tried.returncode:
        pytest.skip(
            "SKIPPED: this system does not permit a mount namespace with another root: "
            f"{tried.stderr.strip()}"
        )
    return machine


KAFKA, CONFLUENT = "/opt/pinpipe/kafka_2.12-2.8.1", "/opt/pinpipe/confluent-7.2.0"


CLIENT_PROPERTIES = f"""\
security.protocol = SASL_SSL
sasl.mechanism = AWS_MSK_IAM
sasl.jaas.config = software.amazon.msk.auth.iam.IAMLoginModule required awsRoleArn="{VALUES["role-arn"]}";
sasl.client.callback.handler.class = software.amazon.msk.auth.iam.IAMClientCallbackHandler
"""  # noqa: E501


PROXY_PROPERTIES = f"""\
listeners = http://0.0.0.0:8082
bootstrap.servers = {VALUES["bootstrap-servers"]}
zookeeper.connect = {VALUES["zookeeper"]}
client.security.protocol = SASL_SSL
client.sasl.mechanism = AWS_MSK_IAM
client.sasl.jaas.config = software.amazon.msk.auth.iam.IAMLoginModule required awsRoleArn="{VALUES["role-arn"]}";
client.sasl.client.callback.handler.class = software.amazon.msk.auth.iam.IAMClientCallbackHandler
authentication.method = BASIC
authentication.realm = KafkaRest
authentication.roles = pinpipe
"""  # noqa: E501
