package image

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
)

// The file of one name in refs/: a key and a value on each line, the value
// escaped so that it stays on it. It is not JSON because a new process pays
// about a tenth of a millisecond for the first JSON it decodes into a struct, and
// this file is all that a start reads of the image store.
//
//	isle-image 1
//	ref docker.io/library/alpine:3.20
//	id sha256:…
//	…
//	end
//
// Keys that are not known are passed over; a file without its last line is damaged.
const (
	recordHead = "isle-image 1\n"
	recordEnd  = "end\n"
)

// escapeName turns a normalized name into the name of its file. The file says
// itself which name it is for; a name that is too long for a file name is
// shortened to its beginning and a hash.
func escapeName(name string) string {
	// "+" is in no part of a name, so two names never share a file.
	file := strings.ReplaceAll(name, "/", "+")
	if len(file) > 240 {
		sum := sha256.Sum256([]byte(name))
		file = file[:100] + "++" + hex.EncodeToString(sum[:])
	}
	return file
}

// encodeRef returns the record of img under the name ref.
func encodeRef(ref string, img *Image) []byte {
	b := make([]byte, 0, 2048)
	b = append(b, recordHead...)
	put := func(key string, values ...string) {
		for _, v := range values {
			b = append(b, key...)
			b = append(b, ' ')
			b = appendEscaped(b, v, false)
			b = append(b, '\n')
		}
	}
	opt := func(key, value string) {
		if value != "" {
			put(key, value)
		}
	}
	put("ref", ref)
	put("id", img.ID)
	put("manifest", img.Manifest)
	put("os", img.OS)
	put("arch", img.Arch)
	opt("variant", img.Variant)
	for _, l := range img.Layers {
		put("layer", l.DiffID)
	}
	c := &img.Config
	opt("user", c.User)
	put("env", c.Env...)
	put("entrypoint", c.Entrypoint...)
	put("cmd", c.Cmd...)
	opt("workdir", c.WorkingDir)
	for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
		b = append(b, "label "...)
		b = appendEscaped(b, k, true)
		b = append(b, '=')
		b = appendEscaped(b, c.Labels[k], false)
		b = append(b, '\n')
	}
	opt("stopsignal", c.StopSignal)
	put("volume", slices.Sorted(maps.Keys(c.Volumes))...)
	put("expose", slices.Sorted(maps.Keys(c.Expose))...)
	put("shell", c.Shell...)
	if c.ArgsEscaped {
		put("argsescaped", "1")
	}
	if h := c.Health; h != nil {
		put("health", strconv.FormatInt(int64(h.Interval), 10)+" "+strconv.FormatInt(int64(h.Timeout), 10)+" "+
			strconv.FormatInt(int64(h.StartPeriod), 10)+" "+strconv.FormatInt(int64(h.StartInterval), 10)+" "+strconv.Itoa(h.Retries))
		put("healthtest", h.Test...)
	}
	return append(b, recordEnd...)
}

// decodeRef is the inverse of encodeRef.
func decodeRef(data []byte) (*Image, error) {
	s := string(data)
	s, ok := strings.CutPrefix(s, recordHead)
	if !ok {
		return nil, errs.New(errs.Corrupt, "not an image record of a version known here")
	}
	if s, ok = strings.CutSuffix(s, recordEnd); !ok {
		return nil, errs.New(errs.Corrupt, "its end is missing")
	}
	img := new(Image)
	c := &img.Config
	for s != "" {
		var line string
		line, s, _ = strings.Cut(s, "\n")
		key, v, _ := strings.Cut(line, " ")
		if key != "label" {
			v = unescape(v)
		}
		switch key {
		case "ref":
			img.Ref = v
		case "id":
			img.ID = v
		case "manifest":
			img.Manifest = v
		case "os":
			img.OS = v
		case "arch":
			img.Arch = v
		case "variant":
			img.Variant = v
		case "layer":
			img.Layers = append(img.Layers, Layer{DiffID: v})
		case "user":
			c.User = v
		case "env":
			c.Env = append(c.Env, v)
		case "entrypoint":
			c.Entrypoint = append(c.Entrypoint, v)
		case "cmd":
			c.Cmd = append(c.Cmd, v)
		case "workdir":
			c.WorkingDir = v
		case "label":
			if c.Labels == nil {
				c.Labels = make(map[string]string)
			}
			k, v, _ := strings.Cut(v, "=")
			c.Labels[unescape(k)] = unescape(v)
		case "stopsignal":
			c.StopSignal = v
		case "volume":
			addKey(&c.Volumes, v)
		case "expose":
			addKey(&c.Expose, v)
		case "shell":
			c.Shell = append(c.Shell, v)
		case "argsescaped":
			c.ArgsEscaped = true
		case "health":
			c.Health = decodeHealth(v)
		case "healthtest":
			if c.Health != nil {
				c.Health.Test = append(c.Health.Test, v)
			}
		}
	}
	if CheckDigest(img.ID) != nil || img.Ref == "" {
		return nil, errs.New(errs.Corrupt, "it names no image")
	}
	for _, l := range img.Layers {
		if err := CheckDigest(l.DiffID); err != nil {
			return nil, errs.As(errs.Corrupt, err)
		}
	}
	return img, nil
}

func decodeHealth(v string) *container.Healthcheck {
	var n [5]int64
	for i := range n {
		var f string
		f, v, _ = strings.Cut(v, " ")
		n[i], _ = strconv.ParseInt(f, 10, 64) // damaged: 0, which means Docker's default
	}
	return &container.Healthcheck{
		Interval: time.Duration(n[0]), Timeout: time.Duration(n[1]),
		StartPeriod: time.Duration(n[2]), StartInterval: time.Duration(n[3]), Retries: int(n[4]),
	}
}

func addKey(m *map[string]struct{}, k string) {
	if *m == nil {
		*m = make(map[string]struct{})
	}
	(*m)[k] = struct{}{}
}

// appendEscaped appends s without its line breaks, and in a key without "=".
func appendEscaped(b []byte, s string, key bool) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\\':
			b = append(b, `\\`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '=' && key:
			b = append(b, `\e`...)
		default:
			b = append(b, c)
		}
	}
	return b
}

func unescape(s string) string {
	i := strings.IndexByte(s, '\\')
	if i < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	b = append(b, s[:i]...)
	for ; i < len(s); i++ {
		c := s[i]
		if c == '\\' && i+1 < len(s) {
			i++
			switch s[i] {
			case 'n':
				c = '\n'
			case 'e':
				c = '='
			default:
				c = s[i]
			}
		}
		b = append(b, c)
	}
	return string(b)
}
