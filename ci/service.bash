# For `source`: starts the built service on embedded parts, and stops and deletes at the end what a check started.
# Sets work (a folder), running (processes to stop), and with `serve` service (its process) and url.
set -euo pipefail

work=$(mktemp -d)
running=()
trap 'kill "${running[@]}" 2>/dev/null || true; wait "${running[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT
fail() { printf '%s\n' "$*" >&2; tail -n 5 "$work"/*.log >&2; exit 1; }

within() { # WHAT COMMAND...: within 10 s
    local what=$1
    shift
    for _ in $(seq 100); do
        if "$@"; then return; fi
        sleep 0.1
    done
    fail "$what"
}

serve() { # SETTING=VALUE...
    env LOG_FORMAT=json APP_PORT=0 DATA_DIR="$work/data" "$@" "${CARGO_TARGET_DIR:-target}/debug/order-tracker" 2>"$work/service.log" &
    service=$!
    running+=("$service")
    within "the service starts" listens
}
listens() { url=$(sed -n 's/.*"url":"\([^"]*\)".*/\1/p' "$work/service.log") && [ -n "$url" ]; }
