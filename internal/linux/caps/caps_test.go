package caps

import (
	"strings"
	"testing"
)

func TestParseAndNames(t *testing.T) {
	all, err := Parse(table[:])
	if err != nil || all != 1<<(Last+1)-1 {
		t.Fatalf("all is %#x, %v", all, err)
	}
	if got := strings.Join(all.Names(), " "); got != strings.Join(table[:], " ") {
		t.Errorf("names %s", got)
	}
	if s, err := Parse([]string{"CAP_CHOWN", "CAP_SYS_ADMIN"}); err != nil || s != 1|1<<21 || !s.Has(21) || s.Has(20) {
		t.Errorf("set %#x, %v", s, err)
	}
	for _, bad := range []string{"", "CHOWN", "cap_chown", "CAP_NOPE", "ALL"} {
		if s, err := Parse([]string{bad}); err == nil {
			t.Errorf("%q gave %#x", bad, s)
		}
	}
	if Name(63) != "CAP_63" {
		t.Errorf("name of an unknown capability is %q", Name(63))
	}
}
