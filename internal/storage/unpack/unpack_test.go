package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/testenv"
)

// tell describes a tree in short words, without times and root's ownership.
func tell(t testing.TB, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for p := range snapshot(t, root) {
		full := filepath.Join(root, p)
		var st unix.Stat_t
		if err := unix.Lstat(full, &st); err != nil {
			t.Fatal(err)
		}
		var v string
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			v = "dir"
			var b [4]byte
			for _, x := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
				if n, err := unix.Lgetxattr(full, x, b[:]); err == nil && string(b[:n]) == "y" {
					v = "opaque dir"
				}
			}
		case unix.S_IFLNK:
			l, _ := os.Readlink(full)
			v = "→ " + l
		case unix.S_IFCHR:
			v = fmt.Sprintf("char %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
			if isWhiteout(&st) {
				v = "whiteout"
			}
		case unix.S_IFIFO:
			v = "fifo"
		case unix.S_IFREG:
			b, err := os.ReadFile(full)
			if err != nil {
				t.Fatal(err)
			}
			v = "file " + string(b)
			if st.Nlink > 1 {
				v += fmt.Sprintf(" (%d names)", st.Nlink)
			}
		}
		if m := st.Mode & 0o7777; st.Mode&unix.S_IFMT == unix.S_IFDIR && m != 0o755 || st.Mode&unix.S_IFMT == unix.S_IFREG && m != 0o644 {
			v += fmt.Sprintf(" %o", m)
		}
		if st.Uid != 0 || st.Gid != 0 {
			v += fmt.Sprintf(" %d:%d", st.Uid, st.Gid)
		}
		out[p] = v
	}
	return out
}

