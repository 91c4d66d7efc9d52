#!/usr/bin/env bash
# What `CW_DEBEZIUM` of the differential test names (tests/it/differential.rs): a Kafka Connect worker with Debezium's
# PostgreSQL connector, and the Kafka behind it, which both run already. Needs bash, curl, Java 17.
#
#   CONNECT_URL   REST address of the worker, http://127.0.0.1:8083
#   BOOTSTRAP     of its Kafka, 127.0.0.1:9092
#   KAFKA_LIBS    folder with Kafka's jars (libs/ of a distribution); Connect's jackson is among them
#
#   CW_DEBEZIUM=$PWD/peer.sh CW_DIFF_SEEDS=11..14 cargo test -p catchwater-connector-postgres --test it differential
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${CONNECT_URL:=http://127.0.0.1:8083}" "${BOOTSTRAP:=127.0.0.1:9092}" "${KAFKA_LIBS:?folder with the jars of Kafka}"
answer=$(mktemp); trap 'rm -f "$answer"' EXIT
call() { # method, path, [curl's arguments]: prints the status
  local method=$1 path=$2; shift 2
  curl -sS -o "$answer" -w '%{http_code}' -X "$method" -H 'Content-Type: application/json' "$CONNECT_URL$path" "$@"
}

case ${1:-} in
  put) # NAME CONFIG.json: until its task runs
    for _ in $(seq 1 40); do # 409 while the worker rebalances
      code=$(call PUT "/connectors/$2/config" --data-binary @"$3")
      [ "$code" = 409 ] || break
      sleep 0.5
    done
    case $code in 2*) ;; *) cat "$answer" >&2; exit 1 ;; esac
    for _ in $(seq 1 480); do
      call GET "/connectors/$2/status" >/dev/null
      case $(cat "$answer") in
        *'"state":"FAILED"'*) cat "$answer" >&2; exit 1 ;;
        *'"tasks":[{'*'"state":"RUNNING"'*) exit 0 ;;
      esac
      sleep 0.25
    done
    echo "$2 does not run: $(cat "$answer")" >&2; exit 1 ;;
  delete) call DELETE "/connectors/$2" >/dev/null ;;
  dump) java -Xmx256m -cp "$KAFKA_LIBS/*" "$here/Dump.java" "$BOOTSTRAP" "$2" "$3" "$4" ;;
  *) sed -n '2,10p' "$0" >&2; exit 2 ;;
esac
