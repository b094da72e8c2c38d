package state

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/errs"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	switch os.Getenv("STATE_TEST_ROLE") {
	case "write":
		roleWrite(os.Getenv("STATE_TEST_DIR"))
	case "name":
		roleName(os.Getenv("STATE_TEST_DIR"))
	case "lock":
		l, err := TryLock(os.Getenv("STATE_TEST_DIR"))
		fmt.Println(err)
		if err == nil {
			time.Sleep(time.Hour)
			_ = l.Close()
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func role(t *testing.T, name, dir string) *exec.Cmd {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), "STATE_TEST_ROLE="+name, "STATE_TEST_DIR="+dir)
	c.Stderr = os.Stderr
	return c
}

type record struct {
	N   int    `json:"n"`
	Pad string `json:"pad"`
}

func roleWrite(dir string) {
	for n := 1; ; n++ {
		r := record{n, strings.Repeat(strconv.Itoa(n%10), n*37%20000)}
		if err := WriteJSON(dir+"/r.json", r, n%16 == 0); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// TestKilledWritersLeaveWholeRecords kills pairs of writers of one file at
// random moments; every read in between must give a whole record.
func TestKilledWritersLeaveWholeRecords(t *testing.T) {
	dir := t.TempDir()
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	read := 0
	for i := range rounds {
		a, b := role(t, "write", dir), role(t, "write", dir)
		for _, c := range []*exec.Cmd{a, b} {
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
		}
		end := time.Now().Add(time.Duration(5+i%20) * time.Millisecond)
		for time.Now().Before(end) {
			read += readWhole(t, dir)
		}
		for _, c := range []*exec.Cmd{a, b} {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
		read += readWhole(t, dir)
	}
	if read == 0 {
		t.Fatal("no record was ever read")
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 1 {
		t.Errorf("%d files after Sweep, want the record alone: %v", len(left), left)
	}
}

func readWhole(t *testing.T, dir string) int {
	t.Helper()
	var r record
	err := ReadJSON(dir+"/r.json", &r)
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Pad) != r.N*37%20000 || strings.Trim(r.Pad, strconv.Itoa(r.N%10)) != "" {
		t.Fatalf("record %d is a mixture", r.N)
	}
	return 1
}

func TestDamagedRecordIsCorruptAndNamed(t *testing.T) {
	dir := t.TempDir()
	whole, _ := json.Marshal(record{7, "xx"})
	for name, data := range map[string][]byte{
		"empty": {}, "blank": []byte(" \n"), "cut": whole[:len(whole)-3], "zeroes": make([]byte, 100),
		"two": append(whole, whole...), "shape": []byte(`{"n":"seven"}`), "list": []byte(`[]`),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var r record
		err := ReadJSON(path, &r)
		if errs.KindOf(err) != errs.Corrupt || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// The other end is open and silent: a plain read would hang.
	w, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, path := range []string{fifo, dir} {
		if _, err := ReadFile(path); errs.KindOf(err) != errs.Corrupt {
			t.Errorf("%s: %v, want Corrupt", path, err)
		}
	}
	if err := ReadJSON(dir+"/none", &record{}); errs.KindOf(err) != errs.NotFound {
		t.Errorf("missing: %v", err)
	}
}

func TestReadFileOfManySizes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, n := range []int{0, 1, 4095, 4096, 4097, 70000} {
		want := bytes.Repeat([]byte("a"), n)
		if err := WriteFile(path, want, false); err != nil {
			t.Fatal(err)
		}
		got, err := ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got %d, %v", n, len(got), err)
		}
	}
}

func TestWriteToMissingDirectoryLeavesNothing(t *testing.T) {
	if err := WriteFile(t.TempDir()+"/no/f", nil, true); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestIDs(t *testing.T) {
	seen := map[string]bool{}
	for range 2000 {
		id := NewID()
		if !IsID(id) || seen[id] {
			t.Fatalf("bad id %q", id)
		}
		if strings.Trim(id[:12], "0123456789") == "" {
			t.Fatalf("id %q starts with a number", id)
		}
		seen[id] = true
	}
	for _, s := range []string{"", "abc", strings.Repeat("g", 64), strings.Repeat("A", 64), strings.Repeat("a", 65)} {
		if IsID(s) {
			t.Errorf("%q taken for an id", s)
		}
	}
}

func TestLockExcludesAndHeldDisturbsNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if Held(path) {
		t.Fatal("a missing file is held")
	}
	if _, err := os.Stat(path); err == nil {
		t.Fatal("Held made the file")
	}
	l, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if !Held(path) {
		t.Error("not seen as held")
	}
	if _, err := TryLock(path); errs.KindOf(err) != errs.Conflict {
		t.Errorf("second lock: %v", err)
	}
	start := time.Now()
	if _, err := LockFile(path, true, 50*time.Millisecond); errs.KindOf(err) != errs.Unavailable || time.Since(start) < 50*time.Millisecond {
		t.Errorf("bounded wait: %v after %s", err, time.Since(start))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if Held(path) {
		t.Error("held after Close")
	}

	// Testing it all the time never makes an attempt fail.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				Held(path)
			}
		}
	})
	for range 2000 {
		l, err := TryLock(path)
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
	}
	close(stop)
	wg.Wait()

	a, err := LockFile(path, false, NoWait)
	if err != nil {
		t.Fatal(err)
	}
	b, err := LockFile(path, false, NoWait)
	if err != nil {
		t.Fatalf("two shared locks: %v", err)
	}
	if Held(path) {
		t.Error("shared locks count as held")
	}
	_ = a.Close()
	_ = b.Close()
}

func TestObjectLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "locks")
	if ObjectHeld(path, NewID()) {
		t.Error("held in a missing file")
	}
	locks := map[string]*Lock{}
	for range 300 {
		id := NewID()
		l, err := LockObject(path, id, NoWait)
		if err != nil {
			t.Fatal(err)
		}
		locks[id] = l
	}
	for id, l := range locks {
		if !ObjectHeld(path, id) {
			t.Fatalf("%s is not held", id)
		}
		if _, err := LockObject(path, id, NoWait); errs.KindOf(err) != errs.Conflict {
			t.Fatalf("second lock of %s: %v", id, err)
		}
		if other := NewID(); ObjectHeld(path, other) {
			t.Fatalf("%s is held", other)
		}
		_ = l.Close()
		if ObjectHeld(path, id) {
			t.Fatalf("%s is held after Close", id)
		}
	}
	if a, b := place("0123456789abcdef"), place("0123456789abcde0"); a != b || a != 0x0123456789abcde {
		t.Errorf("%x, %x", a, b)
	}
}

func TestLockGoesWithItsHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	c := role(t, "lock", path)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	if line != "<nil>\n" || !Held(path) {
		t.Fatalf("child's lock: %q, held %v", line, Held(path))
	}
	go func() {
		time.Sleep(30 * time.Millisecond)
		_ = c.Process.Kill()
	}()
	l, err := LockFile(path, true, Forever)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	_ = l.Close()
}

// TestLockOfRemovedFile: the waiter must not end with a lock on a file that
// nobody else can find.
func TestLockOfRemovedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *Lock)
	go func() {
		l, _ := LockFile(path, true, 10*time.Second)
		got <- l
	}()
	time.Sleep(20 * time.Millisecond)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	l2 := <-got
	if l2 == nil || !Held(path) {
		t.Fatal("the waiter holds nothing that others can see")
	}
	_ = l2.Close()
}

