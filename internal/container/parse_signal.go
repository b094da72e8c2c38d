package container

import (
	"strconv"
	"strings"
	"syscall"

	"github.com/isle-engine/isle/internal/errs"
)

// signalNames are Linux's signals by number (signal(7), the x86 and arm64
// numbering); index 0 is unused.
var signalNames = [...]string{
	"", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1",
	"SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP",
	"TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
}

// The real-time signals that programs see: the C library keeps 32 and 33 for itself.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// ParseSignal reads a signal as kill(1) and Docker do: a number, or a name with
// or without SIG in any case, RTMIN+n and RTMAX-n included.
func ParseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > sigRTMax {
			return 0, errs.New(errs.Invalid, "invalid signal: %s", s)
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	for n, k := range signalNames {
		if n > 0 && k == name {
			return syscall.Signal(n), nil
		}
	}
	switch name {
	case "IOT":
		return syscall.SIGABRT, nil
	case "CLD":
		return syscall.SIGCHLD, nil
	case "POLL":
		return syscall.SIGIO, nil
	case "UNUSED":
		return syscall.SIGSYS, nil
	case "RTMIN":
		return sigRTMin, nil
	case "RTMAX":
		return sigRTMax, nil
	}
	if d, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		if n, err := strconv.ParseUint(d, 10, 8); err == nil && n <= sigRTMax-sigRTMin {
			return syscall.Signal(sigRTMin + n), nil
		}
	}
	if d, ok := strings.CutPrefix(name, "RTMAX-"); ok {
		if n, err := strconv.ParseUint(d, 10, 8); err == nil && n <= sigRTMax-sigRTMin {
			return syscall.Signal(sigRTMax - n), nil
		}
	}
	return 0, errs.New(errs.Invalid, "invalid signal: %s", s)
}

// SignalName returns the signal's name with SIG, or its number.
func SignalName(sig syscall.Signal) string {
	switch {
	case sig > 0 && int(sig) < len(signalNames):
		return "SIG" + signalNames[sig]
	case sig == sigRTMin:
		return "SIGRTMIN"
	case sig > sigRTMin && sig <= sigRTMax:
		return "SIGRTMIN+" + strconv.Itoa(int(sig)-sigRTMin)
	}
	return strconv.Itoa(int(sig))
}
