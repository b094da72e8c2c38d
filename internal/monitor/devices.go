package monitor

import specs "github.com/opencontainers/runtime-spec/specs-go"

// The spec lists the devices that the user and Docker's defaults give; what a
// container's own /dev takes beside them is added here: making device files
// (which opens none), and the terminals of its own devpts.
var (
	devPtmx, devTTY, devPts int64 = 2, 5, 136

	ownDevices = [...]specs.LinuxDeviceCgroup{
		{Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "b", Access: "m"},
		{Allow: true, Type: "c", Major: &devTTY, Minor: &devPtmx, Access: "rwm"},
		{Allow: true, Type: "c", Major: &devPts, Access: "rwm"},
	}
)

// withOwnDevices returns resources whose device rules allow those, too. They
// come right after the rule that denies everything, so that what the user
// forbids stays forbidden. r is shared and not changed.
func withOwnDevices(r *specs.LinuxResources) *specs.LinuxResources {
	if r == nil || len(r.Devices) == 0 || r.Devices[0].Allow {
		return r
	}
	own := *r
	own.Devices = make([]specs.LinuxDeviceCgroup, 0, len(r.Devices)+len(ownDevices))
	own.Devices = append(own.Devices, r.Devices[0])
	own.Devices = append(own.Devices, ownDevices[:]...)
	own.Devices = append(own.Devices, r.Devices[1:]...)
	return &own
}
