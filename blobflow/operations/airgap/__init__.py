"""Across an air gap: what goes into files and comes out of them.

load            archives of one platform each, and bundles, to registries
omitted_blobs   what a bundle leaves out because an older one had it
save            a set of images into one bundle, or one in parts
export          one image, as its root file system

A client opens what is needed; the flow is the engine's.
"""
