#!/bin/bash
# Sets up the client machine of the pipeline on Amazon Linux 2: Kafka's command-line tools with IAM authentication, and
# Confluent's REST Proxy as a service. The script is idempotent: it keeps extracted software and writes all settings
# again. It contains no secret, because every user with permission to describe the instance can read its user data.
set -euo pipefail
umask 022

kafka_url='@kafka-url@'
iam_auth_url='@iam-auth-url@'
iam_auth_sha512='@iam-auth-sha512@'
confluent_url='@confluent-url@'
confluent_sha512='@confluent-sha512@'
confluent_version='@confluent-version@'
role_arn='@role-arn@'
bootstrap_servers='@bootstrap-servers@'
zookeeper='@zookeeper@'
region='@region@'
proxy_user='@proxy-user@'
proxy_secret_parameter='@proxy-secret-parameter@'

software=/opt/pinpipe
settings=/etc/pinpipe
state=/var/lib/pinpipe
downloads=/var/lib/pinpipe/download
swap=/var/swapfile
service_user='kafka-rest'
password_file=/run/kafka-rest/password.properties
iam_auth_jar="$software/$(basename "$iam_auth_url")"
kafka="$software/$(basename "$kafka_url" .tgz)"
confluent="$software/confluent-$confluent_version"

mkdir -p "$software" "$settings" "$downloads"
rm -f "$state/ready" "$state/failed"
exec >>/var/log/pinpipe-user-data.log 2>&1

step='begin'
begin() {
  step=$1
  echo "pinpipe: $step"
}

# Stores the failed step, so that a check of the progress reports it instead of waiting for the file `ready`.
on_exit() {
  local code=$?
  rm -rf "$downloads"
  if ((code != 0)); then
    echo "pinpipe: failed: $step"
    echo "$step" >"$state/failed"
  fi
}
trap on_exit EXIT

# Retries a command: a mirror may be overloaded, and another process may hold the package lock of a new machine.
retry() {
  local attempt
  for attempt in 1 2 3 4 5; do
    if "$@"; then
      return 0
    fi
    echo "pinpipe: attempt $attempt of 5 failed: $1 ${2:-}"
    if ((attempt < 5)); then
      sleep $((attempt * 5))
    fi
  done
  return 1
}

fetch() {
  curl --fail --silent --show-error --location --connect-timeout 20 --max-time 900 --output "$2" "$1"
}

# Prints the SHA-512 that Apache publishes for each file, in either of two formats.
published_sha512() {
  fetch "$1.sha512" "$downloads/sum" || return 1
  sed 's/^.*://' "$downloads/sum" | tr -d '[:space:]' | tr 'A-F' 'a-f' | cut -c 1-128
}

# Downloads a file. Fails if a known SHA-512 differs or the archive is incomplete.
download() {
  local url=$1 expected=$2 file
  file="$downloads/$(basename "$url")"
  rm -f "$file"
  fetch "$url" "$file" || return 1
  case $url in
    https://*.apache.org/*) expected="$(published_sha512 "$url")" || return 1 ;;
  esac
  if [[ -n $expected && "$(sha512sum "$file" | cut -d ' ' -f 1)" != "$expected" ]]; then
    echo "pinpipe: the SHA-512 of $url is not $expected"
    return 1
  fi
  case $file in
    *.jar) unzip -tqq "$file" ;;
    *) tar -tzf "$file" >/dev/null ;;
  esac
}

# Extracts an archive into a temporary folder and renames that folder, so that the final folder is always complete.
extract() {
  local url=$1 expected=$2 folder=$3
  if [[ -d $folder ]]; then
    return 0
  fi
  retry download "$url" "$expected" || return 1
  rm -rf "$folder.part"
  mkdir "$folder.part"
  tar -xzf "$downloads/$(basename "$url")" -C "$folder.part" --strip-components 1 --no-same-owner
  mv "$folder.part" "$folder"
}

# The proxy and one of Kafka's tools together require more memory than the 1 GiB of a t2.micro.
begin 'swap space'
if [[ ! -e $swap ]]; then
  dd if=/dev/zero of="$swap.part" bs=1M count=1024 status=none
  chmod 600 "$swap.part"
  mkswap "$swap.part"
  mv "$swap.part" "$swap"
fi
grep -qs "^$swap " /etc/fstab || echo "$swap none swap sw 0 0" >>/etc/fstab
grep -qs "^$swap " /proc/swaps || swapon "$swap"

begin 'packages'
retry yum install -y java-1.8.0-openjdk-headless unzip tar gzip
command -v aws || retry yum install -y awscli

