package tarball

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// paxRecords are the records of one pax header, as far as they mean anything.
// A later record of a key replaces an earlier one.
type paxRecords struct {
	any                            bool
	path, linkpath, size, uid, gid string
	mtime, atime, ctime            string
	xattrs                         []Xattr
	sparseName, sparseMap          string
	sparseMajor, sparseMinor       string
	sparseSize, sparseRealSize     string
	sparseBlocks                   string
	sparsePairs                    []string // GNU.sparse 0.0: offset, numbytes, offset, …
}

const xattrPrefix = "SCHILY.xattr."

func (p *paxRecords) reset() {
	if p.any {
		*p = paxRecords{xattrs: p.xattrs[:0], sparsePairs: p.sparsePairs[:0]}
	}
}

// parse reads the records "LENGTH KEY=VALUE\n".
func (p *paxRecords) parse(text []byte) error {
	p.any = true
	for len(text) > 0 {
		sp := bytes.IndexByte(text, ' ')
		if sp < 0 {
			return fmt.Errorf("pax record without a length: %w", errHeader)
		}
		n, err := strconv.ParseInt(string(text[:sp]), 10, 0)
		if err != nil || n < 5 || n > int64(len(text)) || n <= int64(sp)+1 {
			return fmt.Errorf("pax record length %.40q: %w", text[:sp], errHeader)
		}
		rec := text[sp+1 : n]
		text = text[n:]
		if rec[len(rec)-1] != '\n' {
			return fmt.Errorf("pax record without its end: %w", errHeader)
		}
		rec = rec[:len(rec)-1]
		eq := bytes.IndexByte(rec, '=')
		if eq <= 0 {
			return fmt.Errorf("pax record without a key: %w", errHeader)
		}
		if err := p.set(string(rec[:eq]), string(rec[eq+1:])); err != nil {
			return err
		}
	}
	if len(p.sparsePairs) > 0 {
		p.sparseMap = strings.Join(p.sparsePairs, ",")
	}
	return nil
}

func (p *paxRecords) set(key, value string) error {
	nul := strings.IndexByte(value, 0) >= 0
	switch key {
	case "path", "linkpath", "uname", "gname":
		if nul {
			return fmt.Errorf("NUL in pax record %q: %w", key, errHeader)
		}
	default:
		if strings.IndexByte(key, 0) >= 0 {
			return fmt.Errorf("NUL in a pax key: %w", errHeader)
		}
	}
	switch key {
	case "path":
		p.path = value
	case "linkpath":
		p.linkpath = value
	case "size":
		p.size = value
	case "uid":
		p.uid = value
	case "gid":
		p.gid = value
	case "mtime":
		p.mtime = value
	case "atime":
		p.atime = value
	case "ctime":
		p.ctime = value
	case "GNU.sparse.name":
		p.sparseName = value
	case "GNU.sparse.map":
		p.sparseMap = value
	case "GNU.sparse.major":
		p.sparseMajor = value
	case "GNU.sparse.minor":
		p.sparseMinor = value
	case "GNU.sparse.numblocks":
		p.sparseBlocks = value
	case "GNU.sparse.size":
		p.sparseSize = value
	case "GNU.sparse.realsize":
		p.sparseRealSize = value
	case "GNU.sparse.offset", "GNU.sparse.numbytes":
		if (len(p.sparsePairs)%2 == 0) != (key == "GNU.sparse.offset") || strings.IndexByte(value, ',') >= 0 {
			return fmt.Errorf("sparse map: %w", errHeader)
		}
		p.sparsePairs = append(p.sparsePairs, value)
	default:
		if name, ok := strings.CutPrefix(key, xattrPrefix); ok && name != "" {
			for i := range p.xattrs {
				if p.xattrs[i].Name == name {
					p.xattrs[i].Value = value
					return nil
				}
			}
			p.xattrs = append(p.xattrs, Xattr{name, value})
		}
	}
	return nil
}

// merge applies the records to a header. An empty record keeps what the header
// says, except that an extended attribute may well be empty.
func (p *paxRecords) merge(h *Header) error {
	if !p.any {
		return nil
	}
	if p.path != "" {
		h.Name = p.path
	}
	if p.linkpath != "" {
		h.Linkname = p.linkpath
	}
	for _, f := range [...]struct {
		key, value string
		to         *int64
	}{{"size", p.size, &h.Size}, {"uid", p.uid, &h.UID}, {"gid", p.gid, &h.GID}} {
		if f.value == "" {
			continue
		}
		n, err := strconv.ParseInt(f.value, 10, 64)
		if err != nil {
			return fmt.Errorf("pax %s %.40q: %w", f.key, f.value, errHeader)
		}
		*f.to = n
	}
	for _, f := range [...]struct {
		value     string
		sec, nsec *int64
	}{{p.atime, new(int64), new(int64)}, {p.ctime, new(int64), new(int64)}, {p.mtime, &h.ModSec, &h.ModNsec}} {
		if f.value == "" {
			continue
		}
		sec, nsec, ok := paxTime(f.value)
		if !ok {
			return fmt.Errorf("pax time %.40q: %w", f.value, errHeader)
		}
		*f.sec, *f.nsec = sec, nsec
	}
	h.Xattrs = append(h.Xattrs[:0], p.xattrs...)
	return nil
}

// paxTime reads "[-]SECONDS[.FRACTION]".
func paxTime(s string) (sec, nsec int64, ok bool) {
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	for i := range 9 {
		d := int64(0)
		if i < len(frac) {
			if frac[i] < '0' || frac[i] > '9' {
				return 0, 0, false
			}
			d = int64(frac[i] - '0')
		}
		nsec = nsec*10 + d
	}
	for i := 9; i < len(frac); i++ {
		if frac[i] < '0' || frac[i] > '9' {
			return 0, 0, false
		}
	}
	if whole[0] == '-' && nsec > 0 {
		if sec == math.MinInt64 {
			return 0, 0, false
		}
		sec, nsec = sec-1, 1e9-nsec
	}
	return sec, nsec, true
}
