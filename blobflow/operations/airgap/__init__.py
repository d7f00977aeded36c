"""Transfer across an air gap: images into files, and out of them.

archive_inputs  the archives that a command is given
load            archives of one platform each, and bundles, to registries
omitted_blobs   blobs that a bundle omits because an older one had them
save            a set of images into one bundle, or one in parts
bundled_files   plain files into a bundle
extract         plain files out of bundles
digest_list     a bundle's files and their digests, as sha256sum has them
bundle          what is in bundles and other archives, and whether it is sound
export          one image, as its root file system

The client opens the services; the engine runs the transfer.
"""
