package cli

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// humanDuration says about how long d is, in Docker's words.
func humanDuration(d time.Duration) string {
	if s := int(d.Seconds()); s < 1 {
		return "Less than a second"
	} else if s < 60 {
		return plural(s, "second")
	}
	if m := int(d.Minutes()); m == 1 {
		return "About a minute"
	} else if m < 60 {
		return strconv.Itoa(m) + " minutes"
	}
	h := int(d.Hours() + 0.5)
	switch {
	case h == 1:
		return "About an hour"
	case h < 48:
		return strconv.Itoa(h) + " hours"
	case h < 24*7*2:
		return strconv.Itoa(h/24) + " days"
	case h < 24*30*2:
		return strconv.Itoa(h/24/7) + " weeks"
	case h < 24*365*2:
		return strconv.Itoa(h/24/30) + " months"
	}
	return strconv.Itoa(int(d.Hours())/24/365) + " years"
}

// ago is humanDuration for a moment in the past; "N/A" for one never recorded.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "N/A"
	}
	return humanDuration(now.Sub(t)) + " ago"
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return strconv.Itoa(n) + " " + word + "s"
}

// humanSize prints bytes in powers of 1000 with so many significant digits.
func humanSize(n int64, digits int) string {
	v, i := float64(n), 0
	units := [...]string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	for v >= 1000 && i < len(units)-1 {
		v /= 1000
		i++
	}
	return strconv.FormatFloat(significant(v, digits), 'f', -1, 64) + units[i]
}

// binarySize prints bytes in powers of 1024: "64 MiB".
func binarySize(n int64) string {
	v, i := float64(n), 0
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	return strconv.FormatFloat(significant(v, 4), 'f', -1, 64) + " " + units[i]
}

// significant rounds v to so many digits, as %.Ng does.
func significant(v float64, digits int) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', digits, 64), 64)
	if err != nil {
		return v
	}
	return r
}

// ellipsis cuts s to width characters, the last of them "…".
func ellipsis(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	n := 0
	for i := range s {
		if n++; n == width {
			return s[:i] + "…"
		}
	}
	return s
}

// shortID is the first 12 digits of an id, without "sha256:".
func shortID(id string) string {
	_, hex, ok := strings.Cut(id, ":")
	if !ok {
		hex = id
	}
	return hex[:min(len(hex), 12)]
}
