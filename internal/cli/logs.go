package cli

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
)

func cmdLogs(c *call) func() error {
	o := struct {
		engine.LogOptions
		since, until, tail string
	}{tail: "all"}
	c.flags = []flag{
		{name: "details", v: (*boolVar)(&o.Details), help: "Show the attributes given to the log driver, too"},
		{name: "follow", short: 'f', v: (*boolVar)(&o.Follow), help: "Go on as the log grows"},
		{name: "since", v: (*stringVar)(&o.since), help: `Show what came after a moment ("2013-01-02T13:23:37Z") or within a time ("42m")`},
		{name: "tail", short: 'n', v: (*stringVar)(&o.tail), help: "Number of lines to show from the end", def: `"all"`},
		{name: "timestamps", short: 't', v: (*boolVar)(&o.Timestamps), help: "Show timestamps"},
		{name: "until", v: (*stringVar)(&o.until), help: `Show what came before a moment ("2013-01-02T13:23:37Z") or a time ago ("42m")`},
	}
	return func() (err error) {
		now := time.Now()
		if o.Since, err = parseMoment("since", o.since, now); err != nil {
			return err
		}
		if o.Until, err = parseMoment("until", o.until, now); err != nil {
			return err
		}
		if o.Tail, err = parseTail(o.tail); err != nil {
			return err
		}
		eng, err := c.engine()
		if err != nil {
			return err
		}
		if err := eng.Logs(c.ctx, c.args[0], o.LogOptions, c.out, c.err); err != nil {
			return err
		}
		if ct, err := eng.Inspect(c.ctx, c.args[0]); err == nil { // it may be gone by now
			c.tellEnd(ct.Config.Name, ct.State.Ended())
		}
		return nil
	}
}

// parseTail reads a number of lines; "all" and negative ones are -1.
func parseTail(s string) (int, error) {
	if s == "all" || s == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, errs.New(errs.Invalid, "invalid value for \"tail\": %q: want a number of lines, or all", s)
	}
	return max(n, -1), nil
}

// parseMoment reads a time as Docker does: a duration before now, seconds since
// 1970 with an optional fraction, or a date with or without time and zone (local
// by default). "" is the zero time.
func parseMoment(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	if t, ok := unixMoment(s); ok {
		return t, nil
	}
	for _, layout := range [...]string{
		time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00",
		"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02",
	} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errs.New(errs.Invalid, "invalid value for %q: failed to parse value as time or duration: %q", flag, s)
}

func unixMoment(s string) (time.Time, bool) {
	whole, frac, has := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || sec > math.MaxInt64/1_000_000_000 || sec < math.MinInt64/1_000_000_000 {
		return time.Time{}, false
	}
	var ns int64
	if has {
		if frac == "" || len(frac) > 9 {
			return time.Time{}, false
		}
		if ns, err = strconv.ParseInt((frac + "000000000")[:9], 10, 64); err != nil || ns < 0 {
			return time.Time{}, false
		}
	}
	return time.Unix(sec, ns), true
}
