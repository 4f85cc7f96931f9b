#!/bin/sh
# Three nodes on this machine that share a Redis and an etcd: `examples/cluster.sh` starts everything
# on free ports of loopback, shows a task and a message that cross nodes, and goes on until ctrl-c;
# with --exit it ends. Data is in a temporary directory and goes with it. Needs redis-server and etcd
# (Debian: redis-server, etcd-server).
set -eu
cd "$(dirname "$0")/.."
for program in redis-server etcd; do
    command -v "$program" >/dev/null || {
        echo "$program is not installed; on Debian: apt-get install redis-server etcd-server" >&2
        exit 1
    }
done
[ -d "$(rustc --print target-libdir --target wasm32-wasip2)" ] || rustup target add wasm32-wasip2
cargo build --release
hostel=$PWD/target/release/hostel
dir=$(mktemp -d)
running=
trap 'kill $running 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
redis=$(free_port) etcd=$(free_port) peer=$(free_port)
mkdir "$dir/redis"
redis-server --bind 127.0.0.1 --port "$redis" --dir "$dir/redis" --save '' --appendonly yes >"$dir/redis.log" &
running=$!
etcd --data-dir "$dir/etcd" --listen-client-urls "http://127.0.0.1:$etcd" \
    --advertise-client-urls "http://127.0.0.1:$etcd" --listen-peer-urls "http://127.0.0.1:$peer" \
    --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
    --initial-cluster "default=http://127.0.0.1:$peer" >"$dir/etcd.log" 2>&1 &
running="$running $!"

# Each node has plugins of its own, so that tasks have somewhere to go.
start() {
    name=$1
    shift
    mkdir -p "$dir/$name/plugins"
    for plugin in "$@"; do
        "$hostel" plugins build "plugins/$plugin" --out "$dir/$name/plugins"
    done
    cat >"$dir/$name/hostel.toml" <<END
[node]
id = "$name"
listen = "127.0.0.1:0"
data_dir = "data"
[plugins]
dir = "plugins"
[discovery]
kind = "etcd"
endpoints = ["http://127.0.0.1:$etcd"]
[queue]
kind = "redis"
url = "redis://127.0.0.1:$redis"
[broker]
kind = "redis"
url = "redis://127.0.0.1:$redis"
END
    "$hostel" serve --config "$dir/$name/hostel.toml" --ports-file "$dir/$name/ports" >"$dir/$name/log" 2>&1 &
    running="$running $!"
}
start north echo
start east text thumbnail
start south rates

address() {
    for _ in $(seq 600); do
        [ -s "$dir/$1/ports" ] && break
        sleep 0.1
    done
    python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["grpc"])' "$dir/$1/ports" || {
        cat "$dir/$1/log" >&2
        exit 1
    }
}
north=$(address north) east=$(address east) south=$(address south)
# What the others can do is known a moment after they serve.
knows() { until "$hostel" nodes list --server "$1" | grep -q "$2"; do sleep 0.1; done; }
knows "$south" word-count
knows "$north" rates
knows "$east" echo

echo
echo "A task for east, given to south, asked for at north:"
id=$("$hostel" submit word-count --payload 'many nodes, many words' --server "$south")
"$hostel" tasks get "$id" --server "$north"
"$hostel" submit word-count --id "$id" --payload 'many nodes, many words' --wait --server "$north"
echo
echo "A message for a component on south, sent from north:"
"$hostel" send rates --payload '{"query":{}}' --wait --server "$north"
echo
"$hostel" nodes list --server "$east"
[ "${1:-}" = --exit ] && exit
cat <<END

north, east and south serve at $north, $east and $south. Try:
  target/release/hostel submit echo --payload hi --wait --server $east
  target/release/hostel nodes drain north --server $south
Logs are in $dir. Ctrl-c ends it all.
END
wait
