// Package storage keeps image layers unpacked on disk, stacks them into root
// file systems, and keeps named volumes.
//
// It hides how a tar archive becomes a directory that overlayfs can stack
// (subpackages tarball and unpack), how a stack of any height is mounted on any
// kernel since 5.14, how trees of hostile shape are removed, measured and copied
// (subpackage tree), and what lies on disk:
//
//	layers/
//	  HEX/               a layer, by the hex digits of its diff id: complete and on disk, or not there
//	    diff/            its files
//	    layer.json       what was unpacked, and what could not be
//	  .stage-HEX-RANDOM/ a layer in the making; its maker holds a flock on the directory
//	  .gone-HEX-RANDOM/  a layer being removed
//	  .format            a symbolic link to the words that say how whiteouts are kept here
//	  .empty/            a layer without files, for stacks that need one more
//	volumes/
//	  NAME/
//	    _data/           the files
//	    volume.json      name, labels, options, when made
//	    populated        there once the volume has been filled from an image, or need not be
//	    populating       there while it is being filled
//
// Theory. A layer comes into being by one rename(2) after syncfs(2) has put its
// files on disk, and goes by one rename(2) before its files are removed. So the
// name HEX alone says that a layer is whole; nothing else needs to be asked or
// repaired. Whoever dies on the way leaves a directory whose lock is free, which
// [Store.Sweep] removes. Two processes that unpack the same layer do the work
// twice; the second rename fails, which is success.
//
// Mount makes a detached mount: it is attached nowhere, has no path, and goes
// away with its last descriptor, so it cannot leak.
//
// Invariants: a layer's files are never changed after the rename; a store holds
// whiteouts of one kind, trusted.* for root or user.* for user namespaces,
// decided by the first layer; the package keeps no state in memory that matters.
//
// See overlayfs in the kernel's documentation, fsopen(2), fsconfig(2),
// fsmount(2), syncfs(2), flock(2); the OCI image-spec, layer.md.
package storage
