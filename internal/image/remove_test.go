package image

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/isle-engine/isle/internal/errs"
)

const digest2 = "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"

func TestRemove(t *testing.T) {
	stopped, running := []User{{ID: "c0ffee000000aaaa"}}, []User{{ID: "c0ffee000000aaaa", Running: true}}
	for _, c := range []struct {
		name    string
		names   []string
		users   []User
		ref     string // "ID": the image's id
		force   bool
		want    []string // "ID", "L1", "L2" stand for the digests
		refused string
	}{
		{"one of two names", []string{"x:1", "x:2"}, nil, "x:1", false, []string{"Untagged: x:1"}, ""},
		{"one of two names, in use", []string{"x:1", "x:2"}, running, "x:1", false, []string{"Untagged: x:1"}, ""},
		{"the last name", []string{"x:1"}, nil, "x:1", false, []string{"Untagged: x:1", "Deleted: ID", "Deleted: L2", "Deleted: L1"}, ""},
		{"the last tag and its digest", []string{"x:1", "x@" + digest1}, nil, "x:1", false, []string{"Untagged: x:1", "Untagged: x@" + digest1, "Deleted: ID", "Deleted: L2", "Deleted: L1"}, ""},
		{"the last tag, digest of another repository", []string{"x:1", "y@" + digest1}, nil, "x:1", false, []string{"Untagged: x:1"}, ""},
		{"a digest", []string{"x:1", "x@" + digest1, "x@" + digest2}, nil, "x@" + digest1, false, []string{"Untagged: x@" + digest1}, ""},
		{
			"the last name, stopped container",
			[]string{"x:1"},
			stopped, "x:1", false, nil,
			`conflict: unable to remove repository reference "x:1" (must force) - container c0ffee000000 is using its referenced image`,
		},
		{"the last name, stopped container, force", []string{"x:1"}, stopped, "x:1", true, []string{"Untagged: x:1", "Deleted: ID", "Deleted: L2", "Deleted: L1"}, ""},
		{"the last name, running container, force", []string{"x:1"}, running, "x:1", true, []string{"Untagged: x:1"}, ""},
		{"id", []string{"x:1", "x@" + digest1}, nil, "ID", false, []string{"Untagged: x:1", "Untagged: x@" + digest1, "Deleted: ID", "Deleted: L2", "Deleted: L1"}, ""},
		{"id without a name", nil, nil, "ID", false, []string{"Deleted: ID", "Deleted: L2", "Deleted: L1"}, ""},
		{"id, two names", []string{"x:1", "y:1"}, nil, "ID", false, nil, "(must be forced) - image is referenced in multiple repositories"},
		{"id, two names, force", []string{"x:1", "y:1"}, nil, "ID", true, []string{"Untagged: x:1", "Untagged: y:1", "Deleted: ID", "Deleted: L2", "Deleted: L1"}, ""},
		{"id, stopped container", []string{"x:1"}, stopped, "ID", false, nil, "(must be forced) - image is being used by stopped container c0ffee000000"},
		{"id, running container, force", []string{"x:1"}, running, "ID", true, nil, "(cannot be forced) - image is being used by running container c0ffee000000"},
		{"unknown", nil, nil, "nothing", false, nil, "No such image: nothing:latest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Open(t.TempDir())
			other := makeImage(t, s, "other", "shared")
			put(t, s, other, "other:1")
			m := makeImage(t, s, "m", "shared", "L1", "L2")
			put(t, s, m, c.names...)
			var dropped []string
			keep := Keep{
				Users: func(id string) []User {
					if id == m.id {
						return c.users
					}
					return nil
				},
				DropLayer: func(d string) error { dropped = append(dropped, d); return nil },
			}
			ref := c.ref
			if ref == "ID" {
				ref = m.id
			}
			did, err := s.Remove(ref, c.force, keep)
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) || errs.ExitCode(err) != 1 {
					t.Fatalf("error %v, want %q", err, c.refused)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			for i := range c.want {
				c.want[i] = strings.NewReplacer("Deleted: ID", "Deleted: "+m.id, "L1", DigestOf([]byte("L1")), "L2", DigestOf([]byte("L2"))).Replace(c.want[i])
			}
			if !slices.Equal(did.Lines(), c.want) {
				t.Errorf("did\n%s\nwant\n%s", strings.Join(did.Lines(), "\n"), strings.Join(c.want, "\n"))
			}
			deleted := slices.Contains(c.want, "Deleted: "+m.id)
			if _, err := s.Inspect(m.id); errors.Is(err, errs.NotFound) != deleted {
				t.Errorf("afterwards: %v", err)
			}
			if s.HasBlob(DigestOf([]byte("L1"))) == deleted || !s.HasBlob(DigestOf([]byte("shared"))) || (len(dropped) == 2) != deleted {
				t.Errorf("blobs and layers do not fit: dropped %q", dropped)
			}
		})
	}
}

