"""The content-addressed store: one format for the cache, the embedded registry's root and a run.

Layout
------

    ROOT/
      store.json                     {"format": 1}: checked on open, unknown versions are refused; with
                                     "shared": true in a store that a group shares
      .lock                          its flock(2) is held while the store is opened for writing
      blobs/<algorithm>/<encoded>    whole, verified content; named by digest; immutable
      partials/<encoded>.<token>     bytes of one writer on their way in; the name is no promise of anything;
                                     upload.<token> where the digest is not known yet
      state.sqlite (+ -wal, -shm)    everything that is not content

Folders have mode 0700 and files 0600; in a shared store 2770 and 0660 (see `access`).

A file under `blobs/` came there by rename(2) after its bytes had been hashed to its name and fsynced: a crash
at any instant leaves either the whole blob or none. So the file is the truth about what is held. Manifests
are blobs too. What is under `partials/` and has no living writer is garbage, or the start of a resumed
download after its prefix has been hashed again. A living writer holds its partial's flock(2), which the
kernel frees with the process: who gets the lock may adopt or sweep the partial, whatever its row says.

State schema (sqlite, WAL, synchronous=NORMAL: a power cut may lose the last transactions, never tear one)
----------------------------------------------------------------------------------------------------------

    blobs(digest PRIMARY KEY, size, blocks BLOB, added, used)
        one row a file under blobs/; `blocks` is xxh3-64 of each 4 MiB block, little-endian, guarding
        re-reads; `used` orders eviction (Unix seconds, never trusted for correctness). A file without a row
        is hashed against its name and adopted when it is opened, or evicted by gc; a row without a file is
        deleted by gc.
    members(registry, repository, digest, media_type, PRIMARY KEY (registry, repository, digest))
        what a repository holds; media_type is '' for blobs. For the embedded server registry is '' (itself);
        its blobs are visible only in repositories that they were pushed to or mounted into.
    roots(registry, repository, tag, digest, PRIMARY KEY (registry, repository, tag))
        served tags. What a root reaches, and what refers to that, is never evicted.
    leases(id PRIMARY KEY, digest, pid, boot, heartbeat)
        who holds what right now; a lease is dead when its pid is gone (or is another boot's), or its
        heartbeat (Unix seconds) is older than LEASE_SECONDS. Leased content is never evicted. `boot` is the
        boot id and the pid namespace: of a holder in another namespace only the heartbeat tells.
    partials(token PRIMARY KEY, digest, size, pid, boot, source, etag, updated)
        the writers, for people and gc; the lock is the file's. Two processes may write a partial each of one
        digest: the first to commit wins, the other's rename(2) puts the same bytes there again.
    sessions(origin, repository, digest, url, offset, pid, boot, updated,
             PRIMARY KEY (origin, repository, digest))
        journal: upload sessions that a later push may go on with; `offset` is what the registry confirmed;
        `pid` is the process that is sending to it, 0: none. One of a living process is left to it.
    puts(registry, repository, digest, chosen, at, PRIMARY KEY (registry, repository, digest, chosen))
        journal: roots that this machine put somewhere, with the choice of platforms.
    locations(registry, repository, digest, seen, PRIMARY KEY (registry, repository, digest))
        journal: blobs seen or put at a registry; only ever a hint of where to mount from.
    notes(origin, key, value, at, PRIMARY KEY (origin, key))
        journal: what was learnt of a host (upload form, sparse indexes, ...).
    layers(diff_id, codec, digest, size, PRIMARY KEY (diff_id, codec))
        which blob a bare layer of an archive became; `codec` names the compressor and its version.
    archives(key PRIMARY KEY, content, at)
        what compressed archives hold, so that they need not be read again; the newest only.

Losing state.sqlite loses the served roots of an embedded registry and costs everyone else only time: blobs
are found by their names again. A corrupt state file is moved aside, said so, and started anew. One that is
removed or replaced while it is in use is missed: nothing more is written (see `identity`). Its user_version
is the schema's, 1 or (before that was kept) 0; a newer one is refused and left as it is.

Several processes share a store: sqlite's locks order their writes, the partials' locks keep writers apart,
leases keep each other's content alive. Who opens a store read-only writes nothing at all into its folder, and
sees what the others commit (see `snapshot`).
"""

from blobflow.transports.store.imports import Imports
from blobflow.transports.store.journal import StoreJournal
from blobflow.transports.store.partial import StoreCache
from blobflow.transports.store.room import KeepsAll, MayDoWithout, room_in
from blobflow.transports.store.store import Store
from blobflow.transports.store.writer import Writer

__all__ = ["Imports", "KeepsAll", "MayDoWithout", "Store", "StoreCache", "StoreJournal", "Writer", "room_in"]
