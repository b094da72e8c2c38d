package log

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
)

// The journald driver sends each entry to systemd's journal, as one datagram in
// its native protocol: KEY=VALUE and a newline for each field; a value with a
// newline in it is KEY, a newline, its length in 8 bytes, little endian, the
// value, a newline. The fields are Docker's, so that the same queries work.
//
// See systemd-journald.service(8), systemd.journal-fields(7), and "Native Journal
// Protocol" of systemd's documentation.

// JournalSocket is where the journal takes entries; tests have their own.
var JournalSocket = "/run/systemd/journal/socket"

// journalWait is how long an entry waits for a journal that is behind. Then it is
// lost: a journal that hangs must not hang containers.
const journalWait = time.Second

// CheckJournal says why nothing can be logged to the journal here; nil when it can.
func CheckJournal() error {
	if _, err := os.Stat(JournalSocket); errors.Is(err, fs.ErrNotExist) {
		return errs.Hint(errs.New(errs.Unsupported, "log driver journald: journald is not enabled on this host"), "use json-file, local or none")
	}
	return nil
}

// journalFields are the fields that are the same for all entries of a container.
func journalFields(about *About, tag string, attrs map[string]string) []byte {
	id := about.ID
	if tag == "" {
		tag = id[:min(len(id), 12)]
	}
	var b []byte
	for _, f := range [...][2]string{
		{"CONTAINER_ID", id[:min(len(id), 12)]},
		{"CONTAINER_ID_FULL", id},
		{"CONTAINER_NAME", about.Name},
		{"CONTAINER_TAG", tag},
		{"IMAGE_NAME", about.Image},
		{"SYSLOG_IDENTIFIER", tag},
	} {
		b = appendField(b, f[0], []byte(f[1]))
	}
	keys := make([]string, 0, len(attrs))
	for k := range attrs {
		if k != "tag" {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if name := fieldName(k); name != "" {
			b = appendField(b, name, []byte(attrs[k]))
		}
	}
	return b
}

// fieldName makes a name that the journal takes of any: upper case, digits and
// underscores, not beginning with one; Docker's rule.
func fieldName(s string) string {
	b := []byte(strings.ToUpper(s))
	for i, c := range b {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			b[i] = '_'
		}
	}
	return strings.TrimLeft(string(b), "_")
}

func appendField(b []byte, name string, value []byte) []byte {
	b = append(b, name...)
	if bytes.IndexByte(value, '\n') < 0 {
		b = append(b, '=')
	} else {
		b = append(b, '\n')
		b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	}
	b = append(b, value...)
	return append(b, '\n')
}

// journal is the connection of one writer.
type journal struct {
	fd      int // -1: not connected
	fields  []byte
	buf     []byte
	ordinal uint64
	epoch   string
}

func newJournal(fields []byte) *journal {
	return &journal{fd: -1, fields: fields, epoch: strconv.FormatInt(time.Now().UnixNano(), 16)}
}

// send sends one entry.
func (j *journal) send(stream string, line []byte, whole bool, at time.Time) error {
	j.ordinal++
	b := append(j.buf[:0], j.fields...)
	priority := "6" // info
	if stream == "stderr" {
		priority = "3" // err
	}
	b = appendField(b, "PRIORITY", []byte(priority))
	b = appendField(b, "SYSLOG_TIMESTAMP", at.UTC().AppendFormat(nil, time.RFC3339Nano))
	b = appendField(b, "CONTAINER_LOG_EPOCH", []byte(j.epoch))
	b = appendField(b, "CONTAINER_LOG_ORDINAL", strconv.AppendUint(nil, j.ordinal, 10))
	if !whole {
		b = appendField(b, "CONTAINER_PARTIAL_MESSAGE", []byte("true"))
	}
	b = appendField(b, "MESSAGE", line)
	j.buf = b
	for try := 0; ; try++ {
		err := j.connect()
		if err == nil {
			_, err = unix.Write(j.fd, b)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case try == 0 && (errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNRESET)):
			j.close() // the journal was started again
			continue
		case errors.Is(err, unix.EAGAIN):
			err = errs.New(errs.Unavailable, "log driver journald: the journal does not take entries")
		}
		return err
	}
}

func (j *journal) connect() error {
	if j.fd >= 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	tv := unix.NsecToTimeval(int64(journalWait))
	if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: JournalSocket})
	}
	if err != nil {
		_ = unix.Close(fd) // nothing was sent
		return &os.PathError{Op: "connect", Path: JournalSocket, Err: err}
	}
	j.fd = fd
	return nil
}

func (j *journal) close() {
	if j.fd >= 0 {
		_ = unix.Close(j.fd) // datagrams: what was sent has arrived
		j.fd = -1
	}
}

// ParseJournal reads one line of `journalctl --output=json`; false when it is no
// entry of a container.
func ParseJournal(line []byte, e *Entry) bool {
	var v struct {
		Message   json.RawMessage `json:"MESSAGE"`
		Priority  string          `json:"PRIORITY"`
		Partial   string          `json:"CONTAINER_PARTIAL_MESSAGE"`
		Timestamp string          `json:"SYSLOG_TIMESTAMP"`
		Realtime  string          `json:"__REALTIME_TIMESTAMP"`
		ID        string          `json:"CONTAINER_ID_FULL"`
	}
	if json.Unmarshal(line, &v) != nil || v.ID == "" {
		return false
	}
	e.Line, e.Attrs = e.Line[:0], nil
	var text string
	var raw []int // what is no text is a list of bytes (journalctl(1))
	switch {
	case json.Unmarshal(v.Message, &text) == nil:
		e.Line = append(e.Line, text...)
	case json.Unmarshal(v.Message, &raw) == nil:
		for _, c := range raw {
			e.Line = append(e.Line, byte(c))
		}
	default:
		return false
	}
	if v.Partial != "true" {
		e.Line = append(e.Line, '\n')
	}
	e.Stream = "stdout"
	if v.Priority == "3" {
		e.Stream = "stderr"
	}
	if t, err := time.Parse(time.RFC3339Nano, v.Timestamp); err == nil {
		e.Time = t
	} else if us, err := strconv.ParseInt(v.Realtime, 10, 64); err == nil {
		e.Time = time.UnixMicro(us)
	}
	return true
}
