package registry

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
)

// Config is how this user reaches registries.
type Config struct {
	rules        []rule
	hubMirrors   []place // of docker.io
	insecure     []string
	insecureNets []netip.Prefix
	certDirs     []string
	authFiles    []string
	helpers      []string // credential-helpers of registries.conf
	// ownFile is where a hint tells the user to write a setting.
	ownFile string
	certDir string
	policy  string // the file that says what may be pulled; "": anything
}

// rule is a [[registry]] table.
type rule struct {
	prefix   string
	location string
	insecure bool
	blocked  bool
	mirrors  []mirror
	file     string
}

type mirror struct {
	place
	digestOnly, tagOnly bool
}

// place is a host, perhaps with the beginning of a repository path.
type place struct {
	location string
	insecure bool // unverified TLS or plain HTTP will do
	plain    bool // the settings say http://
}

// confFile is the part of containers-registries.conf(5) that is about fetching,
// in its present and its old form.
type confFile struct {
	Registry []struct {
		Prefix             string `toml:"prefix"`
		Location           string `toml:"location"`
		Insecure           bool   `toml:"insecure"`
		Blocked            bool   `toml:"blocked"`
		MirrorByDigestOnly bool   `toml:"mirror-by-digest-only"`
		Mirror             []struct {
			Location       string `toml:"location"`
			Insecure       bool   `toml:"insecure"`
			PullFromMirror string `toml:"pull-from-mirror"`
		} `toml:"mirror"`
	} `toml:"registry"`
	CredentialHelpers []string `toml:"credential-helpers"`
	Registries        struct {
		Insecure struct {
			Registries []string `toml:"registries"`
		} `toml:"insecure"`
		Block struct {
			Registries []string `toml:"registries"`
		} `toml:"block"`
	} `toml:"registries"`
}

// maxFile bounds the size of a settings file.
const maxFile = 4 << 20

// LoadConfig reads the settings of env's user. getenv is os.Getenv.
func LoadConfig(env config.Env, getenv func(string) string) (*Config, error) {
	return loadConfig(env, getenv, "")
}

// loadConfig is LoadConfig with /etc below another directory.
func loadConfig(env config.Env, getenv func(string) string, root string) (*Config, error) {
	user := getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(user) {
		user = env.Home + "/.config"
	}
	etc := root + "/etc"
	c := &Config{ownFile: etc + "/isle/registries.conf", certDir: etc + "/docker/certs.d"}
	if env.Rootless {
		c.ownFile, c.certDir = user+"/isle/registries.conf", user+"/containers/certs.d"
	}
	files := []string{user + "/isle/registries.conf", etc + "/isle/registries.conf"}
	// The user's drop-ins come before the system's, later names before earlier
	// ones: "later" overrides in containers-registries.conf.d(5).
	files = append(files, dropIns(user+"/containers/registries.conf.d")...)
	files = append(files, dropIns(etc+"/containers/registries.conf.d")...)
	// The user's file replaces the system's (containers-registries.conf(5)).
	main := user + "/containers/registries.conf"
	if _, err := os.Stat(main); err != nil {
		main = etc + "/containers/registries.conf"
	}
	if f := getenv("CONTAINERS_REGISTRIES_CONF"); f != "" {
		main = f
	}
	for _, f := range append(files, main) {
		if err := c.readConf(f); err != nil {
			return nil, err
		}
	}
	daemon := []string{etc + "/docker/daemon.json"}
	if env.Rootless {
		daemon = append([]string{user + "/docker/daemon.json"}, daemon...)
	}
	for _, f := range daemon {
		if err := c.readDaemon(f); err != nil {
			return nil, err
		}
	}
	c.certDirs = []string{
		user + "/isle/certs.d", etc + "/isle/certs.d",
		user + "/docker/certs.d", etc + "/docker/certs.d",
		user + "/containers/certs.d", etc + "/containers/certs.d",
	}
	c.policy = findPolicy(user+"/isle/policy.json", etc+"/isle/policy.json", user+"/containers/policy.json", etc+"/containers/policy.json")
	docker := getenv("DOCKER_CONFIG")
	if docker == "" {
		docker = env.Home + "/.docker"
	}
	if f := getenv("REGISTRY_AUTH_FILE"); f != "" {
		c.authFiles = []string{f}
	} else {
		c.authFiles = []string{docker + "/config.json"}
		if d := getenv("XDG_RUNTIME_DIR"); d != "" {
			c.authFiles = append(c.authFiles, d+"/containers/auth.json")
		}
		c.authFiles = append(c.authFiles, user+"/containers/auth.json")
	}
	return c, nil
}

// dropIns returns the .conf files of a directory, the last name first.
func dropIns(dir string) []string {
	list, _ := filepath.Glob(dir + "/*.conf") // the pattern is well-formed
	slices.Sort(list)
	slices.Reverse(list)
	return list
}

// readFile returns a settings file, or nil if there is none for this user.
func readFile(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err == nil && fi.Size() > maxFile {
		err = errs.New(errs.Invalid, "settings %q: larger than %d bytes", path, maxFile)
	}
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, nil // root's own, for instance
	}
	return data, err
}

