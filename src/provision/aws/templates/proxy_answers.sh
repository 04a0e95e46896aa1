#!/bin/sh
# Prints in one line whether the REST proxy of this machine responds, and if not, the reason. Written for sh, which
# Run Command starts. curl reads the password from standard input, so that no process list shows the password.
state=/var/lib/pinpipe
log=/var/log/pinpipe-user-data.log
passwords=/run/kafka-rest/password.properties

# Prints the last line of the input, truncated to 300 characters.
last_line() {
  tail -n 1 | tr -d '\r' | cut -c 1-300
}

fail() {
  echo "$1"
  exit 1
}

service_state() {
  last="$(journalctl --unit kafka-rest --lines 1 --output cat --no-pager 2>/dev/null | last_line)"
  echo "service kafka-rest is $(systemctl is-active kafka-rest 2>/dev/null | last_line), last line: ${last:-none}"
}

if [ -e "$state/failed" ]; then
  fail "user data failed: $(last_line <"$state/failed")"
fi
if [ ! -e "$state/ready" ]; then
  last="$(last_line 2>/dev/null <"$log")"
  fail "user data still running: ${last:-nothing logged yet}"
fi
if [ ! -r "$passwords" ]; then
  fail "no password yet: $(service_state)"
fi

body="$(mktemp)"
trap 'rm -f "$body"' EXIT
status="$(sed -n 's/^\([^:]*\): \([^,]*\),.*/user = "\1:\2"/p' "$passwords" |
  curl --silent --max-time 30 --config - --output "$body" --write-out '%{http_code}' http://localhost:8082/topics)"
case $status in
  200) echo 'the proxy responds' ;;
  401) fail 'the proxy rejects the password (401): restart the service kafka-rest' ;;
  000 | '') fail "the proxy does not respond: $(service_state)" ;;
  *) fail "the proxy responds with HTTP $status: $(last_line <"$body")" ;;
esac
