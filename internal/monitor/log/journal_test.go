package log

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fields reads a datagram of the journal's native protocol.
func fields(t *testing.T, b []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	for len(b) > 0 {
		i := bytes.IndexAny(b, "=\n")
		if i < 0 {
			t.Fatalf("%q", b)
		}
		name, sep := string(b[:i]), b[i]
		b = b[i+1:]
		var n int
		if sep == '=' {
			n = bytes.IndexByte(b, '\n')
		} else {
			n = int(binary.LittleEndian.Uint64(b))
			b = b[8:]
		}
		out[name], b = string(b[:n]), b[n+1:]
	}
	return out
}

// TestJournal has a journal that is started again in between.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	old := JournalSocket
	t.Cleanup(func() { JournalSocket = old })
	JournalSocket = filepath.Join(dir, "socket")
	if err := CheckJournal(); err == nil || !strings.Contains(err.Error(), "journald is not enabled on this host") {
		t.Errorf("without a journal: %v", err)
	}
	listen := func() *net.UnixConn {
		_ = os.Remove(JournalSocket) // of the one before
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: JournalSocket, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := listen()
	about := &About{ID: strings.Repeat("ab", 32), Name: "web", Image: "nginx", Labels: map[string]string{"my.tier": "front\nend"}, Env: []string{"A=1"}}
	o, err := ParseOptions(Journald, map[string]string{"labels": "my.tier", "env": "A", "tag": "{{.Name}}/{{.ID}}"}, about)
	if err != nil {
		t.Fatal(err)
	}
	w := NewWriter(dir, about.ID, o)
	receive := func() map[string]string {
		t.Helper()
		buf := make([]byte, 64<<10)
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		f := fields(t, buf[:n])
		delete(f, "CONTAINER_LOG_EPOCH")
		return f
	}
	w.Stream("stdout").Write([]byte("hello\n"), at)
	want := map[string]string{
		"CONTAINER_ID": "abababababab", "CONTAINER_ID_FULL": about.ID, "CONTAINER_NAME": "web", "CONTAINER_TAG": "web/abababababab",
		"IMAGE_NAME": "nginx", "SYSLOG_IDENTIFIER": "web/abababababab", "MY_TIER": "front\nend", "A": "1", "PRIORITY": "6", "CONTAINER_LOG_ORDINAL": "1",
		"SYSLOG_TIMESTAMP": "2026-03-04T05:06:07.12Z", "MESSAGE": "hello",
	}
	if d := cmp.Diff(want, receive()); d != "" {
		t.Error(d)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = listen()
	defer c.Close() //nolint:errcheck // nothing is written to it
	s := w.Stream("stderr")
	s.Write([]byte("oops"), at)
	s.Close(at)
	got := receive()
	if got["MESSAGE"] != "oops" || got["PRIORITY"] != "3" || got["CONTAINER_PARTIAL_MESSAGE"] != "true" {
		t.Errorf("%v", got)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// TestJournalComesBack reads what journalctl prints.
func TestJournalComesBack(t *testing.T) {
	for _, c := range []struct {
		line, text, stream string
	}{
		{`{"MESSAGE":"hi ü","PRIORITY":"6","CONTAINER_ID_FULL":"x","SYSLOG_TIMESTAMP":"2026-03-04T05:06:07.12Z","__REALTIME_TIMESTAMP":"1"}`, "hi ü\n", "stdout"},
		{`{"MESSAGE":[104,0,255],"PRIORITY":"3","CONTAINER_PARTIAL_MESSAGE":"true","CONTAINER_ID_FULL":"x","__REALTIME_TIMESTAMP":"1772600767120000"}`, "h\x00\xff", "stderr"},
	} {
		var e Entry
		if !ParseJournal([]byte(c.line), &e) || string(e.Line) != c.text || e.Stream != c.stream || !e.Time.Equal(at) {
			t.Errorf("%s: %+v", c.line, e)
		}
	}
	for _, bad := range []string{"", "{", `{"MESSAGE":"of somebody else"}`, `{"MESSAGE":null,"CONTAINER_ID_FULL":"x"}`} {
		var e Entry
		if ParseJournal([]byte(bad), &e) && len(e.Line) > 1 {
			t.Errorf("%q: %+v", bad, e)
		}
	}
}
