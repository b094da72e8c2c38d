package container

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// Ended says in words how a container that does not run any more came to its end:
// what its exit code or signal means, who sent the signal, the limit that killed
// it, or why it never started. "" for a plain success and for what still runs.
func (s *State) Ended() string {
	switch s.Status {
	case Running, Paused, Removing:
		return ""
	case Created, Restarting, Exited, Dead:
	}
	var parts []string
	switch {
	case s.Error != "" && s.StartedAt.IsZero(), s.Error != "" && s.Status == Created:
		text := "did not start: " + s.Error
		if s.Cause != "" {
			text += " (usual cause: " + s.Cause + ")"
		}
		parts = append(parts, text)
	case s.Status == Created:
		return ""
	case s.OOMKilled:
		parts = append(parts, s.outOfMemory())
	case s.Signal != 0:
		parts = append(parts, s.signalled())
	case s.ExitCode != 0:
		parts = append(parts, codeText(s.ExitCode))
		if s.EndedBy != "" {
			parts = append(parts, "after a signal by "+s.EndedBy)
		}
	case s.EndedBy != "":
		parts = append(parts, "ended as asked by "+s.EndedBy)
	}
	if h := s.Health; h != nil && h.Status == "unhealthy" {
		text := "its health check had failed " + strconv.Itoa(h.FailingStreak) + " times in a row"
		if n := len(h.Log); n > 0 {
			if out := strings.TrimSpace(h.Log[n-1].Output); out != "" {
				line, _, _ := strings.Cut(out, "\n")
				text += ", at last with " + strconv.Quote(line[:min(len(line), 120)])
			}
		}
		parts = append(parts, text)
	}
	if s.RestartCount > 0 && len(parts) > 0 {
		parts = append(parts, "restarted "+strconv.Itoa(s.RestartCount)+" times")
	}
	return strings.Join(parts, "; ")
}

func (s *State) outOfMemory() string {
	o := s.OOM
	if o == nil {
		return "out of memory: killed by the kernel"
	}
	text := "out of memory: "
	switch {
	case o.Victim != "":
		text += "the kernel killed " + o.Victim
	case o.Kills == 1:
		text += "the kernel killed one of its processes"
	default:
		text += "the kernel killed " + strconv.FormatInt(o.Kills, 10) + " of its processes"
	}
	if o.Limit > 0 {
		text += " at the limit of " + ibytes(o.Limit)
	}
	if o.Peak > 0 {
		text += ", peak " + ibytes(o.Peak)
	}
	if s.Signal == 0 {
		text += "; then its main process ended: " + codeText(s.ExitCode)
	}
	return text
}

// ibytes prints bytes in binary units.
func ibytes(n int64) string {
	const units = "KMGTP"
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, u := float64(n)/1024, 0
	for v >= 1024 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0") + " " + units[u:u+1] + "iB"
}

func (s *State) signalled() string {
	sig := syscall.Signal(s.Signal)
	name := SignalName(syscall.Signal(s.Signal))
	if s.EndedBy != "" {
		return "ended by " + name + ", sent by " + s.EndedBy
	}
	switch sig { //nolint:exhaustive // those that tell more than their name
	case syscall.SIGSEGV:
		return "ended by " + name + ": it used memory that it does not have (a bug in the program)"
	case syscall.SIGBUS:
		return "ended by " + name + ": memory that it has mapped is not there, as a file that was cut or a full /dev/shm (--shm-size)"
	case syscall.SIGILL:
		return "ended by " + name + ": an instruction that this processor does not have (built for another one?)"
	case syscall.SIGFPE:
		return "ended by " + name + ": a division by zero, or the like"
	case syscall.SIGABRT:
		return "ended by " + name + ": the program gave up by itself (abort)"
	case syscall.SIGSYS:
		return "ended by " + name + ": a system call that its seccomp filter kills for (isle why shows which)"
	case syscall.SIGXCPU:
		return "ended by " + name + ": its CPU time is used up (--ulimit cpu)"
	case syscall.SIGXFSZ:
		return "ended by " + name + ": a file would have become larger than allowed (--ulimit fsize)"
	case syscall.SIGPIPE:
		return "ended by " + name + ": nobody read what it wrote any more"
	case syscall.SIGKILL:
		return "ended by " + name + ", not sent by isle: somebody on this machine, or the kernel when the whole machine ran out of memory (journalctl -k)"
	}
	return "ended by " + name + ", not sent by isle"
}

// codeText says what an exit code means by convention.
func codeText(code int) string {
	text := "exit code " + strconv.Itoa(code)
	switch {
	case code == 0:
		return "exit code 0, success"
	case code == 2:
		return text + " (often: wrong usage)"
	case code == 125:
		return text + " (isle itself failed)"
	case code == 126:
		return text + " (a command was found but cannot be executed: no permission, or not a program of this machine)"
	case code == 127:
		return text + " (a command was not found: check its name, PATH, and the image)"
	case code == 137:
		return text + " (a child of it was killed by SIGKILL: perhaps out of memory)"
	case code == 139:
		return text + " (a child of it was ended by SIGSEGV, a bug in that program)"
	case code == 143:
		return text + " (it was asked to end by SIGTERM)"
	case code == 130:
		return text + " (Ctrl-C, SIGINT)"
	case code > 128 && code <= 128+64:
		return text + fmt.Sprintf(" (a child of it was ended by %s)", SignalName(syscall.Signal(code-128)))
	}
	return text
}

// Short is Ended for a list: a few words, "" where the exit code says it all.
func (s *State) Short() string {
	if s.Status != Exited && s.Status != Created {
		return ""
	}
	switch {
	case s.Status == Created && s.Error != "":
		return "did not start"
	case s.Status == Created:
	case s.OOMKilled && s.OOM != nil && s.OOM.Limit > 0:
		return "out of memory at " + ibytes(s.OOM.Limit)
	case s.OOMKilled:
		return "out of memory"
	case s.Signal != 0 && s.EndedBy != "":
		return SignalName(syscall.Signal(s.Signal)) + " by " + s.EndedBy
	case s.Signal != 0:
		return SignalName(syscall.Signal(s.Signal))
	}
	return ""
}
