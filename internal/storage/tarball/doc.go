// Package tarball reads tar archives as a stream of headers and pieces of file
// data, without copying the data.
//
// It hides the formats: V7, ustar, pax, star and GNU, long names, base-256
// numbers, extended attributes and the four ways in which sparse files are
// written. It exists beside archive/tar because layers are read at the speed of
// the page cache: archive/tar copies every byte through an io.Reader and makes
// a map and several objects for each entry.
//
//	Source ──pieces──▶ Reader.Next ──Header──▶ caller
//	                   Reader.Data ──piece, offset──▶ caller writes it where it stands
//
// What is accepted is what archive/tar accepts (a fuzz test compares them),
// except that an empty extended attribute is kept and that the limits on an
// entry's extended header can be set. Names, ids and modes are the archive's
// own words: nothing here has been checked against a file system.
//
// Invariants: a Header and what Data returns are valid until the next call;
// memory is bounded by the limits and not by what the archive claims; the end
// of the source in the middle of anything is an error.
//
// See tar(5), pax(1) (POSIX.1-2001, "pax Interchange Format"), and "GNU tar:
// Storing Sparse Files" for the sparse formats.
package tarball
