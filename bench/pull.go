package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/isle-engine/isle/internal/testenv"
	"github.com/isle-engine/isle/test/images"
)

// pull: fetch and unpack from a loopback registry, against tar -xz of the same
// layers, two at a time.
func pull(ctx context.Context, b *bench) error {
	sizes := []struct {
		name    string
		layers  int
		unpackd int64 // bytes
		runs    int
	}{{"100 MB in 7 layers", 7, 260 << 20, 3}, {"30 MB in 60 layers", 60, 78 << 20, 3}}
	if b.full {
		sizes[0].name, sizes[0].unpackd = "1 GB in 7 layers", 2800<<20
		sizes[1].name, sizes[1].unpackd = "300 MB in 60 layers", 780<<20
	}
	for i, s := range sizes {
		dir, err := b.sub(fmt.Sprintf("pull-%d", i))
		if err != nil {
			return err
		}
		m, err := synthetic(dir, fmt.Sprintf("bench/pull%d", i), s.layers, s.unpackd)
		if err != nil {
			return err
		}
		if _, err := b.reg.Push(m); err != nil {
			return err
		}
		var zipped int64
		for _, l := range m.Layers {
			zipped += l.Size
		}
		b.report.printf("  %s: %d MB compressed, %d MB unpacked\n", s.name, zipped>>20, s.unpackd>>20)
		if err := b.pullRace(ctx, m, s.name, s.runs); err != nil {
			return err
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) pullRace(ctx context.Context, m *images.Image, name string, runs int) error {
	ref := b.reg.Addr + "/" + m.Repo + ":" + m.Tag
	type way struct {
		name  string
		fetch func(dir string) (time.Duration, int64, error)
		// clear forgets what was pulled, beyond removing dir.
		clear func() error
	}
	command := func(cmd *exec.Cmd) (time.Duration, int64, error) {
		d, err := timed(ctx, cmd)
		if err != nil {
			return 0, 0, err
		}
		use, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok {
			return 0, 0, errors.New("no resource usage")
		}
		return d, use.Maxrss, nil
	}
	ways := []way{
		{"tar -xz, two at a time", func(dir string) (time.Duration, int64, error) {
			d, err := tarTwo(m, dir)
			return d, 0, err
		}, nil},
		{"isle", func(dir string) (time.Duration, int64, error) {
			p := *b.peer("isle")
			p.env = append(append([]string{}, p.env...), "ISLE_ROOT="+dir+"/d", "ISLE_RUNROOT="+dir+"/r")
			return command(p.command("pull", "-q", ref))
		}, nil},
	}
	if p := b.peer("podman"); p != nil {
		ways = append(ways, way{"podman", func(string) (time.Duration, int64, error) {
			return command(p.command("pull", "-q", "--tls-verify=false", ref))
		}, func() error { _, err := outputOf(p.command("rmi", "-f", ref)); return err }})
	}
	if p := b.peer("docker"); p != nil {
		ways = append(ways, way{"docker", func(string) (time.Duration, int64, error) {
			return command(p.command("pull", "-q", ref))
		}, func() error { _, err := outputOf(p.command("rmi", "-f", ref)); return err }})
	}
	skopeo, err1 := testenv.LookTool("skopeo")
	umoci, err2 := testenv.LookTool("umoci")
	if err1 == nil && err2 == nil {
		ways = append(ways, way{"skopeo+umoci", func(dir string) (time.Duration, int64, error) {
			return command(exec.Command("/bin/sh", "-c", fmt.Sprintf("%s copy -q --src-tls-verify=false docker://%s oci:%s/oci:x && %s unpack --image %s/oci:x %s/bundle",
				skopeo, ref, dir, umoci, dir, dir)))
		}, nil})
	}

	got := map[string]figures{}
	peak := map[string]int64{}
	for range runs {
		for _, w := range ways {
			dir, err := b.sub("pulled")
			if err != nil {
				return err
			}
			syscall.Sync() // nobody pays for what another wrote
			d, rss, err := w.fetch(dir)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			got[w.name] = append(got[w.name], d)
			peak[w.name] = max(peak[w.name], rss)
			if w.clear != nil {
				if err := w.clear(); err != nil {
					return err
				}
			}
			if err := testenv.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	var all []contender
	for _, w := range ways {
		all = append(all, contender{name: w.name})
		sortFigures(got[w.name])
	}
	b.report.table(all, got, "isle")
	isle := got["isle"].median()
	b.report.promise("pull of "+name+" to tar", ratio(isle, got["tar -xz, two at a time"].median()), "×", 1.4, true)
	var best time.Duration
	for _, n := range []string{"podman", "docker", "skopeo+umoci"} {
		if f, raced := got[n]; raced && (best == 0 || f.median() < best) {
			best = f.median()
		}
	}
	if best > 0 {
		b.report.promise("best peer's pull of "+name+" to isle's", ratio(best, isle), "×", 1.8, false)
	}
	b.report.promise("peak memory of isle's pull of "+name, float64(peak["isle"])/1024, " MB", 150, true)
	return nil
}

// tarTwo unpacks the layers, each into its own directory, two at a time.
func tarTwo(m *images.Image, dir string) (time.Duration, error) {
	began := time.Now()
	work := make(chan images.Layer)
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		wg.Go(func() {
			for l := range work {
				to := filepath.Join(dir, filepath.Base(l.Path))
				if errs[i] == nil {
					errs[i] = os.Mkdir(to, 0o755)
				}
				if errs[i] == nil {
					errs[i] = untar(l.Path, to)
				}
			}
		})
	}
	for _, l := range m.Layers {
		work <- l
	}
	close(work)
	wg.Wait()
	return time.Since(began), errors.Join(errs...)
}

// synthetic makes an image of files as real images have them: many small, few
// large, of text that gzip makes about two and a half times smaller.
func synthetic(dir, repo string, layers int, unpacked int64) (*images.Image, error) {
	m := &images.Image{Repo: repo, Tag: "latest", Cmd: []string{"true"}}
	rnd := rand.New(rand.NewPCG(1, 2))
	vocabulary := make([]string, 4096)
	for i := range vocabulary {
		b := make([]byte, 3+rnd.IntN(9))
		for j := range b {
			b[j] = byte('a' + rnd.IntN(26))
		}
		vocabulary[i] = string(b)
	}
	for i := range layers {
		l, err := images.WriteLayer(dir, 6, func(w *tar.Writer) error {
			for left, n := unpacked/int64(layers), 0; left > 0; n++ {
				size := int64(rnd.ExpFloat64() * 24 * 1024)
				if n%200 == 0 {
					size = 4 << 20
				}
				size = min(max(size, 100), left)
				left -= size
				if n%50 == 0 {
					if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("l%d/d%d/", i, n/50), Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
						return err
					}
				}
				if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("l%d/d%d/f%d", i, n/50, n), Typeflag: tar.TypeReg, Mode: 0o644, Size: size}); err != nil {
					return err
				}
				if _, err := io.CopyN(w, &prose{rnd: rnd, words: vocabulary}, size); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, l)
	}
	return m, nil
}

// prose is an endless text.
type prose struct {
	rnd   *rand.Rand
	words []string
	rest  string
}

func (p *prose) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		if p.rest == "" {
			var s strings.Builder
			for range 64 {
				s.WriteString(p.words[p.rnd.IntN(len(p.words))])
				s.WriteByte(' ')
			}
			p.rest = s.String()
		}
		k := copy(b[n:], p.rest)
		n, p.rest = n+k, p.rest[k:]
	}
	return n, nil
}
