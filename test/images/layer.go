package images

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Layer is one compressed layer, a file on disk.
type Layer struct {
	Path   string
	Digest string // of the file
	DiffID string // of the tar in it
	Size   int64
}

// File is one entry of a layer. The zero Mode means 0644, or 0755 for a
// directory; Host names a file whose content and mode are taken.
type File struct {
	Path string // absolute, in the image; a directory ends in /
	Mode int64
	Data string
	Host string
	Link string // target of a symbolic link
}

// WriteLayer makes a layer of what fill writes, compressed at a gzip level.
func WriteLayer(dir string, level int, fill func(*tar.Writer) error) (l Layer, err error) {
	f, err := os.CreateTemp(dir, "layer-")
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum, diff := sha256.New(), sha256.New()
	z, err := gzip.NewWriterLevel(io.MultiWriter(f, sum), level)
	if err != nil {
		return l, err
	}
	w := tar.NewWriter(io.MultiWriter(z, diff))
	if err := fill(w); err != nil {
		return l, err
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		return l, err
	}
	st, err := f.Stat()
	if err != nil {
		return l, err
	}
	return Layer{Path: f.Name(), Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), DiffID: "sha256:" + hex.EncodeToString(diff.Sum(nil)), Size: st.Size()}, nil
}

// FromTarball makes a layer of a .tar.gz as it is.
func FromTarball(name string) (l Layer, err error) {
	f, err := os.Open(name)
	if err != nil {
		return l, err
	}
	defer f.Close()
	sum, diff := sha256.New(), sha256.New()
	z, err := gzip.NewReader(io.TeeReader(f, sum))
	if err != nil {
		return l, fmt.Errorf("%s: %w", name, err)
	}
	if _, err := io.Copy(diff, z); err != nil {
		return l, fmt.Errorf("%s: %w", name, err)
	}
	// What follows the end of the gzip stream is part of the blob.
	if _, err := io.Copy(sum, f); err != nil {
		return l, err
	}
	st, err := f.Stat()
	if err != nil {
		return l, err
	}
	return Layer{Path: name, Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), DiffID: "sha256:" + hex.EncodeToString(diff.Sum(nil)), Size: st.Size()}, nil
}

// layerOf makes a layer of files, with the directories that lead to them.
func layerOf(dir string, files []File) (Layer, error) {
	return WriteLayer(dir, gzip.DefaultCompression, func(w *tar.Writer) error {
		made := map[string]bool{"/": true}
		slices.SortStableFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
		for _, f := range files {
			if err := parents(w, made, f.Path); err != nil {
				return err
			}
			if made[strings.TrimSuffix(f.Path, "/")] {
				continue
			}
			made[strings.TrimSuffix(f.Path, "/")] = true
			if err := add(w, f); err != nil {
				return fmt.Errorf("%s: %w", f.Path, err)
			}
		}
		return nil
	})
}

func parents(w *tar.Writer, made map[string]bool, name string) error {
	up := path.Dir(strings.TrimSuffix(name, "/"))
	if made[up] {
		return nil
	}
	if err := parents(w, made, up); err != nil {
		return err
	}
	made[up] = true
	return add(w, File{Path: up + "/"})
}

func add(w *tar.Writer, f File) error {
	h := &tar.Header{Name: strings.TrimPrefix(f.Path, "/"), Mode: f.Mode, ModTime: time.Unix(1700000000, 0), Typeflag: tar.TypeReg, Size: int64(len(f.Data))}
	var content io.Reader = strings.NewReader(f.Data)
	switch {
	case strings.HasSuffix(f.Path, "/"):
		h.Typeflag = tar.TypeDir
		if h.Mode == 0 {
			h.Mode = 0o755
		}
	case f.Link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
	case f.Host != "":
		file, err := os.Open(f.Host)
		if err != nil {
			return err
		}
		defer file.Close()
		st, err := file.Stat()
		if err != nil {
			return err
		}
		h.Size, content = st.Size(), file
		if h.Mode == 0 {
			h.Mode = int64(st.Mode().Perm())
		}
	case h.Mode == 0:
		h.Mode = 0o644
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	_, err := io.Copy(w, content)
	return err
}

// Extract lays the image's layers out in dir as tar(1) would; for root file
// systems of peers that want a bundle. Whiteouts are not looked at: the images
// made here have none.
func (m *Image) Extract(dir string, untar func(layer, dir string) error) error {
	for _, l := range m.Layers {
		if err := untar(l.Path, dir); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(l.Path), err)
		}
	}
	return nil
}
