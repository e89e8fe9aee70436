#!/bin/sh
# start_app: bring a device to a locked version, start an app on it, and say whether it runs.
#
# An example: copy it next to hubpin-pull.sh and set the values below, here or in the environment.
#   exit status: 0 the app answers on its port, 1 it does not, 2 a setting is wrong
set -eu

MIRROR=${MIRROR:-http://mirror:8090}
PAIR=${PAIR:-org/voice@v23}
FINGERPRINT=${FINGERPRINT:-} # from the mirror's admin; empty: what the mirror says
FOLDER=${FOLDER:-/srv/voice} # versions; the app reads $FOLDER/current
# shellcheck disable=SC2016  # by sh -c, later
APP=${APP:-'exec voice-server --model "$FOLDER/current" --port "$PORT"'}
HOST=${HOST:-127.0.0.1}
PORT=${PORT:-8000}
WAIT_S=${WAIT_S:-60}
RUN=${RUN:-$FOLDER/.hubpin/app} # $RUN.pid and $RUN.log
HERE=$(cd "$(dirname "$0")" && pwd)
export FOLDER HOST PORT HF_HUB_OFFLINE=1

say() { printf 'start_app: %s\n' "$*" >&2; }

answers() {
    if command -v curl >/dev/null 2>&1; then
        # 52 and 56: somebody is there and speaks something else than HTTP.
        status=0
        curl -q -s -o /dev/null --noproxy '*' --max-time 2 "http://$HOST:$PORT/" || status=$?
        case $status in 0 | 1 | 52 | 56) return 0 ;; *) return 1 ;; esac
    fi
    nc -z -w 2 "$HOST" "$PORT" 2>/dev/null
}

# A process id alone may belong to another program, after a reboot for example.
identity() { # PID: when it was born, and in which boot
    [ -r "/proc/$1/stat" ] || return 0
    read -r born <"/proc/$1/stat" || return 0
    # shellcheck disable=SC2086  # words
    set -- $1 ${born##*) }
    [ "$2" != Z ] || return 0 # it has ended, and nobody has asked how
    shift 20
    printf '%s %s\n' "$1" "$(cat /proc/sys/kernel/random/boot_id)"
}

still_runs() { # the app of last time; sets $old
    [ -f "$RUN.pid" ] || return 1
    read -r old was <"$RUN.pid" || return 1
    [ -n "$was" ] && [ "$(identity "$old")" = "$was" ]
}

show_log() {
    say "the end of $RUN.log:"
    tail -n 20 "$RUN.log" >&2 || :
}

# 1. the files. Without a mirror what is here will do, if it is what was locked.
set -- --mirror "$MIRROR" --to "$FOLDER"
[ -z "$FINGERPRINT" ] || set -- "$@" --fingerprint "$FINGERPRINT"
status=0
"$HERE/hubpin-pull.sh" "$@" "$PAIR" >/dev/null || status=$?
case $status in
0) ;;
1)
    say "$PAIR could not be fetched; looking at what is here"
    set -- --to "$FOLDER" --check
    [ -z "$FINGERPRINT" ] || set -- "$@" --fingerprint "$FINGERPRINT"
    "$HERE/hubpin-pull.sh" "$@" "$PAIR" >/dev/null || {
        say "NOT RUNNING: there is no whole $PAIR on this device"
        exit 1
    }
    ;;
*)
    say "NOT RUNNING: see above"
    exit 2
    ;;
esac

# 2. the app of last time, if it still runs
if still_runs; then
    say "ending the app of before, process $old"
    kill "$old" 2>/dev/null || :
    left=10
    while still_runs && [ "$left" -gt 0 ]; do
        sleep 1
        left=$((left - 1))
    done
fi
rm -f "$RUN.pid"
if answers; then
    say "NOT RUNNING: another program has port $PORT"
    exit 1
fi

# 3. start it, and wait for its port
sh -c "$APP" >"$RUN.log" 2>&1 </dev/null &
app=$!
printf '%s %s\n' "$app" "$(identity "$app")" >"$RUN.pid"
waited=0
while ! answers; do
    if ! kill -0 "$app" 2>/dev/null; then
        status=0
        wait "$app" || status=$?
        show_log
        say "NOT RUNNING: the app ended with status $status"
        rm -f "$RUN.pid"
        exit 1
    fi
    if [ "$waited" -ge "$WAIT_S" ]; then
        kill "$app" 2>/dev/null || :
        show_log
        say "NOT RUNNING: nothing on port $PORT after $WAIT_S seconds"
        rm -f "$RUN.pid"
        exit 1
    fi
    sleep 1
    waited=$((waited + 1))
done
say "RUNNING: $PAIR on port $PORT, process $app"
