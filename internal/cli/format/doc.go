// Package format runs the Go templates of --format on containers, images and
// other things that the command line shows.
//
// The language is that of text/template, read by its parser, with Docker's
// further functions (json, join, split, lower, upper, title, pad, truncate).
// The executor is our own for one reason: text/template finds methods by name,
// which makes the linker keep every exported method of every type in the
// program, and it brings net/netip with it. Linking it made an empty program
// start a tenth slower (0.2 ms), which every `isle run` would pay for.
//
// What can be reached from a template is therefore data only: struct fields (by
// their Go name or their JSON name), map keys, elements, and whatever an [Object]
// answers. Methods are never called. A field that is not there is an error, as
// in `docker inspect`; a key that a string map lacks is "<no value>".
//
// Left out of text/template: call, and js, html and urlquery's handling of
// several arguments is that of print.
package format
