#!/bin/sh
# Runs one megatools command against an emulator: megatools.sh WORKDIR ADDRESS:PORT COMMAND...
#
# megatools has the service's host name and public key compiled in. So: a private mount namespace
# whose /etc/hosts sends that name to a loopback address of our own, a TLS front end there with a
# certificate made for the run, and a preloaded wrapper that drops the key pin. Nothing outside the
# namespace changes. WORKDIR keeps certificate, wrapper and logs between runs of one test.
set -eu
work=$1 target=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
host=g.api.mega.co.nz

if [ ! -e "$work/unpin.so" ]; then
    gcc -shared -fPIC -O1 -o "$work/unpin.so.new" "$here/unpin.c" -ldl
    mv "$work/unpin.so.new" "$work/unpin.so"
fi
if [ ! -e "$work/cert.pem" ]; then
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$host" \
        -addext "subjectAltName=DNS:$host" -keyout "$work/key.pem" -out "$work/cert.pem" \
        2>"$work/openssl.log"
fi
# The front end takes a free port's address: every run its own in 127/8.
exec unshare --mount --propagation private sh -eu -c '
    work=$1 target=$2 here=$3 host=$4
    shift 4
    rm -f "$work/front"
    python3 "$here/tls-front.py" "$work/cert.pem" "$work/key.pem" "$target" >"$work/front" &
    front=$!
    trap "kill $front 2>/dev/null || true" EXIT
    tries=0
    until [ -s "$work/front" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { echo "no TLS front end" >&2; exit 1; }
        sleep 0.05
    done
    printf "127.0.0.1 localhost\n%s %s\n" "$(cat "$work/front")" "$host" >"$work/hosts"
    mount --bind "$work/hosts" /etc/hosts
    # libcurl with GnuTLS or OpenSSL reads the bundle; ours replaces it here.
    mount --bind "$work/cert.pem" /etc/ssl/certs/ca-certificates.crt
    # megatools keeps sessions in the directory for temporary files, by account.
    LD_PRELOAD="$work/unpin.so" HOME="$work" TMPDIR="$work" timeout 60 "$@"
' sh "$work" "$target" "$here" "$host" "$@"
