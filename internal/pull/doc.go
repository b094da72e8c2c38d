// Package pull brings images into the store: from registries, and from
// archives. It is what the roles pull, load and import of isled run.
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
// Roles talk to isle in this way: progress goes to stderr, and one line of JSON
// to stdout, either the result or {"error": …} with an errs.Wire.
//
// Invariants: a lease protects everything that the pull relies on from before
// it is looked for; a failed pull leaves nothing behind, but for blobs of a
// registry that broke off, which the next pull goes on with.
package pull
