package image

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
)

// ApplyChange applies one Dockerfile instruction to a configuration, as the
// --change of import and commit does: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK,
// LABEL, SHELL, STOPSIGNAL, USER, VOLUME and WORKDIR.
func ApplyChange(c *container.ImageConfig, line string) error {
	word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	rest = strings.TrimSpace(rest)
	word = strings.ToUpper(word)
	bad := func(why string) error { return errs.New(errs.Invalid, "change %q: %s", line, why) }
	if rest == "" {
		return bad(word + " requires at least one argument")
	}
	argv := func() []string {
		if list, ok := jsonList(rest); ok {
			return list
		}
		return append(slices.Clone(shellOf(c)), rest)
	}
	switch word {
	case "CMD":
		c.Cmd = argv()
	case "ENTRYPOINT":
		c.Entrypoint = argv()
	case "ENV", "LABEL":
		pairs, why := keyValues(rest)
		if why != "" {
			return bad(why)
		}
		for _, p := range pairs {
			if word == "ENV" {
				setEnv(c, p[0], p[1])
				continue
			}
			if c.Labels == nil {
				c.Labels = make(map[string]string)
			}
			c.Labels[p[0]] = p[1]
		}
	case "EXPOSE":
		for port := range strings.FieldsSeq(rest) {
			p, err := exposed(port)
			if err != nil {
				return bad(err.Error())
			}
			addKey(&c.Expose, p)
		}
	case "VOLUME":
		list, ok := jsonList(rest)
		if !ok {
			list = strings.Fields(rest)
		}
		for _, v := range list {
			if v = strings.TrimSpace(v); v == "" {
				return bad("VOLUME specified can not be an empty string")
			}
			addKey(&c.Volumes, v)
		}
	case "USER":
		c.User = unquote(rest)
	case "WORKDIR":
		dir := unquote(rest)
		if !strings.HasPrefix(dir, "/") {
			dir = strings.TrimSuffix(c.WorkingDir, "/") + "/" + dir
		}
		c.WorkingDir = dir
	case "STOPSIGNAL":
		c.StopSignal = unquote(rest)
	case "SHELL":
		list, ok := jsonList(rest)
		if !ok || len(list) == 0 {
			return bad("SHELL requires the arguments to be in JSON form")
		}
		c.Shell = list
	case "HEALTHCHECK":
		h, why := healthcheck(rest)
		if why != "" {
			return bad(why)
		}
		c.Health = h
	default:
		return bad(word + " is not a valid change command")
	}
	return nil
}

func shellOf(c *container.ImageConfig) []string {
	if len(c.Shell) > 0 {
		return c.Shell
	}
	return []string{"/bin/sh", "-c"}
}

func jsonList(s string) ([]string, bool) {
	var list []string
	if !strings.HasPrefix(s, "[") || json.Unmarshal([]byte(s), &list) != nil {
		return nil, false
	}
	return list, true
}

func setEnv(c *container.ImageConfig, key, value string) {
	kv := key + "=" + value
	for i, e := range c.Env {
		if k, _, _ := strings.Cut(e, "="); k == key {
			c.Env[i] = kv
			return
		}
	}
	c.Env = append(c.Env, kv)
}

// keyValues reads "k=v k2='v 2' k3=v\ 3", or in the old form "k rest of line".
func keyValues(s string) (pairs [][2]string, why string) {
	words, ok := splitWords(s)
	if !ok {
		return nil, "a quote is not closed"
	}
	if !strings.Contains(words[0], "=") {
		k, v, found := strings.Cut(s, " ")
		if !found {
			return nil, "must have two arguments"
		}
		return [][2]string{{k, strings.TrimSpace(v)}}, ""
	}
	for _, w := range words {
		k, v, found := strings.Cut(w, "=")
		if !found {
			return nil, "can't find = in \"" + w + "\""
		}
		if k == "" {
			return nil, "a name is empty"
		}
		pairs = append(pairs, [2]string{k, v})
	}
	return pairs, ""
}

// splitWords splits at blanks outside of quotes and takes the quotes off.
func splitWords(s string) (words []string, ok bool) {
	var w strings.Builder
	quote, in := byte(0), false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(s):
			i++
			if quote == '"' && s[i] != '"' && s[i] != '\\' && s[i] != '$' {
				w.WriteByte('\\')
			}
			w.WriteByte(s[i])
			in = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, in = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if in {
				words = append(words, w.String())
				w.Reset()
				in = false
			}
		default:
			w.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, w.String())
	}
	return words, quote == 0 && len(words) > 0
}

