package monitor

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// Messages are records of a SOCK_SEQPACKET socket: a letter and its arguments,
// descriptors beside them.
//
//	client                                     monitor
//	'S' start    flags id rows cols + files    'O' pid warnings, or 'E'
//	'A' attach   flags + files                 'a', or 'E'; 'X' when it exits
//	'W' wait     nextExit                      'X'
//	'T' stop     signal milliseconds           'a' when the container has ended, or 'E'
//	'K' kill     signal                        'a', or 'E'
//	'P' pause    on                            'a', or 'E'
//	'U' update   (the record was changed)      'a', or 'E'
//	'N' network  NetworkChange                 'a', or 'E'
//	'H' health                                 'h' container.State as JSON with Health alone
//	'R' resize   rows cols                     nothing
//	'G' signal   signal                        nothing
//
// 'E' carries errs.Wire as JSON; 'X' carries the exit code, the signal, whether
// memory ran out, and, where there is more to tell, Exit as JSON. Whoever sent
// 'S' with files, or 'A', gets 'X' unasked.
const (
	msgStart   = 'S'
	msgAttach  = 'A'
	msgWait    = 'W'
	msgStop    = 'T'
	msgKill    = 'K'
	msgPause   = 'P'
	msgUpdate  = 'U'
	msgNetwork = 'N'
	msgHealth  = 'H'
	msgResize  = 'R'
	msgSignal  = 'G'

	msgStarted = 'O'
	msgProbes  = 'h'
	msgAck     = 'a'
	msgError   = 'E'
	msgExit    = 'X'
)

// Flags of 'S' and 'A': which descriptors come with the message, in this order.
// The last three are of 'S' only.
const (
	flagStdin = 1 << iota
	flagStdout
	flagStderr
	flagAttach // a client that wants to be told the exit
	flagLogs   // replay what was logged before
	flagNew    // the container has just been made, and nobody has told so
	flagRoot   // a descriptor is its root file system, mounted already
	flagLock   // the last descriptor holds its lock
)

// maxMessage bounds a record. Errors and warnings are cut to fit.
const maxMessage = 32 << 10

// maxFiles is the number of descriptors that come with one message.
const maxFiles = 5

// startMsg is 'S'.
type startMsg struct {
	flags      byte
	id         string
	rows, cols uint16
}

func (m startMsg) encode() []byte {
	b := make([]byte, 0, 6+len(m.id))
	b = append(b, msgStart, m.flags)
	b = binary.LittleEndian.AppendUint16(b, m.rows)
	b = binary.LittleEndian.AppendUint16(b, m.cols)
	return append(b, m.id...)
}

func decodeStart(b []byte) (startMsg, bool) {
	if len(b) < 6 || b[0] != msgStart {
		return startMsg{}, false
	}
	return startMsg{flags: b[1], rows: binary.LittleEndian.Uint16(b[2:]), cols: binary.LittleEndian.Uint16(b[4:]), id: string(b[6:])}, true
}

// encodeStarted is 'O': the pid, then warnings with a zero byte between them.
func encodeStarted(pid int, warnings []string) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{msgStarted}, uint32(pid))
	for i, w := range warnings {
		if len(b)+1+len(w) > maxMessage {
			break
		}
		if i > 0 {
			b = append(b, 0)
		}
		b = append(b, w...)
	}
	return b
}

func encodeStop(sig byte, timeout time.Duration) []byte {
	return binary.LittleEndian.AppendUint64([]byte{msgStop, sig}, uint64(timeout.Milliseconds()))
}

func decodeStop(b []byte) (sig byte, timeout time.Duration, ok bool) {
	if len(b) != 10 {
		return 0, 0, false
	}
	return b[1], time.Duration(int64(binary.LittleEndian.Uint64(b[2:]))) * time.Millisecond, true
}

// encodeError is 'E'. A message that is too long is cut rather than lost.
func encodeError(err error) []byte {
	w := errs.ToWire(err)
	for {
		b, jerr := json.Marshal(w)
		if jerr == nil && len(b) < maxMessage {
			return append([]byte{msgError}, b...)
		}
		if len(w.Message) > 1024 {
			w.Message = w.Message[:1024] + " …"
			continue
		}
		w.Hints = nil
	}
}

func decodeError(b []byte) error {
	var w errs.Wire
	if err := json.Unmarshal(b[1:], &w); err != nil {
		return errs.New(errs.Corrupt, "answer of the monitor: %w", err)
	}
	return w.Err()
}

// send sends one message with descriptors. flags may hold MSG_DONTWAIT.
func send(fd int, b []byte, flags int, files ...int) error {
	var oob []byte
	if len(files) > 0 {
		oob = unix.UnixRights(files...)
	}
	for {
		err := unix.Sendmsg(fd, b, oob, nil, flags|unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// errClosed is the end of a connection.
var errClosed = errors.New("connection closed")

// recv receives one message. Descriptors that came with it are the caller's. A
// message too long for buf, or with more descriptors than there may be, is an
// error: the peer is none of ours.
func recv(fd int, buf []byte, flags int) (n int, files []int, err error) {
	var oob [64]byte // room for more than maxFiles, so that too many are seen
	n, oobn, rflags, _, err := unix.Recvmsg(fd, buf, oob[:], flags|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, nil, err
	}
	if oobn > 0 {
		if files, err = rights(oob[:oobn]); err != nil {
			return 0, nil, err
		}
	}
	if rflags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || len(files) > maxFiles {
		closeFDs(files)
		return 0, nil, errs.New(errs.Invalid, "message: too long")
	}
	if n == 0 {
		closeFDs(files)
		return 0, nil, errClosed
	}
	return n, files, nil
}

func rights(oob []byte) ([]int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []int
	for i := range msgs {
		if msgs[i].Header.Level != unix.SOL_SOCKET || msgs[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			closeFDs(files)
			return nil, err
		}
		files = append(files, fds...)
	}
	return files, nil
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // not ours to write to
	}
}

// raw is the descriptor of f without changing its mode, as f.Fd used to: valid
// while f is alive.
func raw(f *os.File) (fd int) {
	c, err := f.SyscallConn()
	if err != nil {
		return -1
	}
	if c.Control(func(n uintptr) { fd = int(n) }) != nil {
		return -1
	}
	return fd
}
