// Package images makes the real images that isle's end-to-end tests and
// benchmarks use, and serves them from a real registry.
//
// It hides where files come from and how a registry is filled. The images are
// made without any container engine, from what Debian packages have installed on this
// machine: a program, the shared libraries that ldd(1) finds for it, and its
// configuration. Alpine is the real one where ISLE_ALPINE_TAR names its
// mini root file system, else busybox under its name. The registry is Debian's
// docker-registry on a loopback port, over plain HTTP.
//
// Layers are files on disk, so that an image of a gigabyte costs no memory.
package images
