package view

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/storage"
)

// mountinfo is one line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
type mountinfo struct {
	dev, root, point, options, typ, source, super string
}

func readMounts(file string) ([]mountinfo, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []mountinfo
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		sep := -1
		for i, w := range f {
			if i > 5 && w == "-" {
				sep = i
				break
			}
		}
		if sep < 0 || len(f) < sep+3 {
			continue
		}
		m := mountinfo{dev: f[2], root: unescape(f[3]), point: unescape(f[4]), options: f[5], typ: f[sep+1], source: unescape(f[sep+2])}
		if len(f) > sep+3 {
			m.super = f[sep+3]
		}
		out = append(out, m)
	}
	return out, nil
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n := (s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | s[i+3] - '0'; s[i+1] >= '0' && s[i+1] <= '3' {
				b = append(b, n)
				i += 3
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

func (l *looker) mounts() {
	inside, err := readMounts(l.dir + "/mountinfo")
	if err != nil {
		l.v.unseen("mounts", err)
		return
	}
	host, _ := readMounts("/proc/self/mountinfo") // without it, sources stay as the kernel names them
	for i := range inside {
		m := &inside[i]
		if m.point == "/" {
			l.root(m)
		}
		l.v.Mounts = append(l.v.Mounts, l.trace(m, host))
	}
	if c := &l.s.Record.Config; l.v.Root != nil {
		l.v.differ("root file system", word(c.ReadOnly, "read-only", "writable"), word(l.v.Root.ReadOnly, "read-only", "writable"))
	}
}

func word(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func hasOption(options, o string) bool {
	for w := range strings.SplitSeq(options, ",") {
		if w == o {
			return true
		}
	}
	return false
}

// trace says where a mount comes from.
func (l *looker) trace(m *mountinfo, host []mountinfo) Mount {
	out := Mount{Point: m.point, Type: m.typ, Options: m.options}
	switch m.typ {
	case "overlay":
		if m.point == "/" {
			out.Kind, out.From, out.Why = "root", "the layers", "image and container, seen as one tree"
			return out
		}
	case "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2":
		if m.root == "/" || m.typ == "cgroup" || m.typ == "cgroup2" {
			out.Kind, out.From, out.Why = "kernel", "the kernel", kernelWhy(m.typ)
			return out
		}
		out.Kind, out.From, out.Why = "readonly", m.point+" of the mount above", "settings of the whole machine: to be read, not written"
		if !hasOption(m.options, "ro") {
			out.Why = "a part of the mount above, mounted again"
		}
		return out
	case "tmpfs":
		switch {
		case strings.HasPrefix(m.point, "/proc/") || strings.HasPrefix(m.point, "/sys/") && m.point != "/sys/fs/cgroup":
			out.Kind, out.From, out.Why = "masked", "an empty directory", "hidden: it would tell of the host"
			if m.root != "/" {
				out.From = m.root + " of /dev" // a device node laid over a file
			}
			return out
		case m.root == "/":
			out.Kind, out.From, out.Why = "memory", "memory", memoryWhy(m.point)
			return out
		}
	}
	out.Kind, out.From = "host", l.source(m, host)
	if out.From == "/dev/null" && (strings.HasPrefix(m.point, "/proc/") || strings.HasPrefix(m.point, "/sys/")) {
		out.Kind, out.Why = "masked", "hidden: it would tell of the host"
		return out
	}
	switch {
	case strings.HasPrefix(out.From, l.s.Dir+"/"):
		out.Kind, out.Why = "isle", "written by isle at the start"
	case strings.HasPrefix(out.From, l.s.Env.Volumes()+"/"):
		name, _, _ := strings.Cut(strings.TrimPrefix(out.From, l.s.Env.Volumes()+"/"), "/")
		out.Kind, out.Why = "volume", "volume "+name+": lives longer than the container"
	case strings.HasPrefix(m.point, "/dev/"):
		out.Kind, out.Why = "device", "the host's device node"
	default:
		out.Why = "of the host: what one side writes the other reads"
	}
	return out
}

// source is the host's path of what is mounted: the mount of the same file system
// on the host whose root is nearest above.
func (l *looker) source(m *mountinfo, host []mountinfo) string {
	best, path := -1, m.source+" "+m.root
	for _, h := range host {
		if h.dev != m.dev {
			continue
		}
		rest, ok := strings.CutPrefix(m.root, strings.TrimSuffix(h.root, "/"))
		if ok && (rest == "" || rest[0] == '/') && len(h.root) > best {
			best, path = len(h.root), filepath.Clean(h.point+"/"+rest)
		}
	}
	return path
}

func kernelWhy(typ string) string {
	switch typ {
	case "proc":
		return "processes of its own pid namespace"
	case "sysfs":
		return "devices; network ones are its own"
	case "devpts":
		return "terminals of its own"
	case "mqueue":
		return "message queues of its own"
	}
	return "its own part of the cgroup tree"
}

func memoryWhy(point string) string {
	switch point {
	case "/dev":
		return "a few harmless devices, no others"
	case "/sys/fs/cgroup":
		return "a directory for each controller that it has a group of"
	case "/dev/shm":
		return "shared memory of its own"
	}
	return "files in memory, gone with the container"
}

// root traces the root file system to its layers.
func (l *looker) root(m *mountinfo) {
	r := &Root{ReadOnly: hasOption(m.options, "ro"), Type: m.typ}
	for o := range strings.SplitSeq(m.super, ",") {
		k, v, _ := strings.Cut(o, "=")
		v = unescape(v)
		switch k {
		case "lowerdir+":
			r.Layers = append(r.Layers, Layer{Dir: v})
		case "lowerdir":
			for d := range strings.SplitSeq(v, ":") {
				r.Layers = append(r.Layers, Layer{Dir: d})
			}
		case "upperdir":
			r.Upper = v
		}
	}
	// Where there is one layer and nothing to write to, isle adds an empty directory:
	// overlayfs wants two.
	r.Layers = slices.DeleteFunc(r.Layers, func(y Layer) bool { return strings.HasPrefix(y.Dir, l.s.Env.Layers()+"/empty") })
	l.name(r)
	l.written(r)
	l.v.Root = r
}

// deadRoot is root for a container that does not run: what will be stacked.
func (l *looker) deadRoot() {
	r := &Root{Type: "not mounted", Upper: l.s.Dir + "/upper", ReadOnly: l.s.Record.Config.ReadOnly}
	store := storage.Open(l.s.Env.Layers())
	for _, id := range slices.Backward(l.s.Record.Image.Layers) {
		dir, err := store.Path(id)
		if err != nil {
			l.v.unseen("layer", err)
			continue
		}
		r.Layers = append(r.Layers, Layer{Dir: dir})
	}
	l.name(r)
	l.written(r)
	l.v.Root = r
}

// name gives the layers their digests and the history lines that made them. The
// directory of a layer has the digest in its name; a stack that the kernel was
// given by numbers (older kernels) is named by the record.
func (l *looker) name(r *Root) {
	store := storage.Open(l.s.Env.Layers())
	ids := l.s.Record.Image.Layers
	for i := range r.Layers {
		layer := &r.Layers[i]
		for _, id := range ids {
			_, hex, _ := strings.Cut(id, ":")
			if strings.Contains(layer.Dir, hex) {
				layer.DiffID = id
			}
		}
		if layer.DiffID == "" && !strings.HasPrefix(layer.Dir, "/") && len(r.Layers) == len(ids) {
			layer.DiffID = ids[len(ids)-1-i]
			if dir, err := store.Path(layer.DiffID); err == nil {
				layer.Dir = dir
			}
		}
		if layer.DiffID == "" {
			continue
		}
		layer.Bytes, _ = store.Size(layer.DiffID) // 0 where its record is gone
		for _, h := range l.s.History {
			if h.DiffID == layer.DiffID {
				layer.CreatedBy = h.CreatedBy
			}
		}
	}
}

// written counts what the container has written, for a few milliseconds at most.
func (l *looker) written(r *Root) {
	upper := r.Upper
	if upper == "" {
		return
	}
	if !strings.HasPrefix(upper, "/") {
		upper = l.s.Dir + "/upper"
		r.Upper = upper
	}
	deadline := time.Now().Add(6 * time.Millisecond)
	err := filepath.WalkDir(upper, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			r.More = true // a directory that is closed to the caller
			return nil    //nolint:nilerr // said by More
		}
		if d.IsDir() {
			return nil
		}
		r.Files++
		if fi, err := d.Info(); err == nil {
			if st, ok := fi.Sys().(*unix.Stat_t); ok {
				r.Written += st.Blocks * 512
			} else {
				r.Written += fi.Size()
			}
		}
		if r.Files%64 == 0 && time.Now().After(deadline) {
			r.More = true
			return filepath.SkipAll
		}
		return nil
	})
	l.v.unseen("writable layer", err)
}
