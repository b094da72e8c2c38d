package container

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/defence"
)

// maxKVFile bounds --env-file and --label-file: /dev/zero is no environment.
const maxKVFile = 16 << 20

// ParseEnv reads an argument of -e: KEY=VALUE as it is; KEY alone takes its value
// from lookup, or stays alone, which removes it from the image's environment.
func ParseEnv(s string, lookup func(string) (string, bool)) (string, error) {
	key, _, has := strings.Cut(s, "=")
	if key == "" {
		return "", errs.New(errs.Invalid, "invalid environment variable: %s", s)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", errs.New(errs.Invalid, "invalid environment variable %q: contains a zero byte", key)
	}
	if has {
		return s, nil
	}
	if v, ok := lookup(key); ok {
		return key + "=" + v, nil
	}
	return s, nil
}

// ReadEnvFile reads --env-file: lines KEY=VALUE; KEY alone takes its value from
// lookup and is left out when there is none; empty lines and lines that begin
// with # are skipped; nothing is unquoted.
func ReadEnvFile(name string, lookup func(string) (string, bool)) ([]string, error) {
	return readKVFile(name, "env", lookup)
}

// ReadLabelFile reads --label-file, like ReadEnvFile with nothing to look up: KEY
// alone is left out.
func ReadLabelFile(name string) ([]string, error) {
	return readKVFile(name, "label", nil)
}

func readKVFile(name, what string, lookup func(string) (string, bool)) ([]string, error) {
	b, err := readBounded(name)
	if err != nil {
		return nil, errs.As(errs.Invalid, err)
	}
	bad := func(format string, args ...any) error {
		return errs.New(errs.Invalid, "invalid "+what+" file (%s): %w", name, errs.New(errs.Invalid, format, args...))
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	var out []string
	n := 0
	for raw := range bytes.Lines(b) {
		n++
		raw = bytes.TrimSuffix(raw, []byte("\n"))
		raw = bytes.TrimSuffix(raw, []byte("\r"))
		if !utf8.Valid(raw) {
			return nil, bad("invalid utf8 bytes at line %d: %v", n, raw)
		}
		line := strings.TrimLeftFunc(string(raw), unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, has := strings.Cut(line, "=")
		if key == "" {
			return nil, bad("no variable name on line '%s'", line)
		}
		if strings.ContainsFunc(key, unicode.IsSpace) {
			return nil, bad("variable '%s' contains whitespaces", key)
		}
		if strings.IndexByte(line, 0) >= 0 {
			return nil, bad("variable '%s' contains a zero byte", key)
		}
		switch {
		case has:
			out = append(out, line)
		case lookup != nil:
			if v, ok := lookup(key); ok {
				out = append(out, key+"="+v)
			}
		}
	}
	return out, nil
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(limited(f)); err != nil {
		return nil, err
	}
	if b.Len() > maxKVFile {
		return nil, errs.New(errs.Invalid, "%s: larger than %d MiB", name, maxKVFile>>20)
	}
	return b.Bytes(), nil
}

// ParseLabel splits KEY[=VALUE] of --label.
func ParseLabel(s string) (key, value string, err error) {
	key, value, _ = strings.Cut(s, "=")
	if key == "" {
		return "", "", errs.New(errs.Invalid, "invalid label '%s': empty name", s)
	}
	return key, value, nil
}

// ParseSysctl splits KEY=VALUE of --sysctl and admits only the keys that belong to
// a namespace of the container's own. Slashes are not accepted for dots, and a
// value is one line: it is written to a file below /proc/sys.
func ParseSysctl(s string) (key, value string, err error) {
	key, value, ok := strings.Cut(s, "=")
	if defence.Removed("sysctl") {
		return key, value, nil
	}
	refuse := errs.New(errs.Invalid, "sysctl '%s' is not allowed", s)
	if !ok || key == "" || strings.Contains(key, "..") || strings.HasSuffix(key, ".") {
		return "", "", refuse
	}
	for i := range len(key) {
		if c := key[i]; !isAlnum(c) && c != '.' && c != '_' && c != '-' {
			return "", "", refuse
		}
	}
	if strings.ContainsAny(value, "\n\r\x00") {
		return "", "", refuse
	}
	switch key {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced":
		return key, value, nil
	}
	if strings.HasPrefix(key, "net.") || strings.HasPrefix(key, "fs.mqueue.") {
		return key, value, nil
	}
	return "", "", refuse
}

// limited reads one byte more than is allowed, so that an excess shows.
func limited(f *os.File) io.Reader { return io.LimitReader(f, maxKVFile+1) }

// ParseTimeOffset reads CLOCK=SECONDS of --time-offset; the clock is monotonic or boottime.
func ParseTimeOffset(s string) (clock string, seconds int64, err error) {
	clock, val, _ := strings.Cut(s, "=")
	if clock != "monotonic" && clock != "boottime" {
		return "", 0, errs.New(errs.Invalid, "invalid time offset %q: want monotonic=SECONDS or boottime=SECONDS", s)
	}
	if seconds, err = strconv.ParseInt(val, 10, 64); err != nil {
		return "", 0, errs.New(errs.Invalid, "invalid time offset %q: want monotonic=SECONDS or boottime=SECONDS", s)
	}
	return clock, seconds, nil
}
