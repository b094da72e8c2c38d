// Package unpack turns the tar archive of one image layer into a directory that
// overlayfs can stack.
//
// It hides what a layer archive may contain and what of it the kernel lets the
// caller make: whiteouts, opaque directories, hard links, extended attributes,
// file capabilities, devices, sparse files, owners outside of the caller's user
// namespace.
//
//	reader ──▶ [read-ahead]──pieces──▶ tarball ──▶ apply: openat, write, chown, …
//	                      └──the same pieces──▶ [sha256]      └─big files─▶ [writeback]
//
// Three goroutines help: one reads (and so decompresses), one hashes, one starts
// the disk on what has been written and closes files. They share a few pooled
// buffers; no byte is copied in user space between the reader and write(2).
//
// Every name in the archive is an attack until shown otherwise. A name is
// cleaned to a relative path without "..", its directory is resolved below the
// layer's root by openat2(2), and the last component is made, changed or removed
// relative to that directory's descriptor and never followed. A symbolic link in
// the middle of a path is followed as if the layer's root were "/", which is
// what Docker's chroot does.
//
// Invariants: nothing outside the root directory is created, changed or
// removed; the result does not depend on the umask, on default ACLs or on the
// order of whiteouts and entries; an error leaves a partial tree for the caller
// to remove; the source is not read after the return.
//
// What cannot be made is left out and told in [Result]: devices where mknod(2)
// is forbidden; attributes that the file system refuses, or that would be
// instructions to overlayfs or to isle (trusted.*, user.overlay.*, user.isle.*,
// security.* except capability). An owner that has no id in the user namespace
// becomes root, and user.isle.owner keeps "UID:GID:MODE".
//
// See the OCI image-spec, layer.md; overlayfs in the kernel's documentation;
// user_namespaces(7), capabilities(7) on file capabilities, openat2(2).
package unpack