// layers are archives and what they mean. The root is always there.
var layers = []struct {
	name string
	hdrs []tar.Header
	want map[string]string
}{
	{"nothing", nil, map[string]string{}},
	{
		"implicit parents",
		[]tar.Header{file("a/b/c", "x")},
		map[string]string{"a": "dir", "a/b": "dir", "a/b/c": "file x"},
	},
	{
		"names to clean",
		[]tar.Header{file("./a", "x"), file("/b", "x"), file("c//d/.///e", "x"), file("f/../g", "x"), dir("./h/.")},
		map[string]string{"a": "file x", "b": "file x", "c": "dir", "c/d": "dir", "c/d/e": "file x", "g": "file x", "h": "dir"},
	},
	{"modes", []tar.Header{
		{Name: "su", Uname: "x", Mode: 0o4755, Uid: 1, Gid: 2},
		{Name: "sg", Uname: "x", Mode: 0o2711, Gid: 5},
		{Name: "zero", Uname: "x", Mode: -1},
		{Name: "t/", Typeflag: tar.TypeDir, Mode: 0o1777},
		{Name: "g/", Typeflag: tar.TypeDir, Mode: 0o2775, Gid: 7},
		{Name: "g/a", Uname: "x"},
		dir("g/b"),
		{Name: "n/", Typeflag: tar.TypeDir, Mode: -1},
		{Name: "n/x", Uname: "x"},
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700},
	}, map[string]string{
		"su": "file x 4755 1:2", "sg": "file x 2711 0:5", "zero": "file x 0", "t": "dir 1777", "g": "dir 2775 0:7",
		"g/a": "file x", "g/b": "dir", "n": "dir 0", "n/x": "file x", ".": "dir 700",
	}},
	{
		"directory after its files",
		[]tar.Header{file("d/x", "x"), {Name: "d/", Typeflag: tar.TypeDir, Mode: 0o710, Uid: 3}},
		map[string]string{"d": "dir 710 3:0", "d/x": "file x"},
	},
	{"last entry wins", []tar.Header{
		file("a", "1"), file("a", "2"),
		file("b", "1"), dir("b"), file("b/x", "x"),
		dir("c"), file("c/x", "x"), file("c", "2"),
		symlink("d", "a"), file("d", "2"),
		file("e", "1"), symlink("e", "a"),
		{Name: "f/", Typeflag: tar.TypeDir, Mode: 0o700},
		{Name: "f/", Typeflag: tar.TypeDir, Mode: 0o750},
		{Name: "g", Typeflag: tar.TypeFifo},
		file("g", "2"),
	}, map[string]string{
		"a": "file 2", "b": "dir", "b/x": "file x", "c": "file 2", "d": "file 2", "e": "→ a", "f": "dir 750", "g": "file 2",
	}},
	{"hard links", []tar.Header{
		file("a", "x"), link("b", "a"), link("d/c", "./a"), link("e", "/a"),
		symlink("s", "a"), link("t", "s"), link("a", "a"), file("r", "old"), link("r", "b"),
	}, map[string]string{
		"a": "file x (5 names)", "b": "file x (5 names)", "d": "dir", "d/c": "file x (5 names)", "e": "file x (5 names)",
		"r": "file x (5 names)", "s": "→ a", "t": "→ a",
	}},
	{"through links inside", []tar.Header{
		dir("usr/bin"), symlink("bin", "usr/bin"), file("bin/a", "x"), file("bin/sub/b", "x"),
		symlink("abs", "/usr"), file("abs/bin/c", "x"), link("bin/d", "bin/a"),
		symlink("up", "../../../usr"), file("up/e", "x"), symlink("me", "."), file("me/me/f", "x"),
	}, map[string]string{
		"usr": "dir", "usr/bin": "dir", "bin": "→ usr/bin", "usr/bin/a": "file x (2 names)", "usr/bin/sub": "dir", "usr/bin/sub/b": "file x",
		"abs": "→ /usr", "usr/bin/c": "file x", "usr/bin/d": "file x (2 names)", "up": "→ ../../../usr", "usr/e": "file x", "me": "→ .", "f": "file x",
	}},
	{"directory through a link, replaced", []tar.Header{
		dir("r/s"), symlink("l", "r"), {Name: "l/s/", Typeflag: tar.TypeDir, Mode: 0o700}, symlink("r/s", "/elsewhere"),
	}, map[string]string{"r": "dir", "l": "→ r", "r/s": "→ /elsewhere"}},
	{
		"whiteouts",
		[]tar.Header{file(".wh.a", ""), file("d/.wh.b", ""), file("d/.wh.b", "")},
		map[string]string{"a": "whiteout", "d": "dir", "d/b": "whiteout"},
	},
	{
		"whiteout, then the same",
		[]tar.Header{file(".wh.a", ""), file("a", "x"), file(".wh.d", ""), dir("d"), file(".wh.i", ""), file("i/x", "x"), file(".wh.l", ""), symlink("l", "a")},
		map[string]string{"a": "file x", "d": "opaque dir", "i": "opaque dir", "i/x": "file x", "l": "→ a"},
	},
	{
		"the same, then whiteout",
		[]tar.Header{file("a", "x"), file(".wh.a", ""), dir("d"), file("d/x", "x"), file(".wh.d", ""), symlink("l", "d"), file(".wh.l", "")},
		map[string]string{"a": "file x", "d": "opaque dir", "d/x": "file x", "l": "→ d"},
	},
	{
		"opaque",
		[]tar.Header{dir("d"), file("d/x", "x"), file("d/.wh..wh..opq", ""), file("e/.wh..wh..opq", ""), file("e/y", "y"), file(".wh..wh.plnk", ""), file("e/.wh..wh.aufs", "")},
		map[string]string{"d": "opaque dir", "d/x": "file x", "e": "opaque dir", "e/y": "file y"},
	},
	{
		"odd names",
		[]tar.Header{file("a\nb", "x"), file("\xff\xfe", "x"), file(" ", "x"), file("\u00e4", "x"), file("a\u0308", "y"), file(".wh.x.wh.", ""), file("...", "x")},
		map[string]string{"a\nb": "file x", "\xff\xfe": "file x", " ": "file x", "\u00e4": "file x", "a\u0308": "file y", "x.wh.": "whiteout", "...": "file x"},
	},
	{
		"long names",
		[]tar.Header{file(strings.Repeat(strings.Repeat("d", 200)+"/", 3)+"f", "x"), symlink("l", strings.Repeat("t", 3000))},
		map[string]string{
			strings.Repeat("d", 200): "dir", strings.Repeat("d", 200) + "/" + strings.Repeat("d", 200): "dir",
			strings.TrimSuffix(strings.Repeat(strings.Repeat("d", 200)+"/", 3), "/"): "dir",
			strings.Repeat(strings.Repeat("d", 200)+"/", 3) + "f":                    "file x", "l": "→ " + strings.Repeat("t", 3000),
		},
	},
}

