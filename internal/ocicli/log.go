package ocicli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// logger writes lines in the formats that callers of runc parse.
type logger struct {
	c     *call
	file  *os.File // nil: standard error
	json  bool
	debug bool
}

func (l *logger) open(v values) error {
	l.debug = v.on("debug")
	switch f := v.str("log-format"); f {
	case "", "text":
	case "json":
		l.json = true
	default:
		return errors.New("invalid log-format: " + f)
	}
	name := v.str("log")
	if name == "" {
		return nil
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	l.file = f
	return nil
}

func (l *logger) toStderr() bool { return l.file == nil }

func (l *logger) error(err error)                 { l.put("error", err.Error()) }
func (l *logger) warn(format string, args ...any) { l.put("warning", fmt.Sprintf(format, args...)) }

func (l *logger) debugf(format string, args ...any) {
	if l.debug {
		l.put("debug", fmt.Sprintf(format, args...))
	}
}

func (l *logger) put(level, msg string) {
	now := time.Now().Format(time.RFC3339)
	var line string
	if l.json {
		b, err := json.Marshal(struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
			Time  string `json:"time"`
		}{level, msg, now})
		if err != nil {
			return // three strings: cannot be
		}
		line = string(b) + "\n"
	} else {
		line = "time=" + strconv.Quote(now) + " level=" + level + " msg=" + quoted(msg) + "\n"
	}
	if l.file != nil {
		_, _ = l.file.WriteString(line) // nowhere to say that it cannot be said
		return
	}
	_, _ = l.c.err.Write([]byte(line))
}

// quoted puts a message in quotes if it is more than one plain word.
func quoted(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._/@^+", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return strconv.Quote(s)
}
