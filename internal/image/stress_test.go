package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/isle-engine/isle/internal/errs"
)

// Whatever runs at once, a name never leads to content that is not there, and
// at the end nothing is there that no name leads to.
func TestPutsAndRemovesAtOnce(t *testing.T) {
	s := Open(t.TempDir())
	// An open file description lock excludes goroutines as it does processes:
	// everybody opens the file anew.
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			for range 25 {
				name := fmt.Sprintf("img%d:t", rnd.IntN(4))
				switch rnd.IntN(5) {
				case 0, 1:
					lease, err := s.Lease()
					if err != nil {
						t.Error(err)
						return
					}
					// The layers are shared between images; a lease protects
					// them before they are looked for.
					l1, l2 := fmt.Sprint("layer", rnd.IntN(3)), fmt.Sprint("layer", rnd.IntN(3)+3)
					if err := lease.Add(DigestOf([]byte(l1)), DigestOf([]byte(l2))); err != nil {
						t.Error(err)
					}
					m := makeImage(t, s, fmt.Sprint(rnd.IntN(3)), l1, l2)
					n, _ := parseName(name)
					m.Names = []Name{n}
					if _, _, err := s.Put(m.Content); err != nil {
						t.Error(err)
					}
					if err := lease.Close(); err != nil {
						t.Error(err)
					}
				case 2:
					if _, err := s.Remove(name, true, Keep{}); err != nil && !errors.Is(err, errs.NotFound) {
						t.Error(err)
					}
				case 3:
					if err := s.Tag(name, fmt.Sprintf("img%d:t", rnd.IntN(4))); err != nil && !errors.Is(err, errs.NotFound) {
						t.Error(err)
					}
				case 4:
					if _, err := s.Collect(nil, Keep{}); err != nil {
						t.Error(err)
					}
					if _, err := s.List(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	check(t, s)
	if _, err := s.Prune(true, nil, Keep{}); err != nil {
		t.Fatal(err)
	}
	check(t, s)
	if blobs, _ := readDir(s.dir + "/blobs/sha256"); len(blobs) != 0 {
		t.Errorf("%d blobs are left of nothing", len(blobs))
	}
}

// check fails unless the store is whole and index.json says the same.
func check(t *testing.T, s *Store) {
	t.Helper()
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	tags := 0
	for i := range list {
		if !s.complete(&list[i]) || !s.HasBlob(list[i].ID) {
			t.Errorf("image %s (%q) lacks a blob", list[i].ID, list[i].Tags)
		}
		tags += max(1, len(list[i].Tags))
	}
	names, err := s.names()
	if err != nil {
		t.Fatal(err)
	}
	for id := range names {
		if _, err := s.byID(id); err != nil {
			t.Errorf("names %v lead to %v", names[id], err)
		}
	}
	if len(list) == 0 && tags == 0 {
		if _, err := os.Stat(s.dir + "/index.json"); err != nil {
			return // nothing was ever stored
		}
	}
	var ix Index
	data, err := os.ReadFile(s.dir + "/index.json")
	if err == nil {
		err = json.Unmarshal(data, &ix)
	}
	if err != nil || len(ix.Manifests) != tags {
		t.Errorf("index.json has %d entries for %d names: %v", len(ix.Manifests), tags, err)
	}
}
