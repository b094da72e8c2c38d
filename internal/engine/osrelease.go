package engine

import (
	"bufio"
	"os"
	"strings"
)

// osName is PRETTY_NAME of os-release(5).
func osName() string {
	for _, p := range [...]string{"/etc/os-release", "/usr/lib/os-release"} {
		f, err := os.Open(p)
		if err != nil {
			continue
		}
		defer f.Close() //nolint:gocritic // at most two
		for s := bufio.NewScanner(f); s.Scan(); {
			if v, ok := strings.CutPrefix(s.Text(), "PRETTY_NAME="); ok {
				return strings.Trim(v, `"'`)
			}
		}
	}
	return "Linux"
}