func testLayers(t *testing.T) {
	base := testenv.Dir(t)
	for i, l := range layers {
		for _, mask := range []int{0o022, 0o077, 0} {
			t.Run(fmt.Sprintf("%s, umask %o", l.name, mask), func(t *testing.T) {
				root := filepath.Join(base, fmt.Sprintf("%d-%o", i, mask))
				old := unix.Umask(mask)
				defer unix.Umask(old)
				if _, err := unpackInto(t, root, rawArchive(l.hdrs), Options{}); err != nil {
					t.Fatal(err)
				}
				want := map[string]string{".": "dir"}
				maps.Copy(want, l.want)
				if d := difference(want, tell(t, root)); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

func TestLayers(t *testing.T) {
	t.Run("root", func(t *testing.T) {
		testenv.Need(t, testenv.Root)
		testLayers(t)
	})
	t.Run("userns", func(t *testing.T) {
		testenv.Need(t, testenv.OrdinaryUser, testenv.UserNS, testenv.NewUIDMap)
		if testenv.AsUser(t) && testenv.UnshareRange(t, unix.CLONE_NEWUSER) {
			testLayers(t)
		}
	})
}

func TestSingleID(t *testing.T) {
	testenv.Need(t, testenv.OrdinaryUser, testenv.UserNS)
	if !testenv.AsUser(t) || !testenv.Unshare(t, unix.CLONE_NEWUSER) {
		return
	}
	root := filepath.Join(testenv.Dir(t), "layer")
	res, err := unpackInto(t, root, archive(t,
		tar.Header{Name: "a", Uname: "x", Mode: 0o4755, Uid: 33, Gid: 44},
		tar.Header{Name: "b", Uname: "x", PAXRecords: map[string]string{"SCHILY.xattr.user.isle.owner": "1:1:4755"}},
		tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o2755, Gid: 50},
		tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "a", Uid: 5},
		tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		file(".wh.gone", ""), file("o/.wh..wh..opq", ""),
	), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := difference(map[string]string{".": "dir", "a": "file x 755", "b": "file x", "d": "dir", "l": "→ a", "gone": "whiteout", "o": "opaque dir"}, tell(t, root)); d != "" {
		t.Error(d)
	}
	for name, want := range map[string]string{"a": "33:44:4755", "d": "0:50:2755", "b": ""} {
		var b [64]byte
		n, _ := unix.Lgetxattr(filepath.Join(root, name), ownerXattr, b[:])
		if got := string(b[:max(n, 0)]); got != want {
			t.Errorf("owner of %s: %q, want %q", name, got, want)
		}
	}
	if res.SkippedDevices != 1 || len(res.Devices) != 1 || res.Devices[0] != "null" || res.FoldedOwners != 3 || res.SkippedXattrs != 1 {
		t.Errorf("%+v", res)
	}
}

func TestDevices(t *testing.T) {
	testenv.Need(t, testenv.Root)
	root := filepath.Join(t.TempDir(), "layer")
	_, err := unpackInto(t, root, archive(t,
		tar.Header{Name: "c", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666, Gid: 6},
		tar.Header{Name: "b", Typeflag: tar.TypeBlock, Devmajor: 259, Devminor: 70000, Mode: 0o600},
		tar.Header{Name: "p", Typeflag: tar.TypeFifo, Mode: 0o622},
	), Options{})
	if err != nil {
		t.Fatal(err)
	}
	all := snapshot(t, root)
	for name, want := range map[string]string{"c": "020666 0:6 0.000000000 1:3", "b": "060600 0:0 0.000000000 259:70000", "p": "010622 0:0 0.000000000"} {
		if all[name] != want {
			t.Errorf("%s: %s, want %s", name, all[name], want)
		}
	}
}

// capability is cap_net_raw+ep as setcap(8) writes it.
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func testXattrs(t *testing.T, wantCap string) {
	root := filepath.Join(testenv.Dir(t), "layer")
	v3 := "\x01\x00\x00\x03" + capability[4:] + "\x10\x27\x00\x00" // of another namespace's root
	acl := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x00\x00\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
	x := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m["SCHILY.xattr."+kv[i]] = kv[i+1]
		}
		return m
	}
	res, err := unpackInto(t, root, archive(t,
		tar.Header{Name: "cap", Uname: "x", Mode: 0o755, Uid: 1, PAXRecords: x("security.capability", capability)},
		tar.Header{Name: "cap3", Uname: "x", Mode: 0o755, PAXRecords: x("security.capability", v3)},
		tar.Header{Name: "user", Uname: "x", Mode: 0o400, PAXRecords: x("user.a", "\x00binary\xff", "user.b", "b")},
		tar.Header{Name: "evil", Uname: "x", PAXRecords: x("trusted.overlay.redirect", "/etc", "user.overlay.redirect", "/etc", "trusted.x", "x", "security.selinux", "label", "security.ima", "x", "user.isle.owner", "0:0:0")},
		tar.Header{Name: "evildir/", Typeflag: tar.TypeDir, PAXRecords: x("trusted.overlay.opaque", "y", "user.overlay.opaque", "y", "user.ok", "ok")},
		tar.Header{Name: "acl/", Typeflag: tar.TypeDir, PAXRecords: x("system.posix_acl_default", acl)},
		tar.Header{Name: "acl/child", Uname: "x", Mode: 0o604},
		tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, PAXRecords: x("user.no", "no")},
		tar.Header{Name: "./", Typeflag: tar.TypeDir, PAXRecords: x("user.root", "r")},
	), Options{})
	if err != nil {
		t.Fatal(err)
	}
	all := snapshot(t, root)
	for name, want := range map[string]string{
		"cap":       " security.capability=" + wantCap,
		"cap3":      " security.capability=" + wantCap,
		"user":      " user.a=" + hex.EncodeToString([]byte("\x00binary\xff")) + " user.b=62",
		"evil":      "",
		"evildir":   " user.ok=6f6b",
		"acl":       " system.posix_acl_default=" + hex.EncodeToString([]byte(acl)),
		"acl/child": "",
		"fifo":      "",
		".":         " user.root=72",
	} {
		got := all[name]
		i := strings.Index(got, "=")
		if i < 0 {
			got = ""
		} else {
			got = got[strings.LastIndexByte(got[:i], ' '):]
		}
		if got != want {
			t.Errorf("%s:%s, want%s", name, all[name], want)
		}
	}
	if !strings.HasPrefix(all["acl/child"], "100604 ") {
		t.Errorf("a default ACL went to a child: %s", all["acl/child"])
	}
	if res.SkippedXattrs != 9 {
		t.Errorf("%+v", res)
	}
}

func TestXattrs(t *testing.T) {
	t.Run("root", func(t *testing.T) {
		testenv.Need(t, testenv.Root)
		testXattrs(t, hex.EncodeToString([]byte(capability)))
	})
	t.Run("userns", func(t *testing.T) {
		testenv.Need(t, testenv.OrdinaryUser, testenv.UserNS, testenv.NewUIDMap)
		if testenv.AsUser(t) && testenv.UnshareRange(t, unix.CLONE_NEWUSER) {
			// Kept as version 3 with this namespace's root, and read back as version 2.
			testXattrs(t, hex.EncodeToString([]byte(capability)))
		}
	})
}

// TestStore's default ACL and set-gid bit are the store's own, not the layer's.
func TestInheritsNothing(t *testing.T) {
	testenv.Need(t, testenv.Root)
	base := t.TempDir()
	acl := "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x07\x00\x01\x00\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x07\x00\xff\xff\xff\xff"
	if err := unix.Setxattr(base, "system.posix_acl_default", []byte(acl), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(base, 0, 4); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(base, 0o2755); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(base, "layer")
	if _, err := unpackInto(t, root, archive(t, file("a/b", "x"), dir("c")), Options{}); err != nil {
		t.Fatal(err)
	}
	if d := difference(map[string]string{".": "dir", "a": "dir", "a/b": "file x", "c": "dir"}, tell(t, root)); d != "" {
		t.Error(d)
	}
	for p, s := range snapshot(t, root) {
		if strings.Contains(s, "acl") {
			t.Errorf("%s: %s", p, s)
		}
	}
}

func TestOpaqueRoot(t *testing.T) {
	testenv.Need(t, testenv.Root)
	base := t.TempDir()
	res, err := unpackInto(t, filepath.Join(base, "a"), archive(t, file(".wh..wh..opq", ""), file("x", "x")), Options{})
	if err != nil || !res.OpaqueRoot {
		t.Error(res, err)
	}
	res, err = unpackInto(t, filepath.Join(base, "b"), archive(t, file("d/.wh..wh..opq", "")), Options{})
	if err != nil || res.OpaqueRoot {
		t.Error(res, err)
	}
}

// failing is a reader that breaks.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err == io.EOF {
		err = f.err
	}
	return n, err
}

