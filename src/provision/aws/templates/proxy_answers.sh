#!/bin/sh
# Says in one line whether the REST proxy of this machine answers, and if not, why. Written for sh: that is what Run
# Command starts. The password goes to curl through its standard input, where no list of processes shows it.
state=/var/lib/pinpipe
log=/var/log/pinpipe-user-data.log
passwords=/run/kafka-rest/password.properties

# The last line of what comes in, short enough for an answer in one line.
last_line() {
  tail -n 1 | tr -d '\r' | cut -c 1-300
}

refuse() {
  echo "$1"
  exit 1
}

service_state() {
  said="$(journalctl --unit kafka-rest --lines 1 --output cat --no-pager 2>/dev/null | last_line)"
  echo "service kafka-rest is $(systemctl is-active kafka-rest 2>/dev/null | last_line), last line: ${said:-none}"
}

if [ -e "$state/failed" ]; then
  refuse "user data failed: $(last_line <"$state/failed")"
fi
if [ ! -e "$state/ready" ]; then
  said="$(last_line 2>/dev/null <"$log")"
  refuse "user data still running: ${said:-nothing logged yet}"
fi
if [ ! -r "$passwords" ]; then
  refuse "no password yet: $(service_state)"
fi

answer="$(mktemp)"
trap 'rm -f "$answer"' EXIT
status="$(sed -n 's/^\([^:]*\): \([^,]*\),.*/user = "\1:\2"/p' "$passwords" |
  curl --silent --max-time 30 --config - --output "$answer" --write-out '%{http_code}' http://localhost:8082/topics)"
case $status in
  200) echo 'the proxy answers' ;;
  401) refuse 'the proxy refuses the password (401): restart the service kafka-rest' ;;
  000 | '') refuse "the proxy does not answer: $(service_state)" ;;
  *) refuse "the proxy answers with $status: $(last_line <"$answer")" ;;
esac
