package unpack

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/storage/tree"
	"github.com/isle-engine/isle/internal/testenv"
)

// sentinel makes a tree beside a layer's root that an attack would like to
// change, and returns a function that tells what was changed.
func sentinel(t testing.TB, base string) (changed func(testing.TB) string) {
	t.Helper()
	dir := filepath.Join(base, "sentinel")
	for _, d := range []string{dir, dir + "/sub"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"file", "sub/file", ".wh.file"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("sentinel"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Unix(1e9, 0)
	for _, p := range []string{"file", "sub/file", ".wh.file", "sub", "."} {
		if err := os.Chtimes(filepath.Join(dir, p), old, old); err != nil {
			t.Fatal(err)
		}
	}
	before := snapshot(t, dir)
	return func(t testing.TB) string { return difference(before, snapshot(t, dir)) }
}

// attacks are archives that try to reach ../sentinel, which is also ABS.
func attacks(abs string) map[string][]tar.Header {
	tenTimes := strings.Repeat("../", 10)
	return map[string][]tar.Header{
		"dot-dot name":              {file("../sentinel/file", "x")},
		"dot-dot in the middle":     {dir("a"), file("a/../../sentinel/file", "x")},
		"absolute dot-dot":          {file("/../sentinel/file", "x")},
		"absolute name":             {file(abs+"/file", "x")},
		"relative link, write":      {symlink("l", "../sentinel"), file("l/file", "x")},
		"absolute link, write":      {symlink("l", abs), file("l/file", "x")},
		"long way up, write":        {symlink("l", tenTimes+abs), file("l/file", "x")},
		"links to links":            {symlink("a", "b"), symlink("b", "c"), symlink("c", "../sentinel"), file("a/file", "x")},
		"link to a file, write":     {symlink("f", "../sentinel/file"), file("f", "x")},
		"link to a file, chmod":     {symlink("f", abs+"/file"), {Name: "f", Mode: 0o4777, Uname: "x"}},
		"directory becomes link":    {dir("d"), file("d/file", "x"), symlink("d", "../sentinel"), file("d/file", "y")},
		"deep directory to link":    {dir("a/b/c"), file("a/b/c/x", "x"), symlink("a/b", "../../sentinel"), file("a/b/sub/file", "y")},
		"directory metadata late":   {{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o700}, symlink("d", "../sentinel")},
		"directory over link":       {symlink("d", "../sentinel"), {Name: "d/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 5}},
		"directory below link":      {symlink("d", "../sentinel"), {Name: "d/sub/", Typeflag: tar.TypeDir, Mode: 0o700}},
		"root becomes link":         {symlink("./", "../sentinel"), file("file", "x")},
		"hard link out":             {link("h", "../sentinel/file"), file("h", "x")},
		"hard link out, absolute":   {link("h", abs+"/file"), {Name: "h", Mode: 0o777, Uname: "x"}},
		"hard link through link":    {symlink("l", "../sentinel"), link("h", "l/file"), file("h", "x")},
		"hard link to link, write":  {symlink("l", "../sentinel/file"), link("h", "l"), file("h", "x")},
		"hard link below link":      {symlink("l", "../sentinel"), file("a", "x"), link("l/file", "a")},
		"hard link of a directory":  {dir("d"), link("h", "d"), file("h/x", "x")},
		"hard link to its parent":   {dir("d"), file("d/x", "x"), link("d", "d/x")},
		"hard link to dot-dot":      {link("h", ".."), link("g", ".")},
		"whiteout out":              {file("../sentinel/.wh.file", "")},
		"whiteout through link":     {symlink("l", "../sentinel"), file("l/.wh.file", "")},
		"whiteout of dot-dot":       {file(".wh...", "")},
		"whiteout of dot":           {file(".wh..", "")},
		"whiteout of nothing":       {file(".wh.", "")},
		"whiteout, deep, dot-dot":   {dir("a"), file("a/.wh...", "")},
		"opaque through link":       {symlink("l", "../sentinel"), file("l/.wh..wh..opq", "")},
		"opaque out":                {file("../.wh..wh..opq", "")},
		"xattr on a link":           {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../sentinel/file", PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}}},
		"owner and times of a link": {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../sentinel", Uid: 7, ModTime: time.Unix(1, 0)}},
		"FIFO over link":            {symlink("l", "../sentinel/file"), {Name: "l", Typeflag: tar.TypeFifo, Mode: 0o777}},
		"device over link":          {symlink("l", "../sentinel/file"), {Name: "l", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o777}},
		"magic link":                {symlink("l", "/proc/self/root"), file("l"+abs+"/file", "x")},
		"magic link, cwd":           {symlink("l", "/proc/self/cwd/../.."), file("l/sentinel/file", "x")},
		"link to itself":            {symlink("l", "l"), file("l/x", "x")},
		"link to root":              {symlink("l", "/"), file("l/x", "x"), file("l/../../sentinel/file", "x")},
		"link up from below":        {dir("a/b"), symlink("a/b/l", "../../.."), file("a/b/l/sentinel/file", "x")},
		"pax path":                  {{Name: "innocent", Uname: "x", PAXRecords: map[string]string{"path": "../sentinel/file"}}},
		"file as directory":         {file("f", "x"), file("f/../../sentinel/file", "x")},
		"cached directory replaced": {file("d/e/f", "x"), file("d", "x"), file("d/e/g", "y")},
		"alias replaced":            {dir("r"), symlink("l", "r"), file("l/a", "x"), symlink("l", "../sentinel"), file("l/file", "y")},
		"alias target replaced":     {dir("r"), symlink("l", "r"), file("l/a", "x"), symlink("r", "../sentinel"), file("l/file", "y")},
		"long way with links":       {symlink("l", strings.Repeat("a/../", 500)+"../sentinel"), dir("a"), file("l/file", "x")},
	}
}

func TestAttacks(t *testing.T) {
	testenv.Need(t, testenv.Root)
	base := t.TempDir()
	changed := sentinel(t, base)
	abs := filepath.Join(base, "sentinel")
	n := 0
	for name, hdrs := range attacks(abs) {
		t.Run(name, func(t *testing.T) {
			n++
			root := filepath.Join(base, fmt.Sprintf("layer%d", n))
			var data []byte
			func() {
				// archive/tar refuses to write some of them.
				defer func() { _ = recover() }()
				data = rawArchive(hdrs)
			}()
			_, err := unpackInto(t, root, data, Options{})
			if err != nil && errs.KindOf(err) != errs.Corrupt && errs.KindOf(err) != errs.Invalid && errs.KindOf(err) != errs.Denied {
				t.Errorf("%v: kind %v", err, errs.KindOf(err))
			}
			if d := changed(t); d != "" {
				t.Errorf("the sentinel has changed: %s", d)
			}
			if rest, err := os.ReadDir(base); err != nil || len(rest) != n+1 {
				t.Errorf("beside the layer: %v, %v", rest, err)
			}
		})
	}
}

// TestMutatedMeanwhile is a second process that swaps directories of the layer
// with links out of it while they are unpacked into (CVE-2025-47290).
func TestMutatedMeanwhile(t *testing.T) {
	testenv.Need(t, testenv.Root)
	base := t.TempDir()
	changed := sentinel(t, base)
	var hdrs []tar.Header
	for i := range 40 {
		for _, d := range []string{"sub", "d", "sub/e"} {
			hdrs = append(hdrs,
				tar.Header{Name: d + "/", Typeflag: tar.TypeDir, Mode: 0o2770},
				tar.Header{Name: fmt.Sprintf("%s/f%d", d, i), Uname: "x", Mode: 0o6755, Uid: 7},
				tar.Header{Name: d + "/file", Typeflag: tar.TypeFifo, Mode: 0o6666, Uid: 7},
				tar.Header{Name: "p", Typeflag: tar.TypeFifo, Mode: 0o6666, Uid: 7},
				tar.Header{Name: d + "/file", Typeflag: tar.TypeSymlink, Linkname: "/nowhere", Uid: 7},
				link(d+"/file", "first"),
				file(d+"/.wh.file", ""),
				file(fmt.Sprintf("%s/deep%d/x", d, i), "x"))
		}
	}
	data := rawArchive(append([]tar.Header{file("first", "x")}, hdrs...))
	for round := range 30 {
		root := filepath.Join(base, fmt.Sprint(round))
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
				}
				// Names in the root only: through others it would itself get lost.
				for _, d := range []string{"sub", "d", "p"} {
					_ = os.Symlink(filepath.Join(base, "sentinel"), filepath.Join(root, "swap"))
					_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, d), unix.AT_FDCWD, filepath.Join(root, "swap"), unix.RENAME_EXCHANGE)
				}
			}
		}()
		_, err := unpackInto(t, root, data, Options{})
		close(stop)
		<-done
		if round == 0 {
			t.Log(err) // it may well fail
		}
		if d := changed(t); d != "" {
			t.Fatalf("round %d: the sentinel has changed: %s", round, d)
		}
	}
}

// rawArchive is archive without archive/tar's opinions about PAX records.
func rawArchive(hdrs []tar.Header) []byte {
	var b bytes.Buffer
	for _, h := range hdrs {
		body := h.Uname
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		switch {
		case h.Mode == -1:
			h.Mode = 0
		case h.Mode == 0 && h.Typeflag == tar.TypeDir:
			h.Mode = 0o755
		case h.Mode == 0:
			h.Mode = 0o644
		}
		pax := map[string]string{"path": h.Name, "linkpath": h.Linkname}
		maps.Copy(pax, h.PAXRecords)
		var recs strings.Builder
		for k, v := range pax {
			if v == "" {
				continue
			}
			rec := " " + k + "=" + v + "\n"
			size := len(rec)
			for len(fmt.Sprint(size))+len(rec) != size {
				size = len(fmt.Sprint(size)) + len(rec)
			}
			fmt.Fprintf(&recs, "%d%s", size, rec)
		}
		rawHeader(&b, &tar.Header{Typeflag: 'x', Name: "pax"}, recs.String())
		rawHeader(&b, &h, body)
	}
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

func rawHeader(b *bytes.Buffer, h *tar.Header, body string) {
	var blk [512]byte
	copy(blk[:100], h.Name)
	copy(blk[100:], fmt.Sprintf("%07o", h.Mode))
	copy(blk[108:], fmt.Sprintf("%07o", h.Uid))
	copy(blk[116:], fmt.Sprintf("%07o", h.Gid))
	copy(blk[124:], fmt.Sprintf("%011o", len(body)))
	if !h.ModTime.IsZero() {
		copy(blk[136:], fmt.Sprintf("%011o", h.ModTime.Unix()))
	}
	blk[156] = h.Typeflag
	copy(blk[157:257], h.Linkname)
	copy(blk[257:], "ustar\x0000")
	copy(blk[329:], fmt.Sprintf("%07o", h.Devmajor))
	copy(blk[337:], fmt.Sprintf("%07o", h.Devminor))
	copy(blk[148:156], "        ")
	sum := 0
	for _, c := range blk {
		sum += int(c)
	}
	copy(blk[148:156], fmt.Sprintf("%06o\x00 ", sum))
	b.Write(blk[:])
	b.WriteString(body)
	b.Write(make([]byte, -len(body)&511))
}

func TestRefused(t *testing.T) {
	testenv.Need(t, testenv.Root)
	base := t.TempDir()
	n := 0
	for name, c := range map[string]struct {
		hdrs []tar.Header
		o    Options
		kind errs.Kind
		text string
	}{
		"uid -1":            {hdrs: []tar.Header{{Name: "a", Uid: -1}}, kind: errs.Corrupt, text: "owner -1:0"},
		"uid 2^32-1":        {hdrs: []tar.Header{{Name: "a", Uid: 1<<32 - 1}}, kind: errs.Corrupt, text: "not an id"},
		"gid 2^32":          {hdrs: []tar.Header{{Name: "a", Gid: 1 << 32}}, kind: errs.Corrupt, text: "not an id"},
		"device number":     {hdrs: []tar.Header{{Name: "a", Typeflag: tar.TypeChar, Devmajor: 1 << 12}}, kind: errs.Corrupt, text: "not a device number"},
		"type":              {hdrs: []tar.Header{{Name: "a", Typeflag: 'Z'}}, kind: errs.Unsupported, text: "entry type 'Z'"},
		"link to nothing":   {hdrs: []tar.Header{{Name: "a", Typeflag: tar.TypeSymlink}}, kind: errs.Corrupt, text: "symbolic link to nothing"},
		"lower hard link":   {hdrs: []tar.Header{link("a", "etc/passwd")}, kind: errs.Corrupt, text: `hard link to "etc/passwd", which this layer does not bring`},
		"root not a dir":    {hdrs: []tar.Header{file(".", "x")}, kind: errs.Corrupt, text: "root is not a directory"},
		"entries":           {hdrs: []tar.Header{dir("a"), dir("b"), dir("c")}, o: Options{Limits: Limits{Entries: 2}}, kind: errs.Invalid, text: "limit of 2"},
		"path":              {hdrs: []tar.Header{dir(strings.Repeat("a/", 3000))}, kind: errs.Invalid, text: "limit of 4095"},
		"path, own limit":   {hdrs: []tar.Header{dir("abcdef")}, o: Options{Limits: Limits{Path: 5}}, kind: errs.Invalid, text: "limit of 5"},
		"bytes":             {hdrs: []tar.Header{file("a", strings.Repeat("x", 10000))}, o: Options{Limits: Limits{Bytes: 5000}}, kind: errs.Invalid, text: "limit of 5000"},
		"extended header":   {hdrs: []tar.Header{{Name: "a", PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", 5000)}}}, o: Options{Limits: Limits{ExtHeader: 4096}}, kind: errs.Corrupt, text: "limit of 4096"},
		"name of 300 bytes": {hdrs: []tar.Header{file(strings.Repeat("n", 300), "x")}, kind: errs.Unknown, text: "file name too long"},
	} {
		t.Run(name, func(t *testing.T) {
			n++
			o := c.o
			var err error
			if o.IDs, err = OwnIDs(); err != nil {
				t.Fatal(err)
			}
			_, err = unpackInto(t, filepath.Join(base, fmt.Sprint(n)), archive(t, c.hdrs...), o)
			if err == nil || errs.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v: kind %v", err, errs.KindOf(err))
			}
		})
	}
}

// FuzzLayer unpacks anything, and then looks whether the world around the layer
// is as it was.
func FuzzLayer(f *testing.F) {
	testenv.Need(f, testenv.Root)
	base := f.TempDir()
	changed := sentinel(f, base)
	for _, hdrs := range attacks("/../sentinel") {
		f.Add(rawArchive(hdrs))
	}
	root := filepath.Join(base, "layer")
	f.Fuzz(func(t *testing.T, data []byte) {
		// A fuzzer's workers share nothing but the parent directory's name.
		root := fmt.Sprintf("%s%d", root, os.Getpid())
		for _, d := range [][]byte{data, fixChecksums(data)} {
			res, err := unpackInto(t, root, d, Options{Limits: Limits{Entries: 1000, Bytes: 1 << 20}})
			if err == nil && res.Archive != int64(len(d)) {
				t.Errorf("%d of %d bytes read", res.Archive, len(d))
			}
			if d := changed(t); d != "" {
				t.Errorf("the sentinel has changed: %s", d)
			}
			if err := tree.Remove(root); err != nil {
				t.Error(err)
			}
		}
	})
}

func fixChecksums(data []byte) []byte {
	data = bytes.Clone(data)
	for b := data; len(b) >= 512; b = b[512:] {
		if string(b[257:262]) != "ustar" {
			continue
		}
		copy(b[148:156], "        ")
		sum := 0
		for _, c := range b[:512] {
			sum += int(c)
		}
		copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	}
	return data
}
