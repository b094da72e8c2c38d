package seccomp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// profile is the union of Docker's format and OCI's.
type profile struct {
	DefaultAction    specs.LinuxSeccompAction `json:"defaultAction"`
	DefaultErrnoRet  *uint                    `json:"defaultErrnoRet"`
	Architectures    []specs.Arch             `json:"architectures"`
	Flags            []specs.LinuxSeccompFlag `json:"flags"`
	ListenerPath     string                   `json:"listenerPath"`
	ListenerMetadata string                   `json:"listenerMetadata"`
	ArchMap          []struct {
		Arch      specs.Arch   `json:"architecture"`
		SubArches []specs.Arch `json:"subArchitectures"`
	} `json:"archMap"`
	Syscalls []struct {
		specs.LinuxSyscall
		Name     string    `json:"name"` // before Docker 1.13: one rule, one name
		Includes condition `json:"includes"`
		Excludes condition `json:"excludes"`
	} `json:"syscalls"`
}

// condition says when a rule of a Docker profile applies.
type condition struct {
	Caps      []string `json:"caps"`
	Arches    []string `json:"arches"` // Go's names, and x86, x32
	MinKernel release  `json:"minKernel"`
}

// release is a kernel version of two numbers, 0.0 for none.
type release struct{ major, minor uint64 }

// UnmarshalJSON reads "MAJOR.MINOR".
func (r *release) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("kernel version %s: %w", text, err)
	}
	if s == "" {
		return nil
	}
	major, minor, ok := strings.Cut(s, ".")
	var err1, err2 error
	r.major, err1 = strconv.ParseUint(major, 10, 8)
	r.minor, err2 = strconv.ParseUint(minor, 10, 8)
	if !ok || err1 != nil || err2 != nil || *r == (release{}) {
		return fmt.Errorf("kernel version %q: want MAJOR.MINOR", s)
	}
	return nil
}

// Parse reads a custom profile, in Docker's format or in OCI's, and resolves it
// for a container with the capabilities caps on this machine. An empty profile
// ({}, which turns filtering off) gives nil.
func Parse(jsonText []byte, caps []string) (*specs.LinuxSeccomp, error) {
	return parse(jsonText, caps, runtime.GOARCH, kernelRelease)
}

func parse(jsonText []byte, caps []string, goarch string, kernel func() (release, error)) (*specs.LinuxSeccomp, error) {
	var in profile
	dec := json.NewDecoder(bytes.NewReader(jsonText))
	if err := dec.Decode(&in); err != nil {
		return nil, errs.New(errs.Invalid, "seccomp profile: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errs.New(errs.Invalid, "seccomp profile: more than one JSON value")
	}
	if in.DefaultAction == "" && len(in.Syscalls) == 0 {
		return nil, nil //nolint:nilnil // the documented meaning of an empty profile
	}
	if len(in.Architectures) > 0 && len(in.ArchMap) > 0 {
		return nil, errs.New(errs.Invalid, "seccomp profile: both architectures and archMap are given; use one of them")
	}
	out := &specs.LinuxSeccomp{
		DefaultAction: in.DefaultAction, DefaultErrnoRet: in.DefaultErrnoRet,
		Architectures: in.Architectures, Flags: in.Flags,
		ListenerPath: in.ListenerPath, ListenerMetadata: in.ListenerMetadata,
	}
	native := specs.ArchX86_64
	if goarch == "arm64" {
		native = specs.ArchAARCH64
	}
	for _, m := range in.ArchMap {
		if m.Arch == native {
			out.Architectures = append(append(out.Architectures, m.Arch), m.SubArches...)
			break
		}
	}
	for i := range in.Syscalls {
		s := &in.Syscalls[i]
		if s.Name != "" {
			if len(s.Names) > 0 {
				return nil, errs.New(errs.Invalid, "seccomp profile: rule %d: both name and names are given; use one of them", i+1)
			}
			s.Names = []string{s.Name}
		}
		newEnough := func(want release) (bool, error) {
			if want == (release{}) {
				return true, nil
			}
			have, err := kernel()
			return have.major > want.major || have.major == want.major && have.minor >= want.minor, err
		}
		has := func(c string) bool { return slices.Contains(caps, c) }
		recent, err := newEnough(s.Excludes.MinKernel)
		if err != nil {
			return nil, err
		}
		if slices.Contains(s.Excludes.Arches, goarch) || slices.ContainsFunc(s.Excludes.Caps, has) ||
			s.Excludes.MinKernel != (release{}) && recent {
			continue
		}
		if recent, err = newEnough(s.Includes.MinKernel); err != nil {
			return nil, err
		}
		if len(s.Includes.Arches) > 0 && !slices.Contains(s.Includes.Arches, goarch) || !recent ||
			slices.ContainsFunc(s.Includes.Caps, func(c string) bool { return !has(c) }) {
			continue
		}
		out.Syscalls = append(out.Syscalls, s.LinuxSyscall)
	}
	return out, nil
}

// kernelRelease returns the first two numbers of the running kernel.
func kernelRelease() (release, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return release{}, fmt.Errorf("uname: %w", err)
	}
	text := unix.ByteSliceToString(u.Release[:])
	var r release
	if _, err := fmt.Sscanf(text, "%d.%d", &r.major, &r.minor); err != nil {
		return release{}, fmt.Errorf("kernel release %q: %w", text, err)
	}
	return r, nil
}
