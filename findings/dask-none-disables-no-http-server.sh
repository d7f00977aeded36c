#!/usr/bin/env bash
# dask distributed 2026.8.0: LocalCluster(dashboard_address=None) takes port 8787 and answers there.
#
# Most expect: what the docstring of LocalCluster says, that None disables the dashboard, and that the workers have none by
# default (worker_dashboard_address=None). So a program that runs such a cluster for itself opens no ports but those by which
# the scheduler and its workers speak.
#
# What happens: None keeps the Bokeh pages out; the HTTP server below them starts as ever, on its default port, 8787, with pages
# of the workers, their logs, counts and metrics, and each worker starts one of its own. A second such cluster warns that
# 8787 is in use, asks whether a cluster is running already, and takes another port. `dashboard=False` changes none of it.
#
# Why it matters: a program that has a cluster inside meets the next run of itself at a well-known port, or somebody's real
# dashboard, and prints a warning that means nothing to its users. Give the scheduler's server an address of its own
# ("127.0.0.1:0" as dashboard_address in scheduler_kwargs), and empty `distributed.*.http.routes` where no page is wanted.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --only-binary :all: --target packages \
    dask==2026.8.0 distributed==2026.8.0 >/dev/null 2>&1 || { echo "could not get dask distributed 2026.8.0" >&2; exit 2; }
(exec 3<>/dev/tcp/127.0.0.1/8787) 2>/dev/null && { echo "port 8787 is in use here" >&2; exit 2; }

cat >try.py <<'PY'
import asyncio
import logging
import sys
import urllib.error
import urllib.request
import warnings

sys.path.insert(0, "packages")
from distributed import LocalCluster

PAGES = "/info/main/workers.html", "/json/counts.json", "/metrics", "/status"


async def answers(port):
    seen = {}
    for page in PAGES:
        def get():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=60) as answer:
                    return answer.status
            except urllib.error.HTTPError as error:
                return error.code
        seen[page] = await asyncio.to_thread(get)
    return seen


def cluster(**more):
    """In this process, on loopback, with one worker; None is the workers' default."""
    return LocalCluster(n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", asynchronous=True,
                        dashboard_address=None, silence_logs=logging.CRITICAL, local_directory="scratch", **more)


async def main():
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with cluster() as first:
            port = first.scheduler.http_server.port
            seen = await answers(port)
            print(f"dashboard_address=None: the scheduler listens on {port}, and answers", seen)
            at_first = [str(each.message) for each in warned if "ort 8787" in str(each.message)]
            worker = first.workers[0].http_server.port
            print("its worker listens on a port more:", bool(worker and worker != port))
            async with cluster(scheduler_kwargs={"dashboard": False}) as second:
                said = [str(each.message) for each in warned if "ort 8787" in str(each.message)]
                other = second.scheduler.http_server.port
                print("a second one, with dashboard=False, listens on another port:", bool(other and other != port))
                print("and warns:", *said[0].strip().replace(str(other), "ANOTHER").splitlines() if said else "no", sep="\n    ")
    return port == 8787 and list(seen.values())[:3] == [200] * 3 and worker and other and not at_first and len(said) == 1


sys.exit(0 if asyncio.run(main()) else 1)
PY
HOME=$work python3 try.py || { echo "this is no longer so" >&2; exit 1; }