func unquote(s string) string {
	if words, ok := splitWords(s); ok && len(words) == 1 {
		return words[0]
	}
	return s
}

// exposed reads PORT[-PORT][/PROTOCOL].
func exposed(s string) (string, error) {
	ports, proto, found := strings.Cut(s, "/")
	if !found {
		proto = "tcp"
	}
	from, to, isRange := strings.Cut(ports, "-")
	if !isRange {
		to = from
	}
	a, err1 := strconv.ParseUint(from, 10, 16)
	b, err2 := strconv.ParseUint(to, 10, 16)
	if err1 != nil || err2 != nil || a > b || proto != "tcp" && proto != "udp" && proto != "sctp" {
		return "", errs.New(errs.Invalid, "invalid containerPort: %s", s)
	}
	return ports + "/" + proto, nil
}

// healthcheck reads [--interval=D …] CMD …, or NONE.
func healthcheck(s string) (*container.Healthcheck, string) {
	h := new(container.Healthcheck)
	for strings.HasPrefix(s, "--") {
		var opt string
		opt, s, _ = strings.Cut(s, " ")
		s = strings.TrimSpace(s)
		key, val, _ := strings.Cut(opt[2:], "=")
		var err error
		switch key {
		case "interval":
			h.Interval, err = time.ParseDuration(val)
		case "timeout":
			h.Timeout, err = time.ParseDuration(val)
		case "start-period":
			h.StartPeriod, err = time.ParseDuration(val)
		case "start-interval":
			h.StartInterval, err = time.ParseDuration(val)
		case "retries":
			h.Retries, err = strconv.Atoi(val)
		default:
			return nil, "unknown flag: " + key
		}
		if err != nil {
			return nil, key + ": " + err.Error()
		}
	}
	word, rest, _ := strings.Cut(s, " ")
	rest = strings.TrimSpace(rest)
	switch strings.ToUpper(word) {
	case "NONE":
		h.Test = []string{"NONE"}
	case "CMD":
		if list, ok := jsonList(rest); ok && len(list) > 0 {
			h.Test = append([]string{"CMD"}, list...)
		} else if rest != "" {
			h.Test = []string{"CMD-SHELL", rest}
		} else {
			return nil, "missing command after HEALTHCHECK CMD"
		}
	default:
		return nil, "unknown type \"" + word + "\", must be CMD or NONE"
	}
	return h, ""
}

// MakeConfig returns the image configuration for what img says, as ParseConfig
// reads it.
func MakeConfig(img *Image) ([]byte, error) {
	c := img.Config
	type health struct {
		Test          []string      `json:",omitempty"`
		Interval      time.Duration `json:",omitempty"`
		Timeout       time.Duration `json:",omitempty"`
		StartPeriod   time.Duration `json:",omitempty"`
		StartInterval time.Duration `json:",omitempty"`
		Retries       int           `json:",omitempty"`
	}
	type inner struct {
		User         string              `json:",omitempty"`
		ExposedPorts map[string]struct{} `json:",omitempty"`
		Env          []string            `json:",omitempty"`
		Entrypoint   []string            `json:",omitempty"`
		Cmd          []string            `json:",omitempty"`
		Healthcheck  *health             `json:",omitempty"`
		Volumes      map[string]struct{} `json:",omitempty"`
		WorkingDir   string              `json:",omitempty"`
		Labels       map[string]string   `json:",omitempty"`
		StopSignal   string              `json:",omitempty"`
		Shell        []string            `json:",omitempty"`
	}
	type rootfs struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	var h *health
	if c.Health != nil {
		h = &health{c.Health.Test, c.Health.Interval, c.Health.Timeout, c.Health.StartPeriod, c.Health.StartInterval, c.Health.Retries}
	}
	return json.Marshal(struct {
		Created      time.Time `json:"created,omitzero"`
		Author       string    `json:"author,omitempty"`
		Comment      string    `json:"comment,omitempty"`
		Architecture string    `json:"architecture"`
		Variant      string    `json:"variant,omitempty"`
		OS           string    `json:"os"`
		Config       inner     `json:"config"`
		RootFS       rootfs    `json:"rootfs"`
		History      []History `json:"history,omitempty"`
	}{
		img.Created, img.Author, img.Comment, img.Arch, img.Variant, img.OS,
		inner{c.User, c.Expose, c.Env, c.Entrypoint, c.Cmd, h, c.Volumes, c.WorkingDir, c.Labels, c.StopSignal, c.Shell},
		rootfs{"layers", img.DiffIDs()},
		img.History,
	})
}
