// Package pull moves images between the store and registries or archives. It is
// what the roles pull, push, load, save, import, search, login, logout and
// manifest of isled run.
//
// It hides how the work is spread: the layers are fetched three at a time into
// the store's blobs, while up to one for each processor is decompressed and
// unpacked from what is already there of its blob:
//
//	network ──▶ sha256 ──▶ blobs/…part ┄┄▶ decompress ──▶ sha256 ──▶ files
//	            (the digest)   (page cache)                (the diff id)
//
// An unpacker follows the growing file and never holds up the download; what an
// earlier, killed pull has left of a blob is read like what has just come.
// Everything is verified by both digests before it gets its name. One syncfs
// at the end puts all layers on disk, then comes the record.
//
// A push verifies each blob before it is sent, sends only what the repository
// lacks, has the registry mount what another of its repositories has, and sends
// large blobs in parts, so that one that broke off is gone on with, also by the
// next push. A layer of which only the files are here is packed anew (see whole).
//
// Roles talk to isle in this way: progress goes to stderr, and one line of JSON
// to stdout, either the result or {"error": …} with an errs.Wire.
//
// Invariants: a lease protects everything that the pull relies on from before
// it is looked for; a failed pull leaves nothing behind, but for blobs of a
// registry that broke off, which the next pull goes on with.
package pull
