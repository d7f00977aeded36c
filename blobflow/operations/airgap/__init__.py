"""Across an air gap: composition for what goes into files and comes out of them.

loading     archives of one platform each, and bundles, to registries
saving      a set of images into one bundle, or one in parts
exporting   one image, as what people want it as: archives, a layout, its root file system

As `blobflow.client`, and by it: here engine and transports meet. The flow of the engine is what it always is.
"""
