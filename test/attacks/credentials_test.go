package attacks

import (
	"slices"
	"strings"
)

func credentialAttacks() []attack {
	return []attack{
		{class: 20, name: "ids that are too large", cve: "CVE-2024-40635", removed: "uid", run: hugeIDs},
		{class: 21, name: "supplementary groups", cve: "CVE-2022-36109", removed: "groups", run: groups},
		{class: 22, name: "inheritable capabilities", cve: "CVE-2022-29162", removed: "inheritable", run: inheritable},
		{class: 23, name: "exec is less confined than run", removed: "exec", run: execConfined},
	}
}

// hugeIDs asks for users that are root to a careless parser.
func hugeIDs(a *attempt) {
	img := a.mustLoad(image{name: "ids", layers: [][]byte{layer(a.t, file("etc/passwd", "root:x:0:0:::\nuser:x:4294967296:4294967296:::\nwords:x:zero:0:::\n0x0:x:1000:1000:::\n"))}})
	c := a.detached(img, "sleep", "100")
	for _, u := range []string{"4294967296", "4294967296:4294967296", "18446744073709551616", "2147483648", "-1", "+0", "0x0", " 0", "00x0", "1e0", "user", "words", "4294967297"} {
		for what, r := range map[string]result{
			"run": a.run("-u", u, img, "sh", "-c", "echo uid=$(id -u)"), "exec": a.call("exec", "-u", u, c, "sh", "-c", "echo uid=$(id -u)"),
		} {
			if r.code == 0 && strings.Contains(r.out, "uid=0\n") {
				a.broke("%s -u %q is root", what, u)
			}
		}
		small := a.load(image{name: "user", config: map[string]any{"User": u}})
		if r := a.run("user", "sh", "-c", "echo uid=$(id -u)"); small.code == 0 && r.code == 0 && strings.Contains(r.out, "uid=0\n") {
			a.broke("an image whose user is %q runs as root", u)
		}
	}
	a.call("rm", "-f", c)
}

// field returns the words of a line of probe status.
func field(out, key string) []string {
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.Fields(rest)
		}
	}
	return nil
}

// groups wants just the groups that the image gives a user.
func groups(a *attempt) {
	img := a.plain()
	c := a.detached("-u", "user", img, "sleep", "100")
	for what, r := range map[string]result{
		"run":  a.run("-u", "user", img, "/probe", "status"),
		"exec": a.call("exec", "-u", "user", c, "/probe", "status"),
	} {
		got := field(r.out, "Groups")
		slices.Sort(got)
		if r.code != 0 {
			a.t.Fatalf("%s: %s", what, r)
		}
		if !slices.Contains(got, "2000") {
			a.broke("%s: the user is not in its group, which may be one that is denied: %q", what, got)
		}
		for _, g := range got {
			if g != "2000" && g != "1000" {
				a.broke("%s: group %s", what, g)
			}
		}
	}
	a.call("rm", "-f", c)
}

func inheritable(a *attempt) {
	img := a.plain()
	c := a.detached(img, "sleep", "100")
	for _, u := range []string{"0", "user", "1234:1234"} {
		for what, r := range map[string]result{
			"run":  a.run("-u", u, img, "/probe", "status"),
			"exec": a.call("exec", "-u", u, c, "/probe", "status"),
		} {
			if r.code != 0 {
				a.t.Fatalf("%s: %s", what, r)
			}
			for _, set := range []string{"CapInh", "CapAmb"} {
				if got := field(r.out, set); len(got) != 1 || strings.Trim(got[0], "0") != "" {
					a.broke("%s -u %s: %s %v", what, u, set, got)
				}
			}
			if got := field(r.out, "CapEff"); u != "0" && (len(got) != 1 || strings.Trim(got[0], "0") != "") {
				a.broke("%s -u %s: CapEff %v", what, u, got)
			}
		}
	}
	a.call("rm", "-f", c)
}

// execConfined compares what run and exec give a process.
func execConfined(a *attempt) {
	img := a.plain()
	for _, flags := range [][]string{{}, {"--cap-drop", "ALL"}, {"--security-opt", "no-new-privileges"}, {"-u", "user"}, {"--oom-score-adj", "500", "--ulimit", "nofile=99:99"}} {
		first := a.run(append(slices.Clone(flags), img, "/probe", "status")...)
		c := a.detached(append(slices.Clone(flags), img, "sleep", "100")...)
		second := a.call("exec", c, "/probe", "status")
		a.call("rm", "-f", c)
		if first.code != 0 || second.code != 0 {
			a.t.Fatalf("%q: %s, %s", flags, first, second)
		}
		want, got := confined(first.out), confined(second.out)
		if want != got {
			a.broke("%q: exec gives\n%s\nrun gives\n%s", flags, got, want)
		}
	}
}

// confined keeps the lines that must be equal: the cgroup's name differs from
// container to container.
func confined(out string) string {
	var b strings.Builder
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "cgroup ") {
			b.WriteString(line)
		}
	}
	return b.String()
}
