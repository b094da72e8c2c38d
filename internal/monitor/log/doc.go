// Package log keeps what a container writes: it turns the bytes of standard
// output and standard error into timed lines in files of bounded size, and
// reads them back.
//
// It hides the formats (Docker's json-file and local, byte for byte, so that
// what reads Docker's logs reads these), where long lines are cut, rotation and
// compression, and how a reader follows files that are rotated under it.
//
//	json-file  DIR/ID-json.log           .1 .2 … older (with compress: .1.gz …)
//	local      DIR/local-logs/container.log  .1 …
//	journald   entries of systemd's journal
//	none       nothing
//
// A [Writer] belongs to the one goroutine of the monitor that reads the
// container's output. Bytes gather in memory until Flush, which the monitor calls
// after each read: a line is in the file before the next read begins.
//
// Bounded by default: 10 MB and 3 files for json-file (Docker: no bound), 20 MB
// and 5 files, compressed, for local (as Docker). max-size=-1 lifts the bound. No
// file ever exceeds max-size, except to hold one line that is larger itself.
//
// A crash at any moment leaves at most one incomplete entry, at the end of a
// file; the next Writer ends it (json-file) or cuts it off (local), and readers
// step over it. A crash while rotating leaves a gap in the numbers, which readers
// do not mind.
//
// A line longer than 16 KiB is kept as several entries without a newline at the
// end of all but the last, as Docker does.
package log
