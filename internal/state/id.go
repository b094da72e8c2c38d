package state

import (
	"encoding/hex"

	"golang.org/x/sys/unix"
)

// NewID returns a fresh identifier: 64 hex digits, 256 random bits. Its first
// twelve digits, which become a host name, are never all decimal: some programs
// read such a name as a number (Docker makes the same choice).
//
// getrandom(2) directly: crypto/rand would bring its initialisers into every start.
func NewID() string {
	var b [32]byte
	for {
		for n := 0; n < len(b); {
			m, err := unix.Getrandom(b[n:], 0)
			if err != nil && err != unix.EINTR {
				// Only EFAULT, EINVAL and ENOSYS (Linux < 3.17) are left; none can happen here.
				panic("getrandom: " + err.Error())
			}
			n += max(m, 0)
		}
		id := hex.EncodeToString(b[:])
		for i := range 12 {
			if id[i] > '9' {
				return id
			}
		}
	}
}

// IsID reports whether s is a whole identifier.
func IsID(s string) bool { return len(s) == 64 && isHex(s) }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}
