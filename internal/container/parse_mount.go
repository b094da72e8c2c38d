package container

import (
	"path"
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// ParseVolume reads an argument of -v: TARGET, or SOURCE:TARGET[:OPTIONS]. A
// source that begins with "/" or "." is a host path (made absolute from the
// directory cwd) and is created when it is missing; any other is a volume's name.
func ParseVolume(s, cwd string) (Mount, error) {
	p := strings.Split(s, ":")
	for _, part := range p {
		if part == "" {
			if len(p) == 1 {
				return Mount{}, errs.New(errs.Invalid, "invalid empty volume spec")
			}
			return Mount{}, errs.New(errs.Invalid, "invalid spec: %s: empty section between colons", s)
		}
	}
	m := Mount{Type: "volume", Typed: s}
	var opts string
	switch len(p) {
	case 1:
		m.Target = p[0]
	case 2:
		m.Source, m.Target = p[0], p[1]
		if isVolumeMode(m.Target) {
			return Mount{}, errs.New(errs.Invalid, "invalid volume specification: '%s': no source before the target and its mode", s)
		}
	case 3:
		m.Source, m.Target, opts = p[0], p[1], p[2]
	default:
		return Mount{}, errs.New(errs.Invalid, "invalid volume specification: '%s'", s)
	}
	switch {
	case m.Source == "":
	case m.Source[0] == '.':
		m.Type, m.Source, m.CreateSource = "bind", path.Join(cwd, m.Source), true
		m.Typed = m.Source + s[len(p[0]):]
	case m.Source[0] == '/':
		m.Type, m.Source, m.CreateSource = "bind", path.Clean(m.Source), true
	case !isVolumeName(m.Source):
		return Mount{}, errs.New(errs.Invalid, `%q includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`, m.Source)
	}
	if err := checkTarget(&m, s); err != nil {
		return Mount{}, err
	}
	if opts != "" {
		if err := volumeOptions(&m, opts); err != nil {
			return Mount{}, errs.New(errs.Invalid, "invalid volume specification: '%s': %w", s, err)
		}
	}
	return m, nil
}

// checkTarget cleans m.Target and refuses one that is not an absolute path below "/".
func checkTarget(m *Mount, spec string) error {
	if !path.IsAbs(m.Target) {
		return errs.New(errs.Invalid, "invalid volume specification: '%s': invalid mount path: '%s' mount path must be absolute", spec, m.Target)
	}
	m.Target = path.Clean(m.Target)
	if m.Target == "/" {
		return errs.New(errs.Invalid, "invalid volume specification: '%s': destination can't be '/'", spec)
	}
	return nil
}

// volumeOptions applies the comma-separated third part of -v.
func volumeOptions(m *Mount, opts string) error {
	var mode, recursion bool
	for o := range strings.SplitSeq(opts, ",") {
		once := func(seen *bool) error {
			if *seen {
				return errs.New(errs.Invalid, "invalid mode: %s", opts)
			}
			*seen = true
			return nil
		}
		var err error
		switch o {
		case "ro", "rw":
			m.ReadOnly = o == "ro"
			err = once(&mode)
		case "z", "Z":
			m.Relabel = o
		case "U":
			m.Chown = true
		case "nocopy", "copy":
			if m.Type != "volume" {
				return errs.New(errs.Invalid, "invalid mode: %s: %s is for named volumes", opts, o)
			}
			m.NoCopy = o == "nocopy"
		case "rprivate", "private", "rshared", "shared", "rslave", "slave":
			if m.Type != "bind" || m.Propagation != "" {
				return errs.New(errs.Invalid, "invalid mode: %s", opts)
			}
			m.Propagation = o
		case "bind", "rbind":
			m.NonRecursive = o == "bind"
			err = once(&recursion)
		case "exec", "noexec", "dev", "nodev", "suid", "nosuid":
			m.Options = append(m.Options, o)
		case "delegated", "cached", "consistent":
			// Hints for file sharing into a virtual machine; nothing to do here.
		default:
			return errs.New(errs.Invalid, "invalid mode: %s", opts)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func isVolumeMode(s string) bool {
	m := Mount{Type: "volume"}
	return s != "" && s[0] != '/' && volumeOptions(&m, s) == nil
}

// ParseTmpfs reads an argument of --tmpfs: TARGET[:OPTIONS], options as for mount(8).
func ParseTmpfs(s string) (Mount, error) {
	target, opts, _ := strings.Cut(s, ":")
	m := Mount{Type: "tmpfs", Target: target, Typed: s}
	if err := checkTarget(&m, s); err != nil {
		return Mount{}, err
	}
	if opts == "" {
		return m, nil
	}
	for o := range strings.SplitSeq(opts, ",") {
		key, val, has := strings.Cut(o, "=")
		bad := errs.New(errs.Invalid, "invalid tmpfs option %q", o)
		switch key {
		case "size":
			if percent, ok := strings.CutSuffix(val, "%"); ok {
				if n, err := strconv.ParseUint(percent, 10, 32); err != nil || n > 100 {
					return Mount{}, bad
				}
				m.Options = append(m.Options, o)
				continue
			}
			n, err := ParseSize(val)
			if err != nil {
				return Mount{}, bad
			}
			m.TmpfsSize = n
		case "mode":
			n, err := strconv.ParseUint(val, 8, 12)
			if err != nil {
				return Mount{}, bad
			}
			mode := uint32(n)
			m.TmpfsMode = &mode
		case "uid", "gid":
			if _, ok, err := ParseID(val); !ok || err != nil {
				return Mount{}, bad
			}
			m.Options = append(m.Options, o)
		case "nr_inodes", "nr_blocks":
			if _, err := ParseSize(val); err != nil {
				return Mount{}, bad
			}
			m.Options = append(m.Options, o)
		case "huge", "mpol":
			if val == "" || strings.ContainsAny(val, " \n") {
				return Mount{}, bad
			}
			m.Options = append(m.Options, o)
		case "ro", "rw":
			if has {
				return Mount{}, bad
			}
			m.ReadOnly = key == "ro"
		case "exec", "noexec", "dev", "nodev", "suid", "nosuid", "atime", "noatime", "diratime", "nodiratime",
			"relatime", "norelatime", "strictatime", "nostrictatime", "sync", "async", "dirsync", "mand", "nomand",
			"private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable", "bind", "rbind", "remount", "defaults":
			if has {
				return Mount{}, bad
			}
			m.Options = append(m.Options, o)
		default:
			return Mount{}, bad
		}
	}
	return m, nil
}

// ParseMount reads an argument of --mount: comma-separated KEY=VALUE fields,
// with CSV quoting. A bind source beginning with "." is made absolute from cwd.
func ParseMount(s, cwd string) (Mount, error) {
	fields, err := splitCSV(s)
	if err != nil {
		return Mount{}, err
	}
	m := Mount{Type: "volume"}
	var used [3]string // first bind-*, volume-* or tmpfs-*/image-* option, to check against the type
	for _, f := range fields {
		k, val, has := strings.Cut(f, "=")
		key := strings.ToLower(k)
		if !has {
			switch key {
			case "readonly", "ro", "volume-nocopy", "bind-nonrecursive", "u", "chown":
				val = "true"
			default:
				return Mount{}, errs.New(errs.Invalid, "invalid field '%s' must be a key=value pair", f)
			}
		}
		switch class, _, _ := strings.Cut(key, "-"); class {
		case "bind":
			used[0] = "bind"
		case "volume":
			used[1] = "volume"
		case "tmpfs", "image":
			used[2] = class
		}
		if err := mountField(&m, key, k, val, f); err != nil {
			return Mount{}, err
		}
	}
	return m, finishMount(&m, used, cwd)
}

// mountField applies one field of --mount.
func mountField(m *Mount, key, typedKey, val, field string) error {
	bad := errs.New(errs.Invalid, "invalid value for %s: %s", typedKey, val)
	flag := func(to *bool) error {
		b, err := strconv.ParseBool(val)
		if err != nil {
			return bad
		}
		*to = b
		return nil
	}
	switch key {
	case "type":
		m.Type = strings.ToLower(val)
	case "source", "src":
		m.Source = val
	case "target", "dst", "destination":
		m.Target = val
	case "readonly", "ro":
		return flag(&m.ReadOnly)
	case "u", "chown":
		return flag(&m.Chown)
	case "relabel":
		switch val {
		case "shared":
			m.Relabel = "z"
		case "private":
			m.Relabel = "Z"
		default:
			return bad
		}
	case "consistency":
		// As in -v: a hint for virtual machines.
	case "bind-propagation":
		switch val {
		case "rprivate", "private", "rshared", "shared", "rslave", "slave":
			m.Propagation = val
		default:
			return errs.New(errs.Invalid, "invalid mount config: invalid propagation mode: %s", val)
		}
	case "bind-nonrecursive":
		return flag(&m.NonRecursive)
	case "bind-recursive":
		switch val {
		case "enabled":
			m.NonRecursive, m.Recursive = false, ""
		case "disabled":
			m.NonRecursive = true
		case "writable", "readonly":
			m.NonRecursive, m.Recursive = false, val
		default:
			return errs.New(errs.Invalid, `%w (must be "enabled", "disabled", "writable", or "readonly")`, bad)
		}
	case "volume-subpath", "image-subpath":
		m.Subpath = val
	case "volume-nocopy":
		return flag(&m.NoCopy)
	case "volume-driver":
		m.VolumeDriver = val
	case "volume-label", "volume-opt":
		name, v, _ := strings.Cut(val, "=")
		to := &m.VolumeLabels
		if key == "volume-opt" {
			to = &m.VolumeOpts
		}
		if *to == nil {
			*to = map[string]string{}
		}
		(*to)[name] = v
	case "tmpfs-size":
		n, err := ParseSize(val)
		if err != nil {
			return bad
		}
		m.TmpfsSize = n
	case "tmpfs-mode":
		n, err := strconv.ParseUint(val, 8, 12)
		if err != nil {
			return bad
		}
		mode := uint32(n)
		m.TmpfsMode = &mode
	default:
		return errs.New(errs.Invalid, "unexpected key '%s' in '%s'", typedKey, field)
	}
	return nil
}

// finishMount checks the fields of --mount against one another.
func finishMount(m *Mount, used [3]string, cwd string) error {
	if m.Type == "" {
		return errs.New(errs.Invalid, "type is required")
	}
	if m.Target == "" {
		return errs.New(errs.Invalid, "target is required")
	}
	switch m.Type {
	case "bind", "volume", "tmpfs", "image":
	default:
		return errs.New(errs.Invalid, "mount type unknown: %q", m.Type)
	}
	for _, class := range used {
		if class != "" && class != m.Type {
			return errs.New(errs.Invalid, "cannot mix '%s-*' options with mount type '%s'", class, m.Type)
		}
	}
	if m.Recursive == "readonly" {
		if !m.ReadOnly {
			return errs.New(errs.Invalid, "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
		}
		if m.Propagation != "rprivate" {
			return errs.New(errs.Invalid, "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
		}
	}
	if !path.IsAbs(m.Target) {
		return errs.New(errs.Invalid, "invalid mount path: '%s' mount path must be absolute", m.Target)
	}
	if m.Target = path.Clean(m.Target); m.Target == "/" {
		return errs.New(errs.Invalid, "invalid mount target: destination can't be '/'")
	}
	if m.Subpath != "" && (path.IsAbs(m.Subpath) || strings.HasPrefix(path.Clean(m.Subpath)+"/", "../")) {
		return errs.New(errs.Invalid, "subpath %q must be a relative path within the %s", m.Subpath, m.Type)
	}
	switch m.Type {
	case "bind":
		if m.Source == "" {
			return errs.New(errs.Invalid, "invalid mount config for type \"bind\": field Source must not be empty")
		}
		if m.Source[0] == '.' {
			m.Source = path.Join(cwd, m.Source)
		}
		if !path.IsAbs(m.Source) {
			return errs.New(errs.Invalid, "invalid mount config for type \"bind\": invalid mount path: '%s' mount path must be absolute", m.Source)
		}
		m.Source = path.Clean(m.Source)
	case "volume":
		if m.Source != "" && !isVolumeName(m.Source) {
			return errs.New(errs.Invalid, `%q includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use type=bind`, m.Source)
		}
		if m.Source == "" && m.Subpath != "" {
			return errs.New(errs.Invalid, "must not set Subpath when using anonymous volumes")
		}
	case "tmpfs":
		if m.Source != "" {
			return errs.New(errs.Invalid, "invalid mount config for type \"tmpfs\": field Source must not be specified")
		}
	case "image":
		if m.Source == "" {
			return errs.New(errs.Invalid, "invalid mount config for type \"image\": field Source must not be empty")
		}
	}
	return nil
}

// isVolumeName reports whether s matches [a-zA-Z0-9][a-zA-Z0-9_.-]*, the rule for volumes.
func isVolumeName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return s != ""
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// splitCSV splits one comma-separated record. A field that begins with a double
// quote runs to the next lone one, and "" inside it is a quote.
func splitCSV(s string) ([]string, error) {
	if s == "" {
		return nil, errs.New(errs.Invalid, "value is empty")
	}
	var fields []string
	for {
		if !strings.HasPrefix(s, `"`) {
			f, rest, more := strings.Cut(s, ",")
			if strings.Contains(f, `"`) {
				return nil, errs.New(errs.Invalid, `bare " in non-quoted field %q`, f)
			}
			fields = append(fields, f)
			if !more {
				return fields, nil
			}
			s = rest
			continue
		}
		var f strings.Builder
		s = s[1:]
		for {
			part, rest, ok := strings.Cut(s, `"`)
			if !ok {
				return nil, errs.New(errs.Invalid, `quoted field without closing "`)
			}
			f.WriteString(part)
			if s = rest; !strings.HasPrefix(s, `"`) {
				break
			}
			f.WriteByte('"')
			s = s[1:]
		}
		fields = append(fields, f.String())
		if s == "" {
			return fields, nil
		}
		if s[0] != ',' {
			return nil, errs.New(errs.Invalid, `extraneous " in quoted field %q`, f.String())
		}
		s = s[1:]
	}
}
