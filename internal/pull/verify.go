package pull

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// wanted is a file as a layer's archive has it.
type wanted struct {
	kind byte // tar's
	mode int64
	size int64
	sum  []byte
	link string
}

// verifier compares an unpacked layer with its archive.
type verifier struct {
	files     map[string]*wanted // by clean path
	gone      map[string]bool    // whiteouts
	noDevices bool               // devices could not be made here
	noOwners  bool               // owners could not be kept, nor set-id bits
}

// mostProblems bounds what is told of one layer.
const mostProblems = 5

// verify reads a layer's archive and compares it with the files in dir: kind,
// permissions, content and targets of links. It returns what differs, and the
// digest of the archive.
func (v *verifier) verify(ctx context.Context, dir string, archive io.Reader, read func(int64)) (digest string, problems []string, err error) {
	v.files, v.gone = map[string]*wanted{}, map[string]bool{}
	sum := sha256.New()
	in := io.TeeReader(readFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := archive.Read(p)
		read(int64(n))
		return n, err
	}), sum)
	t := tar.NewReader(in)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", nil, err
		}
		if err := v.entry(h, t); err != nil {
			return "", nil, err
		}
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return "", nil, err
	}
	problems, err = v.compare(ctx, dir, read)
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), problems, err
}

func cleanName(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// resolve follows the links in a path's directories as an unpacker does, for
// which the layer is the root.
func (v *verifier) resolve(name string) string {
	for range 40 {
		done := ""
		rest := strings.Split(name, "/")
		followed := false
		for i, c := range rest[:len(rest)-1] {
			done = path.Join(done, c)
			if w := v.files[done]; w != nil && w.kind == tar.TypeSymlink {
				to := w.link
				if !path.IsAbs(to) {
					to = path.Join(path.Dir(done), to)
				}
				name = cleanName(path.Join(append([]string{to}, rest[i+1:]...)...))
				followed = true
				break
			}
		}
		if !followed {
			return name
		}
	}
	return name
}

func (v *verifier) entry(h *tar.Header, content io.Reader) error {
	name := v.resolve(cleanName(h.Name))
	base := path.Base(name)
	if strings.HasPrefix(base, ".wh.") {
		if !strings.HasPrefix(base, ".wh..wh.") {
			v.gone[path.Join(path.Dir(name), base[len(".wh."):])] = true
		}
		return nil
	}
	w := &wanted{kind: h.Typeflag, mode: h.Mode, size: h.Size, link: h.Linkname}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		w.kind = tar.TypeReg
		sum := sha256.New()
		if _, err := io.Copy(sum, content); err != nil {
			return err
		}
		w.sum = sum.Sum(nil)
	case tar.TypeLink:
		to := v.files[v.resolve(cleanName(h.Linkname))]
		if to == nil {
			return nil // the unpacker has refused it, or it leads to another layer
		}
		w = to
	case tar.TypeXGlobalHeader:
		return nil
	}
	if w.kind != tar.TypeDir {
		if old := v.files[name]; old != nil && old.kind == tar.TypeDir {
			for n := range v.files {
				if strings.HasPrefix(n, name+"/") {
					delete(v.files, n)
				}
			}
		}
	}
	v.files[name] = w
	return nil
}

// compare walks the files.
func (v *verifier) compare(ctx context.Context, dir string, read func(int64)) (problems []string, err error) {
	more := 0
	say := func(name, format string, args ...any) {
		if len(problems) == mostProblems {
			more++
			return
		}
		problems = append(problems, "/"+name+": "+fmt.Sprintf(format, args...))
	}
	// Directories that an archive does not mention, but what is in them.
	implied := map[string]bool{"": true, ".": true}
	for n := range v.files {
		for d := path.Dir(n); !implied[d]; d = path.Dir(d) {
			implied[d] = true
		}
	}
	for n := range v.gone {
		for d := path.Dir(n); !implied[d]; d = path.Dir(d) {
			implied[d] = true
		}
	}
	seen := map[string]bool{}
	sum, buf := sha256.New(), make([]byte, 256<<10)
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if cerr := ctx.Err(); cerr != nil {
			return cerr
		}
		rel, rerr := filepath.Rel(dir, p)
		if err != nil || rerr != nil {
			say(rel, "%v", errors.Join(err, rerr))
			return nil
		}
		if rel == "." {
			return nil
		}
		seen[rel] = true
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			say(rel, "%v", err)
			return nil
		}
		w := v.files[rel]
		switch {
		case w == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 && v.gone[rel]:
		case w == nil && d.IsDir() && implied[rel]:
		case w == nil:
			say(rel, "not in the layer")
		default:
			if why := v.differs(w, p, &st, sum, buf, read); why != "" {
				say(rel, "%s", why)
			}
		}
		return nil
	})
	for n, w := range v.files {
		device := w.kind == tar.TypeChar || w.kind == tar.TypeBlock
		if !seen[n] && n != "" && (!device || !v.noDevices) {
			say(n, "missing")
		}
	}
	slices.Sort(problems)
	if more > 0 {
		problems = append(problems, fmt.Sprintf("and %d more", more))
	}
	return problems, err
}

// differs says how a file is not what the archive has.
func (v *verifier) differs(w *wanted, p string, st *unix.Stat_t, sum hash.Hash, buf []byte, read func(int64)) string {
	kinds := map[byte]uint32{
		tar.TypeReg: unix.S_IFREG, tar.TypeDir: unix.S_IFDIR, tar.TypeSymlink: unix.S_IFLNK,
		tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO,
	}
	kind, ok := kinds[w.kind]
	if !ok {
		return ""
	}
	if st.Mode&unix.S_IFMT != kind {
		return "of another kind"
	}
	mask := uint32(0o7777)
	if v.noOwners {
		mask = 0o1777
	}
	if w.kind != tar.TypeSymlink && st.Mode&mask != uint32(w.mode)&mask {
		return fmt.Sprintf("has the mode %04o, not %04o", st.Mode&0o7777, w.mode&0o7777)
	}
	switch w.kind {
	case tar.TypeSymlink:
		if to, err := os.Readlink(p); err != nil || to != w.link {
			return "leads elsewhere"
		}
	case tar.TypeReg:
		if st.Size != w.size {
			return fmt.Sprintf("has %d bytes, not %d", st.Size, w.size)
		}
		f, err := os.OpenFile(p, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return err.Error()
		}
		defer f.Close() // read only; nothing to lose
		sum.Reset()
		n, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{f}, buf)
		read(n)
		if err != nil {
			return err.Error()
		}
		if !bytes.Equal(sum.Sum(nil), w.sum) {
			return "has other content"
		}
	}
	return ""
}
