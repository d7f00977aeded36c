"""Load on registries: a client that costs little, what is asked with it, and what is made of the figures.

conversation   one HTTP/1.1 connection driven by a generator: the client of everything small
requests       the bytes of requests, and pushes and pulls as scripts
bodies         large bodies, on blocking sockets in threads
side_by_side   what tools/loader measures of several registries side by side, and the table of it
gc_beside      the times of pulls and pushes while `cache gc` sweeps the store that is served
old_blobs      blobs in a store that nothing needs any more
gc_process     `cache gc` in a process of its own
served         `blobflow serve` as it is watched meanwhile
mix            what a registry meets in its life, with the answer that each request deserves
"""