begin "download of $kafka_url"
extract "$kafka_url" '' "$kafka"

begin "download of $iam_auth_url"
if [[ ! -e $iam_auth_jar ]]; then
  retry download "$iam_auth_url" "$iam_auth_sha512"
  mv "$downloads/$(basename "$iam_auth_url")" "$iam_auth_jar"
fi

begin "download of $confluent_url"
extract "$confluent_url" "$confluent_sha512" "$confluent"

begin 'settings'
# Links without a version for later commands, and links in the home folder for users who follow a setup guide.
ln -sfn "$kafka" "$software/kafka"
ln -sfn "$confluent" "$software/confluent"
mkdir -p /home/ec2-user
ln -sfn "$kafka" "/home/ec2-user/$(basename "$kafka")"
ln -sfn "$confluent" "/home/ec2-user/$(basename "$confluent")"

cat >/etc/profile.d/pinpipe.sh <<END
export CLASSPATH=$iam_auth_jar
export PATH=\$PATH:$software/kafka/bin
END

# Prints the four properties of IAM authentication, each with a prefix.
iam_authentication() {
  cat <<END
${1}security.protocol = SASL_SSL
${1}sasl.mechanism = AWS_MSK_IAM
${1}sasl.jaas.config = software.amazon.msk.auth.iam.IAMLoginModule required awsRoleArn="$role_arn";
${1}sasl.client.callback.handler.class = software.amazon.msk.auth.iam.IAMClientCallbackHandler
END
}

iam_authentication '' >"$kafka/bin/client.properties"

{
  cat <<END
listeners = http://0.0.0.0:8082
bootstrap.servers = $bootstrap_servers
END
  if [[ -n $zookeeper ]]; then
    echo "zookeeper.connect = $zookeeper"
  fi
  iam_authentication 'client.'
  cat <<END
authentication.method = BASIC
authentication.realm = KafkaRest
authentication.roles = pinpipe
END
} >"$settings/kafka-rest.properties"

# The name of the entry is the realm in kafka-rest.properties. The class is that of Jetty 9; Jetty 12 renamed it.
cat >"$settings/kafka-rest.jaas" <<END
KafkaRest {
  org.eclipse.jetty.jaas.spi.PropertyFileLoginModule required
  debug="false"
  file="$password_file";
};
END

begin 'service'
id -u "$service_user" >/dev/null 2>&1 || useradd --system --no-create-home --home-dir "$software" --shell /sbin/nologin "$service_user"
mkdir -p /var/log/kafka-rest
chown "$service_user:" /var/log/kafka-rest

# Runs at each start of the service, as the user of the service, so that a restart applies a changed password. The
# folder of the password file is in memory and belongs to the service, so the password is never written to disk.
cat >"$software/read-proxy-secret" <<END
#!/bin/bash
set -euo pipefail
umask 077
secret="\$(aws ssm get-parameter --region '$region' --name '$proxy_secret_parameter' --with-decryption --query Parameter.Value --output text)"
# Other characters have a special meaning in the password file.
case \$secret in
  '' | *[!A-Za-z0-9._~-]*)
    echo 'pinpipe: the password in $proxy_secret_parameter must contain only letters, digits and . _ ~ -' >&2
    exit 1
    ;;
esac
printf '%s: %s,pinpipe\n' '$proxy_user' "\$secret" >'$password_file.new'
mv '$password_file.new' '$password_file'
END
chmod 755 "$software/read-proxy-secret"

cat >/etc/systemd/system/kafka-rest.service <<END
[Unit]
Description=Confluent REST Proxy of pinpipe
Wants=network-online.target
After=network-online.target

[Service]
User=$service_user
RuntimeDirectory=kafka-rest
RuntimeDirectoryMode=0700
Environment=CLASSPATH=$iam_auth_jar
Environment=KAFKAREST_HEAP_OPTS=-Xmx256M
Environment=KAFKAREST_OPTS=-Djava.security.auth.login.config=$settings/kafka-rest.jaas
Environment=LOG_DIR=/var/log/kafka-rest
ExecStartPre=$software/read-proxy-secret
ExecStart=$confluent/bin/kafka-rest-start $settings/kafka-rest.properties
SuccessExitStatus=143
Restart=always
RestartSec=10
NoNewPrivileges=true
PrivateTmp=true
ProtectHome=true

[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl enable kafka-rest
# A later check tests whether the proxy responds. While the password cannot be read, systemd restarts the service.
systemctl restart --no-block kafka-rest

begin 'done'
echo ready >"$state/ready"
