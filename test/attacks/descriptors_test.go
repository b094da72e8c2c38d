package attacks

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func descriptorAttacks() []attack {
	return []attack{
		{class: 1, name: "overwrite the engine", cve: "CVE-2019-5736", removed: "shield,hide", run: overwrite},
		{class: 2, name: "leaked descriptors", cve: "CVE-2024-21626", removed: "close", run: leaked},
		{class: 2, name: "working directory by descriptor", cve: "CVE-2024-21626", removed: "close,resolve,cwd", run: cwdByDescriptor},
	}
}

// overwrite waits inside for the engine's executable, which a script brings in as
// its interpreter, and opens it for writing as soon as it no longer runs.
func overwrite(a *attempt) {
	unchanged := a.binary()
	img := a.mustLoad(image{name: "overwrite", layers: [][]byte{layer(a.t,
		file("bin/trap", "#!/proc/self/exe\n"), file("bin/slow", "#!/proc/self/exe wait\n"))}})
	c := a.detached(img, "/probe", "grab", "120")
	a.awaitLog(c, "ready")
	fi, err := os.Stat(a.path)
	if err != nil {
		a.t.Fatal(err)
	}
	held := "holds 0 rw"
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		held = fmt.Sprintf("holds %d rw", st.Ino)
	}
	deadline := time.Now().Add(time.Minute)
	for i := 0; i < rounds(a.t, 150) && time.Now().Before(deadline); i++ {
		cmd := []string{"/bin/trap"}
		if i%2 == 1 {
			cmd = []string{"/bin/slow", "nosuch"}
		}
		if i%10 == 9 {
			cmd = []string{"/bin/true"}
		}
		a.call(append([]string{"exec", c}, cmd...)...)
		if i%16 == 15 && strings.Contains(a.call("logs", c).out, held) {
			break
		}
	}
	if strings.Contains(a.call("logs", c).out, held) {
		a.broke("a process of the container holds the engine's executable, and can write it when it does not run")
	}
	unchanged()
	a.call("rm", "-f", c)
}

// awaitLog waits until a container has said a word.
func (a *attempt) awaitLog(c, word string) {
	a.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		r := a.call("logs", c)
		if strings.Contains(r.out, word) {
			return
		}
		if time.Now().After(end) {
			a.t.Fatalf("container %s never said %q: %s", c, word, r)
		}
	}
}

// leaking runs the engine as a careless program would: with a directory of the
// host open at a descriptor that execve keeps.
func (a *attempt) leaking(fd int, dir string, words ...string) result {
	a.t.Helper()
	n := strconv.Itoa(fd)
	script := `exec ` + n + `<"$1"; shift; exec "$@"`
	return a.program(nil, "/bin/bash", append([]string{"-c", script, "sh", dir, a.path}, words...)...)
}

func leaked(a *attempt) {
	host := newTree(a)
	img := a.plain()
	check := func(what string, r result) {
		for s := bufio.NewScanner(strings.NewReader(r.out)); s.Scan(); {
			a.broke("%s: open inside: %s", what, s.Text())
		}
		if r.code != 0 {
			a.t.Fatalf("%s: %s", what, r)
		}
	}
	check("run", a.leaking(9, host.path, a.words("run", img, "/probe", "fds")...))
	check("run -i", a.leaking(9, host.path, a.words("run", "-i", img, "/probe", "fds")...))
	c := a.detached(img, "sleep", "100")
	check("exec", a.leaking(9, host.path, "exec", c, "/probe", "fds"))
	check("exec -i", a.leaking(9, host.path, "exec", "-i", c, "/probe", "fds"))
	a.call("rm", "-f", c)
}

func cwdByDescriptor(a *attempt) {
	host := newTree(a)
	img := a.plain()
	c := a.detached(img, "sleep", "100")
	for fd := 3; fd < 16; fd++ {
		dir := "/proc/self/fd/" + strconv.Itoa(fd)
		r := a.leaking(9, host.path, a.words("run", "-w", dir, img, "sh", "-c", "cat secret ./secret ../host/secret")...)
		host.seen(a, "run -w "+dir, r)
		r = a.leaking(9, host.path, "exec", "-w", dir, c, "sh", "-c", "cat secret")
		host.seen(a, "exec -w "+dir, r)
		if len(a.breaks) > 0 {
			break
		}
	}
	a.call("rm", "-f", c)
	host.check(a)
}
