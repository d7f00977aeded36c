"""Decides and carries out what should happen: resolve → survey → plan → transfer → verify → report.

    pairs      what is wanted where                      policy    what a run does where it has a choice
    services   everything outside the plan, one value    sources   what the sources have
    targets    what the targets have                     discovery asks both, one target host at a time
    plan       the plan as a value, and how it is made   planning  from pairs to a plan
    transfer   the steps of a plan, carried out          execution a plan carried out, verified, reported
    results    what became of every image                saved     a plan that outlives its run
    blob_readers      the bytes of blobs: verified, counted, the side named
    signature_checks  what discovery asks a policy       backups   tags that are kept before they move
    concurrency       many requests at once: bounded, asked once, in batches

Pure where it decides (plan, step states, schedule, results), asynchronous where it acts. It imports `oci` and
`content`, and never a transport.
"""
