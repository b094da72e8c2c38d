package log

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// The drivers.
const (
	JSONFile = "json-file"
	Local    = "local"
	Journald = "journald"
	None     = "none"
)

// Options say how a container's output is kept.
type Options struct {
	Driver   string
	MaxSize  int64 // bytes of one file; 0: unbounded
	MaxFiles int   // the current one and rotated ones
	Compress bool  // gzip rotated files
	// Attrs are the attributes of each entry as the driver writes them: a JSON
	// object, or the journal's fields.
	Attrs []byte
}

// About is what the attributes of log entries are made from.
type About struct {
	ID, Name       string
	ImageID, Image string
	Labels         map[string]string
	Env            []string // KEY=VALUE
}

// ParseOptions checks a log driver ("" is json-file) and its options, as typed
// after --log-opt, and fills in the defaults. about may be nil when only
// the check matters.
func ParseOptions(driver string, opts map[string]string, about *About) (Options, error) {
	o := Options{Driver: driver}
	switch driver {
	case "", JSONFile:
		o.Driver, o.MaxSize, o.MaxFiles = JSONFile, 10_000_000, 3
	case Local:
		o.MaxSize, o.MaxFiles, o.Compress = 20<<20, 5, true
	case Journald:
	case None:
		for k := range opts {
			return o, errs.New(errs.Invalid, "unknown log opt '%s' for none log driver", k)
		}
		return o, nil
	default:
		return o, errs.Hint(errs.New(errs.Unsupported, "log driver %q: %w", driver, errs.Unsupported), "use json-file, local, journald or none")
	}
	attrs := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(opts)) {
		v := opts[k]
		var err error
		switch k {
		case "max-size", "max-file", "compress":
			if driver == Journald {
				return o, errs.New(errs.Invalid, "unknown log opt '%s' for journald log driver", k)
			}
		}
		switch k {
		case "max-size":
			o.MaxSize, err = parseMaxSize(o.Driver, v)
		case "max-file":
			o.MaxFiles, err = strconv.Atoi(v)
			if err == nil && o.MaxFiles < 1 {
				return o, errs.New(errs.Invalid, "max-file cannot be less than 1")
			}
		case "compress":
			o.Compress, err = strconv.ParseBool(v)
		case "mode":
			// Both write to a local file without waiting for anybody else.
			if v != "blocking" && v != "non-blocking" {
				return o, errs.New(errs.Invalid, "logger: log mode '%s': invalid", v)
			}
		case "max-buffer-size":
			_, err = parseMaxSize(o.Driver, v)
		case "labels", "labels-regex", "env", "env-regex", "tag":
			if o.Driver != JSONFile && o.Driver != Journald {
				return o, errs.New(errs.Invalid, "unknown log opt '%s' for %s log driver", k, o.Driver)
			}
			err = addAttrs(attrs, k, v, about)
		default:
			return o, errs.New(errs.Invalid, "unknown log opt '%s' for %s log driver", k, o.Driver)
		}
		if err != nil {
			return o, errs.New(errs.Invalid, "log opt %s=%s: %w", k, v, err)
		}
	}
	if o.MaxSize == 0 && o.MaxFiles > 1 && opts["max-file"] != "" {
		return o, errs.New(errs.Invalid, "cannot set max-file without max-size")
	}
	if o.Compress && o.MaxFiles == 1 {
		if opts["compress"] != "" {
			return o, errs.New(errs.Invalid, "compress cannot be true when max-file is less than 2 or max-size is not set")
		}
		o.Compress = false
	}
	switch {
	case driver == Journald && about != nil:
		o.Attrs = journalFields(about, attrs["tag"], attrs)
	case len(attrs) > 0:
		o.Attrs = appendAttrs(nil, attrs)
	}
	return o, nil
}

// parseMaxSize reads a size as the driver's code in Docker does: powers of 1000
// for json-file, of 1024 for local. -1 is "unbounded", returned as 0.
func parseMaxSize(driver, s string) (int64, error) {
	if s == "-1" {
		return 0, nil
	}
	unit := 1000.0
	if driver == Local {
		unit = 1024
	}
	num := strings.TrimSuffix(strings.ToLower(s), "b")
	mult := 1.0
	if num != "" {
		if i := strings.IndexByte("kmgtp", num[len(num)-1]); i >= 0 {
			for range i + 1 {
				mult *= unit
			}
			num = num[:len(num)-1]
		}
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
	if err != nil || !(v*mult >= 1 && v*mult < 1<<62) {
		return 0, errs.New(errs.Invalid, "invalid size")
	}
	return int64(v * mult), nil
}

// addAttrs adds the attributes that one option asks for.
func addAttrs(attrs map[string]string, opt, v string, about *About) error {
	if strings.HasSuffix(opt, "-regex") {
		return errs.New(errs.Unsupported, "%w", errs.Unsupported)
	}
	if opt == "tag" {
		tag, err := expandTag(v, about)
		if err == nil && tag != "" {
			attrs["tag"] = tag
		}
		return err
	}
	if about == nil {
		return nil
	}
	for name := range strings.SplitSeq(v, ",") {
		if opt == "labels" {
			if val, ok := about.Labels[name]; ok {
				attrs[name] = val
			}
			continue
		}
		for _, kv := range about.Env {
			if k, val, ok := strings.Cut(kv, "="); ok && k == name {
				attrs[name] = val
			}
		}
	}
	return nil
}

// expandTag fills in the fields that Docker's documentation lists for tags; it
// is no template language.
func expandTag(tag string, about *About) (string, error) {
	if about == nil {
		about = &About{}
	}
	short := func(id string) string {
		_, hex, found := strings.Cut(id, ":")
		if !found {
			hex = id
		}
		return hex[:min(len(hex), 12)]
	}
	r := strings.NewReplacer(
		"{{.ID}}", short(about.ID), "{{.FullID}}", about.ID, "{{.Name}}", about.Name,
		"{{.ImageID}}", short(about.ImageID), "{{.ImageFullID}}", about.ImageID, "{{.ImageName}}", about.Image, "{{.DaemonName}}", "isle")
	out := r.Replace(tag)
	if about.ID != "" && strings.Contains(out, "{{") || about.ID == "" && strings.Count(out, "{{") > 0 {
		return "", errs.New(errs.Unsupported, "a template other than {{.ID}}, {{.FullID}}, {{.Name}}, {{.ImageID}}, {{.ImageFullID}}, {{.ImageName}}")
	}
	return out, nil
}

// appendAttrs appends attributes as a JSON object with sorted keys.
func appendAttrs(dst []byte, attrs map[string]string) []byte {
	dst = append(dst, '{')
	for i, k := range slices.Sorted(maps.Keys(attrs)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = appendEscaped(dst, []byte(k))
		dst = append(dst, '"', ':', '"')
		dst = appendEscaped(dst, []byte(attrs[k]))
		dst = append(dst, '"')
	}
	return append(dst, '}')
}
