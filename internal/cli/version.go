package cli

import (
	"bytes"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/isle-engine/isle/internal/cli/format"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
)

// apiVersion is the version of Docker's API whose shapes inspect follows.
const apiVersion = "1.50"

// versionInfo has Docker's shape: scripts read .Client.Version and .Server.Version.
// There is no server; both sides are this program.
type versionInfo struct {
	Client clientVersion
	Server *serverVersion
}

type clientVersion struct {
	Version           string
	APIVersion        string `json:"ApiVersion"`
	DefaultAPIVersion string
	GitCommit         string
	GoVersion         string
	Os                string
	Arch              string
	BuildTime         string `json:",omitempty"`
	Context           string
}

type serverVersion struct {
	Platform      struct{ Name string }
	Version       string
	APIVersion    string `json:"ApiVersion"`
	MinAPIVersion string
	Os            string
	Arch          string
	GitCommit     string
	GoVersion     string
}

// build returns the commit and its time that this program was made from.
func build() (commit, date string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", ""
	}
	dirty := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(len(s.Value), 7)]
		case "vcs.time":
			date = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty && commit != "" {
		commit += "-dirty"
	}
	return commit, date
}

func (a *app) printShortVersion() {
	commit, _ := build()
	if commit == "" {
		commit = "unknown"
	}
	fmt.Fprintf(a.stdout(), "isle version %s, build %s\n", engine.Version, commit)
}

func cmdVersion(c *call) func() error {
	var text string
	c.flags = []flag{{name: "format", short: 'f', v: (*stringVar)(&text), help: inspectFormatHelp}}
	return func() error {
		commit, date := build()
		if text == "" {
			w := c.stdout()
			fmt.Fprintf(w, "isle:\n Version:     %s\n API version: %s (Docker's, in inspect and --format)\n Go version:  %s\n", engine.Version, apiVersion, runtime.Version())
			if commit != "" {
				fmt.Fprintf(w, " Git commit:  %s\n", commit)
			}
			if date != "" {
				fmt.Fprintf(w, " Built:       %s\n", date)
			}
			_, err := fmt.Fprintf(w, " OS/Arch:     %s/%s\n", runtime.GOOS, runtime.GOARCH)
			return err
		}
		v := &versionInfo{
			Client: clientVersion{engine.Version, apiVersion, apiVersion, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH, date, "default"},
			Server: &serverVersion{Version: engine.Version, APIVersion: apiVersion, MinAPIVersion: "1.24", Os: runtime.GOOS, Arch: runtime.GOARCH, GitCommit: commit, GoVersion: runtime.Version()},
		}
		v.Server.Platform.Name = "isle"
		return c.printOne(text, v)
	}
}

// printOne prints one object as JSON or by a template.
func (c *call) printOne(text string, v any) error {
	if text == "json" {
		text = "{{json .}}"
	}
	t, err := format.Parse(unescape(text), false)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, v); err != nil {
		return err
	}
	return c.textOut(out.String() + "\n")
}

func cmdHelp(c *call) func() error {
	return func() error {
		if len(c.args) == 0 {
			c.rootHelp()
			return nil
		}
		if cmd, path, _ := find(c.args); cmd != nil {
			sub := &call{app: c.app, cmd: cmd, path: path}
			cmd.setup(sub)
			sub.help()
			return nil
		}
		if isGroup(c.args[0]) && len(c.args) == 1 {
			c.groupHelp(c.args[0])
			return nil
		}
		return &usageError{errs.New(errs.Invalid, "unknown help topic: %s", strings.Join(c.args, " ")), 1}
	}
}
