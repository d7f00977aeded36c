"""Transfer across an air gap: images into files, and out of them.

load            archives of one platform each, and bundles, to registries
omitted_blobs   blobs that a bundle omits because an older one had them
save            a set of images into one bundle, or one in parts
bundle          what is in bundles and other archives, and whether it is sound
export          one image, as its root file system

The client opens the services; the engine runs the transfer.
"""
