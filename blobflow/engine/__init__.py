"""What should happen: resolve → survey → plan → transfer → verify → report.

    pairs      what is wanted where                      policy    what a run does where it has a choice
    services   everything outside the plan, one value    sources   what the sources say
    targets    what the targets say                      discovery both asked, a target host at a time
    plan       the plan as a value, and how it is made   planning  from pairs to a plan
    transfer   the steps of a plan, carried out          execution a plan carried out, verified, reported
    results    what became of every image                saved     a plan that outlives its run

Pure where it decides (plan, step states, schedule, results), asynchronous where it acts. It knows the words
and the seam, and never a transport.
"""
