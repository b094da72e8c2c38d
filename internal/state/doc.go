// Package state keeps isle's records on disk so that any process of isle may
// be killed at any instruction, or the power fail, and the next one still reads
// a whole record: the old one or the new one.
//
// It hides how a file is replaced, how a lock is held and tested, and how a
// name is made unique without a database:
//
//	file   create a temporary file beside it, write, (fsync,) rename, (fsync the directory)
//	lock   an open file description lock (fcntl(2), F_OFD_SETLK) on a file of its own
//	name   a symbolic link NAME → ID: symlink(2) either makes it or says EEXIST
//	id     64 hex digits from getrandom(2)
//
// Locks are OFD locks, not flock(2): both belong to the open file, follow
// it through fork and execve, and go with its last descriptor, but only an OFD
// lock can be asked about (F_OFD_GETLK) without taking it. A reader that tests a
// flock by trying it can make the owner's own attempt fail.
//
// Order of steps that makes names crash-safe: a container's directory exists
// before its name does, and is gone before its name is. So a name whose
// container does not exist is always a leftover ([ForgetStale]), never one in
// the making. Names are created without a lock; they are taken away only under
// the lock of the names directory, after a second look.
//
// A file that does not parse is reported as [errs.Corrupt] with its path. It is
// never repaired silently and never taken for an empty record.
//
// See rename(2), symlink(2), fsync(2), fcntl(2), getrandom(2).
package state
