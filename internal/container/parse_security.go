package container

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// ApplySecurityOpt puts one --security-opt into c. A seccomp profile is read from
// its file here, so that what reaches the engine is complete.
func ApplySecurityOpt(c *Config, s string) error {
	key, val, has := strings.Cut(s, "=")
	if !has {
		key, val, has = strings.Cut(s, ":")
	}
	bad := errs.New(errs.Invalid, "invalid --security-opt: %q", s)
	if !has {
		if s != "no-new-privileges" {
			return bad
		}
		val = "true"
	}
	switch key {
	case "no-new-privileges":
		b, err := strconv.ParseBool(val)
		if err != nil {
			return bad
		}
		c.NoNewPrivileges = &b
	case "seccomp":
		return seccompOpt(c, val)
	case "apparmor":
		if val == "" {
			return bad
		}
		c.AppArmor = val
	case "label":
		kind, v, two := strings.Cut(val, ":")
		switch {
		case kind == "disable" || kind == "nested":
			if two {
				return bad
			}
		case (kind == "user" || kind == "role" || kind == "type" || kind == "level" || kind == "filetype") && v != "":
		default:
			return bad
		}
		c.SELinuxLabels = append(c.SELinuxLabels, val)
	case "systempaths":
		if val != "unconfined" {
			return bad
		}
		c.UnmaskPaths = append(c.UnmaskPaths, "ALL")
	case "unmask":
		return pathsOpt(&c.UnmaskPaths, s, val, true)
	case "mask":
		return pathsOpt(&c.MaskPaths, s, val, false)
	case "writable-cgroups":
		b, err := strconv.ParseBool(val)
		if err != nil {
			return bad
		}
		c.WritableCgroups = &b
	default:
		return bad
	}
	return nil
}

func pathsOpt(to *[]string, opt, val string, all bool) error {
	for p := range strings.SplitSeq(val, ":") {
		if p != "" && p[0] == '/' || all && strings.EqualFold(p, "all") {
			if p[0] != '/' {
				p = "ALL"
			}
			*to = append(*to, p)
			continue
		}
		return errs.New(errs.Invalid, "invalid --security-opt: %q: %q is not an absolute path", opt, p)
	}
	return nil
}

func seccompOpt(c *Config, val string) error {
	switch val {
	case "":
		return errs.New(errs.Invalid, "invalid --security-opt: %q", "seccomp="+val)
	case "unconfined":
		c.Seccomp = val
		return nil
	case "builtin", "default":
		c.Seccomp = ""
		return nil
	}
	b, err := readBounded(val)
	if err != nil {
		return errs.New(errs.Invalid, "opening seccomp profile (%s) failed: %w", val, err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		return errs.New(errs.Invalid, "compacting json for seccomp profile (%s) failed: %w", val, err)
	}
	c.Seccomp = out.String()
	return nil
}

// ParseGPUs reads --gpus: all, a number, or device=ID,count=N,driver=D,capabilities=C,options=K=V.
func ParseGPUs(s string) (DeviceRequest, error) {
	fields, err := splitCSV(s)
	if err != nil {
		return DeviceRequest{}, err
	}
	r := DeviceRequest{Options: map[string]string{}}
	seen := map[string]bool{}
	for i, f := range fields {
		key, val, has := strings.Cut(f, "=")
		if !has {
			if i > 0 {
				return r, errs.New(errs.Invalid, "unexpected key '%s' in '%s'", key, f)
			}
			key, val = "count", f
		}
		if seen[key] {
			return r, errs.New(errs.Invalid, "gpu request key '%s' can be specified only once", key)
		}
		seen[key] = true
		switch key {
		case "driver":
			r.Driver = val
		case "count":
			if val == "all" {
				r.Count = -1
				break
			}
			if r.Count, err = strconv.Atoi(val); err != nil {
				return r, errs.New(errs.Invalid, `invalid count (%s): value must be either "all" or an integer: invalid syntax`, val)
			}
		case "device":
			r.DeviceIDs = strings.Split(val, ",")
		case "capabilities":
			r.Capabilities = [][]string{append(strings.Split(val, ","), "gpu")}
		case "options":
			for o := range strings.SplitSeq(val, ",") {
				k, v, _ := strings.Cut(o, "=")
				r.Options[k] = v
			}
		default:
			return r, errs.New(errs.Invalid, "unexpected key '%s' in '%s'", key, f)
		}
	}
	if !seen["count"] && r.DeviceIDs == nil {
		r.Count = 1
	}
	if r.Capabilities == nil {
		r.Capabilities = [][]string{{"gpu"}}
	}
	return r, nil
}

// CheckName reports what is wrong with a container's name: it must match
// [a-zA-Z0-9][a-zA-Z0-9_.-]+, and becomes the name of a file.
func CheckName(s string) error {
	if !isVolumeName(s) || len(s) < 2 || len(s) > 255 {
		return errs.New(errs.Invalid, "invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", s)
	}
	return nil
}

// CheckPlatform reports what is wrong with a --platform, OS[/ARCH[/VARIANT]].
func CheckPlatform(s string) error {
	n := 0
	for p := range strings.SplitSeq(s, "/") {
		if n++; n > 3 || p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != "" {
			return errs.New(errs.Invalid, "error parsing specified platform: %q: cannot parse platform specifier: invalid argument", s)
		}
	}
	return nil
}
