package engine

import (
	"context"
	"io"
	"sort"
	"strings"

	"github.com/isle-engine/isle/internal/monitor"
	"github.com/isle-engine/isle/internal/monitor/log"
)

// Logs writes what a container has written, as o selects it, to stdout and
// stderr, and with Follow goes on until the container has ended.
func (e *Engine) Logs(ctx context.Context, ref string, o LogOptions, stdout, stderr io.Writer) error {
	c, err := e.Inspect(ctx, ref)
	if err != nil {
		return err
	}
	ro := log.ReadOptions{Since: o.Since, Until: o.Until, Tail: o.Tail, Follow: o.Follow}
	ro.Running = func() bool { return monitor.Alive(e.env, c.ID) }
	read := func(emit func(*log.Entry) error) error {
		return log.Read(ctx, c.Dir, c.ID, c.Config.LogDriver, ro, emit)
	}
	if c.Config.LogDriver == log.Journald {
		read = func(emit func(*log.Entry) error) error { return readJournal(ctx, c.ID, ro, emit) }
	}
	return read(func(en *log.Entry) error {
		w := stdout
		if en.Stream == "stderr" {
			w = stderr
		}
		var b []byte
		if o.Timestamps {
			b = en.Time.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000000Z07:00")
			b = append(b, ' ')
		}
		if o.Details {
			b = append(b, details(en.Attrs)...)
			b = append(b, ' ')
		}
		_, err := w.Write(append(b, en.Line...))
		return err
	})
}

// details is Docker's "key=value,key=value", sorted.
func details(attrs map[string]string) string {
	kv := make([]string, 0, len(attrs))
	for k, v := range attrs {
		kv = append(kv, k+"="+v)
	}
	sort.Strings(kv)
	return strings.Join(kv, ",")
}
