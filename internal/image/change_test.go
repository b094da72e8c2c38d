package image

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
)

func TestApplyChange(t *testing.T) {
	set := func(s ...string) map[string]struct{} {
		m := map[string]struct{}{}
		for _, k := range s {
			m[k] = struct{}{}
		}
		return m
	}
	for _, c := range []struct {
		lines []string
		want  container.ImageConfig
	}{
		{[]string{`CMD ["/bin/sh", "-c", "x"]`}, container.ImageConfig{Cmd: []string{"/bin/sh", "-c", "x"}}},
		{[]string{`cmd echo "a  b"`}, container.ImageConfig{Cmd: []string{"/bin/sh", "-c", `echo "a  b"`}}},
		{[]string{`SHELL ["/bin/bash","-lc"]`, `ENTRYPOINT run`}, container.ImageConfig{Shell: []string{"/bin/bash", "-lc"}, Entrypoint: []string{"/bin/bash", "-lc", "run"}}},
		{[]string{`ENV A=1 B="x y" C='$x' D=a\ b`, `ENV A=2`, `ENV OLD the rest = of it`}, container.ImageConfig{Env: []string{"A=2", "B=x y", "C=$x", "D=a b", "OLD=the rest = of it"}}},
		{[]string{`LABEL a.b="c" d=`}, container.ImageConfig{Labels: map[string]string{"a.b": "c", "d": ""}}},
		{[]string{`EXPOSE 80 53/udp 8000-8010`}, container.ImageConfig{Expose: set("80/tcp", "53/udp", "8000-8010/tcp")}},
		{[]string{`VOLUME /a /b`, `VOLUME ["/c d"]`}, container.ImageConfig{Volumes: set("/a", "/b", "/c d")}},
		{[]string{`USER 1000:1000`, `STOPSIGNAL SIGQUIT`, `WORKDIR /a`, `WORKDIR b`}, container.ImageConfig{User: "1000:1000", StopSignal: "SIGQUIT", WorkingDir: "/a/b"}},
		{[]string{`HEALTHCHECK --interval=5s --retries=3 CMD curl -f x`}, container.ImageConfig{Health: &container.Healthcheck{Test: []string{"CMD-SHELL", "curl -f x"}, Interval: 5 * time.Second, Retries: 3}}},
		{[]string{`HEALTHCHECK CMD ["curl"]`}, container.ImageConfig{Health: &container.Healthcheck{Test: []string{"CMD", "curl"}}}},
		{[]string{`HEALTHCHECK NONE`}, container.ImageConfig{Health: &container.Healthcheck{Test: []string{"NONE"}}}},
	} {
		var got container.ImageConfig
		for _, l := range c.lines {
			if err := ApplyChange(&got, l); err != nil {
				t.Error(err)
			}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q:\n%+v\nwant\n%+v", c.lines, got, c.want)
		}
	}
	for line, want := range map[string]string{
		"RUN x":                     "RUN is not a valid change command",
		"FROM scratch":              "FROM is not a valid change command",
		"":                          "requires at least one argument",
		"CMD":                       "requires at least one argument",
		"ENV A":                     "must have two arguments",
		"ENV A=1 B":                 "can't find =",
		`ENV A="x`:                  "not closed",
		"ENV =x":                    "empty",
		"EXPOSE http":               "invalid containerPort",
		"EXPOSE 70000":              "invalid containerPort",
		"SHELL bash":                "JSON form",
		"HEALTHCHECK --x=1 CMD y":   "unknown flag",
		"HEALTHCHECK --retries=x a": "retries",
		"HEALTHCHECK FOO":           "must be CMD or NONE",
		`VOLUME [""]`:               "empty string",
	} {
		if err := ApplyChange(new(container.ImageConfig), line); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
	}
}

func FuzzApplyChange(f *testing.F) {
	f.Add(`ENV A=1 B="x y" C='z'`)
	f.Add(`HEALTHCHECK --interval=1s CMD x`)
	f.Fuzz(func(t *testing.T, line string) {
		var a, b container.ImageConfig
		if ApplyChange(&a, line) != nil {
			return
		}
		// Twice is as good as once, but for the directory and what hangs on the shell.
		if ApplyChange(&b, line) != nil || !reflect.DeepEqual(a, b) {
			t.Fatalf("%q gives %+v and %+v", line, a, b)
		}
	})
}
