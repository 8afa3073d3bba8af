#!/usr/bin/env bash
# A Ray on this machine: loopback only, token authentication on. It is ended by process id: `ray stop` would end every Ray
# of the machine.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
bin=${WMSWEEP_BIN:-$here/.venv/bin}
state=${WMSWEEP_RAY_STATE:-$here/.ray}
port=${WMSWEEP_RAY_PORT:-6379}
dashboard_port=${WMSWEEP_RAY_DASHBOARD_PORT:-8265}

start() {
  if [ -s "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2>/dev/null; then
    echo "A Ray that this script started is running already (process $(cat "$state/pid"))." >&2
    exit 1
  fi
  mkdir -p "$state"
  export RAY_AUTH_MODE=token
  # Jobs find their programs where this Ray finds its own.
  export PATH="$bin:$PATH"
  if [ ! -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ] && [ -z "${RAY_AUTH_TOKEN:-}" ]; then
    "$bin/ray" get-auth-token --generate >/dev/null
  fi
  # --block keeps everything in one process group, whose leader ends all of it. The agent, which starts jobs, takes any
  # free port: another Ray of this machine may hold the usual one.
  setsid "$bin/ray" start --head --block --port "$port" --dashboard-agent-listen-port 0 \
    --dashboard-host 127.0.0.1 --dashboard-port "$dashboard_port" --disable-usage-stats >"$state/log" 2>&1 &
  echo $! >"$state/pid"
  for _ in $(seq 60); do
    if "$bin/ray" status --address "127.0.0.1:$port" >/dev/null 2>&1 &&
      "$bin/ray" job list --address "http://127.0.0.1:$dashboard_port" >/dev/null 2>&1; then
      echo "Ray runs at 127.0.0.1:$port (process $(cat "$state/pid"), log $state/log)."
      echo "Dashboard: http://127.0.0.1:$dashboard_port"
      echo "Use it:    export RAY_AUTH_MODE=token"
      echo "           wmsweep run SPEC --address 127.0.0.1:$port"
      return
    fi
    kill -0 "$(cat "$state/pid")" 2>/dev/null || { echo "Ray did not start: see $state/log" >&2; exit 1; }
    sleep 1
  done
  echo "Ray did not answer within a minute: see $state/log" >&2
  exit 1
}

stop() {
  [ -s "$state/pid" ] || { echo "No Ray that this script started." >&2; exit 1; }
  group=$(cat "$state/pid")
  kill -TERM -- "-$group" 2>/dev/null || true
  for _ in $(seq 20); do kill -0 -- "-$group" 2>/dev/null || break; sleep 0.5; done
  kill -KILL -- "-$group" 2>/dev/null || true
  rm -f "$state/pid"
  echo "Ended."
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  *) echo "usage: $0 start|stop" >&2; exit 2 ;;
esac
