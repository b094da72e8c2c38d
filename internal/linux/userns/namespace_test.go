package userns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/linux/program"
	"github.com/isle-engine/isle/internal/testenv"
)

// place is a directory for a holder, which is gone at the end of the test.
func place(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(testenv.Dir(t), "userns")
	t.Cleanup(func() {
		if err := Stop(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func ensure(t testing.TB, dir string) *Namespace {
	t.Helper()
	n, err := Ensure(dir, os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(errs.Hints(err), "\n"))
	}
	t.Cleanup(n.Close)
	return n
}

func id(t testing.TB, f *os.File) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func kill(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for i := 0; alive(pid); i++ {
		if i == 1000 {
			t.Fatalf("process %d does not end", pid)
		}
		time.Sleep(time.Millisecond)
	}
}

// member puts a process into the namespaces that is not their holder.
func member(t testing.TB, n *Namespace) int {
	t.Helper()
	h, err := startHolder("a member", 0, n.User, n.Mount)
	if err == nil {
		err = h.answer()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.kill)
	return h.pid
}

func TestEnsureCreatesOnceAndFindsAgain(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.NewUIDMap)
	if !testenv.AsUser(t) {
		return
	}
	dir := place(t)
	a, b := ensure(t, dir), ensure(t, dir)
	if a.Holder != b.Holder || id(t, a.User) != id(t, b.User) || id(t, a.Mount) != id(t, b.Mount) {
		t.Errorf("second call: %+v, first %+v", b, a)
	}
	if a.SingleID() || a.Advice != nil {
		t.Errorf("%+v: want the subordinate ids, and nothing to advise", a)
	}
	if a.UIDs[0] != m(0, uint32(os.Getuid()), 1) || a.GIDs[0] != m(0, uint32(os.Getgid()), 1) || a.UIDs[1].ContainerID != 1 {
		t.Errorf("maps %v %v", a.UIDs, a.GIDs)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.Holder))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(status, []byte("Name:\t"+holderName)) {
		t.Errorf("holder:\n%s", status)
	}
	// It closes its files just after it has answered.
	for i := 0; ; i++ {
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.Holder))
		if err == nil && len(files) == 0 {
			break
		}
		if i == 1000 {
			t.Fatalf("the holder keeps files open: %v %v", files, err)
		}
		time.Sleep(time.Millisecond)
	}
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", a.Holder))
	if err != nil || bytes.Contains(info, []byte(" shared:")) {
		t.Errorf("mounts would propagate out: %v\n%s", err, info)
	}
}

// TestEnsureTogether: of many first calls one makes the namespaces.
func TestEnsureTogether(t *testing.T) {
	testenv.Need(t, testenv.UserNS)
	if !testenv.AsUser(t) {
		return
	}
	dir := place(t)
	var wg sync.WaitGroup
	var got [20]*Namespace
	for i := range got {
		wg.Go(func() {
			n, err := Ensure(dir, os.Getuid(), os.Getgid())
			if err != nil {
				t.Error(err)
				return
			}
			got[i] = n
		})
	}
	wg.Wait()
	for _, n := range got {
		if n == nil || n.Holder != got[0].Holder {
			t.Fatalf("different holders: %+v", got)
		}
		n.Close()
	}
}

func TestHolderKilled(t *testing.T) {
	testenv.Need(t, testenv.UserNS)
	if !testenv.AsUser(t) {
		return
	}
	dir := place(t)
	a := ensure(t, dir)
	first := id(t, a.User)
	a.Close()
	kill(t, a.Holder)
	b := ensure(t, dir)
	if b.Holder == a.Holder || !alive(b.Holder) {
		t.Errorf("holder %d, before %d", b.Holder, a.Holder)
	}
	if fmt.Sprint(a.UIDs, a.GIDs) != fmt.Sprint(b.UIDs, b.GIDs) {
		t.Errorf("mapping changed: %v %v to %v %v", a.UIDs, a.GIDs, b.UIDs, b.GIDs)
	}
	// A container's monitor is still there: the next holder joins it.
	second := id(t, b.User)
	pid := member(t, b)
	b.Close()
	kill(t, b.Holder)
	c := ensure(t, dir)
	if id(t, c.User) != second || c.Holder == b.Holder || c.Holder == pid || !alive(c.Holder) {
		t.Errorf("namespace %d with holder %d, want %d (first was %d)", id(t, c.User), c.Holder, second, first)
	}
	if d := ensure(t, dir); d.Holder != c.Holder {
		t.Errorf("holder %d, then %d", c.Holder, d.Holder)
	}
}