func (c *Config) readConf(path string) error {
	data, err := readFile(path)
	if err != nil || data == nil {
		return err
	}
	var f confFile
	if err := toml.Unmarshal(data, &f); err != nil {
		return errs.New(errs.Invalid, "settings %q: %w", path, err)
	}
	for _, t := range f.Registry {
		r := rule{prefix: t.Prefix, insecure: t.Insecure, blocked: t.Blocked, file: path}
		at := readPlace(t.Location, t.Insecure)
		r.location, r.insecure = at.location, at.insecure
		if r.prefix == "" {
			r.prefix = r.location
		}
		if r.location == "" && !strings.HasPrefix(r.prefix, "*.") {
			r.location = r.prefix
		}
		if r.prefix == "" {
			return errs.New(errs.Invalid, "settings %q: a [[registry]] has neither prefix nor location", path)
		}
		for _, m := range t.Mirror {
			if m.Location == "" {
				return errs.New(errs.Invalid, "settings %q: a mirror of %q has no location", path, r.prefix)
			}
			r.mirrors = append(r.mirrors, mirror{
				place:      readPlace(m.Location, m.Insecure),
				digestOnly: t.MirrorByDigestOnly || m.PullFromMirror == "digest-only",
				tagOnly:    m.PullFromMirror == "tag-only",
			})
		}
		c.rules = append(c.rules, r)
	}
	for _, h := range f.Registries.Insecure.Registries {
		c.rules = append(c.rules, rule{prefix: h, location: h, insecure: true, file: path})
	}
	for _, h := range f.Registries.Block.Registries {
		c.rules = append(c.rules, rule{prefix: h, location: h, blocked: true, file: path})
	}
	if c.helpers == nil {
		c.helpers = f.CredentialHelpers
	}
	return nil
}

// readPlace reads host[:port][/path], with or without a scheme.
func readPlace(s string, insecure bool) place {
	p := place{location: s, insecure: insecure}
	if rest, ok := strings.CutPrefix(s, "http://"); ok {
		p = place{location: rest, insecure: true, plain: true}
	} else if rest, ok := strings.CutPrefix(s, "https://"); ok {
		p.location = rest
	}
	p.location = strings.TrimRight(p.location, "/")
	return p
}

func (c *Config) readDaemon(path string) error {
	data, err := readFile(path)
	if err != nil || len(data) == 0 {
		return err
	}
	var f struct {
		Mirrors  []string `json:"registry-mirrors"`
		Insecure []string `json:"insecure-registries"`
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return errs.New(errs.Invalid, "settings %q: %w", path, err)
	}
	for _, m := range f.Mirrors {
		c.hubMirrors = append(c.hubMirrors, readPlace(m, false))
	}
	for _, h := range f.Insecure {
		if n, err := netip.ParsePrefix(h); err == nil {
			c.insecureNets = append(c.insecureNets, n)
			continue
		}
		c.insecure = append(c.insecure, readPlace(h, true).location)
	}
	return nil
}

// match returns the rule with the longest prefix of name, the first of equals.
func (c *Config) match(name image.Name) *rule {
	var best *rule
	size := -1
	for i := range c.rules {
		if n := c.rules[i].matches(name); n > size {
			best, size = &c.rules[i], n
		}
	}
	return best
}

// matches returns how much of name the rule's prefix covers, -1 if it is
// another one's.
func (r *rule) matches(name image.Name) int {
	if suffix, ok := strings.CutPrefix(r.prefix, "*"); ok {
		host, _, _ := strings.Cut(name.Domain, ":")
		if strings.HasSuffix(host, suffix) && strings.HasPrefix(suffix, ".") {
			return len(suffix)
		}
		return -1
	}
	s := name.String()
	rest, ok := strings.CutPrefix(s, r.prefix)
	if !ok || rest != "" && !strings.ContainsAny(rest[:1], "/:@") {
		return -1
	}
	// "host" must not be taken for the beginning of "host:5000/x".
	if !strings.Contains(r.prefix, "/") && len(r.prefix) < len(name.Domain) {
		return -1
	}
	return len(r.prefix)
}

// isInsecure reports whether the settings allow plain HTTP and unverified TLS
// for host[:port].
func (c *Config) isInsecure(hostport string) bool {
	host := hostOf(hostport)
	for _, h := range c.insecure {
		if h == hostport || h == host {
			return true
		}
	}
	if a, err := netip.ParseAddr(host); err == nil {
		for _, n := range c.insecureNets {
			if n.Contains(a.Unmap()) {
				return true
			}
		}
	}
	for i := range c.rules {
		if r := &c.rules[i]; r.insecure && (r.location == hostport || r.prefix == hostport) {
			return true
		}
	}
	return false
}

// hostOf returns the host of host[:port], without brackets.
func hostOf(hostport string) string {
	host := hostport
	if i := strings.LastIndexByte(hostport, ':'); i >= 0 && !strings.HasSuffix(hostport, "]") {
		host = hostport[:i]
	}
	return strings.Trim(host, "[]")
}
