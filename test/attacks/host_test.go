package attacks

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/isle-engine/isle/internal/testenv"
)

func hostAttacks() []attack {
	return []attack{
		{class: 19, name: "abstract sockets", cve: "CVE-2020-15257", because: "isle has none: there is no defence to take out", run: abstractSockets},
		{class: 28, name: "names that steer a terminal", removed: "escape", run: steer},
		{class: 29, name: "the host's loopback", cve: "CVE-2024-29018", flags: []string{"--network", "host"}, run: loopback},
		{class: 32, name: "store is open to others", cve: "CVE-2021-41091", removed: "modes", rootOnly: true, isleOnly: true, needs: []testenv.Word{testenv.OrdinaryUser}, run: openStore},
	}
}

// abstractSockets shares the host's network namespace, where abstract sockets of an
// engine would be in reach.
func abstractSockets(a *attempt) {
	img := a.plain()
	before := a.call("run", "--rm", "--network", "host", img, "/probe", "sockets")
	c := a.detached(img, "sleep", "100")
	after := a.call("run", "--rm", "--network", "host", img, "/probe", "sockets")
	a.call("rm", "-f", c)
	if before.code != 0 || after.code != 0 {
		a.t.Fatalf("%s, %s", before, after)
	}
	for s := range strings.Lines(after.out) {
		if !strings.Contains(before.out, s) && (strings.Contains(s, "isle") || strings.Contains(s, "shim") || strings.Contains(s, a.label())) {
			a.broke("abstract socket of the engine: %s", s)
		}
	}
}

// steer puts terminal sequences wherever an image or a command can.
func steer(a *attempt) {
	const evil = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\u009b31m"
	img := a.mustLoad(image{name: "steer", config: map[string]any{"Labels": map[string]any{"evil": evil}, "Cmd": []string{"sleep", "100"}, "Env": []string{"PATH=/bin", "E=" + evil}}})
	c := a.detached(img, "sh", "-c", "exec sleep 100 # "+evil)
	for _, words := range [][]string{
		{"ps", "-a", "--no-trunc"},
		{"ps", "-a", "--format", "{{.Command}} {{.Labels}}"},
		{"top", c},
		{"images", "--format", "{{.Repository}}"},
		{"history", "--no-trunc", img},
		{"exec", c, evil},
		{"inspect", evil},
		{"run", "--rm", "--network", "none", img, "/" + evil},
		{"load", "-i", "/" + evil},
		{"stop", evil},
	} {
		r := a.call(words...)
		if strings.ContainsAny(r.out+r.err, "\x1b\x07\u202e\u009b") {
			a.broke("%s: %q %q", words[0], r.out, r.err)
		}
	}
	a.call("rm", "-f", c)
}

// loopback reaches for a listener of the host's own loopback.
func loopback(a *attempt) {
	addr := listener(a.t)
	_, port, _ := strings.Cut(addr, ":")
	img := a.plain()
	networks := []string{"none"}
	if a.flags != nil {
		networks = nil
	} else if os.Getuid() != 0 {
		// Root's would be made in the network namespace of the whole machine.
		networks = append(networks, "bridge")
	}
	check := func(what string, r result) {
		if strings.Contains(r.out, "reached") {
			a.broke("%s: %s", what, r.out)
		}
	}
	to := []string{"127.0.0.1:" + port, "localhost:" + port, "[::1]:" + port, "10.0.2.2:" + port, "host.docker.internal:" + port}
	for _, n := range networks {
		check(n, a.call(append([]string{"run", "--rm", "--network", n, img, "/probe", "connect"}, to...)...))
		r := a.call("run", "--rm", "--network", n, img, "sh", "-c", "for g in $(ip route 2>/dev/null | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); do /probe connect $g:"+port+"; done")
		check(n+", gateway", r)
	}
	if a.flags != nil {
		check("host", a.call("run", "--rm", "--network", "host", img, "/probe", "connect", addr))
	}
}

// openStore looks for a way of another user into the store.
func openStore(a *attempt) {
	if err := os.Chmod(a.dir, 0o755); err != nil {
		a.t.Fatal(err)
	}
	img := a.mustLoad(image{name: "setuid", layers: [][]byte{layer(a.t, entry{Header: setuid("bin/su").Header, data: "x"})}})
	c := a.detached("-v", "/vol", img, "sleep", "100")
	other := testenv.Ordinary(a.t)
	for _, d := range []string{"d", "r"} {
		r := a.program(nil, "/usr/bin/setpriv", "--reuid="+other.Name, "--regid="+other.Name, "--clear-groups", "/usr/bin/find", filepath.Join(a.dir, d), "-mindepth", "1")
		if r.out != "" {
			a.broke("another user sees into the store: %.300s", r.out)
		}
	}
	a.call("rm", "-f", "-v", c)
}

func setuid(name string) entry {
	e := file(name, "x")
	e.Mode = 0o4755
	return e
}
