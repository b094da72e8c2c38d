//go:build undefended

package defence

import (
	"os"
	"strings"
)

// Removed reports whether the named defence has been taken out.
func Removed(name string) bool {
	for s := range strings.SplitSeq(os.Getenv("ISLE_UNDEFENDED"), ",") {
		if s == name {
			return true
		}
	}
	return false
}

// Resolve returns the flags of an openat2(2) into files that somebody else
// controls, or none when "resolve" has been taken out: a plain open(2).
func Resolve(flags uint64) uint64 {
	if Removed("resolve") {
		return 0
	}
	return flags
}
