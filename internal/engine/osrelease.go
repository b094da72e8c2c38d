package engine

import (
	"bufio"
	"os"
	"strings"
)

// osName is PRETTY_NAME and VERSION_ID of os-release(5).
func osName() (name, version string) {
	for _, p := range [...]string{"/etc/os-release", "/usr/lib/os-release"} {
		f, err := os.Open(p)
		if err != nil {
			continue
		}
		defer f.Close() //nolint:gocritic // at most two
		for s := bufio.NewScanner(f); s.Scan(); {
			if v, ok := strings.CutPrefix(s.Text(), "PRETTY_NAME="); ok {
				name = strings.Trim(v, `"'`)
			}
			if v, ok := strings.CutPrefix(s.Text(), "VERSION_ID="); ok {
				version = strings.Trim(v, `"'`)
			}
		}
		if name != "" {
			return name, version
		}
	}
	return "Linux", version
}
