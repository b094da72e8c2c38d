// Package pack turns a tree of files into a tar stream and back, where one side
// or both belong to somebody who may change it at the same time: a container.
//
// It hides how names are followed. A tree is entered by one descriptor, and
// from there on by single names that are never links (O_NOFOLLOW), so that a
// directory that becomes a link under our hands is an error, never a way out.
// Files are looked at before they are opened, and opened without blocking:
// no FIFO is waited for and no device is touched. On the way in, parents are
// resolved by openat2(2): below the target without any link, or, inside of a
// container's root, as the container itself would resolve them.
//
// Differences from storage/unpack: a stream is not a layer. Names such as .wh.x
// are names, and what exists is replaced only by its like: a directory does not
// give way to a file, nor a file to a directory.
//
// See tar(5), openat2(2), symlink(7).
package pack
