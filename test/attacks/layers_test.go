package attacks

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func layerAttacks() []attack {
	return []attack{
		{class: 8, name: "layers that leave their directory", cve: "CVE-2026-17106", removed: "resolve", run: hostileLayers},
		{class: 8, name: "layers that claim what they may not", cve: "CVE-2021-41103", because: "each entry has a check of its own: the fuzz target of storage/unpack takes them one by one", run: greedyLayers},
		{class: 10, name: "configurations that are too much", cve: "GO-2026-6597", because: "each parser has a limit of its own, tested beside it", run: bombs},
		{class: 10, name: "a group file without end", cve: "CVE-2026-47262", removed: "limits", run: hugeGroup},
		{class: 11, name: "a layer that is not what was announced", cve: "CVE-2024-3727", removed: "digest", run: otherLayer},
		{class: 12, name: "labels as orders", cve: "CVE-2026-94603", because: "nothing reads them: there is no defence to take out", run: labels},
	}
}

// hostileLayers unpacks what has got out of other engines' directories.
func hostileLayers(a *attempt) {
	host := newTree(a)
	h := host.path
	up := strings.Repeat("../", 30) + h[1:]
	opaque := ".wh..wh..opq"
	for name, layers := range map[string][][]byte{
		"dots":               {layer(a.t, file(up+"/mark", "x"))},
		"absolute":           {layer(a.t, file(h+"/mark", "x"))},
		"link then file":     {layer(a.t, link("l", h), file("l/mark", "x"))},
		"link up then file":  {layer(a.t, link("l", up), file("l/mark", "x"))},
		"link, two layers":   {layer(a.t, link("l", h)), layer(a.t, file("l/mark", "x"))},
		"link to link":       {layer(a.t, link("a", h), link("b", "a"), file("b/mark", "x"))},
		"link in the middle": {layer(a.t, dir("d/"), link("d/l", h), dir("d/l/new/"), file("d/l/new/mark", "x"))},
		"link is replaced":   {layer(a.t, link("secret", h+"/secret"), file("secret", "x"))},
		"hard link out":      {layer(a.t, link("l", h), hard("h", "l/secret"), file("h", "x"))},
		"hard link absolute": {layer(a.t, hard("h", h+"/secret"))},
		"hard link up":       {layer(a.t, hard("h", up+"/secret"))},
		"whiteout by link":   {layer(a.t, link("l", h)), layer(a.t, file("l/.wh.secret", ""))},
		"whiteout of dots":   {layer(a.t, file("d/.wh..", "")), layer(a.t, file(".wh...", ""))},
		"opaque by link":     {layer(a.t, link("l", h)), layer(a.t, file("l/"+opaque, ""))},
		"directory by link":  {layer(a.t, link("l", h+"/data"), entry{Header: tar.Header{Name: "l/", Typeflag: tar.TypeDir, Mode: 0o777}})},
		"mode by link":       {layer(a.t, link("l", h), entry{Header: tar.Header{Name: "l/data/", Typeflag: tar.TypeDir, Mode: 0o777}})},
		"fifo by link":       {layer(a.t, link("l", h), entry{Header: tar.Header{Name: "l/fifo", Typeflag: tar.TypeFifo, Mode: 0o666}})},
		"root is a link":     {layer(a.t, link("./", h)), layer(a.t, file("mark", "x"))},
	} {
		m := image{name: strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), ",", ""), layers: layers}
		if r := a.load(m); r.code == 0 {
			a.mark(host, &m)
		}
		host.check(a)
	}
}

// mark looks into an image that was taken.
func (a *attempt) mark(host *tree, m *image) {
	r := a.run(m.name, "sh", "-c", "cat h secret l/secret a/secret d/secret 2>/dev/null; true")
	host.seen(a, m.name, r)
}

