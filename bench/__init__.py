"""Benchmarks: what is fast, by how much, and against what. They time; nothing here runs in CI's clock.

    measurements    what one run took, medians, and the difference to an earlier record
    machine         where it ran, and with which versions
    scenarios       sets of images, and the named scenarios that mirror them
    peers           the tools, and how each is told to make the same mirror
    ends            the registries of a scenario, and the way there
    contest         one tool in one scenario, seen from outside
    path_floor      how fast a long path could be
    pump, ranged_pump, store_io, heads, planning    small programs: what blobflow is held against
    programs        where named runs are made, with what, and by which builds
    archive_loads   an archive into a registry
    named_runs      the other named runs, made of these programs
    goals           which figure is held against which, and how much it may be
    chart           a plot, as SVG
    run, record     the command lines

How to run and how to read: README.md.
"""
