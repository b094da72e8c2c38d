package ocicli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// readSpec reads a config.json.
func readSpec(path string) (*specs.Spec, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("JSON specification file %s not found", path)
	}
	if err != nil {
		return nil, err
	}
	return parseSpec(data)
}

func parseSpec(data []byte) (*specs.Spec, error) {
	s := new(specs.Spec)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, err
	}
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	return s, checkProcess(s.Process)
}

func checkProcess(p *specs.Process) error {
	switch {
	case p == nil:
		return errors.New("process property must not be empty")
	case p.Cwd == "":
		return errors.New("Cwd property must not be empty") //nolint:staticcheck // callers know it so
	case !filepath.IsAbs(p.Cwd):
		return errors.New("Cwd must be an absolute path") //nolint:staticcheck // callers know it so
	case len(p.Args) == 0:
		return errors.New("args must not be empty")
	case p.SelinuxLabel != "" && !selinux():
		return errors.New("selinux label is specified in config, but selinux is disabled or not supported")
	}
	return nil
}

func selinux() bool { return unix.Access("/sys/fs/selinux/status", unix.F_OK) == nil }

// bundle is a bundle that a container is made of.
type bundle struct {
	dir  string
	data []byte // of config.json
	spec *specs.Spec
}

// openBundle reads the bundle in dir; "": the current directory, which dir
// becomes, for the bundle may name its root relative to itself. file is the name
// of its configuration; "": config.json.
func openBundle(dir, file string) (*bundle, error) {
	if file == "" {
		file = configFile
	}
	if dir != "" {
		if err := os.Chdir(dir); err != nil {
			return nil, err
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("JSON specification file %s not found", file)
	}
	if err != nil {
		return nil, err
	}
	b := &bundle{dir: dir, data: data}
	b.spec, err = parseSpec(data)
	return b, err
}

// root makes the path of the root absolute and free of symbolic links: the
// container is told of it and mounts are made below it.
func (b *bundle) root() error {
	r := b.spec.Root
	if r == nil {
		return errors.New("root must be specified")
	}
	path := r.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(b.dir, path)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("invalid rootfs: %w", err)
	}
	if real != filepath.Clean(path) {
		return errors.New("invalid rootfs: not an absolute path, or a symlink")
	}
	r.Path = real
	return nil
}

// environment is the process's environment with every name once, the last value
// of each, and a home directory.
func environment(env []string, home func() string) ([]string, error) {
	out := make([]string, 0, len(env)+1)
	at := make(map[string]int, len(env))
	for _, kv := range env {
		name, value, ok := strings.Cut(kv, "=")
		switch {
		case !ok:
			return nil, fmt.Errorf("invalid environment variable: missing '='")
		case name == "":
			return nil, fmt.Errorf("invalid environment variable: name cannot be empty")
		case strings.ContainsRune(kv, 0):
			return nil, fmt.Errorf("invalid environment variable %q: contains nul byte (\\x00)", name)
		}
		if name == "HOME" && value == "" {
			// As if it were not there.
			if i, set := at[name]; set {
				out[i] = ""
				delete(at, name)
			}
			continue
		}
		if i, twice := at[name]; twice {
			out[i] = kv
			continue
		}
		at[name] = len(out)
		out = append(out, kv)
	}
	out = slices.DeleteFunc(out, func(kv string) bool { return kv == "" })
	if _, set := at["HOME"]; !set {
		out = append(out, "HOME="+home())
	}
	return out, nil
}

// maxPasswd bounds what is read of the container's file, which it may write.
const maxPasswd = 1 << 20

// homeIn finds the home directory of uid in /etc/passwd below root, which is not
// left whatever links the container has made.
func homeIn(root string, uid uint32) string {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "/"
	}
	defer unix.Close(dir) //nolint:errcheck // nothing is written
	fd, err := unix.Openat2(dir, "etc/passwd", &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return "/"
	}
	f := os.NewFile(uintptr(fd), "passwd")
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxPasswd {
		return "/"
	}
	data := make([]byte, st.Size)
	n, _ := f.Read(data) // what there is
	want := fmt.Sprint(uid)
	for line := range strings.Lines(string(data[:n])) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) >= 6 && f[2] == want && f[5] != "" {
			return f[5]
		}
	}
	return "/"
}
