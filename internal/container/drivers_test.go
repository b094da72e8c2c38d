package container

import (
	"strings"
	"testing"
)

// What takes a driver that there is not is refused, not left out.
func TestCheckDrivers(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, ""},
		{Config{Runtime: "runc"}, ""},
		{Config{Runtime: "kata"}, "unknown or invalid runtime name: kata"},
		{Config{StorageOpts: map[string]string{"size": "1g"}}, "storage-opt size"},
		{Config{DeviceRequests: []DeviceRequest{{Driver: "cdi", DeviceIDs: []string{"a.b/gpu=0"}}}}, "unresolvable CDI devices a.b/gpu=0"},
		{Config{DeviceRequests: []DeviceRequest{{Count: -1}}}, `could not select device driver "" with capabilities: [[gpu]]`},
	} {
		err := c.cfg.CheckDrivers()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.want)
		}
	}
}
