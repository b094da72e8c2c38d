// Package archive brings images out of tar archives into a store: what `docker
// save` writes (of every age since manifest.json), OCI image layouts, and the
// plain archive of a root file system. And it writes what `docker save` writes
// since Docker 25: both of the first two at once.
//
// It hides the formats and how they are compressed. An archive is read once,
// from front to back, as it may come through a pipe: every file of it that can
// be a blob goes straight into the store, verified where its name is a digest,
// and only at the end, when all is there that says what they are, are the
// images put together and their layers unpacked from the store.
//
// Invariants: a name in an archive is only ever compared with other names of
// the archive, never opened; links lead to other files of the archive or
// nowhere; everything is verified by digest once more when it is unpacked.
//
// See the OCI image-spec (image-layout.md) and the Docker image specification
// v1.2, "Combined Image JSON + Filesystem Changeset Format".
package archive
