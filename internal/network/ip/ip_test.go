package ip

import (
	"net/netip"
	"testing"
)

// TestAgainstNetip compares with the standard library.
func TestAgainstNetip(t *testing.T) {
	for _, s := range []string{
		"0.0.0.0", "127.0.0.1", "255.255.255.255", "1.2.3", "1.2.3.4.5", "01.2.3.4", "256.1.1.1", "1..2.3", "",
		"::", "::1", "1::", "fe80::1", "2001:db8::1:0:0:1", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9",
		"::ffff:1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "::1::", ":1", "1:", "12345::", "0:0:1:0:0:0:1:0", "1:0:0:2:0:0:0:3", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8",
		"g::", "1:2:3:4:5:6:7:1.2.3.4",
	} {
		compare(t, s)
	}
}

func compare(t *testing.T, s string) {
	t.Helper()
	got, ok := Parse(s)
	want, err := netip.ParseAddr(s)
	if err == nil && want.Zone() != "" {
		return
	}
	if ok != (err == nil) {
		t.Fatalf("%q: %v, netip: %v", s, ok, err)
	}
	if !ok {
		return
	}
	text := want.String()
	if want.Is4In6() {
		text = netip.AddrFrom16(want.As16()).String()
		if back, _ := Parse(text); back != got {
			t.Fatalf("%q: %v, netip %v", s, got, text)
		}
		return
	}
	if got.String() != text || From(got.Bytes()) != got {
		t.Fatalf("%q: %q, netip: %q", s, got, text)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("1.2.3.4")
	f.Add("fe80::1:2")
	f.Fuzz(func(t *testing.T, s string) { compare(t, s) })
}

func TestPrefix(t *testing.T) {
	p, ok := ParsePrefix("172.17.5.1/16")
	if !ok || p.First() != MustParse("172.17.0.0") || p.Last() != MustParse("172.17.255.255") || p.Size() != 65536 || p.Masked().String() != "172.17.0.0/16" {
		t.Errorf("%v", p)
	}
	q, _ := ParsePrefix("172.16.0.0/12")
	r, _ := ParsePrefix("172.18.0.0/24")
	six, _ := ParsePrefix("fd00:1::/64")
	if !p.Overlaps(q) || !q.Overlaps(p) || p.Overlaps(r) || p.Overlaps(six) || !six.Contains(MustParse("fd00:1::ffff")) {
		t.Error("overlaps")
	}
	if six.Last().String() != "fd00:1::ffff:ffff:ffff:ffff" || six.First().Add(257).String() != "fd00:1::101" {
		t.Errorf("%v %v", six.Last(), six.First().Add(257))
	}
	if MustParse("255.255.255.255").Next() != MustParse("0.0.0.0") {
		t.Error("no wrap")
	}
}