func roleName(dir string) {
	for {
		id := NewID()
		cdir := dir + "/containers/" + id
		if err := os.Mkdir(cdir, 0o700); err != nil {
			os.Exit(1)
		}
		err := Reserve(dir+"/names", "web", id)
		if errs.KindOf(err) == errs.Exists {
			if _, err = ForgetStale(dir+"/names", dir+"/containers", "web", nil); err == nil {
				_ = os.Remove(cdir)
				continue
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		_ = os.Remove(cdir)
		if os.Getpid()%2 == 0 {
			err = Release(dir+"/names", "web", id)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// TestNamesAfterKills: whatever moment their users die at, a name is never
// lost for good and never leads to somebody else's container.
func TestNamesAfterKills(t *testing.T) {
	dir := t.TempDir()
	names, containers := dir+"/names", dir+"/containers"
	for _, d := range []string{names, containers} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	for i := range rounds {
		var cs []*exec.Cmd
		for range 3 {
			c := role(t, "name", dir)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			cs = append(cs, c)
		}
		time.Sleep(time.Duration(10+i%15) * time.Millisecond)
		for _, c := range cs {
			_ = c.Process.Kill()
			if err := c.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("user of names: %v", err)
			}
		}
	}
	// The holder may have died with its container in place; that is a container
	// like any other, and removing it frees the name.
	if id, err := Lookup(names, "web"); err == nil {
		_ = os.Remove(filepath.Join(containers, id))
	}
	if _, err := ForgetStale(names, containers, "web", nil); err != nil {
		t.Fatal(err)
	}
	if err := Reserve(names, "web", NewID()); err != nil {
		t.Errorf("name is lost: %v", err)
	}
}

func TestNames(t *testing.T) {
	dir := t.TempDir()
	names, containers := dir+"/names", dir+"/containers"
	for _, d := range []string{names, containers} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	a, b := NewID(), NewID()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(containers+"/"+a, 0o700))
	must(os.Mkdir(containers+"/"+b, 0o700))
	must(Reserve(names, "web", a))
	must(Reserve(names, "web", a)) // again, after a crash
	if err := Reserve(names, "web", b); errs.KindOf(err) != errs.Exists || !strings.Contains(err.Error(), a) {
		t.Errorf("taken name: %v", err)
	}
	must(Release(names, "web", b)) // not b's
	if id, err := Lookup(names, "web"); err != nil || id != a {
		t.Errorf("Lookup: %q, %v", id, err)
	}
	must(Reserve(names, "db", b))
	if err := Rename(names, "web", "db", a, func() error { t.Error("committed"); return nil }); errs.KindOf(err) != errs.Exists {
		t.Errorf("rename to a taken name: %v", err)
	}
	failed := errors.New("disk full")
	if err := Rename(names, "web", "www", a, func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("rename with failing commit: %v", err)
	}
	if _, err := Lookup(names, "www"); errs.KindOf(err) != errs.NotFound {
		t.Errorf("failed rename left its name: %v", err)
	}
	must(Rename(names, "web", "www", a, func() error { return nil }))
	all, err := Names(names)
	if err != nil || len(all) != 2 || all["www"] != a || all["db"] != b {
		t.Errorf("Names: %v, %v", all, err)
	}
	if did, err := ForgetStale(names, containers, "db", nil); did || err != nil {
		t.Errorf("forgot a live name: %v %v", did, err)
	}
	if did, err := ForgetStale(names, containers, "db", func(string) bool { return false }); !did || err != nil {
		t.Errorf("did not forget the old name of a renamed container: %v %v", did, err)
	}
	for _, n := range []string{"", ".", "..", ".lock", "a/b", "../x", strings.Repeat("x", 300)} {
		if err := Reserve(names, n, a); errs.KindOf(err) != errs.Invalid {
			t.Errorf("Reserve(%q): %v", n, err)
		}
	}
	must(os.WriteFile(names+"/file", nil, 0o600))
	must(os.Symlink("/etc", names+"/out"))
	for _, n := range []string{"file", "out"} {
		if _, err := Lookup(names, n); errs.KindOf(err) != errs.Corrupt {
			t.Errorf("Lookup(%q): %v", n, err)
		}
	}
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	names, containers := dir+"/names", dir+"/containers"
	ids := []string{"aa11" + strings.Repeat("0", 60), "aa22" + strings.Repeat("0", 60), "bb" + strings.Repeat("0", 62)}
	for _, d := range []string{names, containers, containers + "/" + ids[0], containers + "/" + ids[1], containers + "/" + ids[2], containers + "/cc"} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for n, id := range map[string]string{"web": ids[0], "bb": ids[1], "gone": strings.Repeat("d", 64)} {
		if err := Reserve(names, n, id); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ ref, id, text string }{
		{"web", ids[0], ""},
		{"/web", ids[0], ""},
		{"aa1", ids[0], ""},
		{ids[2], ids[2], ""},
		{"bb", ids[1], ""}, // a name goes before a prefix
		{"bb0", ids[2], ""},
		{"aa", "", "Multiple IDs found with provided prefix: aa"},
		{"gone", "", "No such container: gone"},
		{"cc", "", "No such container: cc"},
		{"", "", "No such container: "},
		{"../names", "", "No such container: ../names"},
		{strings.Repeat("d", 64), "", "No such container: " + strings.Repeat("d", 64)},
	} {
		id, err := Resolve(containers, names, c.ref)
		if id != c.id || (err == nil) != (c.text == "") || err != nil && err.Error() != c.text {
			t.Errorf("Resolve(%q) = %q, %v", c.ref, id, err)
		}
	}
	got, err := IDs(containers)
	if err != nil || len(got) != 3 {
		t.Errorf("IDs: %v, %v", got, err)
	}
	if got, err := IDs(dir + "/none"); err != nil || len(got) != 0 {
		t.Errorf("IDs of nothing: %v, %v", got, err)
	}
}

func BenchmarkWriteState(b *testing.B) {
	path := filepath.Join(b.TempDir(), "state.json")
	v := map[string]any{"status": "running", "pid": 1234, "startedAt": time.Now()}
	for b.Loop() {
		if err := WriteJSON(path, v, false); err != nil {
			b.Fatal(err)
		}
	}
}