func TestBrokenSource(t *testing.T) {
	testenv.Need(t, testenv.Root)
	base := t.TempDir()
	data := archive(t, file("a", strings.Repeat("x", 100_000)), file("b", "y"))
	boom := errors.New("connection lost")
	for i, n := range []int{0, 1, 511, 512, 5000, len(data) - 1024, len(data)} {
		f, err := os.Open(mkdir(t, base, strconv.Itoa(i)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = Layer(t.Context(), f, &failing{bytes.NewReader(data[:n]), boom}, Options{})
		_ = f.Close()
		if !errors.Is(err, boom) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	// A reader that never ends is left when the context ends.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	pr, pw := io.Pipe()
	go func() {
		_, _ = pw.Write(data[:2000])
		<-ctx.Done()
		_ = pw.CloseWithError(ctx.Err())
	}()
	f, err := os.Open(mkdir(t, base, "ctx"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Layer(ctx, f, pr, Options{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func mkdir(t testing.TB, elem ...string) string {
	t.Helper()
	p := filepath.Join(elem...)
	if err := os.Mkdir(p, 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

// randomTree fills dir with files of every kind.
func randomTree(t *testing.T, r *rand.Rand, dir string, owners int) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dirs, files := []string{dir}, []string{}
	for i := range 150 {
		parent := dirs[r.IntN(len(dirs))]
		name := fmt.Sprintf("%d", i)
		switch r.IntN(6) {
		case 0:
			name += strings.Repeat("n", r.IntN(240))
		case 1:
			name += " \\*\"ü"
		}
		p := filepath.Join(parent, name)
		kind := r.IntN(20)
		switch {
		case kind < 5:
			must(os.Mkdir(p, 0o755))
			dirs = append(dirs, p)
		case kind < 14:
			b := make([]byte, []int{0, 1, 511, 512, 513, 4096, 100_000, 1<<20 + 5}[r.IntN(8)])
			for j := 0; j+8 <= len(b); j += 8 {
				binary.LittleEndian.PutUint64(b[j:], r.Uint64())
			}
			must(os.WriteFile(p, b, 0o644))
			files = append(files, p)
		case kind < 15:
			f, err := os.Create(p)
			must(err)
			for range r.IntN(40) {
				_, err := f.WriteAt(bytes.Repeat([]byte{'x'}, 1+r.IntN(5000)), r.Int64N(20<<20))
				must(err)
			}
			must(f.Truncate(21 << 20))
			must(f.Close())
			files = append(files, p)
		case kind < 17:
			must(os.Symlink(strings.Repeat("x/", r.IntN(200))+"target", p))
		case kind < 18:
			must(unix.Mkfifo(p, 0o644))
		case len(files) > 0:
			must(os.Link(files[r.IntN(len(files))], p))
			continue // its metadata are the other name's
		default:
			continue
		}
		must(os.Lchown(p, r.IntN(owners), r.IntN(owners)))
		if kind < 15 || kind == 17 {
			must(unix.Chmod(p, uint32(r.IntN(0o10000))))
		}
		if kind < 15 && r.IntN(3) == 0 {
			must(unix.Setxattr(p, "user.test", []byte(name), 0))
		}
		if kind >= 5 && kind < 15 && r.IntN(5) == 0 {
			must(unix.Setxattr(p, "security.capability", []byte(capability), 0))
		}
	}
	all := append(append([]string{}, files...), dirs...)
	for _, p := range slices.Backward(all) {
		ts := unix.Timespec{Sec: r.Int64N(1 << 31), Nsec: r.Int64N(1e9)}
		must(unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// testRandomTrees packs random trees with GNU tar, unpacks them, and compares
// with the tree and with what GNU tar makes of the archive.
func testRandomTrees(t *testing.T, owners int, seeds uint64) {
	base := testenv.Dir(t)
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 1))
		src := mkdir(t, base, fmt.Sprintf("src%d", seed))
		randomTree(t, r, src, owners)
		for _, format := range [][]string{
			{"--format=posix", "-S"},
			{"--format=posix", "-S", "--sparse-version=0.1"},
			{"--format=gnu", "-S"},
			{"--format=posix"},
		} {
			// Only pax keeps attributes and nanoseconds.
			pax := format[0] == "--format=posix"
			args := append(append([]string{}, format...), "--numeric-owner", "-C", src, "-cf", "-", ".")
			if pax {
				args = append([]string{"--xattrs", "--xattrs-include=*"}, args...)
			}
			data, err := exec.Command("tar", args...).Output()
			if err != nil {
				t.Fatalf("tar %v: %v", args, err)
			}
			root := filepath.Join(base, "layer")
			res, err := unpackInto(t, root, data, Options{})
			if err != nil {
				t.Fatalf("seed %d, %v: %v", seed, format, err)
			}
			got := snapshot(t, root)
			witness := mkdir(t, base, "witness")
			cmd := exec.Command("tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "--same-owner", "-C", witness, "-xf", "-")
			cmd.Stdin = bytes.NewReader(data)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("tar -x: %v\n%s", err, out)
			}
			if d := difference(snapshot(t, witness), got); d != "" {
				t.Errorf("seed %d, %v: not what tar made:\n%s", seed, format, d)
			}
			if pax && len(format) > 1 {
				if d := difference(snapshot(t, src), got); d != "" {
					t.Errorf("seed %d, %v: not what was packed:\n%s", seed, format, d)
				}
			}
			if res.Archive != int64(len(data)) {
				t.Errorf("%d of %d bytes", res.Archive, len(data))
			}
			for _, d := range []string{root, witness} {
				if err := os.RemoveAll(d); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func TestRandomTrees(t *testing.T) {
	t.Run("root", func(t *testing.T) {
		testenv.Need(t, testenv.Root)
		testRandomTrees(t, 100_000, 2)
	})
	t.Run("userns", func(t *testing.T) {
		testenv.Need(t, testenv.OrdinaryUser, testenv.UserNS, testenv.NewUIDMap)
		if testenv.AsUser(t) && testenv.UnshareRange(t, unix.CLONE_NEWUSER) {
			testRandomTrees(t, 65536, 1)
		}
	})
}

func TestErrorsNameTheEntry(t *testing.T) {
	testenv.Need(t, testenv.Root)
	_, err := unpackInto(t, filepath.Join(t.TempDir(), "l"), archive(t, file("f", "x"), file("f/g", "x")), Options{})
	if err == nil || err.Error() != `entry "f/g": open f: not a directory` || errs.KindOf(err) != errs.Corrupt {
		t.Error(err)
	}
}
