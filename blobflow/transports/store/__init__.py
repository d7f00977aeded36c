"""The content-addressed store: one format for the cache, the embedded registry's root and a run.

store                      the open store, and its parts:
blobs                      what is held: reading, checking, removing
partials, writer           what comes in, one writer each; `blob_commit` makes a partial a blob
repository_index           what the repositories of the embedded registry hold; `promises` to its clients
leases                     what must stay while processes use it
cache, downloads           the store as a run's cache, and its in-flight blobs
capacity                   how much a run may put into it
gc, reachability           what may be removed; `partial_sweep` for what dead writers left
inventory, stats           listing, verifying and counting what is held
journal, import_cache      what outlives the process
state                      the state file: schema, transactions, snapshots

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

The state file (tables: `state.schema`)
---------------------------------------

Losing state.sqlite loses the served roots of an embedded registry and costs everyone else only time: blobs
are found by their names again. A corrupt state file is moved aside with a warning, and started anew. When one
is removed or replaced while it is in use, nothing more is written (see `state.file_identity`). Its
user_version is that of the schema: 2; files of 1 and (before it was kept) 0 are brought up to it, a newer one
is refused and left as it is.

Several processes share a store: sqlite's locks order their writes, the partials' locks keep writers apart,
leases keep each other's content alive. Two may write a partial each of one digest: the first to commit wins,
the other's rename(2) puts the same bytes there again. Who opens a store read-only writes nothing at all into
its folder, and sees what the others commit (see `state.snapshot`).
"""

from blobflow.transports.store.cache import BestEffortCache, StoreCache, StrictCache
from blobflow.transports.store.capacity import available_capacity
from blobflow.transports.store.import_cache import ImportCache
from blobflow.transports.store.journal import StoreJournal
from blobflow.transports.store.spill_file import SpillFile
from blobflow.transports.store.store import Store
from blobflow.transports.store.writer import Writer

__all__ = [
    "ImportCache",
    "BestEffortCache",
    "StrictCache",
    "Store",
    "SpillFile",
    "StoreCache",
    "StoreJournal",
    "Writer",
    "available_capacity",
]
