// Package image keeps images: names as Docker reads them, and a store of
// content-addressed blobs in the OCI image layout with a small record for
// every name.
//
// It hides the files of the store, how they stay right when any writer is
// killed, and what may be deleted when.
//
//	oci-layout index.json        what other OCI tools read; always derived from the records
//	blobs/sha256/HEX             manifests, configurations, layers as fetched
//	ids/HEX                      one image: everything but its names, JSON
//	refs/ESCAPED-NAME            one name: what a container needs to start, lines of text
//	lists/ESCAPED-NAME           a manifest list that the user puts together, JSON
//	tmp/HEX.part                 a blob being fetched, locked by whoever fetches it
//	tmp/session-*                where an upload stands
//	tmp/lease-*                  the digests that a running pull or load relies on
//	lock                         held while records change or content is deleted
//
// The names are the files in refs; index.json and an image's list of names
// follow from them. A name is resolved with one open, one read and a parse of
// lines: that is on the path of every start.
//
// Order of writing: blobs and layers, then ids, then refs, then index.json,
// each one on disk before the next names it. Order of deleting: the reverse.
// So a record never names content that is not there, and a crash leaves at most
// content without a record, which [Store.Collect] removes.
//
// Deleting and leasing exclude each other by the lock: whoever wants to rely on
// content that may lack a record writes its digest to a lease first and looks
// for it afterwards. No lock is held while data moves over a network or is
// unpacked, except the one of the blob that is being fetched.
//
// Invariants: a blob under its final name has the digest it is named by (after a
// power loss: if a record names it), and readers check that again; nothing in a manifest, configuration, label or
// annotation is ever an instruction or a path.
//
// Subpackages registry and archive fill the store; they are linked by isled
// only, as they need an HTTP client and decompressors.
//
// See the OCI image-spec (image-layout, manifest, config), the Docker image
// specification v1.2 and Docker's grammar of references.
package image
