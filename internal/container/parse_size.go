package container

import (
	"math"
	"strconv"
	"strings"

	"github.com/isle-engine/isle/internal/errs"
)

// ParseSize reads a number of bytes as Docker does: a decimal number, an
// optional space, and an optional unit b, k, m, g, t or p, which may be followed
// by "b" or "ib". Units are powers of 1024 in every spelling.
func ParseSize(s string) (int64, error) {
	end := strings.LastIndexAny(s, "0123456789. ")
	if end < 0 {
		return 0, errs.New(errs.Invalid, "invalid size: '%s'", s)
	}
	num, unit := s[:end+1], s[end+1:]
	num = strings.TrimSuffix(num, " ")
	v, err := strconv.ParseFloat(num, 64)
	if err != nil || v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, errs.New(errs.Invalid, "invalid size: '%s'", s)
	}
	shift, ok := unitShift(unit)
	if !ok {
		return 0, errs.New(errs.Invalid, "invalid suffix: '%s'", unit)
	}
	v *= float64(uint64(1) << shift)
	if v >= math.MaxInt64 {
		return 0, errs.New(errs.Invalid, "invalid size: '%s': larger than 8 EiB", s)
	}
	return int64(v), nil
}

// unitShift returns the power of two that a size's unit stands for.
func unitShift(unit string) (uint, bool) {
	if unit == "" {
		return 0, true
	}
	rest := unit[1:]
	shift := strings.IndexByte("bkmgtp", unit[0]|0x20)
	switch {
	case shift < 0:
		return 0, false
	case shift == 0:
		return 0, rest == ""
	}
	if rest != "" && !strings.EqualFold(rest, "b") && !strings.EqualFold(rest, "ib") {
		return 0, false
	}
	return uint(shift) * 10, true
}

// ParseMemorySwap reads a size, or -1 for unlimited.
func ParseMemorySwap(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	return ParseSize(s)
}

// ParseCPUs reads a number of processors ("1.5") and returns it times 1e9.
// More than nine decimals are refused: they could not be kept.
func ParseCPUs(s string) (int64, error) {
	whole, frac, _ := strings.Cut(s, ".")
	digits := strings.TrimLeft(whole, "+") + frac
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, errs.New(errs.Invalid, "failed to parse %s as a rational number", s)
	}
	frac = strings.TrimRight(frac, "0")
	if len(frac) > 9 {
		return 0, errs.New(errs.Invalid, "value is too precise")
	}
	frac += "000000000"[len(frac):]
	v, err := strconv.ParseInt(strings.TrimLeft(whole, "+")+frac, 10, 64)
	if err != nil {
		return 0, errs.New(errs.Invalid, "failed to parse %s as a rational number", s)
	}
	return v, nil
}