// TestRecordLost: logind removes $XDG_RUNTIME_DIR; the holder is found again.
func TestRecordLost(t *testing.T) {
	testenv.Need(t, testenv.UserNS)
	if !testenv.AsUser(t) {
		return
	}
	dir := place(t)
	a := ensure(t, dir)
	for _, damage := range []func() error{
		func() error { return os.RemoveAll(dir) },
		func() error { return os.WriteFile(filepath.Join(dir, recordName), nil, 0o600) },
		func() error { return os.WriteFile(filepath.Join(dir, recordName), []byte("pid 1 1\nns x y\n"), 0o600) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if b := ensure(t, dir); b.Holder != a.Holder || fmt.Sprint(a.UIDs, a.GIDs) != fmt.Sprint(b.UIDs, b.GIDs) {
			t.Errorf("%+v, was %+v", b, a)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Stop(dir); err != nil {
		t.Fatal(err)
	}
	for i := 0; alive(a.Holder); i++ {
		if i == 1000 {
			t.Fatal("Stop left the holder")
		}
		time.Sleep(time.Millisecond)
	}
}

// TestRecordLies: a record that names another process, a process of another
// user, or another namespace is not followed.
func TestRecordLies(t *testing.T) {
	testenv.Need(t, testenv.UserNS)
	if !testenv.AsUser(t) {
		return
	}
	dir := place(t)
	a := ensure(t, dir)
	good, err := readRecord(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(r *record){
		"start":     func(r *record) { r.start++ },
		"user":      func(r *record) { r.userID++ },
		"mount":     func(r *record) { r.mountID++ },
		"pid":       func(r *record) { r.pid = os.Getpid() },
		"other":     func(r *record) { r.pid = 1 << 30 },
		"own ns":    func(r *record) { *r = *must(describe(os.Getpid()))(t); r.uids, r.gids = good.uids, good.gids },
		"ppid self": func(r *record) { r.pid = os.Getppid() },
	} {
		r := *good
		change(&r)
		if n, err := r.open(os.Getuid()); err == nil {
			t.Errorf("%s: followed to %+v", name, n)
		}
	}
	if n, err := good.open(os.Getuid() + 1); !errors.Is(err, errs.Denied) {
		t.Errorf("another user's: %+v, %v", n, err)
	}
	_ = a
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestSingleID: without subordinate ids there is one id, advice how to get
// more, and a new try when something has changed and no container lives.
func TestSingleID(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.NewUIDMap)
	if !testenv.AsUser(t) {
		return
	}
	dir := place(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	plan := &maps{uid: os.Getuid(), gid: os.Getgid()}
	plan.planSingle()
	r, err := create(dir, plan)
	if err != nil {
		t.Fatal(err)
	}
	n := ensure(t, dir)
	if !n.SingleID() || n.Holder != r.pid || len(n.UIDs) != 1 || n.UIDs[0] != m(0, uint32(os.Getuid()), 1) {
		t.Errorf("%+v", n)
	}
	deny, err := os.ReadFile(fmt.Sprintf("/proc/%d/setgroups", n.Holder))
	if err != nil || strings.TrimSpace(string(deny)) != "deny" {
		t.Errorf("setgroups %q, %v", deny, err)
	}
	// Something changes while a container runs: nothing is taken away from it.
	r.fingerprint++
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	h, err := startHolder("a member", 0, n.User, n.Mount)
	if err == nil {
		err = h.answer()
	}
	if err != nil {
		t.Fatal(err)
	}
	if b := ensure(t, dir); b.Holder != n.Holder || len(b.Advice) == 0 {
		t.Errorf("with a container: %+v", b)
	}
	h.kill()
	// And once more when none does.
	r.fingerprint++
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	if b := ensure(t, dir); b.SingleID() || b.Holder == n.Holder {
		t.Errorf("without a container: %+v", b)
	}
}

// TestPlanAdvice: what a user without ids is told is exact.
func TestPlanAdvice(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.OrdinaryUser)
	plan, err := planMaps(54321, 54321) // nobody has this uid
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(plan.advice, "\n")
	for _, want := range []string{
		"user 54321 has no ids in /etc/subuid or /etc/subgid: containers have just one user",
		`as root: echo "54321:`, `:65536" >> /etc/subuid`, `:65536" >> /etc/subgid`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("advice lacks %q:\n%s", want, text)
		}
	}
	if !plan.single || plan.newuidmap != "" {
		t.Errorf("%+v", plan)
	}
}

func TestPowerless(t *testing.T) {
	testenv.Need(t, testenv.NewUIDMap)
	if why, _ := powerless(tool("newuidmap"), tool("newgidmap")); why != "" {
		t.Error(why)
	}
	if why, repair := powerless("/bin/true"); !strings.Contains(why, "not set-uid root") || len(repair) == 0 {
		t.Errorf("%q %q", why, repair)
	}
}

// TestNewuidmapRefuses: ranges that the files do not give are an error with a
// hint, and leave no holder behind.
func TestNewuidmapRefuses(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.NewUIDMap)
	if !testenv.AsUser(t) {
		return
	}
	dir := place(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	plan, err := planMaps(os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	plan.uids = extents(uint32(os.Getuid()), []Range{{1, 999}})
	_, err = create(dir, plan)
	if !errors.Is(err, errs.Denied) || len(errs.Hints(err)) == 0 || !strings.Contains(err.Error(), "newuidmap") {
		t.Errorf("%v, hints %q", err, errs.Hints(err))
	}
	if r, err := adopt(dir); err == nil {
		t.Errorf("left behind: %+v", r)
	}
}

// TestRootInContainer: root of a user namespace maps what it has.
func TestRootInContainer(t *testing.T) {
	testenv.Need(t, testenv.UserNS)
	if !testenv.Unshare(t, syscall.CLONE_NEWUSER|syscall.CLONE_NEWNS) {
		return
	}
	dir := place(t)
	n := ensure(t, dir)
	own, err := ReadMap("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	if size(n.UIDs) != size(own) {
		t.Errorf("maps %v, own %v", n.UIDs, own)
	}
}

func TestObstaclesAreChecked(t *testing.T) {
	testenv.Need(t, testenv.UserNS)
	if hints := Obstacles(nil); hints != nil {
		t.Errorf("user namespaces work here, but: %q", hints)
	}
}

// TestUserNamespacesOff turns user namespaces off inside a user namespace, which
// is the one place where that hurts nobody.
func TestUserNamespacesOff(t *testing.T) {
	testenv.Need(t, testenv.UserNS)
	if !testenv.Unshare(t, syscall.CLONE_NEWUSER|syscall.CLONE_NEWNS) {
		return
	}
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	dir := place(t)
	_, err := Ensure(dir, os.Getuid(), os.Getgid())
	if err == nil || !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("%v, want ENOSPC", err)
	}
	if h := errs.Hints(err); len(h) != 1 || !strings.Contains(h[0], "sysctl -w user.max_user_namespaces=") {
		t.Errorf("hints %q", h)
	}
}

// TestJoin: a child that joins is root there, sees the mounts, and may make
// files with subordinate ids.
func TestJoin(t *testing.T) {
	testenv.Need(t, testenv.UserNS, testenv.NewUIDMap)
	if !testenv.AsUser(t) {
		return
	}
	n := ensure(t, place(t))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(testenv.Dir(t), "f")
	cmd := program.Command{
		Path: "/bin/sh", Args: []string{"sh", "-c", "id -u; touch " + file + " && chown 1:2 " + file + "; stat -c %u:%g " + file + "; mount -t tmpfs x /mnt && echo mounted; umount /mnt; rm " + file},
		Env: os.Environ(), Files: []*os.File{nil, w, w}, Join: n.Join(),
	}
	child, err := cmd.Start()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(child.Pid, nil, 0, nil); err != nil {
		t.Error(err)
	}
	if string(out) != "0\n1:2\nmounted\n" {
		t.Errorf("child says %q", out)
	}
}

func TestStartTime(t *testing.T) {
	for _, name := range []string{"plain", "a b", "a) S 1 (b", ")))"} {
		cmd := exec.Command("/bin/sleep", "60")
		exe := filepath.Join(testenv.Dir(t), name)
		if out, err := exec.Command("/bin/cp", "/bin/sleep", exe).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		cmd.Path = exe
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		got, err := startTime(cmd.Process.Pid)
		mine, err2 := startTime(os.Getpid())
		if err != nil || err2 != nil || got < mine || got > mine+100*60*60 {
			t.Errorf("%q: %d, own %d, %v %v", name, got, mine, err, err2)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

func TestReadRecordTrustsNothing(t *testing.T) {
	dir := testenv.Dir(t)
	for _, text := range []string{
		"", "\n", "pid", "pid 5 6 7\n", "pid 5 6\nns 1 2\n", "pid 1 6\nns 1 2\nuid 0 0 1\ngid 0 0 1\n", "pid -5 6\nns 1 2\nuid 0 0 1\ngid 0 0 1\n",
		"pid 5 6\nns 1 2\nuid 0 0 1\ngid 0 0 1\nwhat 1\n", "pid 99999999999999999999999 6\n", strings.Repeat("uid 0 0 1\n", 1000),
	} {
		if err := os.WriteFile(filepath.Join(dir, recordName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := readRecord(dir); err == nil {
			t.Errorf("%.40q: %+v", text, r)
		}
	}
	want := &record{pid: 77, start: 88, userID: 4026531837, mountID: 4026531838, fingerprint: 1<<63 - 1, uids: ids{m(0, 1000, 1), m(1, 100000, 65536)}, gids: ids{m(0, 1001, 1)}}
	if err := want.write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := readRecord(dir)
	if err != nil || fmt.Sprint(*got) != fmt.Sprint(*want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}

func BenchmarkEnsure(b *testing.B) {
	testenv.Need(b, testenv.UserNS)
	dir := place(b)
	uid, gid := os.Getuid(), os.Getgid()
	for b.Loop() {
		n, err := Ensure(dir, uid, gid)
		if err != nil {
			b.Fatal(err)
		}
		n.Close()
	}
}
