#!/usr/bin/env bash
# Squid 5.7 (Debian 12: squid 5.7-2+deb12u6) as a reverse proxy, as it is by default, drops an upload when the
# server behind it reads more slowly than the client sends.
#
# Most expect: a proxy that can't pass a body on as fast as it comes reads it more slowly; that is what TCP's flow
# control is for. Squid has a buffer for that, client_request_buffer_max_size, 512 KB by default, and bodies are
# said to wait in it.
#
# What happens: bodies that fit into that buffer always arrive. One of 20 MB ends after some megabytes, at another
# byte each time: the client's connection is closed without an answer, and so is the server's. There is no line in
# cache.log.
#
# Why it matters: nothing says that the proxy did it, and who sends the body again, whole, loses it again somewhere
# else. A container registry that forgets broken uploads can make that 100 times the bytes of a layer. Requests no
# larger than the buffer are the way through; squid shows itself in its Via header.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
squid=
end() { # squid leaves its shared memory behind unless it may end in peace
    [ -z "$squid" ] || { kill "$squid" 2>/dev/null && wait "$squid"; } || true
    rm -rf "$work"
}
trap end EXIT
cd "$work"
chmod 777 .
apt-get download squid=5.7-2+deb12u6 squid-common=5.7-2+deb12u6 libecap3=1.0.1-3.4 squid-langpack=20220130-1 >/dev/null 2>&1 || {
    echo "could not get squid" >&2
    exit 2
}
for package in *.deb; do dpkg -x "$package" root; done
export LD_LIBRARY_PATH=$work/root/usr/lib/$(uname -m)-linux-gnu
if ! root/usr/sbin/squid -v >version 2>&1; then cat version >&2; exit 2; fi
head -n 1 version

cat >try.py <<'PYTHON'
"""Uploads of several sizes through the squid at port argv[1] to a server that reads some 60 MB a second."""
import os, socket, sys, threading, time

TRIES = 5


def serve(connection):
    with connection, connection.makefile("rb") as stream:
        length = 0
        while line := stream.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        while length and (part := stream.read1(65536)):
            length -= len(part)
            time.sleep(0.001)
        if not length:
            connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def accept(listener):
    while True:
        threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()


def upload(port, size):
    """Whether there is an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        try:
            client.sendall(b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
            client.sendall(bytes(size))
            return client.recv(100).startswith(b"HTTP/1.1 201")
        except ConnectionError:
            return False


listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
threading.Thread(target=accept, args=(listener,), daemon=True).start()
for _ in range(100):  # squid knows its server only after a first look
    if upload(int(sys.argv[1]), 1):
        break
    time.sleep(0.1)
for size in map(int, sys.argv[3:]):
    print(size, sum(upload(int(sys.argv[1]), size) for _ in range(TRIES)), "of", TRIES, flush=True)
os._exit(0)
PYTHON

free() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
front=$(free)
back=$(free)
cat >squid.conf <<CONF
http_port 127.0.0.1:$front accel defaultsite=x no-vhost
cache_peer 127.0.0.1 parent $back 0 no-query originserver
http_access allow all
pid_filename none
access_log none
cache_log $work/cache.log
coredump_dir $work
mime_table $work/root/usr/share/squid/mime.conf
icon_directory $work/root/usr/share/squid/icons
error_directory $work/root/usr/share/squid-langpack/en
pinger_enable off
shutdown_lifetime 0 seconds
CONF
root/usr/sbin/squid -N -n "finding$$" -f squid.conf >said 2>&1 &
squid=$!
for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$front") 2>/dev/null; then break; fi
    sleep 0.1
done
timeout 120 python3 try.py "$front" "$back" 400000 20000000 >seen || { cat said seen >&2; exit 2; }
echo "bytes of a body, and how many of them were answered:"
cat seen
small=$(awk '$1 == 400000 { print $2 }' seen)
large=$(awk '$1 == 20000000 { print $2 }' seen)
if [ "$small" != 5 ] || [ "$large" = 5 ]; then
    echo "this is no longer so" >&2
    exit 1
fi
