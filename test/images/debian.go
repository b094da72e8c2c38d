package images

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/isle-engine/isle/internal/testenv"
)

// Image is an image ready to be pushed.
type Image struct {
	Repo   string // as the registry knows it: library/nginx
	Tag    string
	Cmd    []string
	Entry  []string
	Env    []string
	User   string
	Dir    string
	Layers []Layer
}

const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// closure lists a program and what it needs to run in a root file system of its
// own: its shared libraries and its loader, under the names it looks for.
func closure(programs ...string) ([]File, error) {
	var files []File
	for _, name := range programs {
		host, err := testenv.LookTool(name)
		if err != nil {
			return nil, err
		}
		real, err := filepath.EvalSymlinks(host)
		if err != nil {
			return nil, err
		}
		// /usr/bin and /bin are one directory on Debian, and not in these images.
		files = append(files, File{Path: "/usr/bin/" + name, Host: real, Mode: 0o755}, File{Path: "/bin/" + name, Link: "/usr/bin/" + name})
		out, err := exec.Command("ldd", real).CombinedOutput()
		if err != nil {
			if strings.Contains(string(out), "not a dynamic executable") {
				continue
			}
			return nil, fmt.Errorf("ldd %s: %w: %s", real, err, out)
		}
		for line := range strings.Lines(string(out)) {
			// libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…), or just the loader's path.
			for word := range strings.FieldsSeq(line) {
				if !filepath.IsAbs(word) {
					continue
				}
				lib, err := filepath.EvalSymlinks(word)
				if err != nil {
					return nil, err
				}
				files = append(files, File{Path: word, Host: lib, Mode: 0o755})
			}
		}
	}
	return files, nil
}

// common are the files that every image of a Debian program gets.
func common() []File {
	return []File{
		{Path: "/etc/passwd", Data: "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"},
		{Path: "/etc/group", Data: "root:x:0:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\n"},
		{Path: "/root/", Mode: 0o700},
		{Path: "/tmp/", Mode: 0o1777},
		{Path: "/run/"},
		{Path: "/proc/"},
		{Path: "/sys/"},
		{Path: "/dev/"},
		{Path: "/var/tmp/", Mode: 0o1777},
	}
}

// Nginx makes the image nginx:latest of Debian's nginx, in three layers, with ps
// from procps in it.
func Nginx(dir string) (*Image, error) {
	m := &Image{Repo: "library/nginx", Tag: "latest", Cmd: []string{"nginx", "-g", "daemon off;"}}
	tools, err := closure("dash", "ps")
	if err != nil {
		return nil, err
	}
	server, err := closure("nginx")
	if err != nil {
		return nil, err
	}
	server = append(server, File{Path: "/var/lib/nginx/"}, File{Path: "/var/log/nginx/"})
	config := []File{
		{Path: "/etc/nginx/nginx.conf", Data: "user www-data;\nworker_processes 2;\npid /run/nginx.pid;\nerror_log /dev/stderr notice;\n" +
			"events { worker_connections 64; }\nhttp {\n\taccess_log /dev/stdout;\n\tserver { listen 80; root /usr/share/nginx/html; }\n}\n"},
		{Path: "/usr/share/nginx/html/index.html", Data: "<h1>It runs in isle</h1>\n"},
	}
	tools = append(append(common(), tools...), File{Path: "/bin/sh", Link: "dash"})
	return m, m.layers(dir, tools, server, config)
}

// Stress makes the image stress:latest of Debian's stress-ng. In it stress-ng is
// told not to start a stressor again that the kernel killed for its memory: by
// default it does, for a day.
func Stress(dir string) (*Image, error) {
	m := &Image{Repo: "library/stress", Tag: "latest", Cmd: []string{"stress-ng", "--help"}}
	files, err := closure("stress-ng", "dash")
	if err != nil {
		return nil, err
	}
	files = append(files, File{Path: "/bin/sh", Link: "dash"},
		File{Path: "/usr/local/bin/stress-ng", Mode: 0o755, Data: "#!/bin/sh\nexec /usr/bin/stress-ng --oomable \"$@\"\n"})
	return m, m.layers(dir, append(common(), files...))
}

// Alpine makes alpine:3.20: the real one where AlpineTarball finds it, else
// busybox in its place.
func Alpine(dir string) (*Image, error) {
	m := &Image{Repo: "library/alpine", Tag: "3.20", Cmd: []string{"/bin/sh"}}
	if name := AlpineTarball(); name != "" {
		m.Env = []string{searchPath}
		l, err := FromTarball(name)
		m.Layers = []Layer{l}
		return m, err
	}
	return m, m.busybox(dir)
}

// AlpineTarball returns the mini root file system of Alpine 3.20 that
// ISLE_ALPINE_TAR names, or that lies in a directory images next to the module's
// own directory or one level down from there; or "".
func AlpineTarball() string {
	if name := os.Getenv("ISLE_ALPINE_TAR"); name != "" {
		return name
	}
	root, err := testenv.ModuleRoot()
	if err != nil {
		return ""
	}
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	for _, up := range []string{"../images", "../*/images"} {
		// The only error is a malformed pattern.
		if found, _ := filepath.Glob(filepath.Join(root, up, "alpine-minirootfs-3.20.*-"+arch+".tar.gz")); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	return ""
}

// Busybox makes busybox:latest.
func Busybox(dir string) (*Image, error) {
	m := &Image{Repo: "library/busybox", Tag: "latest", Cmd: []string{"sh"}}
	return m, m.busybox(dir)
}

func (m *Image) busybox(dir string) error {
	exe, err := testenv.StaticBusybox()
	if err != nil {
		return err
	}
	out, err := exec.Command(exe, "--list").Output()
	if err != nil {
		return fmt.Errorf("%s --list: %w", exe, err)
	}
	files := append(common(), File{Path: "/bin/busybox", Host: exe, Mode: 0o755},
		File{Path: "/etc/os-release", Data: "ID=busybox\nPRETTY_NAME=\"busybox of Debian\"\n"})
	for applet := range strings.FieldsSeq(string(out)) {
		if applet != "busybox" {
			files = append(files, File{Path: "/bin/" + applet, Link: "busybox"})
		}
	}
	return m.layers(dir, files)
}

func (m *Image) layers(dir string, layers ...[]File) error {
	m.Env = []string{searchPath}
	for _, files := range layers {
		l, err := layerOf(dir, files)
		if err != nil {
			return fmt.Errorf("image %s: %w", m.Repo, err)
		}
		m.Layers = append(m.Layers, l)
	}
	if len(m.Layers) == 0 {
		return errors.New("image without layers")
	}
	return nil
}

// config is the image's configuration as Docker and OCI define it.
func (m *Image) config() map[string]any {
	ids := make([]string, len(m.Layers))
	history := make([]any, len(m.Layers))
	for i, l := range m.Layers {
		ids[i] = l.DiffID
		history[i] = map[string]string{"created": "2024-01-01T00:00:00Z", "created_by": "test/images"}
	}
	c := map[string]any{"Env": m.Env, "Cmd": m.Cmd}
	if m.Entry != nil {
		c["Entrypoint"] = m.Entry
	}
	if m.User != "" {
		c["User"] = m.User
	}
	if m.Dir != "" {
		c["WorkingDir"] = m.Dir
	}
	return map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "created": "2024-01-01T00:00:00Z",
		"config": c, "rootfs": map[string]any{"type": "layers", "diff_ids": ids}, "history": history,
	}
}
