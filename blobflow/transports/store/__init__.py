"""The content-addressed store: one format for the cache, the embedded registry's root and a run.

Layout
------

    ROOT/
      store.json                     {"format": 1}: checked on open, unknown versions are refused; with
                                     "shared": true in a store that a group shares
      .lock                          its flock(2) is held while the store is opened for writing
      blobs/<algorithm>/<encoded>    whole, verified content; named by digest; immutable
      partials/<encoded>.<token>     bytes of one writer on their way in; the name is no promise of anything;
                                     upload.<token> where the digest is not known yet, or nobody else may go
                                     on with it; condemned.<token>: a blob that waits to be removed
      state.sqlite (+ -wal, -shm)    everything that is not content

Folders have mode 0700 and files 0600; in a shared store 2770 and 0660 (see `permissions`).

A file under `blobs/` came there by rename(2) after its bytes had been hashed to its name and fsynced: a crash
at any instant leaves either the whole blob or none. So the file is the truth about what is held. Manifests
are blobs too. What is under `partials/` and has no living writer is garbage, or the start of a resumed
download after its prefix has been hashed again. A writer at work holds its partial's flock(2), which the
kernel frees with the process: who gets the lock may adopt or sweep the partial. The writer of an upload rests
between two requests without a lock; its partial is swept only when it is old.

What may be removed
-------------------

What a client of a registry was told is there has to be there when it comes back. So every promise (the 201 of
an upload, of a mount, of a manifest; the 200 of a HEAD) and every removal, in whatever process, is decided in
a transaction that begins IMMEDIATE, one after the other, and:

1. A blob's row is written, and its file renamed into `blobs/`, inside one transaction. It is deleted, and its
   file renamed out of `blobs/`, inside one transaction. Nothing is renamed there outside of one.
2. A promise is given by a transaction that saw the content, and that notes the moment in `blobs.added`
   (HEAD: unless one of the last ten minutes stands there).
3. A manifest that is put, tagged or found by HEAD is noted in `holds` by the same transaction.
4. A transaction removes a blob only if, as it sees it, no living process holds a lease on it; it is in no
   repository here, or was promised more than KEPT_SECONDS ago; and nothing reaches it from a served tag, from
   a manifest of a repository here that was promised since then, or from what stands in `holds`: by what
   manifests mention, or by referring to what is reached.
5. What was removed so is renamed to `condemned.<token>` and unlinked after the transaction: slow disks keep
   nobody waiting, and whoever pushes the same content again gets a file of its own.
6. What was answered 201 or 202 is on the disk: its file, its folder and its rows were synced before.

What is damaged goes whoever needs it, since it is not there: the file that was looked at, and no other.
Read-only processes promise nothing.

State schema (sqlite, WAL; what is promised is synced as told above, the rest with synchronous=NORMAL: a power
cut may lose the last transactions, never tear one)
--------------------------------------------------------------------------------------------------------------

    blobs(digest PRIMARY KEY, size, blocks BLOB, added, used)
        one row a file under blobs/; `blocks` is xxh3-64 of each 4 MiB block, little-endian, guarding
        re-reads; `added` is when it came in or was last promised to a client, `used` when it was last read
        (Unix seconds). A file without a row is hashed against its name and adopted when it is opened, or
        evicted by gc; a row without a file is deleted by gc.
    members(registry, repository, digest, media_type, PRIMARY KEY (registry, repository, digest))
        what a repository holds; media_type is '' for blobs. For the embedded server registry is '' (itself);
        its blobs are visible only in repositories that they were pushed to or mounted into.
    roots(registry, repository, tag, digest, PRIMARY KEY (registry, repository, tag))
        served tags. What a root reaches, and what refers to that, is never evicted.
    leases(id PRIMARY KEY, digest, pid, boot, heartbeat)
        who holds what right now; a lease is dead when its pid is gone (or is another boot's), or its
        heartbeat (Unix seconds) is older than LEASE_SECONDS. Leased content is never evicted. `boot` is the
        boot id and the pid namespace: of a holder in another namespace only the heartbeat tells.
    holds(number PRIMARY KEY, digest, at)
        manifests that became roots, in order, for sweeps that are under way; old ones are forgotten.
    partials(…)
        not used any more.
    sessions(origin, repository, digest, url, offset, pid, boot, updated,
             PRIMARY KEY (origin, repository, digest))
        journal: upload sessions that a later push may go on with; `offset` is what the registry confirmed;
        `pid` is the process that is sending to it, 0: none. One of a living process is left to it.
    puts(registry, repository, digest, chosen, at, PRIMARY KEY (registry, repository, digest, chosen))
        journal: roots that this machine put somewhere, with the choice of platforms.
    audits(number PRIMARY KEY, registry, repository, digest, chosen, doubted, at, stopped,
           UNIQUE (registry, repository, digest, chosen))
        journal: when it was last looked whether what was put is whole (`at`, 0: not to the end yet); where
        looking stopped; and roots known to lack something (`doubted`). A file without this table gets it when
        it is next opened.
    locations(registry, repository, digest, seen, PRIMARY KEY (registry, repository, digest))
        journal: blobs seen or put at a registry; only ever a hint of where to mount from.
    notes(origin, key, value, at, PRIMARY KEY (origin, key))
        journal: what was learnt of a host (upload form, sparse indexes, ...).
    layers(diff_id, codec, digest, size, PRIMARY KEY (diff_id, codec))
        which blob a bare layer of an archive became; `codec` is the compressor, its version, and what else
        its output depends on: machines of different processors may share a store.
    archives(key PRIMARY KEY, content, at)
        what compressed archives hold, so that they need not be read again; the newest only.

Losing state.sqlite loses the served roots of an embedded registry and costs everyone else only time: blobs
are found by their names again. A corrupt state file is moved aside, said so, and started anew. One that is
removed or replaced while it is in use is missed: nothing more is written (see `identity`). Its user_version
is the schema's: 2; 1 and (before that was kept) 0 are brought up to it, a newer one is refused and left as it
is.

Several processes share a store: sqlite's locks order their writes, the partials' locks keep writers apart,
leases keep each other's content alive. Two may write a partial each of one digest: the first to commit wins,
the other's rename(2) puts the same bytes there again. Who opens a store read-only writes nothing at all into
its folder, and sees what the others commit (see `snapshot`).
"""

from blobflow.transports.store.capacity import BestEffortCache, StrictCache, available_capacity
from blobflow.transports.store.downloads import StoreCache
from blobflow.transports.store.import_cache import ImportCache
from blobflow.transports.store.journal import StoreJournal
from blobflow.transports.store.spill_file import SpillFile
from blobflow.transports.store.store import Store
from blobflow.transports.store.writer import Writer

__all__ = [
    "ImportCache",
    "StrictCache",
    "BestEffortCache",
    "Store",
    "SpillFile",
    "StoreCache",
    "StoreJournal",
    "Writer",
    "available_capacity",
]
