"""Node files: what points the machines of a cluster at a mirror, in the format that each runtime reads.

A module a format; each turns a `NodeRequest` into `NodeFiles`, and is pure. What a format can't say is
refused by name and never said wrong: a machine that looks in the wrong place finds another image, or none.
Logins are never in these files; a comment says where each runtime wants them. `render` has the table.
"""