func TestLeaseProtects(t *testing.T) {
	s := Open(t.TempDir())
	m := makeImage(t, s, "m", "l1", "l2")
	put(t, s, m, "x:1")
	l, err := s.Lease()
	if err != nil {
		t.Fatal(err)
	}
	d1, d2 := DigestOf([]byte("l1")), DigestOf([]byte("l2"))
	if err := l.Add(d1); err != nil {
		t.Fatal(err)
	}
	did, err := s.Remove("x:1", false, Keep{Layer: func(d string) bool { return d == d2 }})
	if err != nil || len(did.Layers) != 0 || !s.HasBlob(d1) || s.HasBlob(d2) {
		t.Fatalf("removed %q, %v", did.Layers, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	did, err = s.Collect([]string{d1, d2}, Keep{})
	if err != nil || !slices.Equal(did.Layers, []string{d2, d1}) || s.HasBlob(d1) {
		t.Fatalf("collected %q, %v", did.Layers, err)
	}
}

func TestCollectSweepsTheDead(t *testing.T) {
	s := Open(t.TempDir())
	put(t, s, makeImage(t, s, "m", "l"), "x:1")
	w, err := s.CreateBlob(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Discard()
	for _, f := range []string{"/tmp/lease-DEAD", "/tmp/new-DEAD.part", "/tmp/" + hex64 + ".part", "/refs/.tmp-1-1", "/blobs/sha256/" + hex64} {
		if err := os.WriteFile(s.dir+f, []byte(digest1+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Collect(nil, Keep{}); err != nil {
		t.Fatal(err)
	}
	tmp, _ := readDir(s.dir + "/tmp")
	refs, _ := readDir(s.dir + "/refs")
	blobs, _ := readDir(s.dir + "/blobs/sha256")
	if len(tmp) != 1 || len(refs) != 1 || len(blobs) != 3 {
		t.Errorf("left: tmp %q refs %q blobs %q", tmp, refs, blobs)
	}
	if _, err := w.Write([]byte("y")); err != nil {
		t.Fatal(err)
	}
	if d, err := w.Commit(); err != nil || !s.HasBlob(d) {
		t.Errorf("a live writer was disturbed: %v", err)
	}
}

func TestPrune(t *testing.T) {
	s := Open(t.TempDir())
	a, b, c := makeImage(t, s, "a", "1"), makeImage(t, s, "b", "2"), makeImage(t, s, "c", "3")
	put(t, s, a, "x:1", "x@"+digest1)
	put(t, s, b, "x:1")
	put(t, s, c, "y:1")
	keep := Keep{Users: func(id string) []User {
		if id == c.id {
			return []User{{ID: "u"}}
		}
		return nil
	}}
	did, err := s.Prune(false, nil, keep)
	if err != nil || !slices.Contains(did.Lines(), "Deleted: "+a.id) || slices.Contains(did.Lines(), "Deleted: "+b.id) {
		t.Errorf("%q %v", did.Lines(), err)
	}
	did, err = s.Prune(true, nil, keep)
	if err != nil || !slices.Contains(did.Lines(), "Deleted: "+b.id) || slices.Contains(did.Lines(), "Deleted: "+c.id) {
		t.Errorf("%q %v", did.Lines(), err)
	}
}
