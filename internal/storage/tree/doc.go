// Package tree removes, measures and copies directory trees that nobody vouches
// for: a container's files after the container.
//
// It hides how a walk stays inside: every name is one component, looked up from
// the descriptor of its directory with openat2(2) under RESOLVE_BENEATH,
// RESOLVE_NO_SYMLINKS and RESOLVE_NO_XDEV, so neither a symbolic link that is
// swapped in nor a mount leads out. The walk keeps a few descriptors however
// deep the tree is: it closes those far above and comes back through "..",
// which must then be the very directory (device and inode) it left.
//
// Invariants: nothing outside the tree is opened, changed or counted; depth and
// length of paths are bounded by memory alone; no process state (working
// directory, umask) is touched.
//
// See openat2(2), unlinkat(2), getdents(2), statx(2), ioctl_iflags(2).
package tree
