"""Compressed streams of strangers: told by their first bytes, read in bounded memory, refused by name.

compressions  what there is, and how it begins      inflaters  the right one for a beginning
inflating     what all have in common, and gzip     unzstd, unpacking  zstd; bzip2, xz and lz4
"""
