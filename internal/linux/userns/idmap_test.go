package userns

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

type ids = []specs.LinuxIDMapping

func m(inside, outside, size uint32) specs.LinuxIDMapping {
	return specs.LinuxIDMapping{ContainerID: inside, HostID: outside, Size: size}
}

func TestKeepID(t *testing.T) {
	full := ids{m(0, 1000, 1), m(1, 100000, 65536)}
	for _, c := range []struct {
		own  ids
		id   uint32
		want ids
	}{
		{full, 1000, ids{m(0, 1, 1000), m(1000, 0, 1), m(1001, 1001, 64536)}},
		{full, 0, ids{m(0, 0, 1), m(1, 1, 65536)}},
		{full, 65536, ids{m(0, 1, 65536), m(65536, 0, 1)}},
		{full, 100000, ids{m(0, 1, 65536), m(100000, 0, 1)}},
		{ids{m(0, 1000, 1)}, 1000, ids{m(1000, 0, 1)}},
		{ids{m(1, 100000, 65536), m(0, 1000, 1)}, 5, ids{m(0, 1, 5), m(5, 0, 1), m(6, 6, 65531)}},
		{ids{m(1, 100000, 65536)}, 5, nil},
		{nil, 5, nil},
	} {
		if d := cmp.Diff(c.want, KeepID(c.own, c.id)); d != "" {
			t.Errorf("KeepID(%v, %d): %s", c.own, c.id, d)
		}
	}
}

func TestNoMap(t *testing.T) {
	got, err := NoMap(ids{m(0, 1000, 1), m(1, 100000, 65536), m(65537, 300000, 10)})
	if d := cmp.Diff(ids{m(0, 1, 65546)}, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	if _, err := NoMap(ids{m(0, 1000, 1)}); err == nil {
		t.Error("no ids, no error")
	}
}

func TestAuto(t *testing.T) {
	own := ids{m(0, 1000, 1), m(1, 100000, 1000)}
	for _, c := range []struct {
		used  ids
		count uint32
		want  ids
	}{
		{nil, 100, ids{m(0, 1, 100)}},
		{nil, 1000, ids{m(0, 1, 1000)}},
		{nil, 1001, nil},
		{ids{m(0, 1, 100)}, 100, ids{m(0, 101, 100)}},
		{ids{m(0, 51, 100)}, 100, ids{m(0, 1, 50), m(50, 151, 50)}},
		{ids{m(0, 901, 100), m(0, 1, 100)}, 800, ids{m(0, 101, 800)}},
		{ids{m(0, 901, 100), m(0, 1, 100)}, 801, nil},
		{ids{m(0, 0, 1<<32-1)}, 1, nil},
	} {
		got, err := Auto(own, c.used, c.count)
		if d := cmp.Diff(c.want, got); d != "" || (err == nil) != (c.want != nil) {
			t.Errorf("Auto(%v, %d): %v %s", c.used, c.count, err, d)
		}
	}
}

// TestAutoIsDisjoint: whatever containers come and go, no id is given to two
// live ones, none twice in one, and none outside the pool.
func TestAutoIsDisjoint(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pool := ids{m(0, 1000, 1), m(1, 100000, 5000), m(70000, 200000, 3000)}
	var live []ids
	given := 0
	for range 2000 {
		if len(live) > 0 && rnd.IntN(3) == 0 {
			i := rnd.IntN(len(live))
			live = slices.Delete(live, i, i+1)
			continue
		}
		var used ids
		for _, l := range live {
			used = append(used, l...)
		}
		count := uint32(1 + rnd.IntN(1500))
		got, err := Auto(pool, used, count)
		if err != nil {
			continue
		}
		given++
		live = append(live, got)
		seen := map[uint32]int{}
		total := uint32(0)
		for _, l := range live {
			for _, e := range l {
				for id := e.HostID; id < e.HostID+e.Size; id++ {
					seen[id]++
					if id == 0 || id > 5000 && id < 70000 || id >= 73000 {
						t.Fatalf("id %d is not in the pool", id)
					}
				}
			}
		}
		for _, e := range got {
			if e.ContainerID != total {
				t.Fatalf("%v has a hole", got)
			}
			total += e.Size
		}
		for id, n := range seen {
			if n > 1 {
				t.Fatalf("id %d given %d times", id, n)
			}
		}
		if total != count {
			t.Fatalf("%d ids, want %d", total, count)
		}
	}
	if given < 100 {
		t.Fatalf("only %d given", given)
	}
}

func TestRootRange(t *testing.T) {
	all := parseSubIDs([]byte("alice:100000:65536\ncontainers:300000:1000\n"))
	if d := cmp.Diff(ids{m(300000, 300000, 1000)}, rootRange(all)); d != "" {
		t.Error(d)
	}
	all = parseSubIDs([]byte("alice:100000:65536\nbob:2147483647:10\ncarol:3000000000:5\n"))
	if d := cmp.Diff(ids{m(2147483657, 2147483657, 852516343), m(3000000005, 3000000005, 1294967290)}, rootRange(all)); d != "" {
		t.Error(d)
	}
}

func TestParseSubIDs(t *testing.T) {
	got := parseSubIDs([]byte(`# comment
alice:100000:65536
1001:200000:65536
bad
bad:1
bad:x:1
bad:1:0
bad:-1:5
bad:4294967295:1
bad:4294967294:2
  spaced:300000:10
:1:1
ok:4294967294:1`))
	want := []owned{{"alice", Range{100000, 65536}}, {"1001", Range{200000, 65536}}, {"spaced", Range{300000, 10}}, {"ok", Range{4294967294, 1}}}
	if d := cmp.Diff(fmt.Sprint(want), fmt.Sprint(got)); d != "" {
		t.Error(d)
	}
}

func TestFreeRange(t *testing.T) {
	for in, want := range map[string]Range{
		"":                                       {100000, 65536},
		"a:100000:65536":                         {165536, 65536},
		"b:165536:65536\na:100000:65536":         {231072, 65536},
		"a:500000:65536":                         {100000, 65536},
		"a:100000:1\nb:100500:1\nc:200000:65536": {100501, 65536},
		"a:100000:65536\nb:4294901759:65536":     {165536, 65536},
		"a:99999:65536\nb:165535:65536\nc:231071:1": {231072, 65536},
	} {
		if got := freeRange(parseSubIDs([]byte(in))); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

func TestExtents(t *testing.T) {
	if d := cmp.Diff(ids{m(0, 1000, 1), m(1, 100000, 65536), m(65537, 300000, 5)}, extents(1000, []Range{{100000, 65536}, {300000, 5}})); d != "" {
		t.Error(d)
	}
	var many []Range
	for i := range uint32(500) {
		many = append(many, Range{100000 + 2*i, 1})
	}
	if got := extents(1000, many); len(got) != maxExtents {
		t.Errorf("%d extents, the kernel takes %d", len(got), maxExtents)
	}
}
