package ocicli

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/runtime"
)

// tellAffinity logs the CPUs that the process begins on.
func (c *call) tellAffinity(a *specs.CPUAffinity) error {
	if a.Initial == "" {
		return nil
	}
	mask, err := runtime.ParseCPUs(a.Initial)
	if err != nil {
		return err
	}
	c.log.debugf("nsexec: affinity: %#x", mask[0])
	return nil
}

// unixKill ends a process that could not be handed to its caller.
func unixKill(proc *runtime.Process) error {
	return unix.PidfdSendSignal(int(proc.Pidfd.Fd()), unix.SIGKILL, nil, 0)
}