// greedyLayers brings what a layer must not set.
func greedyLayers(a *attempt) {
	host := newTree(a)
	for name, e := range map[string]entry{
		"trusted":  {Header: tar.Header{Name: "x", Typeflag: tar.TypeReg, Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": host.path}}},
		"redirect": {Header: tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.user.overlay.redirect": "/data"}}},
		"opaque":   {Header: tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.opaque": "y"}}},
	} {
		m := image{name: "greedy-" + name, layers: [][]byte{layer(a.t, e)}}
		if r := a.load(m); r.code != 0 {
			continue // refused: as good
		}
		r := a.run(m.name, "sh", "-c", "cat /d/secret /x; test -x /bin/sh && echo base is there")
		host.seen(a, name, r)
		if !strings.Contains(r.out, "base is there") {
			a.broke("%s: a layer has hidden another: %s", name, r)
		}
	}
	host.check(a)
}

// bombs are small archives that would be large in memory. They are refused in
// one line, or taken without harm.
func bombs(a *attempt) {
	for name, raw := range map[string][]byte{
		"deep":  []byte(`{"config":` + strings.Repeat(`{"a":`, 200_000) + `1` + strings.Repeat(`}`, 200_000) + `}`),
		"many":  []byte(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[` + strings.TrimSuffix(strings.Repeat(`"sha256:`+strings.Repeat("0", 64)+`",`, 300_000), ",") + `]}}`),
		"large": []byte(`{"architecture":"amd64","os":"linux","config":{"Labels":{"a":"` + strings.Repeat("x", 40<<20) + `"}},"rootfs":{"type":"layers","diff_ids":[]}}`),
	} {
		r := a.load(image{name: "bomb-" + name, raw: raw})
		if r.code == 0 {
			a.broke("%s: taken", name)
		}
		if lines := strings.Count(strings.TrimSpace(r.err), "\n"); lines > 3 || strings.Contains(r.err, "goroutine ") {
			a.broke("%s: not refused in a line: %.500s", name, r.err)
		}
	}
}

// hugeGroup gives a sparse group file of a gigabyte to whoever looks a name up.
func hugeGroup(a *attempt) {
	img := a.mustLoad(image{name: "huge", layers: [][]byte{layer(a.t, file("etc/group", "root:x:0:\n"))}})
	big := filepath.Join(a.dir, "group")
	f, err := os.Create(big)
	if err != nil {
		a.t.Fatal(err)
	}
	if _, err := fmt.Fprintln(f, "root:x:0:"); err != nil {
		a.t.Fatal(err)
	}
	if err := f.Truncate(64 << 20); err != nil {
		a.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		a.t.Fatal(err)
	}
	c := a.label() + "-huge"
	if r := a.call(a.words("create", "--name", c, "-u", "user", "--group-add", "root", img, "true")...); r.code != 0 {
		a.t.Fatalf("create: %s", r)
	}
	if r := a.call("cp", big, c+":/etc/group"); r.code != 0 {
		a.t.Fatalf("cp: %s", r)
	}
	if r := a.call("start", "-a", c); r.code == 0 || !strings.Contains(r.err, "group") {
		a.broke("a group file of 64 MB was read whole: %s", r)
	}
	a.call("rm", "-f", c)
}

// otherLayer announces one content and brings another.
func otherLayer(a *attempt) {
	m := image{name: "other", layers: [][]byte{layer(a.t, file("x", "evil"))}, diffID: digest([]byte("what was announced"))}
	if r := a.load(m); r.code == 0 {
		a.broke("a layer was taken whose content is not what its digest says")
	}
}

// labels gives an image the labels that have steered other engines. Its container
// must be confined like one without.
func labels(a *attempt) {
	host := newTree(a)
	keys := map[string]any{}
	for _, k := range []string{
		"run.oci.keep_original_groups", "run.oci.systemd.subgroup", "run.oci.seccomp.receiver", "run.oci.seccomp_fail_unknown_syscall", "run.oci.hooks.stdout",
		"run.oci.handler", "run.oci.mount_context_type", "run.oci.delegate-cgroup", "module.wasm.image/variant",
		"io.podman.annotations.seccomp", "io.podman.annotations.privileged", "io.podman.annotations.label", "io.podman.annotations.apparmor",
		"io.podman.annotations.init", "io.podman.annotations.pids-limit", "io.containers.capabilities", "io.containers.trace-syscall",
		"io.kubernetes.cri-o.Devices", "io.kubernetes.cri-o.ShmSize", "io.kubernetes.cri-o.umask", "io.kubernetes.cri-o.userns-mode",
		"io.containerd.runc.v2.group", "com.docker.network.bridge.host_binding_ipv4", "io.containers.autoupdate", "com.docker.compose.project",
		"org.systemd.property.ExecStart", "io.isle.privileged", "isle.seccomp",
	} {
		keys[k] = "1"
	}
	keys["run.oci.mount_context_type"] = "context"
	keys["io.containers.capabilities"] = "SYS_ADMIN,SYS_PTRACE"
	keys["io.podman.annotations.seccomp"] = "unconfined"
	keys["org.systemd.property.ExecStart"] = "/bin/touch " + host.path + "/mark"
	with := a.mustLoad(image{name: "labelled", config: map[string]any{"Labels": keys}})
	without := a.plain()
	script := "/probe status | grep -v '^cgroup '; sed 's/^[^ ]* [^ ]* [^ ]* //; s/ - .*//' /proc/self/mountinfo | cut -d' ' -f2,3; ls /dev"
	x, y := a.run(with, "sh", "-c", script), a.run(without, "sh", "-c", script)
	if x.out != y.out || x.code != y.code {
		a.broke("labels changed the container:\n%s\nwithout:\n%s", x, y)
	}
	host.check(a)
}
