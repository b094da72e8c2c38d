package seccomp

import "github.com/opencontainers/runtime-spec/specs-go"

// condRule is a rule of the default profile with the capabilities on which it
// depends, as masks over profileCaps.
type condRule struct {
	need   uint32 // all of these
	unless uint32 // none of these
	rule   specs.LinuxSyscall
}

// staticMasks are the masks whose resolved and compiled profiles are static
// data: Docker's default capabilities (of which only CAP_SYS_CHROOT matters
// here), and none.
var staticMasks = [2]uint32{maskSysChroot, 0}

// Default returns Docker's default profile as it applies to a container with
// the capabilities caps ("CAP_SYS_CHROOT", …) on this architecture. For usual
// sets it is static data, which [Compile] knows: do not change it.
func Default(caps []string) *specs.LinuxSeccomp { return host().dflt(caps) }

func (f *family) dflt(caps []string) *specs.LinuxSeccomp {
	mask := capMask(caps)
	p := &specs.LinuxSeccomp{
		DefaultAction:   profileDefaultAction,
		DefaultErrnoRet: profileDefaultErrno,
		Architectures:   f.archs,
	}
	for i, m := range staticMasks {
		if m == mask {
			p.Syscalls = f.resolved[i]
			return p
		}
	}
	p.Syscalls = make([]specs.LinuxSyscall, 0, len(f.profile))
	for i := range f.profile {
		if r := &f.profile[i]; r.need&^mask == 0 && r.unless&mask == 0 {
			p.Syscalls = append(p.Syscalls, r.rule)
		}
	}
	return p
}

// isDefault reports whether p is, in all but its rules, as Default makes it; the
// caller has compared the rules' first element.
func (f *family) isDefault(p *specs.LinuxSeccomp, i int) bool {
	return len(p.Syscalls) == len(f.resolved[i]) && p.DefaultAction == profileDefaultAction &&
		p.DefaultErrnoRet == profileDefaultErrno && len(p.Architectures) == len(f.archs) &&
		&p.Architectures[0] == &f.archs[0] && p.Flags == nil && p.ListenerPath == ""
}

// capMask returns which of profileCaps are in caps.
func capMask(caps []string) uint32 {
	var mask uint32
	for _, c := range caps {
		for i := range profileCaps {
			if profileCaps[i] == c {
				mask |= 1 << i
				break
			}
		}
	}
	return mask
}
