package archive

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/isle-engine/isle/internal/errs"
)

// Compression is how an archive or a layer is packed.
type Compression string

// The kinds that are read.
const (
	None  Compression = "none"
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	Bzip2 Compression = "bzip2"
	XZ    Compression = "xz"
)

// maxWindow bounds the memory that a zstd stream makes its reader take: that of
// zstd --ultra -22 without --long.
const maxWindow = 128 << 20

// readBuffer is how much is read at once from what is compressed.
const readBuffer = 128 << 10

// Decompress finds out how r is compressed, by its first bytes as Docker does
// and not by what somebody says of it, and returns a reader of the content.
// Close frees the decompressor and leaves r alone.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	b := bufio.NewReaderSize(r, readBuffer)
	head, err := b.Peek(6)
	if err != nil && err != io.EOF {
		return nil, "", err
	}
	kind := detect(head)
	switch kind {
	case Gzip:
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, kind, damaged(kind, err)
		}
		return &decompressor{z, kind, z.Close}, kind, nil
	case Zstd:
		// Two workers: more take memory, and other layers are under way.
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, kind, damaged(kind, err)
		}
		return &decompressor{z, kind, func() error { z.Close(); return nil }}, kind, nil
	case Bzip2:
		return &decompressor{bzip2.NewReader(b), kind, nil}, kind, nil
	case None:
	case XZ:
		z, err := xz.ReaderConfig{DictCap: maxWindow}.NewReader(b)
		if err != nil {
			return nil, kind, damaged(kind, err)
		}
		return &decompressor{z, kind, nil}, kind, nil
	}
	return io.NopCloser(b), None, nil
}

func detect(head []byte) Compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return Gzip
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		len(head) > 3 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}): // a skippable frame
		return Zstd
	case bytes.HasPrefix(head, []byte("BZh")):
		return Bzip2
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return XZ
	}
	return None
}

// decompressor names the errors of a decompressor; those of its source pass.
type decompressor struct {
	r     io.Reader
	kind  Compression
	close func() error
}

// Read implements io.Reader.
func (d *decompressor) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = damaged(d.kind, err)
	}
	return n, err
}

// Close implements io.Closer.
func (d *decompressor) Close() error {
	if d.close == nil {
		return nil
	}
	return d.close()
}

func damaged(kind Compression, err error) error {
	if errs.KindOf(err) != errs.Unknown {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errs.As(errs.Corrupt, fmt.Errorf("%s data: its end is missing: %w", kind, io.ErrUnexpectedEOF))
	}
	return errs.As(errs.Corrupt, fmt.Errorf("%s data: %w", kind, err))
}
