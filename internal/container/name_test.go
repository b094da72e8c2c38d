package container

import "testing"

func TestRandomName(t *testing.T) {
	seen := map[string]bool{}
	for try := range 12 {
		for range 200 {
			n := RandomName(try)
			if err := CheckName(n); err != nil {
				t.Fatal(err)
			}
			seen[n] = true
		}
	}
	if len(seen) < 1000 {
		t.Errorf("only %d different names of 2400", len(seen))
	}
}
