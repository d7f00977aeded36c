"""The tables of the state file (sqlite, WAL).

What is promised is synced, see `blobflow.transports.store`; the rest is written with synchronous=NORMAL: a
power cut may lose the last transactions, and never tears one.

    blobs(digest PRIMARY KEY, size, blocks BLOB, added, used)
        one row a file under blobs/; `blocks` is xxh3-64 of each 4 MiB block, little-endian, guarding
        re-reads; `added` is when it came in or was last promised to a client, `used` when it was last read
        (Unix seconds). A file without a row is hashed against its name and adopted when it is opened, or
        evicted by gc; a row without a file is deleted by gc.
    members(registry, repository, digest, media_type, PRIMARY KEY (registry, repository, digest))
        what a repository holds; media_type is '' for blobs, which are visible only in the repositories that
        they were pushed to or mounted into.
    roots(registry, repository, tag, digest, PRIMARY KEY (registry, repository, tag))
        served tags. What a root reaches, and what refers to that, is never evicted.
    leases(id PRIMARY KEY, digest, pid, boot, heartbeat)
        who holds what right now; a lease is dead when its pid is gone (or is another boot's), or its
        heartbeat (Unix seconds) is older than LEASE_SECONDS. Leased content is never evicted. `boot` is the
        boot id and the pid namespace: of a holder in another namespace only the heartbeat tells.
    holds(number PRIMARY KEY, digest, at)
        manifests that became roots, in order, for sweeps that are under way; old ones are forgotten.
    sessions(origin, repository, digest, url, offset, pid, boot, updated,
             PRIMARY KEY (origin, repository, digest))
        journal: upload sessions that a later push may go on with; `offset` is what the registry confirmed;
        `pid` is the process that is sending to it, 0: none. One of a living process is left to it.
    puts(registry, repository, digest, chosen, at, PRIMARY KEY (registry, repository, digest, chosen))
        journal: roots that this machine put somewhere, with the choice of platforms.
    audits(number PRIMARY KEY, registry, repository, digest, chosen, doubted, at, stopped,
           UNIQUE (registry, repository, digest, chosen))
        journal: when it was last looked whether what was put is whole (`at`, 0: not to the end yet); where
        looking stopped; and roots known to lack something (`doubted`). Of others the last recorded stay. A
        file without this table gets it when it is next opened.
    mount_origins(number PRIMARY KEY, registry, login, digest, repository, at,
                  UNIQUE (registry, login, digest, repository))
        journal: repositories in which a blob was put or found, by whom (`login`, a hash), in the order in
        which that was recorded: see `mount_origins`. A file without this table gets it when it is next
        opened.
    notes(origin, key, value, at, PRIMARY KEY (origin, key))
        journal: what was learnt of a host (upload form, sparse indexes, ...).
    layers(diff_id, codec, digest, size, PRIMARY KEY (diff_id, codec))
        which blob a bare layer of an archive became; `codec` is the compressor, its version, and what else
        its output depends on: machines of different processors may share a store.
    archives(key PRIMARY KEY, content, at)
        what compressed archives hold, so that they need not be read again; the newest only.

`registry` in `members` and `roots` is always ''. It stays, a part of their keys: to drop it would be another
schema, which builds of this one could not open. Files of earlier builds have two more tables, `partials`
and `locations`, which nothing reads: they are left as they are.
"""

SCHEMA = """
CREATE TABLE IF NOT EXISTS blobs(
    digest TEXT PRIMARY KEY, size INTEGER NOT NULL, blocks BLOB NOT NULL,
    added INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members(
    registry TEXT, repository TEXT, digest TEXT, media_type TEXT NOT NULL,
    PRIMARY KEY (registry, repository, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS roots(
    registry TEXT, repository TEXT, tag TEXT, digest TEXT NOT NULL,
    PRIMARY KEY (registry, repository, tag)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases(
    id TEXT PRIMARY KEY, digest TEXT NOT NULL, pid INTEGER NOT NULL, boot TEXT NOT NULL,
    heartbeat INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions(
    origin TEXT, repository TEXT, digest TEXT, url TEXT NOT NULL, "offset" INTEGER NOT NULL,
    pid INTEGER NOT NULL, boot TEXT NOT NULL, updated INTEGER NOT NULL,
    PRIMARY KEY (origin, repository, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS puts(
    registry TEXT, repository TEXT, digest TEXT, chosen TEXT, at INTEGER NOT NULL,
    PRIMARY KEY (registry, repository, digest, chosen)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audits(
    number INTEGER PRIMARY KEY AUTOINCREMENT, registry TEXT NOT NULL, repository TEXT NOT NULL,
    digest TEXT NOT NULL, chosen TEXT NOT NULL, doubted INTEGER NOT NULL, at INTEGER NOT NULL,
    stopped BLOB NOT NULL, UNIQUE (registry, repository, digest, chosen));
CREATE TABLE IF NOT EXISTS mount_origins(
    number INTEGER PRIMARY KEY AUTOINCREMENT, registry TEXT NOT NULL, login TEXT NOT NULL,
    digest TEXT NOT NULL, repository TEXT NOT NULL, at INTEGER NOT NULL,
    UNIQUE (registry, login, digest, repository));
CREATE TABLE IF NOT EXISTS notes(
    origin TEXT, key TEXT, value TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (origin, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layers(
    diff_id TEXT, codec TEXT, digest TEXT NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (diff_id, codec)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS archives(
    key TEXT PRIMARY KEY, content BLOB NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holds(
    number INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL, at INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS members_by_digest ON members(digest, registry, media_type);
CREATE INDEX IF NOT EXISTS audits_in_doubt ON audits(doubted) WHERE doubted = 1;
"""
# Kept in the file as sqlite's user_version. 0 is what blobflow wrote before it was kept, and the same schema
# as 1. 2 has `holds` and the index: a blobflow that does not write the one must not remove blobs beside one
# that relies on it. Tables that others may leave alone (`audits`, `mount_origins`) are added without a new
# version, so that they go on opening the file.
SCHEMA_VERSION = 2
