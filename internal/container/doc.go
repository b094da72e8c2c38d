// Package container holds the nouns that every part of isle shares: what a
// user asked for ([Config]) and what is true of a container ([State]), with
// their parsing and validation.
//
// Every front door fills the same Config; spec.Build is the only place that
// turns it into an OCI runtime-spec. Config is written once at create and
// changes only by update and rename; State is written by the container's
// monitor, and by the engine where no monitor lives.
package container
