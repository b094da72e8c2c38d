package container

import (
	"path"
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// ParseDevice reads SOURCE[:TARGET][:PERMISSIONS] of --device. Where the second
// part is a set of permissions it is taken for one, as Docker does.
func ParseDevice(s string) (Device, error) {
	p := strings.Split(s, ":")
	d := Device{Source: p[0], Perms: "rwm"}
	switch len(p) {
	case 1:
	case 2:
		if validPerms(p[1]) {
			d.Perms = p[1]
		} else {
			d.Target = p[1]
		}
	case 3:
		d.Target, d.Perms = p[1], p[2]
		if !validPerms(d.Perms) {
			return Device{}, errs.New(errs.Invalid, "bad mode specified: %s", d.Perms)
		}
	default:
		return Device{}, errs.New(errs.Invalid, "bad format for path: %s", s)
	}
	if d.Target == "" {
		d.Target = d.Source
	}
	for _, f := range [...]string{d.Source, d.Target} {
		if !path.IsAbs(f) {
			return Device{}, errs.New(errs.Invalid, "%s is not an absolute path", f)
		}
	}
	d.Source, d.Target = path.Clean(d.Source), path.Clean(d.Target)
	return d, nil
}

// IsCDIDevice reports whether s is a qualified CDI name, VENDOR/CLASS=NAME,
// rather than a path.
func IsCDIDevice(s string) bool {
	kind, name, ok := strings.Cut(s, "=")
	vendor, class, two := strings.Cut(kind, "/")
	return ok && two && vendor != "" && class != "" && name != "" && !strings.ContainsAny(kind, ": ") && !strings.Contains(class, "/")
}

func validPerms(s string) bool {
	if s == "" {
		return false
	}
	for i, c := range s {
		if !strings.ContainsRune("rwm", c) || strings.ContainsRune(s[:i], c) {
			return false
		}
	}
	return true
}

// CheckDeviceCgroupRule reports what is wrong with a line of --device-cgroup-rule:
// TYPE MAJOR:MINOR PERMISSIONS, for instance "c 13:* rw".
func CheckDeviceCgroupRule(s string) error {
	bad := errs.New(errs.Invalid, "invalid device cgroup format '%s'", s)
	f := strings.Split(s, " ")
	if len(f) != 3 || len(f[0]) != 1 || !strings.Contains("acb", f[0]) || !validPerms(f[2]) {
		return bad
	}
	major, minor, ok := strings.Cut(f[1], ":")
	if !ok {
		return bad
	}
	for _, n := range [...]string{major, minor} {
		if n == "*" {
			continue
		}
		if _, err := strconv.ParseUint(n, 10, 32); err != nil {
			return bad
		}
	}
	return nil
}

// ParseWeightDevice reads PATH:WEIGHT of --blkio-weight-device.
func ParseWeightDevice(s string) (DeviceValue, error) {
	dev, val, err := deviceAndValue(s)
	if err != nil {
		return DeviceValue{}, err
	}
	w, err := strconv.ParseUint(val, 10, 16)
	if err != nil || w > 0 && (w < 10 || w > 1000) {
		return DeviceValue{}, errs.New(errs.Invalid, "invalid weight for device: %s", s)
	}
	return DeviceValue{dev, w}, nil
}

// ParseRateBps reads PATH:SIZE of --device-read-bps and --device-write-bps.
func ParseRateBps(s string) (DeviceValue, error) {
	dev, val, err := deviceAndValue(s)
	if err != nil {
		return DeviceValue{}, err
	}
	rate, err := ParseSize(val)
	if err != nil {
		return DeviceValue{}, errs.New(errs.Invalid, "invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb", s)
	}
	return DeviceValue{dev, uint64(rate)}, nil
}

// ParseRateIOps reads PATH:NUMBER of --device-read-iops and --device-write-iops.
func ParseRateIOps(s string) (DeviceValue, error) {
	dev, val, err := deviceAndValue(s)
	if err != nil {
		return DeviceValue{}, err
	}
	rate, err := strconv.ParseUint(val, 10, 64)
	if err != nil {
		return DeviceValue{}, errs.New(errs.Invalid, "invalid rate for device: %s. The correct format is <device-path>:<number>. Number must be a positive integer", s)
	}
	return DeviceValue{dev, rate}, nil
}

func deviceAndValue(s string) (dev, val string, err error) {
	dev, val, ok := strings.Cut(s, ":")
	if !ok || dev == "" || val == "" || strings.Contains(val, ":") {
		return "", "", errs.New(errs.Invalid, "bad format: %s", s)
	}
	if !strings.HasPrefix(dev, "/dev/") {
		return "", "", errs.New(errs.Invalid, "bad format for device path: %s", s)
	}
	return dev, val, nil
}
