package attacks

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

func copyAttacks() []attack {
	return []attack{
		{class: 13, name: "copy through links", cve: "CVE-2018-15664", removed: "resolve", run: copyThroughLinks},
		{class: 13, name: "copy in a race", cve: "CVE-2026-42306", because: "the winner of the race is decided in microseconds; without resolve the same ways succeed at rest, in copy through links", run: copyRace},
		{class: 13, name: "volume export through a link", cve: "CVE-2023-0778", because: "a volume is walked by names that are never followed; its own root is made by the engine", run: exportLink},
		{class: 14, name: "programs of the image run outside", cve: "CVE-2022-1227", because: "nothing of a container is looked up by name outside it: there is no defence to take out", run: traps},
	}
}

// copyThroughLinks copies from and to places that lead out of the container, from
// one that runs and one that does not.
func copyThroughLinks(a *attempt) {
	host := newTree(a)
	img := a.mustLoad(image{name: "copy", layers: [][]byte{layer(a.t,
		link("abs", host.path), link("up", strings.Repeat("../", 30)+host.path[1:]),
		link("file", host.path+"/secret"), link("magic", "/proc/self/root"+host.path), link("chain", "abs"))}})
	evil := filepath.Join(a.dir, "evil")
	if err := os.WriteFile(evil, []byte("evil\n"), 0o644); err != nil {
		a.t.Fatal(err)
	}
	running := a.detached(img, "sleep", "100")
	stopped := a.label() + "-stopped"
	if r := a.call(a.words("create", "--name", stopped, img, "true")...); r.code != 0 {
		a.t.Fatalf("create: %s", r)
	}
	for _, c := range []string{running, stopped} {
		for _, from := range []string{"/abs/secret", "/up/secret", "/magic/secret", "/chain/secret", "/abs/.", "/../../../.." + host.path + "/secret"} {
			host.seen(a, "cp "+from, a.call("cp", c+":"+from, "-"))
			host.seen(a, "cp -L "+from, a.call("cp", "-L", c+":"+from, "-"))
		}
		host.seen(a, "cp -L /file", a.call("cp", "-L", c+":/file", "-"))
		for _, to := range []string{"/abs/mark", "/up/mark", "/magic/mark", "/chain/", "/file", "/abs/data", "/../../../.." + host.path + "/mark"} {
			a.call("cp", evil, c+":"+to)
			host.check(a)
		}
		a.call("rm", "-f", c)
	}
}

// copyRace has the container exchange a directory and a link while the host copies.
func copyRace(a *attempt) {
	host := newTree(a)
	img := a.mustLoad(image{name: "race", layers: [][]byte{layer(a.t,
		dir("d/"), file("d/secret", "the container's\n"), link("l", host.path))}})
	evil := filepath.Join(a.dir, "evil")
	if err := os.WriteFile(evil, []byte("evil\n"), 0o644); err != nil {
		a.t.Fatal(err)
	}
	c := a.detached(img, "/probe", "swap", "/d", "/l")
	a.awaitLog(c, "ready")
	deadline := time.Now().Add(time.Minute)
	for i := 0; i < rounds(a.t, a.few(80)) && time.Now().Before(deadline) && len(a.breaks) == 0; i++ {
		host.seen(a, "cp in a race", a.call("cp", c+":/d/secret", "-"))
		a.call("cp", evil, c+":/d/mark")
		host.check(a)
	}
	a.call("rm", "-f", c)
}

// exportLink exports a volume whose content is a link out.
func exportLink(a *attempt) {
	host := newTree(a)
	img := a.plain()
	v := a.label()
	a.call("volume", "create", v)
	a.run("-v", v+":/v", img, "sh", "-c", "ln -s "+host.path+"/secret /v/secret; ln -s "+host.path+" /v/dir")
	host.seen(a, "volume export", a.call("volume", "export", v))
	a.call("volume", "rm", v)
	host.check(a)
}

// traps puts programs into an image that other engines have run on the host.
func traps(a *attempt) {
	host := newTree(a)
	trap := "#!/bin/sh\necho trapped >/trapped; echo x >" + host.path + "/mark; exec /bin/busybox ${0##*/} \"$@\"\n"
	var files []entry
	for _, n := range []string{"nsenter", "ps", "tar", "xz", "unpigz", "gzip", "getent", "id", "newuidmap", "mount", "cp", "ls", "chown", "mkdir"} {
		files = append(files, file("bin/"+n, trap), file("usr/bin/"+n, trap), file("usr/local/bin/"+n, trap))
	}
	for _, n := range []string{"libnss_files.so.2", "libnss_compat.so.2"} {
		files = append(files, file("lib/"+n, "not a library"), file("usr/lib/"+n, "not a library"))
	}
	img := a.mustLoad(image{
		name: "traps", layers: [][]byte{layer(a.t, append([]entry{dir("usr/"), dir("usr/bin/"), dir("usr/local/"), dir("usr/local/bin/"), dir("lib/"), dir("usr/lib/")}, files...)...)},
		config: map[string]any{"Env": []string{"PATH=/bin", "LD_PRELOAD=/lib/libnss_files.so.2", "LD_LIBRARY_PATH=/lib"}},
	})
	c := a.detached("-u", "user", img, "sleep", "100")
	a.call("top", c)
	a.call("stats", "--no-stream", c)
	a.call("cp", c+":/etc", "-")
	a.input(strings.NewReader(string(layer(a.t, file("put", "x")))), "cp", "-", c+":/tmp")
	a.call("diff", c)
	a.call("exec", "-u", "user", c, "true")
	if r := a.call("exec", c, "cat", "/trapped"); r.code == 0 {
		a.broke("a program of the image was run by the engine")
	}
	if r := a.call("export", c); strings.Contains(r.out, "trapped\n") && strings.Contains(r.out, "\x00trapped\x00") {
		a.broke("a program of the image was run by the engine")
	}
	a.call("rm", "-f", c)
	host.check(a)
}
